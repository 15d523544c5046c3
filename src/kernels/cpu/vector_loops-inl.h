// Loops over elements and down the rows of a matrix that treat body and tail alike. Included once per SIMD target.

#if defined(SEQBOAT_KERNELS_CPU_VECTOR_LOOPS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SEQBOAT_KERNELS_CPU_VECTOR_LOOPS_INL_H_
#undef SEQBOAT_KERNELS_CPU_VECTOR_LOOPS_INL_H_
#else
#define SEQBOAT_KERNELS_CPU_VECTOR_LOOPS_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu/simd_partial-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

/// How for_each_vector's body reads and writes: a whole vector, or the elements that are left.
struct WholeVector {
  template <class D>
  HWY_INLINE hn::Vec<D> load(D d, const hn::TFromD<D>* p) const {
    return hn::LoadU(d, p);
  }
  template <class D>
  HWY_INLINE void store(D d, hn::Vec<D> v, hn::TFromD<D>* p) const {
    hn::StoreU(v, d, p);
  }
  /// Zero in the lanes that hold no element, so that they add nothing to a sum.
  template <class D>
  HWY_INLINE hn::Vec<D> keep(D, hn::Vec<D> v) const {
    return v;
  }
};

struct PartialVector {
  size_t count;
  template <class D>
  HWY_INLINE hn::Vec<D> load(D d, const hn::TFromD<D>* p) const {
    return load_partial(d, p, count);
  }
  template <class D>
  HWY_INLINE void store(D d, hn::Vec<D> v, hn::TFromD<D>* p) const {
    store_partial(v, d, p, count);
  }
  template <class D>
  HWY_INLINE hn::Vec<D> keep(D d, hn::Vec<D> v) const {
    return hn::IfThenElseZero(hn::FirstN(d, count), v);
  }
};

/// body(i, io) for i = 0, N, 2N, ... below count.
template <class D, class Body>
HWY_INLINE void for_each_vector(D d, int64_t count, const Body& body) {
  const int64_t width = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + width <= count; i += width) body(i, WholeVector());
  if (i < count) body(i, PartialVector{static_cast<size_t>(count - i)});
}

/// Neighbouring vectors in an array, for arithmetic that works on several side by side.
template <int kVectors>
struct WholeVectors {
  static constexpr int kCount = kVectors;
  template <class D>
  HWY_INLINE void load(D d, const hn::TFromD<D>* p, hn::Vec<D> (&out)[kVectors]) const {
    for (int n = 0; n < kVectors; ++n) out[n] = hn::LoadU(d, p + n * static_cast<int>(hn::Lanes(d)));
  }
  template <class D>
  HWY_INLINE void store(D d, const hn::Vec<D> (&v)[kVectors], hn::TFromD<D>* p) const {
    for (int n = 0; n < kVectors; ++n) hn::StoreU(v[n], d, p + n * static_cast<int>(hn::Lanes(d)));
  }
};

/// An array of one, of which only the first elements exist.
struct OnePartialVector {
  static constexpr int kCount = 1;
  size_t count;
  template <class D>
  HWY_INLINE void load(D d, const hn::TFromD<D>* p, hn::Vec<D> (&out)[1]) const {
    out[0] = load_partial(d, p, count);
  }
  template <class D>
  HWY_INLINE void store(D d, const hn::Vec<D> (&v)[1], hn::TFromD<D>* p) const {
    store_partial(v[0], d, p, count);
  }
};

/// body(i, io) for arrays of vectors: as many at a time as the registers hold beside the constants of an exponential function, then what is left.
/// Give it an object whose operator() is HWY_INLINE: a large lambda may stay a function, and load its constants at every call.
template <class D, class Body>
HWY_INLINE void for_each_vector_array(D d, int64_t count, const Body& body) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
  constexpr int kMost = 4;
#else
  constexpr int kMost = 2;
#endif
  const int64_t width = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + kMost * width <= count; i += kMost * width) body(i, WholeVectors<kMost>());
  if constexpr (kMost > 2) {
    if (i + 2 * width <= count) body(i, WholeVectors<2>()), i += 2 * width;
  }
  if (i + width <= count) body(i, WholeVectors<1>()), i += width;
  if (i < count) body(i, OnePartialVector{static_cast<size_t>(count - i)});
}

