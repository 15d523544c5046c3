#pragma once

#include <cstdint>

namespace seqboat::kernels {

/// What one step of an Adam-like optimiser multiplies with.
template <class T>
struct AdamFactors {
  T b1, one_minus_b1;
  T b2, one_minus_b2;
  T eps;
  T decay;        ///< of the parameter itself: learning rate times weight decay
  T rate;         ///< learning rate with the corrections of the bias
  bool adaptive;  ///< divide by the root of v
  T gradient{1};  ///< of the gradient, before all else: clipping
};

/// One step in one pass over contiguous memory of count elements, with g' = gradient g:
///
///   m <- b1 m + one_minus_b1 g'                   m <- b1 m where g is nullptr
///   v <- b2 v + one_minus_b2 (g' g')              v <- b2 v where g is nullptr
///   p <- (p - decay p) - rate (m / (sqrt(v) + eps))      adaptive
///   p <- (p - decay p) - rate m                          else
///
/// Every operation is rounded by itself, in this order: an element's bits depend neither on its place nor on the SIMD target. p, m, v do not overlap
/// with each other or g. Calling thread only; allocates nothing.
template <class T>
void adam_step(const AdamFactors<T>& factors, int64_t count, const T* g, T* m, T* v, T* p) noexcept;

}  // namespace seqboat::kernels
