#include "bench_runtime.h"

#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "decode_bench.h"
#include "recipe_store.h"
#include "runtime_model.h"
#include "seqboat/base/error.h"
#include "seqboat/base/resident_memory.h"
#include "seqboat/config/recipe.h"
#include "seqboat/config/run_dir.h"
#include "seqboat/data/vocabulary.h"
#include "seqboat/kernels/simd.h"

namespace seqboat::app {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

constexpr double kTimedSeconds = 3;
constexpr int64_t kWarmUpSteps = 3, kLeastSteps = 5, kMostSteps = 10'000'000;
// Tokens to decode where attention has no window, so that each costs more than the last and room must be made for all.
constexpr int64_t kUnboundedLength = 1024;

/// What is timed.
struct Subject {
  std::shared_ptr<const runtime::Model> model;
  int64_t length = 0;  ///< the recipe's, or of a folder what its positions tell apart
  uint64_t seed = 0;
};

// The sizes that training takes from the data.
void complete_sizes(config::Recipe* recipe) {
  config::ModelConfig& model = recipe->model;
  const config::DataConfig& data = recipe->data;
  if (model.input == "tokens" && model.vocab_size == 0) {
    model.vocab_size = data::vocab_size_of(data.name);
  }
  if (model.input == "real" && model.channels == 0) model.channels = data.frame_samples();
}

Subject subject_of(const RuntimeBenchOptions& options) {
  const runtime::LoadOptions load{.ring = runtime::precision_from_name(options.ring)};
  Subject out;
  if (!options.model.empty()) {
    SEQBOAT_CHECK(options.overrides.empty(), ErrorKind::kUsage, "--set: the model of --model has a config of its own");
    out.model = load_streaming_model(options.model, options.ring);
    out.length = out.model->config().max_positions;
    const std::string type = runtime::precision_name(out.model->weights());
    SEQBOAT_CHECK(options.type.empty() || options.type == type, ErrorKind::kUsage,
                  "--type {}: the weights of {} are {}; `seqboat quantize` makes others", options.type, options.model, type);
    return out;
  }
  config::Recipe recipe = config::load_recipe(recipe_file(options.recipe), options.overrides);
  complete_sizes(&recipe);
  SEQBOAT_CHECK(recipe.model.causal && recipe.model.task != "retrieval", ErrorKind::kUsage, "{}: cannot stream: {}", options.recipe,
                recipe.model.causal ? "it compares two documents" : "it is bidirectional; --set model.causal=true makes it causal");
  out.length = recipe.data.longest();
  out.seed = static_cast<uint64_t>(recipe.train.seed);
  out.model = runtime::random_model(recipe.model, out.seed,
                                    options.type.empty() ? runtime::Precision::kFloat32 : runtime::precision_from_name(options.type), load);
  return out;
}

Json number_or_null(int64_t value) {
  return value >= 0 ? Json(value) : Json(nullptr);
}

}  // namespace

fs::path recipe_file(const std::string& name) {
  const fs::path file = name;
  std::error_code error;
  return fs::is_regular_file(file, error) || file.extension() == ".toml" ? file : find_recipe(name);
}

