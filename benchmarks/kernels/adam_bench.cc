// A step of Adam over all parameters of a model, in the caches and beyond: bytes are those that the pass must read and write.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "seqboat/kernels/adam.h"

namespace seqboat::kernels {
namespace {

void step(benchmark::State& state) {
  const int64_t n = state.range(0);
  const std::vector<float> g(n, 1e-3f);
  std::vector<float> m(n, 1e-3f), v(n, 1e-6f), p(n, 0.5f);
  const AdamFactors<float> factors{0.9f, 0.1f, 0.98f, 0.02f, 1e-8f, 1e-6f, 1e-9f, true};
  for (auto _ : state) adam_step(factors, n, g.data(), m.data(), v.data(), p.data());
  state.SetBytesProcessed(state.iterations() * n * 28);
}
BENCHMARK(step)->Arg(2 << 10)->Arg(32 << 10)->Arg(8 << 20)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace seqboat::kernels

BENCHMARK_MAIN();
