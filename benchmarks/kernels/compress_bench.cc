// Routing and the two levels of packing at several activation rates (per cent).
#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "seqboat/kernels/compress.h"
#include "seqboat/kernels/router.h"

namespace seqboat::kernels {
namespace {

struct Tokens {
  Tokens(int64_t tokens, int64_t percent) : cu_seqlens{0, tokens}, active(tokens) {
    uint32_t state = 1;
    for (uint8_t& flag : active) flag = ((state = state * 1664525u + 1013904223u) >> 8) % 100 < static_cast<uint32_t>(percent);
    active_cu_seqlens.resize(2);
    count = count_active(1, cu_seqlens.data(), active.data(), active_cu_seqlens.data());
    index.resize(count);
    positions.resize(count);
    fill_active_index(1, cu_seqlens.data(), active.data(), index.data(), positions.data());
  }
  std::vector<int64_t> cu_seqlens, active_cu_seqlens, index, positions;
  std::vector<uint8_t> active;
  int64_t count;
};

void rates(benchmark::internal::Benchmark* b) {
  b->ArgNames({"dim", "tokens", "percent"})->ArgsProduct({{80, 616}, {16384}, {10, 30, 100}})->Unit(benchmark::kMicrosecond);
}

// Bytes: the active rows, read and written.
void compress(benchmark::State& state) {
  const int64_t dim = state.range(0);
  const Tokens t(state.range(1), state.range(2));
  std::vector<float> x(state.range(1) * dim, 1.0f), out(t.count * dim);
  for (auto _ : state) compress_rows(0, t.count, dim, t.index.data(), x.data(), dim, out.data(), dim);
  state.SetBytesProcessed(state.iterations() * t.count * dim * 8);
}
BENCHMARK(compress)->Apply(rates);

// Bytes: the active rows read, all rows written.
void extract(benchmark::State& state) {
  const int64_t dim = state.range(0), tokens = state.range(1);
  const Tokens t(tokens, state.range(2));
  std::vector<float> h(t.count * dim, 1.0f), out(tokens * dim);
  for (auto _ : state) extract_rows(0, tokens, dim, t.active.data(), 0, h.data(), dim, out.data(), dim);
  state.SetBytesProcessed(state.iterations() * (t.count + tokens) * dim * 4);
}
BENCHMARK(extract)->Apply(rates);

// Items are tokens.
void count_and_index(benchmark::State& state) {
  Tokens t(state.range(0), state.range(1));
  for (auto _ : state) {
    benchmark::DoNotOptimize(count_active(1, t.cu_seqlens.data(), t.active.data(), t.active_cu_seqlens.data()));
    fill_active_index(1, t.cu_seqlens.data(), t.active.data(), t.index.data(), t.positions.data());
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(count_and_index)->ArgNames({"tokens", "percent"})->ArgsProduct({{16384}, {10, 50, 100}})->Unit(benchmark::kMicrosecond);

void router(benchmark::State& state) {
  const int64_t tokens = state.range(0), stride = state.range(1);
  std::vector<float> u(tokens * stride), p(tokens), probability(tokens);
  std::vector<uint8_t> active(tokens);
  for (int64_t i = 0; i < tokens * stride; ++i) u[i] = static_cast<float>((i * 37) % 101) / 50 - 1;
  for (auto _ : state) router_fwd<float>(tokens, stride, u.data(), 0, 0.5f, nullptr, active.data(), p.data(), probability.data());
  state.SetItemsProcessed(state.iterations() * tokens);
}
BENCHMARK(router)->ArgNames({"tokens", "stride"})->Args({16384, 2})->Args({16384, 82})->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace seqboat::kernels

BENCHMARK_MAIN();
