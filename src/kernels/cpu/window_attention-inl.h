// Block products of window attention, for every SIMD target (included per target, hence the toggling guard).
//
// One side of the score block is "own" (queries in the forward, keys in the backward), the other side is streamed.
// The own side lies transposed in the workspace, so that vector lanes run over own rows; the other side is read in place, an element at a
// time as a broadcast. Scores then need neither a transposition of the streamed side nor sums across lanes:
//
//                    own rows (64, lanes ->)
//   other rows   o   S[o][r] = other[o] . own[r]          dots(): chain of fused multiply-adds over the depth, in increasing order
//        |       o
//        v       o   C[r][:] += S[o][r] X[o][:]           accumulate<false>(): chain over o in increasing order, only o that row r sees
//                    C[o][:] += S[o][r] X[r][:]           accumulate<true>(): chain over r in increasing order, only r that row o sees
//
// The chains are the same whatever tile, vector width or block shape computes them: results have the same bits everywhere.

#if defined(SEQBOAT_KERNELS_CPU_WINDOW_ATTENTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SEQBOAT_KERNELS_CPU_WINDOW_ATTENTION_INL_H_
#undef SEQBOAT_KERNELS_CPU_WINDOW_ATTENTION_INL_H_
#else
#define SEQBOAT_KERNELS_CPU_WINDOW_ATTENTION_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/simd_partial-inl.h"
#include "kernels/cpu/window_attention-blocks.h"

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace window_attention_impl {

namespace hn = hwy::HWY_NAMESPACE;

// Register tile: kTileRows broadcasts times up to kTileVectors vectors of accumulators. 24 accumulators where there are 32 registers, 12 of 16.
constexpr int64_t kTileRows = 6;
#if HWY_TARGET <= HWY_AVX3 || HWY_TARGET == HWY_NEON
constexpr int kTileVectors = 4;
#else
constexpr int kTileVectors = 2;
#endif
// Depth of a product that is worked through at once: a chunk of the transposed own side (32 KiB in float32) stays in the first-level cache.
constexpr int64_t kDepthChunk = 128;

// At most 16 (8) lanes, so that a block is a whole number of vectors on every target.
template <class T>
using Tag = hn::CappedTag<T, 64 / sizeof(T)>;

// packed[z][r] = rows[r][z], r < kBlock. Lanes beyond the last row repeat it: their results are never used.
// Squares of 16 bytes a side are transposed in registers; wider ones would only save shuffles, while the stores are the limit.
template <class D, class T = hn::TFromD<D>>
void pack_transposed(D d, int64_t row_count, int64_t depth, const T* HWY_RESTRICT rows, int64_t stride, T* HWY_RESTRICT packed) {
  [[maybe_unused]] const hn::CappedTag<T, 16 / sizeof(T)> d_square;
  [[maybe_unused]] constexpr int64_t kSide = 16 / static_cast<int64_t>(sizeof(T));
  constexpr int64_t kGroup = 16;  // rows that stay in the first-level cache even where their addresses collide
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t padded = (row_count + lanes - 1) / lanes * lanes;
  for (int64_t group = 0; group < padded; group += kGroup) {
    const int64_t group_rows = std::min(padded - group, kGroup);
    const T* HWY_RESTRICT row[kGroup];
    for (int64_t r = 0; r < kGroup; ++r) row[r] = rows + std::min(group + r, row_count - 1) * stride;
    T* HWY_RESTRICT to_group = packed + group;
    int64_t z = 0;
#if HWY_TARGET != HWY_SCALAR
    if (lanes >= kSide) {
      for (; z + kSide <= depth; z += kSide) {
        for (int64_t r = 0; r < group_rows; r += kSide) {
          T* HWY_RESTRICT to = to_group + z * kBlock + r;
          if constexpr (kSide == 4) {
            const auto r0 = hn::LoadU(d_square, row[r] + z), r1 = hn::LoadU(d_square, row[r + 1] + z);
            const auto r2 = hn::LoadU(d_square, row[r + 2] + z), r3 = hn::LoadU(d_square, row[r + 3] + z);
            const auto even_low = hn::InterleaveLower(d_square, r0, r2), even_high = hn::InterleaveUpper(d_square, r0, r2);
            const auto odd_low = hn::InterleaveLower(d_square, r1, r3), odd_high = hn::InterleaveUpper(d_square, r1, r3);
            hn::Store(hn::InterleaveLower(d_square, even_low, odd_low), d_square, to);
            hn::Store(hn::InterleaveUpper(d_square, even_low, odd_low), d_square, to + kBlock);
            hn::Store(hn::InterleaveLower(d_square, even_high, odd_high), d_square, to + 2 * kBlock);
            hn::Store(hn::InterleaveUpper(d_square, even_high, odd_high), d_square, to + 3 * kBlock);
          } else {
            const auto r0 = hn::LoadU(d_square, row[r] + z), r1 = hn::LoadU(d_square, row[r + 1] + z);
            hn::Store(hn::InterleaveLower(d_square, r0, r1), d_square, to);
            hn::Store(hn::InterleaveUpper(d_square, r0, r1), d_square, to + kBlock);
          }
        }
      }
    }
#endif
    for (; z < depth; ++z) {
      for (int64_t r = 0; r < group_rows; ++r) to_group[z * kBlock + r] = row[r][z];
    }
  }
}

// dst[o][v] (+)= sum_z other[o][z] packed[z][v] for kTileRows rows o and kVectors vectors v. Rows past the last one repeat it and are not stored.
template <int kVectors, class D, class T = hn::TFromD<D>>
HWY_INLINE void dots_tile(D d, int64_t rows, int64_t depth, bool add, const T* HWY_RESTRICT other, int64_t stride, const T* HWY_RESTRICT packed,
                          T* HWY_RESTRICT dst) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const T* HWY_RESTRICT row[kTileRows];
  for (int64_t r = 0; r < kTileRows; ++r) row[r] = other + std::min(r, rows - 1) * stride;
  hn::Vec<D> sum[kTileRows][kVectors];
  for (int64_t r = 0; r < kTileRows; ++r) {
    for (int v = 0; v < kVectors; ++v) sum[r][v] = add ? hn::Load(d, dst + std::min(r, rows - 1) * kBlock + v * lanes) : hn::Zero(d);
  }
  for (int64_t z = 0; z < depth; ++z) {
    hn::Vec<D> own[kVectors];
    for (int v = 0; v < kVectors; ++v) own[v] = hn::Load(d, packed + z * kBlock + v * lanes);
    for (int64_t r = 0; r < kTileRows; ++r) {
      const auto x = hn::Set(d, row[r][z]);
      for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::MulAdd(x, own[v], sum[r][v]);
    }
  }
  for (int64_t r = 0; r < kTileRows; ++r) {
    if (r >= rows) break;
    for (int v = 0; v < kVectors; ++v) hn::Store(sum[r][v], d, dst + r * kBlock + v * lanes);
  }
}

