// Row kernels of the gated layer on a block of rows in the cache: items are elements of the widest operand.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "seqboat/kernels/gated_rows.h"

namespace seqboat::kernels {
namespace {

std::vector<float> numbers(int64_t n) {
  std::vector<float> x(n);
  for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>((i * 37) % 101) / 20 - 2.5f;
  return x;
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "dim"})->ArgsProduct({{64, 256}, {30, 64, 128, 160}})->Unit(benchmark::kMicrosecond);
}

struct Block {
  explicit Block(const benchmark::State& state)
      : rows(state.range(0)),
        dim(state.range(1)),
        a(numbers(rows * dim)),
        b(a),
        c(a),
        y(a),
        z(a),
        gamma(numbers(2 * dim)),
        beta(gamma),
        p(rows, 0.75f) {
    active.resize(rows);
    for (int64_t i = 0; i < rows; ++i) {
      active[i] = i % 2;
      if (active[i] != 0) index.push_back(i);
    }
  }
  void items(benchmark::State& state) const { state.SetItemsProcessed(state.iterations() * rows * dim); }

  int64_t rows, dim;
  std::vector<float> a, b, c, y, z, gamma, beta, p;
  std::vector<uint8_t> active;
  std::vector<int64_t> index;
};

void qk_affine_forward(benchmark::State& state) {
  Block b(state);
  for (auto _ : state) {
    qk_affine_fwd(b.rows, b.dim, b.a.data(), b.dim, b.gamma.data(), b.beta.data(), b.y.data(), b.dim, b.z.data(), b.dim);
    benchmark::ClobberMemory();
  }
  b.items(state);
}
BENCHMARK(qk_affine_forward)->Apply(sizes);

void qk_affine_backward(benchmark::State& state) {
  Block b(state);
  std::vector<float> dgamma(2 * b.dim), dbeta(2 * b.dim);
  for (auto _ : state) {
    qk_affine_bwd(b.rows, b.dim, b.a.data(), b.dim, b.gamma.data(), b.b.data(), b.dim, b.c.data(), b.dim, b.y.data(), b.dim, dgamma.data(),
                  dbeta.data());
    benchmark::ClobberMemory();
  }
  b.items(state);
}
BENCHMARK(qk_affine_backward)->Apply(sizes);

void gate_forward(benchmark::State& state) {
  Block b(state);
  for (auto _ : state) {
    gate_fwd(b.rows, b.dim, b.a.data(), b.dim, b.b.data(), b.dim, b.y.data(), b.dim);
    benchmark::ClobberMemory();
  }
  b.items(state);
}
BENCHMARK(gate_forward)->Apply(sizes);

void gate_backward(benchmark::State& state) {
  Block b(state);
  for (auto _ : state) {
    gate_bwd(b.rows, b.dim, b.c.data(), b.dim, b.a.data(), b.dim, b.b.data(), b.dim, b.y.data(), b.dim, b.z.data(), b.dim);
    benchmark::ClobberMemory();
  }
  b.items(state);
}
BENCHMARK(gate_backward)->Apply(sizes);

// Half of the tokens active.
void branch_sum_forward(benchmark::State& state) {
  Block b(state);
  for (auto _ : state) {
    branch_sum_fwd(0, b.rows, b.dim, b.active.data(), 0, b.c.data(), b.dim, b.p.data(), b.a.data(), b.dim, b.b.data(), b.dim, b.z.data(), b.dim,
                   b.y.data(), b.dim);
    benchmark::ClobberMemory();
  }
  b.items(state);
}
BENCHMARK(branch_sum_forward)->Apply(sizes);

void dots(benchmark::State& state) {
  Block b(state);
  for (auto _ : state) {
    row_dots(b.rows, b.dim, b.a.data(), b.dim, b.b.data(), b.dim, b.p.data());
    benchmark::ClobberMemory();
  }
  b.items(state);
}
BENCHMARK(dots)->Apply(sizes);

void scale(benchmark::State& state) {
  Block b(state);
  for (auto _ : state) {
    scale_rows(b.rows, b.dim, b.p.data(), b.a.data(), b.dim, b.y.data(), b.dim);
    benchmark::ClobberMemory();
  }
  b.items(state);
}
BENCHMARK(scale)->Apply(sizes);

void scatter_add(benchmark::State& state) {
  Block b(state);
  const int64_t rows = static_cast<int64_t>(b.index.size());
  for (auto _ : state) {
    scatter_add_rows(rows, b.dim, b.index.data(), b.a.data(), b.dim, b.y.data(), b.dim);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * rows * b.dim);
}
BENCHMARK(scatter_add)->Apply(sizes);

void update_forward(benchmark::State& state) {
  Block b(state);
  for (auto _ : state) {
    update_fwd(b.rows, b.dim, b.a.data(), b.dim, b.b.data(), b.dim, b.c.data(), b.dim, b.y.data(), b.dim);
    benchmark::ClobberMemory();
  }
  b.items(state);
}
BENCHMARK(update_forward)->Apply(sizes);

void update_backward(benchmark::State& state) {
  Block b(state);
  std::vector<float> dx(b.y);
  for (auto _ : state) {
    update_bwd(b.rows, b.dim, b.a.data(), b.dim, b.b.data(), b.dim, b.c.data(), b.dim, b.c.data(), b.dim, b.y.data(), b.dim, b.z.data(), b.dim,
               dx.data(), b.dim);
    benchmark::ClobberMemory();
  }
  b.items(state);
}
BENCHMARK(update_backward)->Apply(sizes);

}  // namespace
}  // namespace seqboat::kernels

BENCHMARK_MAIN();
