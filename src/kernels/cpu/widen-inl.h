// Elements of weights and rings as float32, exactly. Included once per SIMD target.

#if defined(SEQBOAT_KERNELS_CPU_WIDEN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SEQBOAT_KERNELS_CPU_WIDEN_INL_H_
#undef SEQBOAT_KERNELS_CPU_WIDEN_INL_H_
#else
#define SEQBOAT_KERNELS_CPU_WIDEN_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace {

/// A vector of float32 from memory, any alignment; uint16_t is bf16.
template <class D>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> widened(D d, const float* HWY_RESTRICT from) {
  return hwy::HWY_NAMESPACE::LoadU(d, from);
}
template <class D>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> widened(D d, const uint16_t* HWY_RESTRICT from) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::Rebind<uint32_t, D> du;
  const hn::Rebind<uint16_t, D> dh;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(dh, from))));
}
template <class D>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> widened(D d, const int8_t* HWY_RESTRICT from) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::Rebind<int32_t, D> di;
  const hn::Rebind<int8_t, D> db;
  return hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(db, from)));
}

/// `count` elements, a multiple of the vector's lanes; `to` is 64-byte aligned.
template <class D, class W>
void widen(D d, const W* HWY_RESTRICT from, int64_t count, float* HWY_RESTRICT to) {
  namespace hn = hwy::HWY_NAMESPACE;
  for (int64_t i = 0; i < count; i += static_cast<int64_t>(hn::Lanes(d))) hn::Store(widened(d, from + i), d, to + i);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard
