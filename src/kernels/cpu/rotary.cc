#include <algorithm>
#include <cmath>
#include <cstdint>

#include "seqboat/kernels/window_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rotary.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/math-inl.h"

#ifndef SEQBOAT_KERNELS_CPU_ROTARY_ONCE_
#define SEQBOAT_KERNELS_CPU_ROTARY_ONCE_
namespace seqboat::kernels {
namespace rotary_impl {

__extension__ typedef unsigned __int128 uint128;

// Pairs whose frequencies are held at once (on the stack).
constexpr int64_t kPairs = 64;

// A fraction of a full turn, in units of 2^-128.
struct Turns {
  uint64_t high, low;
};

// theta / (2 pi) for the double theta, 0 < theta <= 1, cut after 128 bits. In fixed point the angle of a position is one integer product, which
// drops whole turns by itself: no position, however large, costs accuracy.
inline Turns turns_per_step(double theta) {
  constexpr uint64_t kInverse2Pi[] = {0x28be60db9391054au, 0x7f09d5f47d4d3770u, 0x36d8a5664f10e410u};  // 1 / (2 pi), 192 bits
  int exponent = 0;
  const uint64_t mantissa = static_cast<uint64_t>(std::ldexp(std::frexp(theta, &exponent), 53));  // theta = mantissa 2^(exponent - 53)
  const uint128 p0 = static_cast<uint128>(mantissa) * kInverse2Pi[2];
  const uint128 p1 = static_cast<uint128>(mantissa) * kInverse2Pi[1] + static_cast<uint64_t>(p0 >> 64);
  const uint128 p2 = static_cast<uint128>(mantissa) * kInverse2Pi[0] + static_cast<uint64_t>(p1 >> 64);
  // p2 and the low word of p1 hold the product in units of 2^-128 of (1 / (2 pi)); what remains is the power of two.
  const int shift = 53 - exponent;
  const uint64_t below = static_cast<uint64_t>(p1);
  const uint128 fraction = shift < 64 ? (p2 << (64 - shift)) | (below >> shift) : p2 >> (shift - 64);
  return {static_cast<uint64_t>(fraction >> 64), static_cast<uint64_t>(fraction)};
}

// Turns of a position modulo 1, in units of 2^-64; off by at most two units.
inline uint64_t turns_at(const Turns& step, uint64_t position) {
  return position * step.high + static_cast<uint64_t>(static_cast<uint128>(position) * step.low >> 64);
}

}  // namespace rotary_impl
}  // namespace seqboat::kernels
#endif  // SEQBOAT_KERNELS_CPU_ROTARY_ONCE_

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using namespace ::seqboat::kernels::rotary_impl;  // NOLINT: what all targets share

// sin and cos of r, |r| <= pi/4, within 1 ULP of 1: polynomials that interpolate (sin(r)/r - 1)/r^2 and (cos(r) - 1 + r^2/2)/r^4 in r^2 at
// Chebyshev nodes (errors 1e-17 and 5e-19).
constexpr double kSin[] = {-0.16666666666666664624,  0.0083333333333309484855,  -0.00019841269836758574323,
                           2.7557316102552440119e-6, -2.5051131845003624417e-8, 1.5918129294866608667e-10};
constexpr double kCos[] = {0.041666666666666665389,   -0.0013888888888887397237, 0.000024801587298765687927,
                           -2.7557317271729792882e-7, 2.0876146268403197893e-9,  -1.1382632425521718005e-11};

