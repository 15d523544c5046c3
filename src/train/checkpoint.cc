#include "seqboat/train/checkpoint.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/base/text.h"
#include "seqboat/config/run_dir.h"
#include "seqboat/train/model_io.h"
#include "train/files.h"

namespace seqboat::train {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr const char* kTemporaryPrefix = ".tmp-";
constexpr std::array<const char*, 3> kPayload{"config.json", "model.safetensors", "optimizer.safetensors"};
constexpr const char* kStreamFile = "stream.safetensors";

std::string checksum_text(const fs::path& file) {
  const MappedFile mapped = MappedFile::open(file);
  return fmt::format("{:016x}", checksum(mapped.data(), mapped.size()));
}

/// The optimizer's tensors and its number of steps.
std::vector<NamedTensor> optimizer_tensors(const Optimizer& optimizer, const torch::Tensor& step) {
  std::vector<NamedTensor> out;
  for (const NamedParameter& item : optimizer.state()) out.push_back({item.name, item.tensor});
  out.push_back({"step", step});
  return out;
}

ordered_json to_json(const TrainerState& s) {
  return {{"format", "seqboat-trainer"},
          {"version", 1},
          {"step", s.step},
          {"tokens", s.tokens},
          {"epoch", s.data.epoch},
          {"cursor", s.data.cursor},
          {"validated_step", s.validated_step},
          {"best_step", s.best_step},
          {"best_value", s.best_value},
          {"last_loss", s.last_loss},
          {"last_metric", s.last_metric},
          {"window", {{"loss_sum", s.window.loss_sum}, {"samples", s.window.samples}, {"tokens", s.window.tokens}, {"active", s.window.active}}},
          {"simd", s.simd},
          {"data_fingerprint", s.data_fingerprint},
          {"seconds", s.seconds}};
}

TrainerState state_from_json(const ordered_json& json) {
  TrainerState s;
  s.step = json.at("step");
  s.tokens = json.at("tokens");
  s.data.epoch = json.at("epoch");
  s.data.cursor = json.at("cursor");
  s.validated_step = json.at("validated_step");
  s.best_step = json.at("best_step");
  s.best_value = json.at("best_value");
  s.last_loss = json.at("last_loss");
  s.last_metric = json.at("last_metric");
  const auto& window = json.at("window");
  s.window.loss_sum = window.at("loss_sum");
  s.window.samples = window.at("samples");
  s.window.tokens = window.at("tokens");
  s.window.active = window.at("active").get<std::vector<int64_t>>();
  s.simd = json.at("simd");
  s.data_fingerprint = json.value("data_fingerprint", "");
  s.seconds = json.at("seconds");
  return s;
}

ordered_json read_state_file(const fs::path& dir) {
  const fs::path file = dir / "trainer_state.json";
  std::error_code error;
  SEQBOAT_CHECK(fs::is_regular_file(file, error), ErrorKind::kModel, "{}: no such file", file.string());
  const ordered_json json = ordered_json::parse(read_file(file), nullptr, false);
  SEQBOAT_CHECK(json.is_object() && json.value("format", "") == "seqboat-trainer" && json.value("version", 0) == 1 && json.contains("files"),
                ErrorKind::kModel, "{}: expected the state of a trainer, version 1, found something else", file.string());
  return json;
}

/// The files that a checkpoint consists of, beside trainer_state.json.
std::vector<const char*> payload(bool with_stream) {
  std::vector<const char*> out(kPayload.begin(), kPayload.end());
  if (with_stream) out.push_back(kStreamFile);
  return out;
}

bool has_stream(const ordered_json& json) {
  return json.at("files").contains(kStreamFile);
}

/// Refuses a checkpoint of which a file is missing or is not what was written.
void check_payload(const fs::path& dir, const ordered_json& json) {
  for (const char* name : payload(has_stream(json))) {
    const fs::path file = dir / name;
    std::error_code error;
    SEQBOAT_CHECK(fs::is_regular_file(file, error), ErrorKind::kModel, "{}: no such file", file.string());
    const ordered_json entry = json.at("files").value(name, ordered_json::object());
    const uint64_t want = entry.value("bytes", uint64_t{0}), found = fs::file_size(file);
    SEQBOAT_CHECK(want == found, ErrorKind::kModel, "{}: expected {} bytes, found {}", file.string(), want, found);
    SEQBOAT_CHECK(checksum_text(file) == entry.value("checksum", ""), ErrorKind::kModel, "{}: damaged: its checksum is not the one that was written",
                  file.string());
  }
}

}  // namespace

std::string CheckpointStore::name_of(int64_t step) {
  return fmt::format("step-{:08}", step);
}

std::vector<int64_t> CheckpointStore::steps() const {
  std::vector<int64_t> out;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(run_dir_ / "checkpoints", error)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind("step-", 0) != 0 || name.size() < 6 || name.size() > 20 || name.find_first_not_of("0123456789", 5) != std::string::npos) continue;
    const int64_t step = std::stoll(name.substr(5));
    if (name_of(step) == name) out.push_back(step);
  }
  std::sort(out.rbegin(), out.rend());
  return out;
}

