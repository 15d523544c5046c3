// Vector exp, erf and logistic function, float32 and float64, for every SIMD target. Included per target (see hwy/foreach_target.h), hence
// the toggling include guard. A lane's result depends on that lane's input alone, so body and tail of a loop agree bit for bit.

#if defined(SEQBOAT_KERNELS_CPU_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SEQBOAT_KERNELS_CPU_MATH_INL_H_
#undef SEQBOAT_KERNELS_CPU_MATH_INL_H_
#else
#define SEQBOAT_KERNELS_CPU_MATH_INL_H_
#endif

#include <hwy/highway.h>

#include <cmath>
#include <cstddef>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace math_impl {

namespace hn = hwy::HWY_NAMESPACE;

// Constants of exp(x) = 2^k exp(r), k = round(x / ln 2), r = x - k ln 2 in two pieces, the first of which times k is exact.
// Polynomials interpolate (exp(r) - 1 - r) / r^2 at the Chebyshev nodes of |r| <= 0.3469.
template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  static constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it leaves the rounded integer in the low mantissa bits
  static constexpr float kLn2High = 0.693359375f;
  static constexpr float kLn2Low = -2.12194440e-4f;
  static constexpr int kMantissaBits = 23;
  static constexpr int32_t kExponentBias = 127;
  static constexpr float kLowest = -104.0f;  // exp is below half the smallest subnormal
  static constexpr float kHighest = 89.0f;   // exp overflows
  static constexpr float kPoly[] = {0.5f, 0.16666576666119928f, 0.041666554212984150f, 0.0083632328836826182f, 0.0013926250831497612f};
};

template <>
struct ExpConstants<double> {
  static constexpr double kMagic = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kLn2High = 0.6931471803691238;
  static constexpr double kLn2Low = 1.908214929270587816e-10;
  static constexpr int kMantissaBits = 52;
  static constexpr int64_t kExponentBias = 1023;
  static constexpr double kLowest = -746.0;
  static constexpr double kHighest = 710.0;
  static constexpr double kPoly[] = {0.5,
                                     0.1666666666666667103,
                                     0.041666666666666669783,
                                     0.0083333333333260831202,
                                     0.0013888888888883711167,
                                     0.00019841269875002278793,
                                     2.48015873256774619e-5,
                                     2.7557255170000887438e-6,
                                     2.7557273478718580474e-7,
                                     2.5105312729622101787e-8,
                                     2.09147553258932022e-9};
};

template <class D, class V, class T, size_t kCount>
HWY_INLINE V horner(D d, V x, const T (&coefficients)[kCount]) {
  V sum = hn::Set(d, coefficients[kCount - 1]);
  for (size_t i = kCount - 1; i > 0; --i) sum = hn::MulAdd(sum, x, hn::Set(d, coefficients[i - 1]));
  return sum;
}

// exp(x) for kLowest <= x <= kHighest.
template <class D, class V>
HWY_INLINE V exp_in_range(D d, V x) {
  using T = hn::TFromD<D>;
  using C = ExpConstants<T>;
  const hn::RebindToSigned<D> di;
  const auto magic = hn::Set(d, C::kMagic);
  const auto shifted = hn::MulAdd(x, hn::Set(d, static_cast<T>(1.4426950408889634)), magic);
  const auto k = hn::Sub(shifted, magic);
  const auto r = hn::NegMulAdd(k, hn::Set(d, C::kLn2Low), hn::NegMulAdd(k, hn::Set(d, C::kLn2High), x));
  const auto poly = hn::MulAdd(hn::Mul(r, r), horner(d, r, C::kPoly), r);
  const auto mantissa = hn::Add(poly, hn::Set(d, T{1}));
  // 2^k in two factors, because k itself may lie outside the range of normal exponents at either end.
  const auto ki = hn::Sub(hn::BitCast(di, shifted), hn::BitCast(di, magic));
  const auto half = hn::ShiftRight<1>(ki);
  const auto bias = hn::Set(di, C::kExponentBias);
  const auto scale0 = hn::BitCast(d, hn::ShiftLeft<C::kMantissaBits>(hn::Add(half, bias)));
  const auto scale1 = hn::BitCast(d, hn::ShiftLeft<C::kMantissaBits>(hn::Add(hn::Sub(ki, half), bias)));
  return hn::Mul(hn::Mul(mantissa, scale0), scale1);
}

}  // namespace math_impl