int bench_runtime(const RuntimeBenchOptions& options, const CommonOptions& common, Reporter& reporter) {
  const std::atomic<int>& stop = become_cooperative();
  kernels::force_simd_target(options.simd);
  const Subject subject = subject_of(options);
  const runtime::Model& model = *subject.model;
  SEQBOAT_CHECK(options.activation_rate < 0 || model.config().chooses(), ErrorKind::kUsage,
                "--activation-rate: in model.layer = \"{}\" nobody decides what is activated", model.config().layer);

  DecodeBenchOptions bench_options;
  bench_options.streams = std::max<int64_t>(options.streams, 1);
  bench_options.threads = options.prefill ? threads_of(common) : stepping_threads(common, model, bench_options.streams);
  bench_options.context = options.context;
  bench_options.activation_rate = options.activation_rate;
  bench_options.seed = subject.seed;
  int64_t most_steps = options.steps > 0 ? options.steps : kMostSteps;
  if (options.prefill) {
    bench_options.length = options.length > 0 ? options.length : subject.length;
  } else {
    SEQBOAT_CHECK(options.steps == 0 || options.length == 0, ErrorKind::kUsage, "--steps and --length both say how many tokens are decoded");
    if (options.length > 0) most_steps = options.length;
    if (model.needs_max_context() && options.steps == 0 && options.length == 0) {
      const int64_t room = longest_stream(model) - options.context - kWarmUpSteps;
      most_steps = std::clamp<int64_t>(room, kLeastSteps, kUnboundedLength);
    }
    bench_options.length = kWarmUpSteps + most_steps;
  }
  SEQBOAT_CHECK(options.context + bench_options.length <= longest_stream(model), ErrorKind::kUsage,
                "--context {} and {} tokens after it ({}): the model's position table tells only {} apart (model.max_positions)", options.context,
                bench_options.length, options.prefill ? "--length" : fmt::format("--steps, and {} to warm up", kWarmUpSteps), longest_stream(model));
  const bool counted = options.steps > 0 || (!options.prefill && options.length > 0);

  const bool peak_known = reset_resident_peak();
  const int64_t before = resident_memory().now_bytes;
  DecodeBench bench(subject.model, bench_options);
  const auto step = [&] { options.prefill ? bench.prefill_step() : bench.decode_step(); };
  for (int64_t i = 0; i < (options.prefill ? 1 : kWarmUpSteps) && stop.load() == 0; ++i) step();
  bench.begin_timing();
  const Clock::time_point begin = Clock::now();
  const char* label = options.prefill ? "prefill" : "decode";
  int64_t steps = 0;
  for (; steps < most_steps && stop.load() == 0; ++steps) {
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    if (!counted && steps >= kLeastSteps && seconds > kTimedSeconds) break;
    step();
    if (steps % 64 == 0 || options.prefill) reporter.progress({label, "step", steps, counted ? most_steps : 0, -1, {}});
  }
  reporter.finish_progress();
  if (stop.load() != 0) return 128 + stop.load();
  const int64_t peak = peak_known ? resident_memory().peak_bytes : -1;

  const Latencies& times = bench.times();
  const auto per_step = static_cast<double>(bench_options.streams * (options.prefill ? bench_options.length : 1));
  // A prefill is long, and its fastest run tells what it costs; of short steps the median does.
  const double tokens_per_s = per_step / (options.prefill ? bench.fastest_seconds() : 1e-6 * times.us(0.5));
  const std::vector<double> rates = bench.activation_rate();
  Json json;
  json["mode"] = label;
  json["recipe"] = options.model.empty() ? Json(options.recipe) : Json(nullptr);
  json["batch"] = bench_options.streams;
  json["length"] = options.prefill ? bench_options.length : steps;
  json["threads"] = bench_options.threads;
  json["simd"] = kernels::simd_target();
  json["params"] = model.parameters();
  json["activation_rate"] = rates;
  json["forced_rate"] = options.activation_rate < 0 ? Json(nullptr) : Json(options.activation_rate);
  json["tokens_per_s"] = tokens_per_s;
  json["ms"] = {{"min", 1e3 * bench.fastest_seconds()}, {"median", 1e-3 * times.us(0.5)}};
  json["steps"] = steps;
  if (!options.prefill) json["us_per_token"] = {{"p50", times.us(0.5)}, {"p99", times.us(0.99)}};
  json["context"] = options.context;
  json["state_bytes"] = bench.state_bytes();
  json["type"] = runtime::precision_name(model.weights());
  json["ring"] = runtime::precision_name(model.ring());
  json["weight_bytes"] = model.weight_bytes();
  json["workspace_bytes"] = bench.workspace_bytes();
  json["peak_rss_bytes"] = number_or_null(peak);
  json["added_rss_bytes"] = number_or_null(peak < 0 ? -1 : std::max<int64_t>(0, peak - before));
  if (!options.model.empty()) json["model"] = options.model;

  std::string text;
  const auto line = [&text](std::string_view name, const std::string& what) { text += fmt::format("{:<12} {}\n", name, what); };
  line(options.model.empty() ? "recipe" : "model",
       fmt::format("{}, {} parameters in {}, {}", options.model.empty() ? options.recipe : options.model, model.parameters(),
                   runtime::precision_name(model.weights()), bytes_text(model.weight_bytes())));
  line("streams", fmt::format("{}, each after {} tokens; {} threads, {}", bench_options.streams, options.context, bench_options.threads,
                              kernels::simd_target()));
  std::string shares;
  for (const double rate : rates) shares += fmt::format("{}{:.2f}", shares.empty() ? "" : " ", rate);
  line("activated", fmt::format("{} by layer{}", shares, options.activation_rate < 0 ? "" : ", forced"));
  if (options.prefill) {
    line("prefill", fmt::format("{:.2f} ms for {} tokens of each stream, the best of {}; median {:.2f}; {} tokens/s", 1e3 * bench.fastest_seconds(),
                                bench_options.length, steps, 1e-3 * times.us(0.5), short_number(tokens_per_s)));
  } else {
    line("decode", fmt::format("{:.2f} us a step, the median of {} (99 %: {:.2f}, best {:.2f}); {} tokens/s", times.us(0.5), steps, times.us(0.99),
                               1e6 * bench.fastest_seconds(), short_number(tokens_per_s)));
  }
  line("state", fmt::format("{} a stream, {} of workspace", bytes_text(bench.state_bytes()), bytes_text(bench.workspace_bytes())));
  reporter.result(json, text);
  return 0;
}

}  // namespace seqboat::app
