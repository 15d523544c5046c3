// The model of recipes/bench/lm.toml as a stream: one token at a time, and a prompt at once. Decisions are forced, about `rate` percent of the tokens
// in each layer. weights: 0 float32, 1 bf16 with a ring of bf16, 2 int8 with a ring of bf16.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "seqboat/base/philox.h"
#include "seqboat/runtime/runner.h"

namespace seqboat::runtime {
namespace {

constexpr int64_t kLayers = 12, kVocab = 208;

std::shared_ptr<const Model> model_of(int64_t weights) {
  static std::map<int64_t, std::shared_ptr<const Model>> models;
  auto& model = models[weights];
  if (model == nullptr) {
    config::ModelConfig config;
    config.task = "language-model";
    config.causal = true;
    config.vocab_size = kVocab;
    config.d_model = 512;
    config.d_hidden = 1024;
    config.d_attn = 128;
    config.n_layers = kLayers;
    config.window_size = 1024;
    config.truncation = 2048;
    config.position = "rotary";
    config.prenorm = true;
    config.final_norm_affine = false;
    config.scale_embedding = true;
    model = random_model(config, 1, static_cast<Precision>(weights), {.ring = weights > 0 ? Precision::kBf16 : Precision::kFloat32});
  }
  return model;
}

struct Text {
  Text(int64_t n, int64_t rate) : tokens(static_cast<size_t>(n)), forced(static_cast<size_t>(n * kLayers)) {
    PhiloxStream random(7, 7);
    for (int64_t& token : tokens) token = static_cast<int64_t>(random.next_below(kVocab));
    for (uint8_t& decision : forced) decision = static_cast<int64_t>(random.next_below(100)) < rate ? 1 : 0;
  }
  std::vector<int64_t> tokens;
  std::vector<uint8_t> forced;
};

void decode(benchmark::State& bench) {
  const auto model = model_of(bench.range(0));
  Runner runner(model, {.threads = bench.range(1), .max_tokens = 512});
  State state = State::create(model);
  const Text prompt(4096, bench.range(2)), next(1, bench.range(2));
  runner.feed({.state = &state, .tokens = prompt.tokens, .want = Want::kNothing, .forced = prompt.forced});
  std::vector<float> logits(kVocab);
  std::vector<uint8_t> forced(kLayers);
  PhiloxStream random(8, 8);
  for (auto _ : bench) {
    for (uint8_t& decision : forced) decision = static_cast<int64_t>(random.next_below(100)) < bench.range(2) ? 1 : 0;
    runner.feed({.state = &state, .tokens = next.tokens, .logits = logits, .forced = forced});
  }
  bench.SetItemsProcessed(bench.iterations());
}
BENCHMARK(decode)
    ->ArgNames({"weights", "threads", "rate"})
    ->ArgsProduct({{0, 1, 2}, {1, 2}, {50}})
    ->ArgsProduct({{0}, {2}, {10, 100}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

void prefill(benchmark::State& bench) {
  const auto model = model_of(bench.range(0));
  Runner runner(model, {.threads = bench.range(1), .max_tokens = bench.range(3)});
  State state = State::create(model);
  const Text prompt(2048, bench.range(2));
  for (auto _ : bench) {
    bench.PauseTiming();
    state.reset();
    bench.ResumeTiming();
    runner.feed({.state = &state, .tokens = prompt.tokens, .want = Want::kNothing, .forced = prompt.forced});
  }
  bench.SetItemsProcessed(bench.iterations() * 2048);
}
BENCHMARK(prefill)
    ->ArgNames({"weights", "threads", "rate", "rows"})
    ->ArgsProduct({{0, 1, 2}, {1, 2}, {50}, {512}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

void streams(benchmark::State& bench) {
  const auto model = model_of(bench.range(0));
  const int64_t count = bench.range(2);
  Runner runner(model, {.threads = bench.range(1), .max_tokens = 512});
  std::vector<State> states;
  const Text prompt(1100, 50), next(1, 50);
  std::vector<Feed> feeds;
  for (int64_t i = 0; i < count; ++i) {
    states.push_back(State::create(model));
    runner.feed({.state = &states.back(), .tokens = prompt.tokens, .want = Want::kNothing, .forced = prompt.forced});
  }
  std::vector<float> logits(static_cast<size_t>(count * kVocab));
  for (int64_t i = 0; i < count; ++i)
    feeds.push_back({.state = &states[static_cast<size_t>(i)],
                     .tokens = next.tokens,
                     .logits = std::span(logits).subspan(static_cast<size_t>(i * kVocab), kVocab),
                     .forced = next.forced});
  for (auto _ : bench) runner.feed(feeds);
  bench.SetItemsProcessed(bench.iterations() * count);
}
BENCHMARK(streams)->ArgNames({"weights", "threads", "streams"})->ArgsProduct({{0, 2}, {2}, {2, 8}})->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace seqboat::runtime

BENCHMARK_MAIN();
