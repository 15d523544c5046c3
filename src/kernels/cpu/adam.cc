#include "seqboat/kernels/adam.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/adam.cc"
// clang-format off
#include "hwy/foreach_target.h"  // must come before highway.h
// clang-format on
#include "hwy/highway.h"
#include "kernels/cpu/vector_loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace {

template <bool kGradient, bool kAdaptive, class T>
void step(const AdamFactors<T>& f, int64_t count, const T* g, T* m, T* v, T* p) {
  const hn::ScalableTag<T> d;
  const auto b1 = hn::Set(d, f.b1), one_minus_b1 = hn::Set(d, f.one_minus_b1), b2 = hn::Set(d, f.b2), one_minus_b2 = hn::Set(d, f.one_minus_b2);
  const auto eps = hn::Set(d, f.eps), decay = hn::Set(d, f.decay), rate = hn::Set(d, f.rate), factor = hn::Set(d, f.gradient);
  for_each_vector(d, count, [&](int64_t i, auto io) HWY_ATTR {
    auto first = hn::Mul(b1, io.load(d, m + i)), second = hn::Mul(b2, io.load(d, v + i));
    if constexpr (kGradient) {
      const auto gradient = hn::Mul(io.load(d, g + i), factor);
      first = hn::Add(first, hn::Mul(one_minus_b1, gradient));
      second = hn::Add(second, hn::Mul(one_minus_b2, hn::Mul(gradient, gradient)));
    }
    io.store(d, first, m + i);
    io.store(d, second, v + i);
    const auto parameter = io.load(d, p + i);
    const auto kept = hn::Sub(parameter, hn::Mul(decay, parameter));
    const auto direction = kAdaptive ? hn::Div(first, hn::Add(hn::Sqrt(second), eps)) : first;
    io.store(d, hn::Sub(kept, hn::Mul(rate, direction)), p + i);
  });
}

template <class T>
void adam_step(const AdamFactors<T>& f, int64_t count, const T* g, T* m, T* v, T* p) {
  if (g != nullptr) return f.adaptive ? step<true, true>(f, count, g, m, v, p) : step<true, false>(f, count, g, m, v, p);
  return f.adaptive ? step<false, true>(f, count, g, m, v, p) : step<false, false>(f, count, g, m, v, p);
}

// Dispatch tables hold functions, not templates: one name for each type.
constexpr auto& adam_step_f32 = adam_step<float>;
constexpr auto& adam_step_f64 = adam_step<double>;

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqboat::kernels {

HWY_EXPORT(adam_step_f32);
HWY_EXPORT(adam_step_f64);

template <>
void adam_step<float>(const AdamFactors<float>& factors, int64_t count, const float* g, float* m, float* v, float* p) noexcept {
  HWY_DYNAMIC_DISPATCH(adam_step_f32)(factors, count, g, m, v, p);
}
template <>
void adam_step<double>(const AdamFactors<double>& factors, int64_t count, const double* g, double* m, double* v, double* p) noexcept {
  HWY_DYNAMIC_DISPATCH(adam_step_f64)(factors, count, g, m, v, p);
}

}  // namespace seqboat::kernels
#endif  // HWY_ONCE
