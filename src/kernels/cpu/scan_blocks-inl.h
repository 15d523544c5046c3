// What the scans over packed sequences share: blocks of time steps, columns staged on the stack, parameters transposed into the lanes. Included once
// per SIMD target.

#if defined(SEQBOAT_KERNELS_CPU_SCAN_BLOCKS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SEQBOAT_KERNELS_CPU_SCAN_BLOCKS_INL_H_
#undef SEQBOAT_KERNELS_CPU_SCAN_BLOCKS_INL_H_
#else
#define SEQBOAT_KERNELS_CPU_SCAN_BLOCKS_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu/scan_lag.h"
#include "kernels/cpu/simd_partial-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

/// Time steps that are walked at once: x and y of a block stay in the first-level cache.
constexpr int64_t kBlockSteps = 128;

/// Into the second-level cache: rows that lie a power of two apart would push each other out of the first.
template <class T>
HWY_INLINE void prefetch_next(const T* row) {
#if defined(__GNUC__)
  __builtin_prefetch(row, 0, 2);
#else
  static_cast<void>(row);
#endif
}

/// Rows of one vector each; row t at data + t * stride.
template <class T>
struct Rows {
  T* data = nullptr;
  ptrdiff_t stride = 0;
};

/// Copies `count` channels of each row to full rows on the stack, zero behind them.
template <class D, class T>
void stage_in(D d, int64_t steps, Rows<const T> from, size_t count, T* HWY_RESTRICT to) {
  for (int64_t t = 0; t < steps; ++t) hn::Store(load_partial(d, from.data + t * from.stride, count), d, to + t * hn::Lanes(d));
}

template <class D, class T>
void stage_out(D d, int64_t steps, const T* HWY_RESTRICT from, size_t count, Rows<T> to) {
  for (int64_t t = 0; t < steps; ++t) store_partial(hn::Load(d, from + t * hn::Lanes(d)), d, to.data + t * to.stride, count);
}

/// to[v][n][lane] = from[channel of (v, lane)][n_begin + n], zero in lanes without a channel and where from == nullptr. Each vector has room for
/// kRows n.
template <int64_t kRows, class D, class T>
void transpose_in(D d, const T* from, int64_t n_state, int64_t channels, int64_t n_begin, int64_t n_count, T* to) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t begin = 0; begin < channels; begin += lanes, to += kRows * lanes) {
    const int64_t count = std::min(lanes, channels - begin);
    for (int64_t n = 0; n < n_count; ++n) {
      T* row = to + n * lanes;
      int64_t lane = 0;
      if (from != nullptr) {
        const T* column = from + begin * n_state + n_begin + n;
        for (; lane < count; ++lane) row[lane] = column[lane * n_state];
      }
      for (; lane < lanes; ++lane) row[lane] = T{0};
    }
  }
}

template <int64_t kRows, class D, class T>
void transpose_out(D d, const T* from, int64_t n_state, int64_t channels, int64_t n_begin, int64_t n_count, T* to) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t begin = 0; begin < channels; begin += lanes, from += kRows * lanes) {
    const int64_t count = std::min(lanes, channels - begin);
    for (int64_t n = 0; n < n_count; ++n) {
      for (int64_t lane = 0; lane < count; ++lane) to[(begin + lane) * n_state + n_begin + n] = from[n * lanes + lane];
    }
  }
}

/// sum += sum over the block of dy x, in four interleaved chains.
template <class D, class T>
void add_dot(D d, int64_t steps, Rows<const T> x, Rows<const T> dy, T* HWY_RESTRICT sum) {
  using V = hn::Vec<D>;
  V acc[4] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
  int64_t t = 0;
  for (; t + 4 <= steps; t += 4) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) acc[i] = hn::MulAdd(hn::LoadU(d, dy.data + (t + i) * dy.stride), hn::LoadU(d, x.data + (t + i) * x.stride), acc[i]);
  }
  for (; t < steps; ++t) acc[0] = hn::MulAdd(hn::LoadU(d, dy.data + t * dy.stride), hn::LoadU(d, x.data + t * x.stride), acc[0]);
  hn::Store(hn::Add(hn::Load(d, sum), hn::Add(hn::Add(acc[0], acc[1]), hn::Add(acc[2], acc[3]))), d, sum);
}

/// Whether a call meets inputs that have left the window at all: some sequence is longer than L, or there are inputs from before.
template <class Shape, class Range>
bool any_lagged(const Shape& shape, const Range& range, bool has_history) {
  if (shape.truncation <= 0) return false;
  if (has_history) return true;
  for (int64_t b = range.seq_begin; b < range.seq_end; ++b) {
    if (shape.cu_seqlens[b + 1] - shape.cu_seqlens[b] > shape.truncation) return true;
  }
  return false;
}

/// Whether any of `count` numbers is not zero.
template <class T>
bool any_nonzero(const T* numbers, int64_t count) {
  return std::any_of(numbers, numbers + count, [](T number) { return number != T{0}; });
}

/// Steps of the block that begins at t: up to kBlockSteps, and never across t = border, where the lagged rows change their place.
inline int64_t block_steps(int64_t t, int64_t seq_len, int64_t border) {
  const int64_t steps = std::min(kBlockSteps, seq_len - t);
  return t < border ? std::min(steps, border - t) : steps;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard
