#include "seqboat/kernels/peak.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/peak.cc"
// clang-format off
#include "hwy/foreach_target.h"  // must come before highway.h
// clang-format on
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// As many chains as hide the latency of a multiply-add (four cycles on two ports need eight), and few enough that their registers and the factor's
// are there on every target.
constexpr int kChains = 12;

double fma_chains(int64_t steps, float* result) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const V factor = hn::Set(d, 0.999f);
  V chain[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) chain[i] = hn::Set(d, 1.0f + static_cast<float>(i));
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) chain[i] = hn::MulAdd(chain[i], factor, factor);
  }
  V sum = chain[0];
#pragma GCC unroll 12
  for (int i = 1; i < kChains; ++i) sum = hn::Add(sum, chain[i]);
  *result = hn::GetLane(sum);
  return 2.0 * kChains * static_cast<double>(steps) * static_cast<double>(hn::Lanes(d));
}

template <class D>  // D: full vector, or one lane for the tail
int64_t triad_from(D d, int64_t i, int64_t n, float scale, const float* HWY_RESTRICT b, const float* HWY_RESTRICT c, float* HWY_RESTRICT a) {
  const auto factor = hn::Set(d, scale);
  const int64_t width = static_cast<int64_t>(hn::Lanes(d));
  for (; i + width <= n; i += width) hn::StoreU(hn::MulAdd(factor, hn::LoadU(d, c + i), hn::LoadU(d, b + i)), d, a + i);
  return i;
}

void triad(int64_t n, float scale, const float* b, const float* c, float* a) {
  const int64_t whole = triad_from(hn::ScalableTag<float>(), 0, n, scale, b, c, a);
  triad_from(hn::CappedTag<float, 1>(), whole, n, scale, b, c, a);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqboat::kernels {

HWY_EXPORT(fma_chains);
HWY_EXPORT(triad);

double fma_chains(int64_t steps, float* result) noexcept {
  return HWY_DYNAMIC_DISPATCH(fma_chains)(steps, result);
}

void triad(int64_t n, float scale, const float* b, const float* c, float* a) noexcept {
  HWY_DYNAMIC_DISPATCH(triad)(n, scale, b, c, a);
}

}  // namespace seqboat::kernels
#endif  // HWY_ONCE
