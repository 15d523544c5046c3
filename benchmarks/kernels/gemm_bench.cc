// GF/s of gemm() on one thread, at this library's shapes and at some that are awkward, beside the machine's multiply-add peak.
// SEQBOAT_SIMD=avx2 (or any supported target) forces a target.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../benchmarks/kernels/gemm_bench.cc"  // from include/, the one folder on this program's include path
#include "hwy/foreach_target.h"
// foreach_target.h comes first.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "hwy/aligned_allocator.h"
#include "hwy/highway.h"
#include "seqboat/kernels/gemm.h"
#include "seqboat/kernels/simd.h"

HWY_BEFORE_NAMESPACE();
namespace seqboat {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

/// Twelve independent chains of multiply-adds: floating-point operations done. No memory is touched.
double fma_chains(int64_t steps, float* result) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const V factor = hn::Set(d, 0.999f);
  V acc[12];
#pragma GCC unroll 12
  for (int i = 0; i < 12; ++i) acc[i] = hn::Set(d, 1.0f + static_cast<float>(i));
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) acc[i] = hn::MulAdd(acc[i], factor, factor);
  }
  V sum = acc[0];
#pragma GCC unroll 12
  for (int i = 1; i < 12; ++i) sum = hn::Add(sum, acc[i]);
  *result = hn::GetLane(sum);
  return 24.0 * static_cast<double>(steps) * static_cast<double>(hn::Lanes(d));
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace seqboat
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqboat {
namespace {

HWY_EXPORT(fma_chains);

void fma_peak(benchmark::State& state) {
  double flops = 0;
  for (auto _ : state) {
    float result;
    flops += HWY_DYNAMIC_DISPATCH(fma_chains)(20000, &result);
    benchmark::DoNotOptimize(result);
  }
  state.counters["GF/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsRate);
}

struct Case {
  const char* name;
  int64_t m, n, k;
  bool trans_a, trans_b;
};

template <class T>
void run_gemm(benchmark::State& state, const Case& shape_case) {
  kernels::GemmShape shape{};
  shape.m = shape_case.m;
  shape.n = shape_case.n;
  shape.k = shape_case.k;
  shape.trans_a = shape_case.trans_a;
  shape.trans_b = shape_case.trans_b;
  shape.lda = shape.trans_a ? shape.m : shape.k;
  shape.ldb = shape.trans_b ? shape.k : shape.n;
  shape.ldc = shape.n;
  const auto make = [](int64_t count) {
    auto values = hwy::AllocateAligned<T>(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) values[i] = static_cast<T>(static_cast<double>((i * 7919) % 1000) / 1000 - 0.5);
    return values;
  };
  const auto a = make(shape.m * shape.k);
  const auto b = make(shape.k * shape.n);
  auto c = make(shape.m * shape.n);
  auto workspace = hwy::AllocateAligned<T>(kernels::gemm_workspace_size<T>(shape) + 1);
  for (auto _ : state) {
    kernels::gemm<T>(shape, a.get(), b.get(), nullptr, c.get(), workspace.get());
    benchmark::ClobberMemory();
  }
  const double flops = 2.0 * static_cast<double>(shape.m) * static_cast<double>(shape.n) * static_cast<double>(shape.k);
  state.counters["GF/s"] = benchmark::Counter(flops * 1e-9 * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

constexpr Case kCases[] = {
    {"large_1024", 1024, 1024, 1024, false, false},
    {"listops_router_and_x", 16384, 82, 80, false, false},
    {"listops_qkv", 16384, 384, 80, false, false},
    {"listops_out", 16384, 80, 160, false, false},
    {"listops_out_trans_b", 16384, 80, 160, false, true},
    {"listops_weight_grad", 384, 80, 16384, true, false},
    {"lm_projection", 8192, 2176, 512, false, false},
    {"lm_projection_trans_b", 8192, 2176, 512, false, true},
    {"lm_weight_grad", 512, 2176, 8192, true, false},
    {"block_64", 64, 64, 64, false, false},
    {"block_64_trans_b", 64, 64, 64, false, true},
    {"block_64_trans_a", 64, 64, 64, true, false},
    {"scores_64x192x30", 64, 192, 30, false, true},
    {"values_64x120x192", 64, 120, 192, false, false},
    {"rows_1", 1, 2176, 512, false, false},
    {"rows_2", 2, 2176, 512, false, false},
    {"rows_4", 4, 2176, 512, false, false},
    {"rows_8", 8, 2176, 512, false, false},
    {"rows_8_trans_b", 8, 2176, 512, false, true},
};

}  // namespace
}  // namespace seqboat

int main(int argc, char** argv) {
  if (const char* target = std::getenv("SEQBOAT_SIMD")) seqboat::kernels::force_simd_target(target);
  benchmark::AddCustomContext("simd_target", seqboat::kernels::simd_target());
  benchmark::RegisterBenchmark("fma_peak/f32", seqboat::fma_peak);
  for (const seqboat::Case& shape : seqboat::kCases) {
    benchmark::RegisterBenchmark((std::string("gemm/f32/") + shape.name).c_str(),
                                 [&shape](benchmark::State& state) { seqboat::run_gemm<float>(state, shape); });
  }
  for (const seqboat::Case& shape : {seqboat::kCases[0], seqboat::kCases[3], seqboat::kCases[9]}) {
    benchmark::RegisterBenchmark((std::string("gemm/f64/") + shape.name).c_str(),
                                 [shape](benchmark::State& state) { seqboat::run_gemm<double>(state, shape); });
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
#endif  // HWY_ONCE