// dst[o][r] = other[o] . own[r] for o in [other_begin, other_end) of the block; own rows that none of a tile's rows sees are left out.
// by_other: of the pair.
template <class D, class T = hn::TFromD<D>>
void dots(D d, const BlockPair& pair, const Ranges& by_other, int64_t depth, const T* HWY_RESTRICT other, int64_t stride,
          const T* HWY_RESTRICT packed, T* HWY_RESTRICT dst, Prefetcher& prefetcher) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t chunks = (depth + kDepthChunk - 1) / kDepthChunk;
  const int64_t chunk_size = (depth + chunks - 1) / chunks;
  for (int64_t z = 0; z < depth; z += chunk_size) {
    const int64_t chunk = std::min(chunk_size, depth - z);
    for (int64_t o = pair.other_begin; o < pair.other_end; o += kTileRows) {
      const int64_t rows = std::min(kTileRows, pair.other_end - o);
      const int64_t vector_end = (by_other.end[o + rows - 1] + lanes - 1) / lanes;
      for (int64_t v = by_other.begin[o] / lanes; v < vector_end; v += kTileVectors) {
        prefetcher.step();
        // Tiles are inlined one by one: as functions of their own, or behind a lambda, they lost up to a tenth.
        const T* HWY_RESTRICT from = other + o * stride + z;
        const T* HWY_RESTRICT own = packed + z * kBlock + v * lanes;
        T* HWY_RESTRICT to = dst + o * kBlock + v * lanes;
        const int64_t left = vector_end - v;
        if (left == 1) {
          dots_tile<1>(d, rows, chunk, z > 0, from, stride, own, to);
        } else if (kTileVectors == 2 || left == 2) {
          dots_tile<2>(d, rows, chunk, z > 0, from, stride, own, to);
        } else if (left == 3) {
          dots_tile<3>(d, rows, chunk, z > 0, from, stride, own, to);
        } else {
          dots_tile<kTileVectors>(d, rows, chunk, z > 0, from, stride, own, to);
        }
      }
    }
  }
}