template <class T>
void rotate(int64_t rows, int64_t d_attn, int64_t x_stride, int64_t y_stride, const int64_t* positions, bool inverse, const T* x, T* y) {
  const hn::CappedTag<double, 8> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  Turns steps[kPairs] = {};
  HWY_ALIGN double sines[kPairs] = {};
  HWY_ALIGN double cosines[kPairs] = {};
  uint8_t quadrants[kPairs] = {};
  for (int64_t first = 0; first < d_attn / 2; first += kPairs) {
    const int64_t pairs = std::min(kPairs, d_attn / 2 - first);
    for (int64_t i = 0; i < pairs; ++i) {
      steps[i] = turns_per_step(std::pow(10000.0, -2.0 * static_cast<double>(first + i) / static_cast<double>(d_attn)));
    }
    for (int64_t row = 0; row < rows; ++row) {
      const uint64_t position = static_cast<uint64_t>(positions[row]);
      for (int64_t i = 0; i < pairs; ++i) {
        const uint64_t turns = turns_at(steps[i], position);
        const uint64_t quadrant = (turns + (uint64_t{1} << 61)) >> 62;
        quadrants[i] = static_cast<uint8_t>(quadrant);
        constexpr double kUnit = 6.283185307179586477 / 18446744073709551616.0;  // 2 pi / 2^64
        sines[i] = static_cast<double>(static_cast<int64_t>(turns - (quadrant << 62))) * kUnit;
      }
      for (int64_t i = 0; i < pairs; i += lanes) {
        const auto r = hn::Load(d, sines + i);
        const auto r2 = hn::Mul(r, r);
        const auto sine = hn::MulAdd(hn::Mul(r, r2), math_impl::horner(d, r2, kSin), r);
        const auto cosine = hn::MulAdd(hn::Mul(r2, r2), math_impl::horner(d, r2, kCos), hn::NegMulAdd(r2, hn::Set(d, 0.5), hn::Set(d, 1.0)));
        hn::Store(sine, d, sines + i);
        hn::Store(cosine, d, cosines + i);
      }
      const T* from = x + row * x_stride + 2 * first;
      T* to = y + row * y_stride + 2 * first;
      for (int64_t i = 0; i < pairs; ++i) {
        const double s = quadrants[i] & 1 ? cosines[i] : sines[i];
        const double c = quadrants[i] & 1 ? sines[i] : cosines[i];
        const T sine = static_cast<T>(((quadrants[i] & 2) != 0) != inverse ? -s : s);
        const T cosine = static_cast<T>(quadrants[i] == 1 || quadrants[i] == 2 ? -c : c);
        const T x0 = from[2 * i];
        const T x1 = from[2 * i + 1];
        to[2 * i] = x0 * cosine - x1 * sine;
        to[2 * i + 1] = x0 * sine + x1 * cosine;
      }
    }
  }
}

void rotate_f32(int64_t rows, int64_t d_attn, int64_t x_stride, int64_t y_stride, const int64_t* positions, bool inverse, const float* x, float* y) {
  rotate(rows, d_attn, x_stride, y_stride, positions, inverse, x, y);
}
void rotate_f64(int64_t rows, int64_t d_attn, int64_t x_stride, int64_t y_stride, const int64_t* positions, bool inverse, const double* x,
                double* y) {
  rotate(rows, d_attn, x_stride, y_stride, positions, inverse, x, y);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqboat::kernels {
namespace {
HWY_EXPORT(rotate_f32);
HWY_EXPORT(rotate_f64);
}  // namespace

template <class T>
void rotary(int64_t rows, int64_t d_attn, int64_t x_stride, int64_t y_stride, const int64_t* positions, bool inverse, const T* x, T* y) noexcept {
  if constexpr (sizeof(T) == 4) {
    HWY_DYNAMIC_DISPATCH(rotate_f32)(rows, d_attn, x_stride, y_stride, positions, inverse, x, y);
  } else {
    HWY_DYNAMIC_DISPATCH(rotate_f64)(rows, d_attn, x_stride, y_stride, positions, inverse, x, y);
  }
}

template void rotary<float>(int64_t, int64_t, int64_t, int64_t, const int64_t*, bool, const float*, float*) noexcept;
template void rotary<double>(int64_t, int64_t, int64_t, int64_t, const int64_t*, bool, const double*, double*) noexcept;

}  // namespace seqboat::kernels
#endif  // HWY_ONCE
