// GF/s of gemm() and gemm_packed() on one thread, at this library's shapes and at some that are awkward, beside the machine's multiply-add peak.
// SEQBOAT_SIMD=avx2 (or any supported target) forces a target.
//
// gemm/        the whole product in one call
// gemm_block/  calls of 128 rows, or tokens of a weight's gradient, through tensors that are larger than the second-level cache
// gemm_hot/    one such call over and over: what the micro-kernel does with operands that were just computed
// ..._packed/  the same with B packed before the first call

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../benchmarks/kernels/gemm_bench.cc"  // from include/, the one folder on this program's include path
#include "hwy/foreach_target.h"
// foreach_target.h comes first.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>

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

enum class Calls { kWhole, kBlocks, kHot };
constexpr int64_t kBlock = 128;

/// Calls f(shape, first element of A, of B, of C) for every call that makes up the product.
template <class F>
void for_each_call(const Case& shape_case, Calls calls, const F& f) {
  kernels::GemmShape shape{};
  shape.m = shape_case.m;
  shape.n = shape_case.n;
  shape.k = shape_case.k;
  shape.trans_a = shape_case.trans_a;
  shape.trans_b = shape_case.trans_b;
  shape.lda = shape.trans_a ? shape.m : shape.k;
  shape.ldb = shape.trans_b ? shape.k : shape.n;
  shape.ldc = shape.n;
  if (calls == Calls::kWhole) return f(shape, 0, 0, 0);
  // A weight's gradient sums over blocks of tokens.
  const int64_t total = shape.trans_a ? shape.k : shape.m;
  shape.accumulate = shape.trans_a;
  for (int64_t first = 0; first < total; first += kBlock) {
    (shape.trans_a ? shape.k : shape.m) = std::min(kBlock, total - first);
    f(shape, first * shape.lda, shape.trans_a ? first * shape.ldb : 0, shape.trans_a ? 0 : first * shape.ldc);
    if (calls == Calls::kHot) return;
  }
}

/// Room for `count` numbers, aligned for every vector.
template <class T>
auto aligned(size_t count) {
  constexpr std::align_val_t kAlignment{64};
  const auto drop = [](T* values) { ::operator delete(values, kAlignment); };
  return std::unique_ptr<T[], decltype(drop)>(static_cast<T*>(::operator new(count * sizeof(T), kAlignment)));
}

template <class T>
void run_gemm(benchmark::State& state, const Case& shape_case, Calls calls, bool packed) {
  const auto make = [](int64_t count) {
    auto values = aligned<T>(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) values[i] = static_cast<T>(static_cast<double>((i * 7919) % 1000) / 1000 - 0.5);
    return values;
  };
  const auto a = make(shape_case.m * shape_case.k);
  const auto b = make(shape_case.k * shape_case.n);
  auto c = make(shape_case.m * shape_case.n);
  size_t workspace_size = 1;
  double flops = 0;
  for_each_call(shape_case, calls, [&](const kernels::GemmShape& shape, int64_t, int64_t, int64_t) {
    workspace_size = std::max({workspace_size, kernels::gemm_workspace_size<T>(shape), packed ? kernels::gemm_packed_size<T>(shape) : 0});
    flops += 2.0 * static_cast<double>(shape.m) * static_cast<double>(shape.n) * static_cast<double>(shape.k);
  });
  auto workspace = aligned<T>(workspace_size);
  if (packed) {
    for_each_call(shape_case, Calls::kHot,
                  [&](const kernels::GemmShape& shape, int64_t, int64_t, int64_t) { kernels::gemm_pack_b<T>(shape, b.get(), workspace.get()); });
  }
  for (auto _ : state) {
    for_each_call(shape_case, calls, [&](const kernels::GemmShape& shape, int64_t from_a, int64_t from_b, int64_t from_c) {
      if (packed) {
        kernels::gemm_packed<T>(shape, a.get() + from_a, workspace.get(), nullptr, c.get() + from_c);
      } else {
        kernels::gemm<T>(shape, a.get() + from_a, b.get() + from_b, nullptr, c.get() + from_c, workspace.get());
      }
    });
    benchmark::ClobberMemory();
  }
  state.counters["GF/s"] = benchmark::Counter(flops * 1e-9 * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

// One call for all, or too few rows to cut.
constexpr Case kWholeCases[] = {
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

// What layers do, block by block: projections forward (trans_b), gradients of their inputs, gradients of their weights (trans_a).
constexpr Case kLayerCases[] = {
    {"listops_x", 16384, 80, 80, false, true},
    {"listops_router", 16384, 2, 80, false, true},
    {"listops_qkv", 16384, 384, 80, false, true},
    {"listops_out", 16384, 80, 160, false, true},
    {"speech_qkv", 16384, 150, 60, false, true},
    {"text_x", 16384, 128, 128, false, true},
    {"text_qkv", 16384, 320, 128, false, true},
    {"image_qkv", 8192, 416, 160, false, true},
    {"lm_qkv", 2048, 2176, 512, false, true},
    {"lm_out", 2048, 512, 1024, false, true},
    {"listops_router_input_grad", 16384, 80, 2, false, false},
    {"listops_qkv_input_grad", 16384, 80, 384, false, false},
    {"listops_out_input_grad", 16384, 160, 80, false, false},
    {"lm_qkv_input_grad", 2048, 512, 2176, false, false},
    {"listops_x_weight_grad", 80, 80, 16384, true, false},
    {"listops_router_weight_grad", 2, 80, 16384, true, false},
    {"listops_qkv_weight_grad", 384, 80, 16384, true, false},
    {"listops_out_weight_grad", 80, 160, 16384, true, false},
    {"speech_qkv_weight_grad", 150, 60, 16384, true, false},
    {"text_qkv_weight_grad", 320, 128, 16384, true, false},
    {"lm_qkv_weight_grad", 2304, 512, 2048, true, false},
    {"lm_out_weight_grad", 512, 1024, 2048, true, false},
};

template <class T>
void add(const char* type, const Case& shape_case, const char* name, Calls calls) {
  for (const bool packed : {false, true}) {
    // Each block of a weight's gradient has a B of its own.
    if (packed && shape_case.trans_a && calls != Calls::kHot) continue;
    const std::string path = std::string(name) + (packed ? "_packed/" : "/") + type + "/" + shape_case.name;
    benchmark::RegisterBenchmark(path.c_str(), [=](benchmark::State& state) { run_gemm<T>(state, shape_case, calls, packed); });
  }
}

}  // namespace
}  // namespace seqboat

int main(int argc, char** argv) {
  if (const char* target = std::getenv("SEQBOAT_SIMD")) seqboat::kernels::force_simd_target(target);
  benchmark::AddCustomContext("simd_target", seqboat::kernels::simd_target());
  benchmark::RegisterBenchmark("fma_peak/f32", seqboat::fma_peak);
  for (const seqboat::Case& shape : seqboat::kWholeCases) seqboat::add<float>("f32", shape, "gemm", seqboat::Calls::kWhole);
  for (const seqboat::Case& shape : {seqboat::kWholeCases[0], seqboat::kWholeCases[3], seqboat::kWholeCases[9]}) {
    seqboat::add<double>("f64", shape, "gemm", seqboat::Calls::kWhole);
  }
  for (const seqboat::Case& shape : seqboat::kLayerCases) {
    seqboat::add<float>("f32", shape, "gemm_block", seqboat::Calls::kBlocks);
    seqboat::add<float>("f32", shape, "gemm_hot", seqboat::Calls::kHot);
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
#endif  // HWY_ONCE