// Where the weight of a tile's row lies in the score block: its rows are own rows, or (kAcross) other rows.
template <bool kAcross>
HWY_INLINE constexpr int64_t weight_at(int64_t row, int64_t summed) {
  return kAcross ? row * kBlock + summed : summed * kBlock + row;
}

// c[r][v] = (first ? 0 : c[r][v] * rescale[r]) + sum_o weight(r, o) x[o][v] for kTileRows rows; row r sums o in [begin[r], end[r]) alone.
// The last vector has last_count valid lanes in c; x is readable in full vectors.
template <int kVectors, bool kAcross, class D, class T = hn::TFromD<D>>
HWY_INLINE void accumulate_tile(D d, int64_t rows, const int64_t* HWY_RESTRICT begin, const int64_t* HWY_RESTRICT end, const T* HWY_RESTRICT weights,
                                const T* HWY_RESTRICT x, int64_t x_stride, bool first, const T* HWY_RESTRICT rescale, int64_t last_count,
                                T* HWY_RESTRICT c, int64_t c_stride) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  hn::Vec<D> sum[kTileRows][kVectors];
  for (int64_t r = 0; r < kTileRows; ++r) {
    for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::Zero(d);
    if (first || r >= rows) continue;
    const T* HWY_RESTRICT from = c + r * c_stride;
    for (int v = 0; v < kVectors - 1; ++v) sum[r][v] = hn::LoadU(d, from + v * lanes);
    sum[r][kVectors - 1] = last_count == lanes ? hn::LoadU(d, from + (kVectors - 1) * lanes)
                                               : load_partial(d, from + (kVectors - 1) * lanes, static_cast<size_t>(last_count));
    if (rescale != nullptr) {
      const auto factor = hn::Set(d, rescale[r]);
      for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::Mul(sum[r][v], factor);
    }
  }
  // begin and end do not decrease with r: all rows share [begin of the last, end of the first), at most a few o on either side are partial.
  const int64_t all_begin = begin[kTileRows - 1];
  const int64_t all_end = std::max(end[0], all_begin);
  const int64_t o_end = end[kTileRows - 1];
  int64_t o = begin[0];
  while (o < o_end) {
    if (o == all_begin) {
      for (; o < all_end; ++o) {
        hn::Vec<D> xv[kVectors];
        for (int v = 0; v < kVectors; ++v) xv[v] = hn::LoadU(d, x + o * x_stride + v * lanes);
        for (int64_t r = 0; r < kTileRows; ++r) {
          const auto w = hn::Set(d, weights[weight_at<kAcross>(r, o)]);
          for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::MulAdd(w, xv[v], sum[r][v]);
        }
      }
      if (o >= o_end) break;
    }
    hn::Vec<D> xv[kVectors];
    for (int v = 0; v < kVectors; ++v) xv[v] = hn::LoadU(d, x + o * x_stride + v * lanes);
    for (int64_t r = 0; r < kTileRows; ++r) {
      if (o < begin[r] || o >= end[r]) continue;  // not a product with zero: what lies outside the window may be infinite
      const auto w = hn::Set(d, weights[weight_at<kAcross>(r, o)]);
      for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::MulAdd(w, xv[v], sum[r][v]);
    }
    ++o;
  }
  for (int64_t r = 0; r < kTileRows; ++r) {
    if (r >= rows) break;
    T* HWY_RESTRICT to = c + r * c_stride;
    for (int v = 0; v < kVectors - 1; ++v) hn::StoreU(sum[r][v], d, to + v * lanes);
    if (last_count == lanes) {
      hn::StoreU(sum[r][kVectors - 1], d, to + (kVectors - 1) * lanes);
    } else {
      store_partial(sum[r][kVectors - 1], d, to + (kVectors - 1) * lanes, static_cast<size_t>(last_count));
    }
  }
}