/// Four neighbouring vectors, of which the last ones may be partial or empty.
struct FourWhole {
  template <int kIndex, class D>
  HWY_INLINE hn::Vec<D> load(D d, const hn::TFromD<D>* p) const {
    return hn::LoadU(d, p);
  }
  template <int kIndex, class D>
  HWY_INLINE void store(D d, hn::Vec<D> v, hn::TFromD<D>* p) const {
    hn::StoreU(v, d, p);
  }
};

struct FourPartial {
  int64_t left;
  template <int kIndex, class D>
  HWY_INLINE size_t count(D d) const {
    const int64_t width = static_cast<int64_t>(hn::Lanes(d));
    return static_cast<size_t>(std::clamp<int64_t>(left - kIndex * width, 0, width));
  }
  template <int kIndex, class D>
  HWY_INLINE hn::Vec<D> load(D d, const hn::TFromD<D>* p) const {
    return load_partial(d, p, count<kIndex>(d));
  }
  template <int kIndex, class D>
  HWY_INLINE void store(D d, hn::Vec<D> v, hn::TFromD<D>* p) const {
    store_partial(v, d, p, count<kIndex>(d));
  }
};

/// body(j, io) for j = begin, begin + 4N, ... below end: several cache lines of a row at once on the way down the rows.
template <class D, class Body>
HWY_INLINE void for_each_four_vectors(D d, int64_t begin, int64_t end, const Body& body) {
  const int64_t width = 4 * static_cast<int64_t>(hn::Lanes(d));
  int64_t j = begin;
  for (; j + width <= end; j += width) body(j, FourWhole());
  if (j < end) body(j, FourPartial{end - j});
}

/// The same in steps of two vectors; the body uses the first two of the four.
template <class D, class Body>
HWY_INLINE void for_each_two_vectors(D d, int64_t begin, int64_t end, const Body& body) {
  const int64_t width = 2 * static_cast<int64_t>(hn::Lanes(d));
  int64_t j = begin;
  for (; j + width <= end; j += width) body(j, FourWhole());
  if (j < end) body(j, FourPartial{end - j});
}

/// Rows summed one after the other before their sum joins the total.
constexpr int64_t kRowBlock = 256;

/// total + carry += term, where carry holds what rounding took from total (Knuth's two-sum).
template <class V>
HWY_INLINE void add_compensated(V term, V& total, V& carry) {
  const V sum = hn::Add(total, term);
  const V term_part = hn::Sub(sum, total);
  const V total_part = hn::Sub(sum, term_part);
  carry = hn::Add(carry, hn::Add(hn::Sub(total, total_part), hn::Sub(term, term_part)));
  total = sum;
}

/// Four vectors of sums over rows: add(row, a0, a1, a2, a3) adds a row's terms, finish(s0, s1, s2, s3) takes the sums. Lanes stay apart and the
/// order depends on the number of rows alone, so a column's sum does not know which columns were asked for with it. The error is that of one
/// block of rows, however many there are.
template <class D, class AddRow, class Finish>
HWY_INLINE void sum_rows(D d, int64_t rows, const AddRow& add, const Finish& finish) {
  const auto zero = hn::Zero(d);
  auto total0 = zero, total1 = zero, total2 = zero, total3 = zero;
  auto carry0 = zero, carry1 = zero, carry2 = zero, carry3 = zero;
  for (int64_t begin = 0; begin < rows; begin += kRowBlock) {
    const int64_t end = std::min(rows, begin + kRowBlock);
    auto a0 = zero, a1 = zero, a2 = zero, a3 = zero;
    for (int64_t row = begin; row < end; ++row) add(row, a0, a1, a2, a3);
    add_compensated(a0, total0, carry0);
    add_compensated(a1, total1, carry1);
    add_compensated(a2, total2, carry2);
    add_compensated(a3, total3, carry3);
  }
  finish(hn::Add(total0, carry0), hn::Add(total1, carry1), hn::Add(total2, carry2), hn::Add(total3, carry3));
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard
