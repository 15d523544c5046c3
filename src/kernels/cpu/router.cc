#include "seqboat/kernels/router.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/router.cc"
// clang-format off
#include "hwy/foreach_target.h"  // must come before highway.h
// clang-format on
#include "hwy/highway.h"
#include "kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// Tokens handled at a time: their logits lie far apart (a row of u is wide), so they are collected first and then taken by vectors. The lanes
// after the last token are computed and not looked at.
constexpr int64_t kChunk = 64;

template <class T>
T temperature(T log_temperature) {
  const hn::CappedTag<T, 1> d;
  return hn::GetLane(vector_exp(d, hn::Set(d, log_temperature)));
}

// margin = u1 - u0 - act_bias for a chunk's tokens; its sign is the decision, whatever the temperature.
template <class T>
void collect_margins(int64_t tokens, int64_t u_stride, const T* u, T act_bias, T* margin) {
  for (int64_t t = 0; t < tokens; ++t) margin[t] = u[t * u_stride + 1] - u[t * u_stride] - act_bias;
  for (int64_t t = tokens; t < kChunk; ++t) margin[t] = 0;
}

template <class T>
void router_fwd(int64_t tokens, int64_t u_stride, const T* u, T act_bias, T log_temperature, const uint8_t* forced, uint8_t* active, T* p,
                T* probability) {
  const hn::ScalableTag<T> d;
  const int64_t width = static_cast<int64_t>(hn::Lanes(d));
  const auto divisor = hn::Set(d, temperature(log_temperature));
  HWY_ALIGN T margin[kChunk];
  HWY_ALIGN T chance[kChunk];
  for (int64_t begin = 0; begin < tokens; begin += kChunk) {
    const int64_t count = std::min(kChunk, tokens - begin);
    collect_margins(count, u_stride, u + begin * u_stride, act_bias, margin);
    for (int64_t i = 0; i < count; i += width) hn::Store(vector_sigmoid(d, hn::Div(hn::Load(d, margin + i), divisor)), d, chance + i);
    for (int64_t i = 0; i < count; ++i) {
      const bool chosen = forced != nullptr ? forced[begin + i] != 0 : margin[i] > 0;
      active[begin + i] = chosen ? 1 : 0;
      p[begin + i] = chosen ? chance[i] : T{0};
    }
    if (probability != nullptr) std::copy(chance, chance + count, probability + begin);
  }
}

// P (1 - P) = e / (1 + e)^2 with e = exp(-|z|): no cancellation where P is close to one.
template <class T>
double router_bwd(int64_t tokens, int64_t u_stride, const T* u, T act_bias, T log_temperature, const uint8_t* active, const T* dp,
                  const T* dprobability, int64_t du_stride, T* du) {
  const hn::ScalableTag<T> d;
  const int64_t width = static_cast<int64_t>(hn::Lanes(d));
  const T scale = temperature(log_temperature);
  const auto divisor = hn::Set(d, scale);
  const auto one = hn::Set(d, T{1});
  HWY_ALIGN T z[kChunk];
  HWY_ALIGN T slope[kChunk];
  double dlog_temperature = 0;
  for (int64_t begin = 0; begin < tokens; begin += kChunk) {
    const int64_t count = std::min(kChunk, tokens - begin);
    collect_margins(count, u_stride, u + begin * u_stride, act_bias, z);
    for (int64_t i = 0; i < count; i += width) {
      const auto zi = hn::Div(hn::Load(d, z + i), divisor);
      const auto e = vector_exp(d, hn::Neg(hn::Abs(zi)));
      const auto sum = hn::Add(one, e);
      hn::Store(zi, d, z + i);
      hn::Store(hn::Div(e, hn::Mul(sum, sum)), d, slope + i);
    }
    for (int64_t i = 0; i < count; ++i) {
      const int64_t t = begin + i;
      T upstream = active[t] != 0 && dp != nullptr ? dp[t] : T{0};
      if (dprobability != nullptr) upstream += dprobability[t];
      const T g = upstream * slope[i];
      const T difference = g / scale;
      du[t * du_stride] = -difference;
      du[t * du_stride + 1] = difference;
      dlog_temperature -= static_cast<double>(g) * static_cast<double>(z[i]);
    }
  }
  return dlog_temperature;
}

// Dispatch tables hold functions, not templates: one name for each type.
constexpr auto& router_fwd_f32 = router_fwd<float>;
constexpr auto& router_fwd_f64 = router_fwd<double>;
constexpr auto& router_bwd_f32 = router_bwd<float>;
constexpr auto& router_bwd_f64 = router_bwd<double>;

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqboat::kernels {

HWY_EXPORT(router_fwd_f32);
HWY_EXPORT(router_fwd_f64);
HWY_EXPORT(router_bwd_f32);
HWY_EXPORT(router_bwd_f64);

template <>
void router_fwd<float>(int64_t tokens, int64_t u_stride, const float* u, float act_bias, float log_temperature, const uint8_t* forced,
                       uint8_t* active, float* p, float* probability) noexcept {
  HWY_DYNAMIC_DISPATCH(router_fwd_f32)(tokens, u_stride, u, act_bias, log_temperature, forced, active, p, probability);
}
template <>
void router_fwd<double>(int64_t tokens, int64_t u_stride, const double* u, double act_bias, double log_temperature, const uint8_t* forced,
                        uint8_t* active, double* p, double* probability) noexcept {
  HWY_DYNAMIC_DISPATCH(router_fwd_f64)(tokens, u_stride, u, act_bias, log_temperature, forced, active, p, probability);
}

template <>
double router_bwd<float>(int64_t tokens, int64_t u_stride, const float* u, float act_bias, float log_temperature, const uint8_t* active,
                         const float* dp, const float* dprobability, int64_t du_stride, float* du) noexcept {
  return HWY_DYNAMIC_DISPATCH(router_bwd_f32)(tokens, u_stride, u, act_bias, log_temperature, active, dp, dprobability, du_stride, du);
}
template <>
double router_bwd<double>(int64_t tokens, int64_t u_stride, const double* u, double act_bias, double log_temperature, const uint8_t* active,
                          const double* dp, const double* dprobability, int64_t du_stride, double* du) noexcept {
  return HWY_DYNAMIC_DISPATCH(router_bwd_f64)(tokens, u_stride, u, act_bias, log_temperature, active, dp, dprobability, du_stride, du);
}

}  // namespace seqboat::kernels
#endif  // HWY_ONCE