void CheckpointStore::save(const nn::Model& model, const Optimizer& optimizer, const TrainerState& state) const {
  const fs::path parent = run_dir_ / "checkpoints", temporary = parent / (kTemporaryPrefix + name_of(state.step)), final_path = path_of(state.step);
  remove_folder(temporary);
  make_folders(temporary);
  try {
    save_model(temporary, model);
    save_tensors(temporary / "optimizer.safetensors", optimizer_tensors(optimizer, torch::tensor(optimizer.steps(), torch::kInt64)));
    const auto stream = state.stream.named();
    if (!stream.empty()) {
      std::vector<NamedTensor> tensors;
      for (const auto& [name, tensor] : stream) tensors.push_back({name, tensor});
      save_tensors(temporary / kStreamFile, tensors);
    }
    ordered_json json = to_json(state);
    for (const char* name : payload(!stream.empty())) {
      json["files"][name] = {{"bytes", static_cast<uint64_t>(fs::file_size(temporary / name))}, {"checksum", checksum_text(temporary / name)}};
    }
    write_file_atomically(temporary / "trainer_state.json", json.dump(2) + "\n");
    replace_folder(temporary, final_path);
  } catch (...) {
    remove_folder(temporary);
    throw;
  }
  write_file_atomically(run_dir_ / "latest", name_of(state.step) + "\n");
  if (state.best_step == state.step) write_file_atomically(run_dir_ / "best", name_of(state.step) + "\n");
}

std::optional<TrainerState> CheckpointStore::load_newest(nn::Model& model, Optimizer& optimizer,
                                                         const std::function<void(const std::string&)>& warn) const {
  const std::vector<int64_t> candidates = steps();
  std::optional<Error> last;
  for (const int64_t step : candidates) {
    const fs::path dir = path_of(step);
    TrainerState state;
    bool with_stream = false;
    try {
      const ordered_json json = read_state_file(dir);
      check_payload(dir, json);
      state = state_from_json(json);
      with_stream = has_stream(json);
      SEQBOAT_CHECK(state.step == step, ErrorKind::kModel, "{}: expected step {}, found {}", (dir / "trainer_state.json").string(), step, state.step);
    } catch (const Error& error) {
      last = error;
    } catch (const nlohmann::json::exception&) {
      last = Error(ErrorKind::kModel, fmt::format("{}: a value is missing or has the wrong type", (dir / "trainer_state.json").string()));
    }
    if (last) {
      warn(fmt::format("checkpoint {} is damaged and passed over: {}", name_of(step), last->what()));
      last.reset();
      if (step == candidates.back()) {
        fail(ErrorKind::kModel, "{}: none of the {} checkpoints can be read; to begin anew, remove the folder", (run_dir_ / "checkpoints").string(),
             candidates.size());
      }
      continue;
    }
    // Whole: from here on a misfit is another model, and an older checkpoint would not help.
    const auto found = config::to_json(config::read_model_config(dir)), want = config::to_json(model.config());
    for (const auto& [key, value] : want.items()) {
      SEQBOAT_CHECK(found.at(key) == value, ErrorKind::kModel, "{}: {} is {}, the run's config says {}", (dir / "config.json").string(), key,
                    found.at(key).dump(), value.dump());
    }
    torch::Tensor steps_done = torch::tensor(int64_t{0}, torch::kInt64);
    load_tensors(dir / "optimizer.safetensors", optimizer_tensors(optimizer, steps_done));
    load_tensors(dir / "model.safetensors", tensors_of(model));
    optimizer.set_steps(steps_done.item<int64_t>());
    if (with_stream) {
      std::vector<std::pair<std::string, torch::Tensor>> stream;
      for (const NamedTensor& item : read_tensors(dir / kStreamFile)) stream.emplace_back(item.name, item.tensor);
      try {
        state.stream = nn::ModelState::from_named(stream, model.config());
      } catch (const c10::Error& error) {
        fail(ErrorKind::kModel, "{}: {}", (dir / kStreamFile).string(), error.what_without_backtrace());
      }
    }
    // Damaged ones keep their bytes under another name, where neither counting nor writing meets them.
    for (const int64_t newer : candidates) {
      std::error_code ignored;
      if (newer > step) fs::rename(path_of(newer), run_dir_ / "checkpoints" / ("damaged-" + name_of(newer)), ignored);
    }
    // The pointers may be ahead: what they were ahead to is going to be made again.
    write_file_atomically(run_dir_ / "latest", name_of(step) + "\n");
    std::error_code error;
    if (state.best_step > 0 && fs::is_directory(path_of(state.best_step), error)) {
      write_file_atomically(run_dir_ / "best", name_of(state.best_step) + "\n");
    } else if (fs::exists(run_dir_ / "best", error)) {
      fs::remove(run_dir_ / "best", error);
    }
    return state;
  }
  return std::nullopt;
}

void CheckpointStore::export_model(int64_t step) const {
  const fs::path temporary = run_dir_ / (std::string(kTemporaryPrefix) + "model"), from = path_of(step);
  remove_folder(temporary);
  make_folders(temporary);
  try {
    for (const char* name : {"config.json", "model.safetensors"}) {
      const MappedFile file = MappedFile::open(from / name);
      write_file_atomically(temporary / name, {file.data(), file.size()});
    }
    replace_folder(temporary, run_dir_ / "model");
  } catch (...) {
    remove_folder(temporary);
    throw;
  }
}

void CheckpointStore::prune(int64_t keep, int64_t best_step) const {
  int64_t kept = 0;
  for (const int64_t step : steps()) {
    if (kept < std::max<int64_t>(keep, 1)) {
      ++kept;
    } else if (step != best_step) {
      remove_folder(path_of(step));
    }
  }
  for (const fs::path& folder : {run_dir_, run_dir_ / "checkpoints"}) {
    std::error_code error;
    std::vector<fs::path> left_behind;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
      if (entry.is_directory(error) && entry.path().filename().string().rfind(kTemporaryPrefix, 0) == 0) left_behind.push_back(entry.path());
    }
    for (const fs::path& path : left_behind) remove_folder(path);
  }
}

}  // namespace seqboat::train