// c[r][:] = (first ? 0 : c[r][:] * rescale[r]) + sum_o weight(r, o) x[o][:] over the rows o that row r sees, all of which are in
// [x_begin, x_end). panel: kPanelSize elements.
template <bool kAcross, class D, class T = hn::TFromD<D>>
void accumulate(D d, const Ranges& ranges, int64_t x_begin, int64_t x_end, const T* HWY_RESTRICT weights, int64_t columns, const T* HWY_RESTRICT x,
                int64_t x_stride, bool first, const T* HWY_RESTRICT rescale, T* HWY_RESTRICT c, int64_t c_stride, T* HWY_RESTRICT panel,
                Prefetcher& prefetcher) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t column = 0; column < columns; column += kTileVectors * lanes) {
    const int64_t width = std::min(kTileVectors * lanes, columns - column);
    const int64_t vectors = (width + lanes - 1) / lanes;
    const int64_t last_count = width - (vectors - 1) * lanes;
    const T* HWY_RESTRICT from = x + column;
    int64_t from_stride = x_stride;
    // Copied into full vectors once. Rows that collide in the cache are copied too where a tile is one line wide; four lines are faster read in
    // place.
    const bool collides = kTileVectors == 2 && x_stride * static_cast<int64_t>(sizeof(T)) % 2048 == 0;
    if (last_count != lanes || collides) {
      for (int64_t o = x_begin; o < x_end; ++o) {
        T* HWY_RESTRICT to = panel + o * kTileVectors * lanes;
        for (int64_t v = 0; v < vectors - 1; ++v) hn::Store(hn::LoadU(d, from + o * x_stride + v * lanes), d, to + v * lanes);
        const T* HWY_RESTRICT last = from + o * x_stride + (vectors - 1) * lanes;
        hn::Store(last_count == lanes ? hn::LoadU(d, last) : load_partial(d, last, static_cast<size_t>(last_count)), d, to + (vectors - 1) * lanes);
      }
      from = panel;
      from_stride = kTileVectors * lanes;
    }
    for (int64_t r = 0; r < ranges.count; r += kTileRows) {
      const int64_t rows = std::min(kTileRows, ranges.count - r);
      if (!first && ranges.begin[r] >= ranges.end[r + rows - 1]) continue;
      prefetcher.step();
      const T* HWY_RESTRICT factor = rescale != nullptr ? rescale + r : nullptr;
      const T* HWY_RESTRICT weight = weights + weight_at<kAcross>(r, 0);
      const int64_t* begin = ranges.begin + r;
      const int64_t* end = ranges.end + r;
      T* HWY_RESTRICT to = c + r * c_stride + column;
      if (vectors == 1) {
        accumulate_tile<1, kAcross>(d, rows, begin, end, weight, from, from_stride, first, factor, last_count, to, c_stride);
      } else if (kTileVectors == 2 || vectors == 2) {
        accumulate_tile<2, kAcross>(d, rows, begin, end, weight, from, from_stride, first, factor, last_count, to, c_stride);
      } else if (vectors == 3) {
        accumulate_tile<3, kAcross>(d, rows, begin, end, weight, from, from_stride, first, factor, last_count, to, c_stride);
      } else {
        accumulate_tile<kTileVectors, kAcross>(d, rows, begin, end, weight, from, from_stride, first, factor, last_count, to, c_stride);
      }
    }
  }
}

// row[:] *= factor
template <class D, class T = hn::TFromD<D>>
void scale_row(D d, int64_t count, T factor, T* HWY_RESTRICT row) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto f = hn::Set(d, factor);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(hn::Mul(hn::LoadU(d, row + i), f), d, row + i);
  if (i < count) store_partial(hn::Mul(load_partial(d, row + i, static_cast<size_t>(count - i)), f), d, row + i, static_cast<size_t>(count - i));
}

// sum_i a[i] b[i]: one chain a lane, lanes summed at the end.
template <class D, class T = hn::TFromD<D>>
T row_dot(D d, int64_t count, const T* HWY_RESTRICT a, const T* HWY_RESTRICT b) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto sum = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) sum = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), sum);
  if (i < count)
    sum = hn::MulAdd(load_partial(d, a + i, static_cast<size_t>(count - i)), load_partial(d, b + i, static_cast<size_t>(count - i)), sum);
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

}  // namespace window_attention_impl
}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
