// golden_check DIR: holds this library against tensors of the official implementation.
//
// DIR has a manifest.json that lists cases, and for each <case>.json and <case>.safetensors. A case is told by its kind, its op and its config,
// never by its name. Each runs in float64 and float32 through the library's own modules, operators, optimisers and schedules. One line a case with
// its worst error, as a share of what is allowed; exit 1 if anything failed.

#include <torch/torch.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>

#include "golden_case.h"
#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"

namespace {

using golden::Comparison;
using golden::GoldenCase;

/// Deliberate differences: these cases show what the official code does, not what is right.
const char* const kUnmatchedFlags[] = {"batch_wide_compression", "laplace_mask_leak", "batchnorm_counts_padding"};

std::string reason_to_skip(const GoldenCase& golden, const nlohmann::json& entry) {
  for (const nlohmann::json* from : {&golden.meta, &entry})
    for (const std::string& flag : golden::flags_of(*from))
      for (const char* unmatched : kUnmatchedFlags)
        if (flag == unmatched) return "shows " + flag;
  return {};
}

void run(const GoldenCase& golden, Comparison& comparison) {
  if (golden.kind == "ema") return check_ema(golden, comparison);
  if (golden.kind == "ema_incremental") return check_ema_incremental(golden, comparison);
  if (golden.kind == "s4d") return check_s4d(golden, comparison);
  if (golden.kind == "layer") return check_layer(golden, comparison);
  if (golden.kind == "model" || golden.kind == "mega_model") return check_model(golden, comparison);
  if (golden.kind == "mega_layer") return check_mega_layer(golden, comparison);
  if (golden.kind == "mega_ffn") return check_mega_ffn(golden, comparison);
  if (golden.kind == "model_incremental" || golden.kind == "mega_model_incremental") return check_model_incremental(golden, comparison);
  if (golden.kind == "op") return check_op(golden, comparison);
  if (golden.kind == "optim") return check_optimizer(golden, comparison);
  if (golden.kind == "schedule") return check_schedule(golden, comparison);
  if (golden.kind == "trajectory") return check_trajectory(golden, comparison);
  seqboat::fail(seqboat::ErrorKind::kData, "unknown kind '{}'", golden.kind);
}

/// Every stored reference must have been compared; the official float32 values are not references, the float64 ones are.
void demand_all_compared(const GoldenCase& golden, Comparison& comparison) {
  static const char* const kGiven[] = {"param.", "buffer.", "input.", "grad.step", "extract.in", "extract.w", "compress.w", "loss_w", "loss.w"};
  for (const auto& [name, value] : golden.tensors) {
    const bool given = std::any_of(std::begin(kGiven), std::end(kGiven), [&](const char* prefix) { return name.rfind(prefix, 0) == 0; });
    const bool official_float32 = name.size() > 4 && name.compare(name.size() - 4, 4, ".f32") == 0;
    if (!given && !official_float32 && comparison.compared().count(name) == 0) comparison.fail(name + " was not compared");
  }
}

std::string describe(const Comparison& comparison) {
  return fmt::format("{} {:.2g} ({:.1e} at {})", comparison.is_double() ? "float64" : "float32", std::max(0.0, comparison.worst()),
                     comparison.worst_error(), comparison.worst_name());
}

int check_folder(const std::filesystem::path& folder) {
  const auto manifest = nlohmann::json::parse(seqboat::read_file(folder / "manifest.json"));
  int passed = 0, failed = 0, skipped = 0;
  for (const auto& entry : manifest.at("cases")) {
    const std::string name = entry.at("case").get<std::string>();
    const std::string kind = entry.at("kind").get<std::string>();
    std::vector<std::string> failures;
    std::string line;
    try {
      const GoldenCase golden = golden::load_case(folder, name, kind);
      const std::string reason = reason_to_skip(golden, entry);
      if (!reason.empty()) {
        ++skipped;
        fmt::print("skip  {}  {}: {}\n", kind, name, reason);
        continue;
      }
      for (const torch::ScalarType dtype : {torch::kFloat64, torch::kFloat32}) {
        Comparison comparison(golden, dtype);
        try {
          run(golden, comparison);
          demand_all_compared(golden, comparison);
          if (!comparison.compared_anything()) comparison.fail("nothing was compared");
        } catch (const c10::Error& error) {
          comparison.fail(std::string(error.what_without_backtrace()).substr(0, 400));
        } catch (const std::exception& error) {
          comparison.fail(std::string(error.what()).substr(0, 400));
        }
        line += (line.empty() ? "" : "  ") + describe(comparison);
        failures.insert(failures.end(), comparison.failures().begin(), comparison.failures().end());
      }
    } catch (const std::exception& error) {
      failures.push_back(error.what());
    }
    failures.empty() ? ++passed : ++failed;
    fmt::print("{}  {}  {}: worst share of tolerance {}\n", failures.empty() ? "ok  " : "FAIL", kind, name, line);
    const size_t shown = std::min<size_t>(failures.size(), 6);
    for (size_t i = 0; i < shown; ++i) fmt::print("      {}\n", failures[i]);
    if (failures.size() > shown) fmt::print("      and {} more\n", failures.size() - shown);
    std::fflush(stdout);
  }
  fmt::print("{} passed, {} failed, {} skipped\n", passed, failed, skipped);
  return failed > 0 ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 || std::string(argv[1]) == "--help") {
    std::fputs("usage: golden_check DIR    DIR holds manifest.json, <case>.json and <case>.safetensors\n", argc == 2 ? stdout : stderr);
    return argc == 2 ? 0 : 2;
  }
  try {
    return check_folder(argv[1]);
  } catch (const seqboat::Error& error) {
    fmt::print(stderr, "golden_check: {}\n", error.what());
    return seqboat::exit_code(error.kind());
  } catch (const std::exception& error) {
    fmt::print(stderr, "golden_check: {}\n", error.what());
    return 4;
  }
}