/// exp(x), all x: 0 below the smallest subnormal, infinity where it overflows, NaN for NaN. Within 2 ULP (4 on targets without fused multiply-add).
template <class D, class V>
HWY_INLINE V vector_exp(D d, V x) {
  namespace hn = hwy::HWY_NAMESPACE;
  using C = math_impl::ExpConstants<hn::TFromD<D>>;
  const auto clamped = hn::Min(hn::Max(x, hn::Set(d, C::kLowest)), hn::Set(d, C::kHighest));
  return hn::IfThenElse(hn::IsNaN(x), x, math_impl::exp_in_range(d, clamped));
}

namespace math_impl {

// The range in which logistic_divisors computes: beyond it 1 + exp(-x) is infinite, or 1.
template <class T>
struct LogisticRange;
template <>
struct LogisticRange<float> {
  static constexpr float kLowest = -89.0f, kHighest = 87.0f;
};
template <>
struct LogisticRange<double> {
  static constexpr double kLowest = -710.0, kHighest = 708.0;
};

// divisor = 1 + exp(-x) for kCount vectors, step by step side by side: the chain of one vector is too long for the processor to find the next one's
// steps behind it. Infinite for x < -88.4 (float) or -709.4 (double). A NaN gives some number.
template <int kCount, class D, class V>
HWY_INLINE void logistic_divisors(D d, const V (&x)[kCount], V (&divisor)[kCount]) {
  namespace hn = hwy::HWY_NAMESPACE;
  using T = hn::TFromD<D>;
  using C = ExpConstants<T>;
  const hn::RebindToSigned<D> di;
  // k + bias in the low mantissa bits: shifted up it is 2^k, and infinity for the largest k. exp(-x) has no need of the smallest exponents, beside 1.
  const auto magic = hn::Set(d, C::kMagic + static_cast<T>(C::kExponentBias));
  const auto minus_log2_e = hn::Set(d, static_cast<T>(-1.4426950408889634));
  V r[kCount], scale[kCount], poly[kCount];
  for (int i = 0; i < kCount; ++i) {
    const auto clamped = hn::Min(hn::Max(x[i], hn::Set(d, LogisticRange<T>::kLowest)), hn::Set(d, LogisticRange<T>::kHighest));
    const auto shifted = hn::MulAdd(clamped, minus_log2_e, magic);
    const auto k = hn::Sub(shifted, magic);
    scale[i] = hn::BitCast(d, hn::ShiftLeft<C::kMantissaBits>(hn::BitCast(di, shifted)));
    r[i] = hn::NegMulAdd(k, hn::Set(d, C::kLn2Low), hn::NegMulSub(k, hn::Set(d, C::kLn2High), clamped));
  }
  constexpr size_t kTerms = sizeof(C::kPoly) / sizeof(T);
  for (int i = 0; i < kCount; ++i) poly[i] = hn::Set(d, C::kPoly[kTerms - 1]);
  for (size_t term = kTerms - 1; term > 0; --term) {
    for (int i = 0; i < kCount; ++i) poly[i] = hn::MulAdd(poly[i], r[i], hn::Set(d, C::kPoly[term - 1]));
  }
  const auto one = hn::Set(d, T{1});
  for (int i = 0; i < kCount; ++i) {
    const auto mantissa = hn::MulAdd(hn::MulAdd(poly[i], r[i], one), r[i], one);
    divisor[i] = hn::MulAdd(mantissa, scale[i], one);
  }
}

}  // namespace math_impl

