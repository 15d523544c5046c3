// Partial vectors: the lanes of a tail, loaded and stored without touching what lies behind them. Included once per SIMD target.

#if defined(SEQBOAT_KERNELS_CPU_SIMD_PARTIAL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SEQBOAT_KERNELS_CPU_SIMD_PARTIAL_INL_H_
#undef SEQBOAT_KERNELS_CPU_SIMD_PARTIAL_INL_H_
#else
#define SEQBOAT_KERNELS_CPU_SIMD_PARTIAL_INL_H_
#endif

#include <cstddef>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace {

// Highway 1.0 promises no access behind the mask only where the machine has masked loads; elsewhere the lanes are copied.
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
inline constexpr bool kMaskedAccess = true;
#else
inline constexpr bool kMaskedAccess = false;
#endif

/// The first `count` lanes from memory, zero in the others; 0 <= count <= Lanes(d).
template <class D, class T>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> load_partial(D d, const T* HWY_RESTRICT from, size_t count) {
  namespace hn = hwy::HWY_NAMESPACE;
  if constexpr (kMaskedAccess) {
    return hn::MaskedLoad(hn::FirstN(d, count), d, from);
  } else {
    HWY_ALIGN T lanes[hn::MaxLanes(D())] = {};
    for (size_t i = 0; i < count; ++i) lanes[i] = from[i];
    return hn::Load(d, lanes);
  }
}

/// Stores the first `count` lanes and leaves the memory behind them alone.
template <class D, class T>
HWY_INLINE void store_partial(hwy::HWY_NAMESPACE::Vec<D> v, D d, T* HWY_RESTRICT to, size_t count) {
  namespace hn = hwy::HWY_NAMESPACE;
  if constexpr (kMaskedAccess) {
    hn::BlendedStore(v, hn::FirstN(d, count), d, to);
  } else {
    HWY_ALIGN T lanes[hn::MaxLanes(D())];
    hn::Store(v, d, lanes);
    for (size_t i = 0; i < count; ++i) to[i] = lanes[i];
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard
