#include "runtime_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "seqboat/base/error.h"
#include "seqboat/base/machine.h"
#include "seqboat/config/run_dir.h"
#include "seqboat/data/bytes.h"

namespace seqboat::app {

namespace fs = std::filesystem;

namespace {

// Where attention has no window and the user says nothing. Room is taken for all of it.
constexpr int64_t kMaxContext = 8192;

// Weights that another thread pays for. Alone on two cores of Zen 5 a second one doubles the time of a token where there is 0.1 MB of them, and saves
// a seventh with 1.4 MB and a fifth with 100 MB; beside other programs, which keep it from its core, it costs a hundredfold where tokens take
// microseconds.
constexpr int64_t kBytesPerThread = 2 << 20;

}  // namespace

void add_ring_option(CLI::App* command, std::string* ring) {
  command->add_option("--ring", *ring, "numbers that kept keys and values are stored in; default float32")
      ->check(CLI::IsMember({"float32", "bf16"}))
      ->type_name("TYPE");
}

void add_streaming_options(CLI::App* command, StreamingOptions* options) {
  command->add_option("MODEL", options->model, "a model folder or a run directory")->required();
  const auto file =
      CLI::Validator([](std::string& name) { return name.empty() ? std::string("expected a file, found nothing") : std::string(); }, "");
  command->add_option("--state-in", options->state_in, "goes on from the state in this file")->check(file)->type_name("FILE");
  command->add_option("--state-out", options->state_out, "writes the state to this file at the end")->check(file)->type_name("FILE");
  add_ring_option(command, &options->ring);
  command
      ->add_option("--max-context", options->max_context,
                   fmt::format("tokens that there is room for where attention has no window; others need none; default {}", kMaxContext))
      ->check(whole_number(1, int64_t{1} << 32))
      ->type_name("N");
}

int64_t threads_of(const CommonOptions& common) {
  return common.threads > 0 ? common.threads : default_threads();
}

int64_t stepping_threads(const CommonOptions& common, const runtime::Model& model, int64_t streams) {
  if (common.threads > 0) return common.threads;
  return std::min<int64_t>(default_threads(), 1 + streams * model.weight_bytes() / kBytesPerThread);
}

std::shared_ptr<const runtime::Model> load_streaming_model(const std::string& path, const std::string& ring) {
  const auto model = runtime::load(config::find_model_dir(path), {.ring = runtime::precision_from_name(ring)});
  const std::string why = model->why_no_stream();
  SEQBOAT_CHECK(why.empty(), ErrorKind::kModel, "{}: cannot stream: {}", path, why);
  return model;
}

runtime::State begin_state(const std::shared_ptr<const runtime::Model>& model, const StreamingOptions& options) {
  if (!options.state_out.empty()) {
    // Told before the work and not after it.
    std::error_code error;
    const fs::path file = options.state_out, folder = file.parent_path();
    SEQBOAT_CHECK(!fs::is_directory(file, error), ErrorKind::kUsage, "--state-out: expected the name of a file, found the folder {}", file.string());
    SEQBOAT_CHECK(!fs::exists(file, error) || fs::is_regular_file(file, error), ErrorKind::kUsage,
                  "--state-out: expected the name of a file, found the pipe or device {}", file.string());
    SEQBOAT_CHECK(folder.empty() || fs::is_directory(folder, error), ErrorKind::kUsage, "--state-out {}: there is no folder {}", file.string(),
                  folder.string());
  }
  if (options.state_in.empty()) {
    return runtime::State::create(model,
                                  {.max_context = options.max_context > 0 ? options.max_context : std::min(kMaxContext, longest_stream(*model))});
  }
  runtime::State state = runtime::State::load(model, options.state_in);
  SEQBOAT_CHECK(options.max_context == 0 || state.max_context() == 0 || options.max_context == state.max_context(), ErrorKind::kUsage,
                "--max-context {}: the state in {} was made for {}", options.max_context, options.state_in, state.max_context());
  return state;
}

int64_t longest_stream(const runtime::Model& model) {
  const config::ModelConfig& config = model.config();
  return config.layer == "mega" && config.position != "rotary" ? config.max_positions : INT64_MAX;
}

int64_t room_of(const runtime::State& state) {
  return state.max_context() > 0 ? state.max_context() - state.tokens() : INT64_MAX;
}

runtime::RunnerOptions runner_options(const runtime::State& state, int64_t threads, int64_t max_streams) {
  runtime::RunnerOptions options;
  options.threads = threads;
  options.max_streams = max_streams;
  options.max_context = state.max_context();
  return options;
}

void check_reads_bytes(const runtime::Model& model, const std::string& path) {
  const config::ModelConfig& config = model.config();
  SEQBOAT_CHECK(config.input == "tokens", ErrorKind::kModel, "{}: reads {} {} a step and no bytes", path, config.channels,
                config.channels == 1 ? "number" : "numbers");
  SEQBOAT_CHECK(config.vocab_size >= data::kByteVocabSize, ErrorKind::kModel,
                "{}: reads no bytes: expected a vocabulary of at least {} ({} specials and 256 bytes), found {}", path, data::kByteVocabSize,
                data::kFirstFreeToken, config.vocab_size);
}

double surprise_bits(std::span<const float> logits, int64_t token) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - most);
  return (std::log(sum) + most - logits[static_cast<size_t>(token)]) / std::log(2.0);
}

std::string bytes_text(int64_t bytes) {
  if (bytes < 10'000) return fmt::format("{} bytes", bytes);
  return bytes < 10'000'000 ? fmt::format("{:.1f} kB", static_cast<double>(bytes) / 1e3) : fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6);
}

std::string short_number(double value) {
  if (value < 1e3) return fmt::format("{:.0f}", value);
  if (value < 1e6) return fmt::format("{:.1f}k", value / 1e3);
  return fmt::format("{:.1f}M", value / 1e6);
}

}  // namespace seqboat::app