/// 1 / (1 + exp(-x)), all x. Within 4 ULP, with 0 where the true value is below the smallest normal number; NaN for NaN.
template <class D, class V>
HWY_INLINE V vector_sigmoid(D d, V x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const V arguments[1] = {x};
  V divisors[1];
  math_impl::logistic_divisors(d, arguments, divisors);
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Div(hn::Set(d, hn::TFromD<D>{1}), divisors[0]));
}

/// The same for several vectors at once; however many, an element has the same bits.
template <int kCount, class D, class V>
HWY_INLINE void vector_sigmoid(D d, const V (&x)[kCount], V (&y)[kCount]) {
  namespace hn = hwy::HWY_NAMESPACE;
  math_impl::logistic_divisors(d, x, y);
  for (int i = 0; i < kCount; ++i) y[i] = hn::IfThenElse(hn::IsNaN(x[i]), x[i], hn::Div(hn::Set(d, hn::TFromD<D>{1}), y[i]));
}

/// x / (1 + exp(-x)) for several vectors at once; however many, an element has the same bits. NaN for NaN.
template <int kCount, class D, class V>
HWY_INLINE void vector_silu(D d, const V (&x)[kCount], V (&y)[kCount]) {
  math_impl::logistic_divisors(d, x, y);
  for (int i = 0; i < kCount; ++i) y[i] = hwy::HWY_NAMESPACE::Div(x[i], y[i]);
}

/// The derivative of x s(x), s = 1 / (1 + exp(-x)): s (1 + x (1 - s)).
template <int kCount, class D, class V>
HWY_INLINE void vector_silu_slope(D d, const V (&x)[kCount], V (&slope)[kCount]) {
  namespace hn = hwy::HWY_NAMESPACE;
  const auto one = hn::Set(d, hn::TFromD<D>{1});
  math_impl::logistic_divisors(d, x, slope);
  for (int i = 0; i < kCount; ++i) {
    const auto s = hn::Div(one, slope[i]);
    slope[i] = hn::Mul(s, hn::MulAdd(x[i], hn::Sub(one, s), one));
  }
}

/// erf(x), all x, odd in x to the bit; NaN for NaN.
/// float32: within 1.2e-7 absolute (2e-7 on targets without fused multiply-add), 3 ULP for |x| < 0.9375. Below 0.9375 x + x p(x^2), above it
/// 1 - exp(-p(|x|)); both polynomials are minimax fits of degree 6 (errors 5e-10 and 1.4e-9).
/// float64: the C library's erf lane by lane (slow), within 1 ULP or so.
template <class D, class V>
HWY_INLINE V vector_erf(D d, V x) {
  namespace hn = hwy::HWY_NAMESPACE;
  using T = hn::TFromD<D>;
  if constexpr (sizeof(T) == 8) {
    HWY_ALIGN T lanes[HWY_MAX_BYTES / sizeof(T)];
    hn::Store(x, d, lanes);
    for (size_t i = 0; i < hn::Lanes(d); ++i) lanes[i] = std::erf(lanes[i]);
    return hn::Load(d, lanes);
  } else {
    constexpr T kHead[] = {0.12837916612625122f,  -0.37612631916999817f,   0.11283686012029648f,  -0.026858851313591003f,
                           0.005199598614126444f, -0.0008125792373903096f, 8.296551823150367e-05f};
    constexpr T kTail[] = {0.00023505210992880166f, 1.1275126934051514f,   0.6374568939208984f,     0.10369022190570831f,
                           -0.02211042307317257f,   0.003013959852978587f, -0.00019295176025480032f};
    const auto magnitude = hn::Abs(x);
    const auto head = hn::MulAdd(x, math_impl::horner(d, hn::Mul(x, x), kHead), x);
    const auto bounded = hn::Min(magnitude, hn::Set(d, 4.0f));  // 1 - erf(4) is below half an ULP of 1
    const auto tail = hn::Sub(hn::Set(d, 1.0f), math_impl::exp_in_range(d, hn::Neg(math_impl::horner(d, bounded, kTail))));
    return hn::IfThenElse(hn::Ge(magnitude, hn::Set(d, 0.9375f)), hn::CopySign(tail, x), head);  // NaN takes the head and stays NaN
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
