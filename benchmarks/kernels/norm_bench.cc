// Norms over packed tokens: bytes per second are those that the pass must read and write.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "seqboat/kernels/norm.h"

namespace seqboat::kernels {
namespace {

// In the first-level cache, the second, and beyond the caches.
void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "dim"})
      ->Args({64, 60})
      ->Args({64, 128})
      ->Args({1024, 80})
      ->Args({1024, 128})
      ->Args({16384, 616})
      ->Unit(benchmark::kMicrosecond);
}

struct Buffers {
  explicit Buffers(const benchmark::State& state)
      : rows(state.range(0)),
        dim(state.range(1)),
        x(rows * dim),
        dy(rows * dim, 0.5f),
        y(rows * dim),
        weight(dim, 1.5f),
        bias(dim, 0.25f),
        mean(dim),
        rstd(dim, 1.0f),
        row_mean(rows),
        row_rstd(rows),
        dweight(dim),
        dbias(dim) {
    for (int64_t i = 0; i < rows * dim; ++i) x[i] = static_cast<float>((i * 37) % 101) / 50 - 1;
  }
  void passes(benchmark::State& state, int count) const { state.SetBytesProcessed(state.iterations() * rows * dim * 4 * count); }

  int64_t rows, dim;
  std::vector<float> x, dy, y, weight, bias, mean, rstd, row_mean, row_rstd, dweight, dbias;
  std::vector<double> sum_dy_xhat = std::vector<double>(static_cast<size_t>(dim)), sum_dy = sum_dy_xhat;
};

template <RowNorm kKind>
void row_forward(benchmark::State& state) {
  Buffers b(state);
  for (auto _ : state) {
    row_norm_fwd(kKind, b.rows, b.dim, 1e-5f, b.x.data(), b.weight.data(), b.bias.data(), b.y.data(), b.row_mean.data(), b.row_rstd.data());
  }
  b.passes(state, 2);
}
BENCHMARK(row_forward<RowNorm::kLayerNorm>)->Apply(sizes);
BENCHMARK(row_forward<RowNorm::kScaleNorm>)->Apply(sizes);

template <RowNorm kKind>
void row_backward(benchmark::State& state) {
  Buffers b(state);
  row_norm_fwd(kKind, b.rows, b.dim, 1e-5f, b.x.data(), b.weight.data(), b.bias.data(), b.y.data(), b.row_mean.data(), b.row_rstd.data());
  for (auto _ : state) {
    row_norm_bwd(kKind, b.rows, b.dim, b.x.data(), b.weight.data(), b.row_mean.data(), b.row_rstd.data(), b.dy.data(), b.y.data(), b.dweight.data(),
                 b.dbias.data());
  }
  b.passes(state, 3);
}
BENCHMARK(row_backward<RowNorm::kLayerNorm>)->Apply(sizes);
BENCHMARK(row_backward<RowNorm::kScaleNorm>)->Apply(sizes);

void batch_stats(benchmark::State& state) {
  Buffers b(state);
  for (auto _ : state) batch_norm_stats(b.rows, b.dim, 0, b.dim, b.x.data(), b.mean.data(), b.rstd.data());
  b.passes(state, 2);
}
BENCHMARK(batch_stats)->Apply(sizes);

void batch_apply(benchmark::State& state) {
  Buffers b(state);
  for (auto _ : state) {
    batch_norm_apply(0, b.rows, b.dim, b.x.data(), b.mean.data(), b.rstd.data(), b.weight.data(), b.bias.data(), b.y.data());
  }
  b.passes(state, 2);
}
BENCHMARK(batch_apply)->Apply(sizes);

void batch_backward_sums(benchmark::State& state) {
  Buffers b(state);
  for (auto _ : state) {
    batch_norm_bwd_sums(b.rows, b.dim, 0, b.dim, b.x.data(), b.mean.data(), b.rstd.data(), b.dy.data(), b.sum_dy_xhat.data(), b.sum_dy.data());
  }
  b.passes(state, 2);
}
BENCHMARK(batch_backward_sums)->Apply(sizes);

void batch_backward_input(benchmark::State& state) {
  Buffers b(state);
  for (auto _ : state) {
    batch_norm_bwd_input(b.rows, 0, b.rows, b.dim, true, b.x.data(), b.mean.data(), b.rstd.data(), b.weight.data(), b.sum_dy_xhat.data(),
                         b.sum_dy.data(), b.dy.data(), b.y.data());
  }
  b.passes(state, 3);
}
BENCHMARK(batch_backward_input)->Apply(sizes);

}  // namespace
}  // namespace seqboat::kernels

BENCHMARK_MAIN();
