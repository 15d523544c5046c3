// Element-wise kernels, column sums and dropout: bytes per second are those that the pass must read and write.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "seqboat/kernels/dropout.h"
#include "seqboat/kernels/elementwise.h"

namespace seqboat::kernels {
namespace {

std::vector<float> numbers(int64_t n) {
  std::vector<float> x(n);
  for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>((i * 37) % 101) / 20 - 2.5f;
  return x;
}

// In the first-level cache's reach, the second's, and memory.
void counts(benchmark::internal::Benchmark* b) {
  b->Arg(4 << 10)->Arg(64 << 10)->Arg(16 << 20)->Unit(benchmark::kMicrosecond);
}

template <Activation kActivation>
void activation_forward(benchmark::State& state) {
  const int64_t n = state.range(0);
  const std::vector<float> x = numbers(n);
  std::vector<float> y(n);
  for (auto _ : state) activation_fwd(kActivation, n, x.data(), y.data());
  state.SetBytesProcessed(state.iterations() * n * 8);
}
BENCHMARK(activation_forward<Activation::kSilu>)->Apply(counts);
BENCHMARK(activation_forward<Activation::kGelu>)->Apply(counts);
BENCHMARK(activation_forward<Activation::kRelu2>)->Apply(counts);
BENCHMARK(activation_forward<Activation::kLaplace>)->Apply(counts);

template <Activation kActivation>
void activation_backward(benchmark::State& state) {
  const int64_t n = state.range(0);
  const std::vector<float> x = numbers(n), dy = numbers(n);
  std::vector<float> dx(n);
  for (auto _ : state) activation_bwd(kActivation, n, x.data(), dy.data(), dx.data());
  state.SetBytesProcessed(state.iterations() * n * 12);
}
BENCHMARK(activation_backward<Activation::kSilu>)->Apply(counts);
BENCHMARK(activation_backward<Activation::kGelu>)->Apply(counts);

void squares(benchmark::State& state) {
  const int64_t n = state.range(0);
  const std::vector<float> x = numbers(n);
  for (auto _ : state) benchmark::DoNotOptimize(sum_of_squares(n, x.data()));
  state.SetBytesProcessed(state.iterations() * n * 4);
}
BENCHMARK(squares)->Apply(counts);

void columns(benchmark::State& state) {
  const int64_t dim = state.range(0), rows = state.range(1);
  const std::vector<float> x = numbers(rows * dim);
  std::vector<float> out(dim);
  for (auto _ : state) column_sum(rows, dim, dim, 0, dim, x.data(), out.data());
  state.SetBytesProcessed(state.iterations() * rows * dim * 4);
}
BENCHMARK(columns)->Args({80, 1024})->Args({128, 1024})->Args({616, 16384})->Unit(benchmark::kMicrosecond);

template <class T>
void dropout_rows(benchmark::State& state) {
  const int64_t dim = state.range(0), rows = state.range(1);
  std::vector<T> x(rows * dim, T{1}), y(rows * dim);
  std::vector<int64_t> sequences(rows, 7), positions(rows);
  for (int64_t t = 0; t < rows; ++t) positions[t] = t;
  const DropoutKey key{1, 2, 3, 4, 5};
  for (auto _ : state) dropout(key, 0.1, 0, rows, dim, sequences.data(), positions.data(), x.data(), y.data());
  state.SetBytesProcessed(state.iterations() * rows * dim * static_cast<int64_t>(sizeof(T)) * 2);
}
// A block in the first-level cache, and more.
BENCHMARK(dropout_rows<float>)
    ->Args({60, 64})
    ->Args({80, 64})
    ->Args({128, 64})
    ->Args({60, 1024})
    ->Args({80, 1024})
    ->Args({128, 1024})
    ->Args({616, 16384})
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(dropout_rows<double>)->Args({128, 1024})->Unit(benchmark::kMicrosecond);

void silu_dropout_backward(benchmark::State& state) {
  const int64_t dim = state.range(0), rows = state.range(1);
  const std::vector<float> x = numbers(rows * dim), dy = numbers(rows * dim);
  std::vector<float> dx(rows * dim);
  std::vector<int64_t> sequences(rows, 7), positions(rows);
  for (int64_t t = 0; t < rows; ++t) positions[t] = t;
  const DropoutKey key{1, 2, 3, 4, 5};
  for (auto _ : state) silu_dropout_bwd(key, 0.1, 0, rows, dim, sequences.data(), positions.data(), x.data(), dy.data(), dx.data());
  state.SetBytesProcessed(state.iterations() * rows * dim * 12);
}
BENCHMARK(silu_dropout_backward)->Args({80, 64})->Args({128, 64})->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace seqboat::kernels

BENCHMARK_MAIN();
