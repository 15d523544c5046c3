// From scores to weights: position bias, what a query sees, and the functions of window attention, for every SIMD target (included per target, hence
// the toggling guard). The score block is that of window_attention-inl.h: other rows by own rows, own rows in the vector lanes.

#if defined(SEQBOAT_KERNELS_CPU_WINDOW_ATTENTION_WEIGHTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SEQBOAT_KERNELS_CPU_WINDOW_ATTENTION_WEIGHTS_INL_H_
#undef SEQBOAT_KERNELS_CPU_WINDOW_ATTENTION_WEIGHTS_INL_H_
#else
#define SEQBOAT_KERNELS_CPU_WINDOW_ATTENTION_WEIGHTS_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>
#include <limits>

#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/window_attention-blocks.h"
#include "kernels/cpu/window_attention-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace window_attention_impl {

namespace hn = hwy::HWY_NAMESPACE;
using namespace ::seqboat::kernels::window_attention_impl;  // NOLINT: what all targets share

enum class Side { kQueries, kKeys };  // the own side of a pass

// Position bias of a block pair. Both kinds are table[clamp(offset + t_key - t_query)], t an original time or a number among the active tokens.
// Where t is a number, the index depends on r - o alone: 127 entries a block pair, laid out so that a row of the block is a contiguous load.
// Otherwise the entries are gathered with index column[r] + row[o], in the signed integer of T's width.
template <class T, Side kOwn>
class BiasBlock {
 public:
  using D = Tag<T>;
  using DI = hn::RebindToSigned<D>;
  using TI = hn::TFromD<DI>;

  BiasBlock(const WindowAttentionShape& shape, const T* table) {
    if (table == nullptr || table_size(shape) == 0) return;
    kind_ = shape.bias;
    table_ = table;
    last_ = 2 * shape.max_positions - 2;
    offset_ = shape.max_positions - 1;
    if (kind_ == PositionBias::kWindowDistance) offset_ += std::max<int64_t>(0, shape.window);
  }

  PositionBias kind() const { return kind_; }

  void set_own(const BlockPair& pair, const int64_t* all_positions, int64_t sequence_begin) {
    if (kind_ != PositionBias::kOriginalDistance) return;
    const int64_t* const positions = all_positions + sequence_begin;
    positions_ = positions;
    own_ = pair.own;
    own_count_ = pair.own_count;
    base_ = positions[pair.own];
    // Distances saturate: 32 bits hold every sum below unless the table is huge or the item spans more than 2^29 steps; then lane by lane.
    constexpr int64_t kNarrow = int64_t{1} << 29;
    dense_ = 0;
    for (Near& near : near_) near.rows = 0;
    wide_ = last_ >= kNarrow || positions[pair.own + pair.own_count - 1] - base_ >= kNarrow;
    if (wide_) return;
    for (int64_t r = 0; r < kBlock; ++r) {
      const int64_t distance = positions[pair.own + std::min(r, pair.own_count - 1)] - base_;
      column_[r] = static_cast<TI>(kOwn == Side::kQueries ? -distance : distance);
    }
    find_near();
    if (kOwn == Side::kKeys) spread_columns();
  }

  void set_other(const BlockPair& pair) {
    other_ = pair.other;
    if (kind_ == PositionBias::kWindowDistance) {
      for (int64_t x = 0; x < 2 * kBlock - 1; ++x) diagonals_[x] = table_[diagonal_index(pair, x)];
    } else if (kind_ == PositionBias::kOriginalDistance && !wide_) {
      constexpr int64_t kFar = int64_t{1} << 30;
      for (int64_t o = pair.other_begin; o < pair.other_end; ++o) {
        const int64_t distance = positions_[pair.other + o] - base_;
        row_[o] = static_cast<TI>(offset_ + std::clamp(kOwn == Side::kQueries ? distance : -distance, -kFar, kFar));
      }
    }
  }

  HWY_INLINE hn::Vec<D> at(D d, int64_t o, int64_t r) const {
    if (kind_ == PositionBias::kNone) return hn::Zero(d);
    if (kind_ == PositionBias::kWindowDistance) return hn::LoadU(d, diagonals_ + (kBlock - 1) - o + r);
    // Entries of neighbouring rows lie close together: they are picked out of a few vectors of the table, which is faster than a gather.
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    const Near& near = near_[r / lanes];
    if (static_cast<uint64_t>(static_cast<int64_t>(row_[o]) - near.first_row) < near.rows) {
      const DI di;
      const T* HWY_RESTRICT from = table_ + row_[o] + near.column;
      const auto entry = hn::Load(di, entry_ + r);
      const auto lane = hn::IndicesFromVec(d, hn::And(entry, hn::Set(di, static_cast<TI>(lanes - 1))));
      auto v = hn::TableLookupLanes(hn::LoadU(d, from), lane);
      for (int64_t n = lanes; n < near.width; n += lanes) {
        const auto here = hn::RebindMask(d, hn::Gt(entry, hn::Set(di, static_cast<TI>(n - 1))));
        v = hn::IfThenElse(here, hn::TableLookupLanes(hn::LoadU(d, from + n), lane), v);
      }
      return v;
    }
    return hn::GatherIndex(d, table_, index(o, r));
  }

  // partial[index] += grad[o][r] over the pair, in a fixed order; own rows are keys. What is not seen may become zero.
  void add_gradient(D d, const BlockPair& pair, T* HWY_RESTRICT grad, T* HWY_RESTRICT partial) const {
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    if (kind_ == PositionBias::kWindowDistance) {
      // Sums along diagonals: the entries r = x - (kBlock-1) + o of row o, for a vector of x at a time. The window keeps or cuts whole diagonals.
      for (int64_t x = 0; x < 2 * kBlock - 1; x += lanes) {
        auto sum = hn::Zero(d);
        const int64_t shift = x - (kBlock - 1);
        const int64_t o_begin = std::max(pair.other_begin, -(lanes - 1) - shift);
        const int64_t o_end = std::min(pair.other_end, pair.own_count - shift);
        for (int64_t o = o_begin; o < o_end; ++o) {
          const int64_t r = shift + o;
          const auto v = hn::LoadU(d, grad + o * kBlock + r);  // may read past the row's ends, which the mask discards
          if (r >= 0 && r + lanes <= pair.own_count) {
            sum = hn::Add(sum, v);
          } else {
            const auto lane = hn::Iota(d, static_cast<T>(r));
            const auto inside = hn::And(hn::Ge(lane, hn::Zero(d)), hn::Lt(lane, hn::Set(d, static_cast<T>(pair.own_count))));
            sum = hn::Add(sum, hn::IfThenElseZero(inside, v));
          }
        }
        HWY_ALIGN T sums[HWY_MAX_BYTES / sizeof(T)];
        hn::Store(sum, d, sums);
        for (int64_t lane = 0; lane < lanes; ++lane) {
          const int64_t own_minus_other = pair.own - pair.other + shift + lane;
          if (own_minus_other < -pair.sees.after || own_minus_other > pair.sees.before) continue;
          partial[diagonal_index(pair, x + lane)] += sums[lane];
        }
      }
    } else if (kind_ == PositionBias::kOriginalDistance) {
      const DI di;
      HWY_ALIGN TI indices[kBlock];
      for (int64_t o = pair.other_begin; o < pair.other_end; ++o) {
        const int64_t begin = pair.own_begin(o);
        const int64_t end = pair.own_end(o);
        T* HWY_RESTRICT row = grad + o * kBlock;
        if (dense_ > 0 && row_[o] >= 0 && row_[o] + column_[pair.own_count - 1] <= last_) {
          std::fill(row, row + begin, T{0});
          std::fill(row + std::max(begin, end), row + kBlock, T{0});
          T* HWY_RESTRICT to = partial + row_[o];
          for (int64_t n = 0; n < dense_; ++n) {
            const auto values =
                hn::TableLookupLanes(hn::LoadU(d, row + dense_from_[n]), hn::IndicesFromVec(d, hn::Load(di, dense_lane_ + n * lanes)));
            const auto used = hn::BitCast(d, hn::Load(di, dense_mask_ + n * lanes));
            hn::StoreU(hn::Add(hn::LoadU(d, to + n * lanes), hn::And(values, used)), d, to + n * lanes);
          }
          continue;
        }
        for (int64_t r = begin / lanes * lanes; r < end; r += lanes) hn::Store(index(o, r), di, indices + r);
        for (int64_t r = begin; r < end; ++r) partial[indices[r]] += row[r];
      }
    }
  }

  // Entries that these keys and queries of a sequence can touch: [first, last]. Positions increase.
  void touched(int64_t first_key, int64_t last_key, int64_t first_query, int64_t last_query, const int64_t* positions, int64_t* first,
               int64_t* last) const {
    if (kind_ == PositionBias::kWindowDistance) {
      *first = clamped(first_key - last_query);
      *last = clamped(last_key - first_query);
    } else {
      *first = clamped(positions[first_key] - positions[last_query]);
      *last = clamped(positions[last_key] - positions[first_query]);
    }
  }

 private:
  // For each vector of own rows: which entries behind which column, and for which row_ all vectors of them lie in the table.
  void find_near() {
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(D()));
    for (int64_t r = 0; r < kBlock; r += lanes) {
      Near& near = near_[r / lanes];
      near.column = std::min(column_[r], column_[r + lanes - 1]);  // columns do not turn
      const int64_t widest = std::max(column_[r], column_[r + lanes - 1]) - near.column;
      near.width = (widest / lanes + 1) * lanes;
      if (near.width > kMostNear * lanes || near.width > last_ + 1) continue;
      near.first_row = -near.column;
      near.rows = static_cast<uint64_t>(last_ + 1 - near.width + 1);
      for (int64_t lane = 0; lane < lanes; ++lane) entry_[r + lane] = static_cast<TI>(column_[r + lane] - near.column);
    }
  }

  // How a row of the block, whose entries lie column_[r] apart in the table, is spread over neighbouring entries: vector n takes lanes
  // dense_lane_ of the row from dense_from_[n] on, those in dense_mask_. Far faster than entry by entry, while the rows are dense enough.
  void spread_columns() {
    const D d;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    dense_ = 0;
    const int64_t vectors = column_[own_count_ - 1] / lanes + 1;
    if (vectors > kMostDense) return;
    std::fill(dense_lane_, dense_lane_ + vectors * lanes, TI{0});
    std::fill(dense_mask_, dense_mask_ + vectors * lanes, TI{0});
    for (int64_t n = 0, r = 0; n < vectors; ++n) {
      dense_from_[n] = r;
      for (; r < own_count_ && column_[r] < (n + 1) * lanes; ++r) {
        if (r > 0 && column_[r] <= column_[r - 1]) return;
        dense_lane_[column_[r]] = static_cast<TI>(r - dense_from_[n]);
        dense_mask_[column_[r]] = TI{-1};
      }
    }
    dense_ = vectors;
  }

  int64_t clamped(int64_t distance) const { return std::clamp<int64_t>(offset_ + distance, 0, last_); }
  int64_t diagonal_index(const BlockPair& pair, int64_t x) const {
    const int64_t r_minus_o = x - (kBlock - 1);  // own minus other
    const int64_t distance = pair.own - pair.other + r_minus_o;
    return clamped(kOwn == Side::kQueries ? -distance : distance);
  }

  HWY_INLINE hn::Vec<DI> index(int64_t o, int64_t r) const {
    const DI di;
    if (!wide_) {
      const auto sum = hn::Add(hn::Set(di, row_[o]), hn::Load(di, column_ + r));
      return hn::Min(hn::Max(sum, hn::Zero(di)), hn::Set(di, static_cast<TI>(last_)));
    }
    HWY_ALIGN TI lanes[HWY_MAX_BYTES / sizeof(TI)];
    for (int64_t lane = 0; lane < static_cast<int64_t>(hn::Lanes(di)); ++lane) {
      const int64_t distance = positions_[other_ + o] - positions_[own_ + std::min(r + lane, own_count_ - 1)];
      lanes[lane] = static_cast<TI>(clamped(kOwn == Side::kQueries ? distance : -distance));
    }
    return hn::Load(di, lanes);
  }

  PositionBias kind_ = PositionBias::kNone;
  const T* table_ = nullptr;
  const int64_t* positions_ = nullptr;
  int64_t last_ = 0, offset_ = 0, base_ = 0, own_ = 0, own_count_ = 0, other_ = 0;
  bool wide_ = false;
  HWY_ALIGN TI column_[kBlock];
  HWY_ALIGN TI row_[kBlock];
  HWY_ALIGN T diagonals_[3 * kBlock];
  static constexpr int64_t kMostNear = 4;
  struct Near {
    int64_t column, width, first_row;
    uint64_t rows;  // row_ in [first_row, first_row + rows) need no clamping; 0: gather
  };
  Near near_[kBlock / hn::MaxLanes(D())];
  HWY_ALIGN TI entry_[kBlock];
  static constexpr int64_t kMostDense = 32;
  int64_t dense_ = 0;  // vectors; 0: entry by entry
  int64_t dense_from_[kMostDense];
  HWY_ALIGN TI dense_lane_[kMostDense * hn::MaxLanes(D())];
  HWY_ALIGN TI dense_mask_[kMostDense * hn::MaxLanes(D())];
};

// Lanes of rows r, r+1, ... that see other row o.
template <class D, class T = hn::TFromD<D>>
HWY_INLINE hn::Mask<D> seeing(D d, const BlockPair& pair, int64_t o, int64_t r) {
  const auto lane = hn::Iota(d, static_cast<T>(r));
  return hn::And(hn::Ge(lane, hn::Set(d, static_cast<T>(pair.own_begin(o)))), hn::Lt(lane, hn::Set(d, static_cast<T>(pair.own_end(o)))));
}

// Other rows that some / all of the own rows r .. r + lanes - 1 see. Lanes past the last own row see nothing, so then no row is seen by all.
struct VectorRange {
  int64_t begin, end, all_begin, all_end;
  VectorRange(const BlockPair& pair, int64_t r, int64_t lanes) {
    const int64_t last = std::min(r + lanes, pair.own_count) - 1;
    begin = pair.seen_begin(r);
    end = pair.seen_end(last);
    const bool whole = r + lanes <= pair.own_count;
    all_begin = whole ? pair.seen_begin(last) : end;
    all_end = whole ? pair.seen_end(r) : end;
  }
  bool all(int64_t o) const { return all_begin <= o && o < all_end; }
};

// function(s) of relu2 and laplace.
template <AttentionFunction kFunction, class D, class V = hn::Vec<D>>
HWY_INLINE V weight_of(D d, V s) {
  using T = hn::TFromD<D>;
  if constexpr (kFunction == AttentionFunction::kRelu2) {
    const auto r = hn::IfThenZeroElse(hn::Lt(s, hn::Zero(d)), s);  // keeps a NaN
    return hn::Mul(r, r);
  } else {
    const auto z = hn::Mul(hn::Sub(s, hn::Set(d, static_cast<T>(kLaplaceMean))), hn::Set(d, static_cast<T>(1.0 / kLaplaceScale)));
    const auto half = hn::Set(d, static_cast<T>(0.5));
    return hn::MulAdd(half, vector_erf(d, z), half);
  }
}

// Scores to weights, in place. What a row does not see gets a weight too, which accumulate() leaves out; only softmax, which sums and compares
// across keys here, must mask it. Softmax: running maximum and sum of each row, and the factor by which earlier weights of the row shrink.
template <AttentionFunction kFunction, class T>
HWY_NOINLINE void weigh(const BlockPair& pair, const BiasBlock<T, Side::kQueries>& bias, const T* HWY_RESTRICT scales, T* HWY_RESTRICT scores,
                        T* HWY_RESTRICT maxima, T* HWY_RESTRICT sums, T* HWY_RESTRICT shrink) {
  const Tag<T> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t r = 0; r < pair.own_count; r += lanes) {
    const VectorRange range(pair, r, lanes);
    const auto scale = hn::Load(d, scales + r);
    if constexpr (kFunction == AttentionFunction::kSoftmax) {
      const auto lowest = hn::Set(d, -std::numeric_limits<T>::infinity());
      const auto old_max = hn::Load(d, maxima + r);
      auto new_max = old_max;
      for (int64_t o = range.begin; o < range.end; ++o) {
        auto s = hn::MulAdd(hn::Load(d, scores + o * kBlock + r), scale, bias.at(d, o, r));
        if (!range.all(o)) s = hn::IfThenElse(seeing(d, pair, o, r), s, lowest);
        hn::Store(s, d, scores + o * kBlock + r);
        new_max = hn::Max(new_max, s);
      }
      // A row that has seen nothing yet keeps its -infinity; exp(-inf - -inf) must not come about.
      const auto factor = hn::IfThenElse(hn::Eq(old_max, new_max), hn::Set(d, T{1}), vector_exp(d, hn::Sub(old_max, new_max)));
      auto sum = hn::Mul(hn::Load(d, sums + r), factor);
      const auto subtract = hn::IfThenZeroElse(hn::Eq(new_max, lowest), new_max);
      for (int64_t o = range.begin; o < range.end; ++o) {
        const auto p = vector_exp(d, hn::Sub(hn::Load(d, scores + o * kBlock + r), subtract));
        hn::Store(p, d, scores + o * kBlock + r);
        sum = hn::Add(sum, p);
      }
      hn::Store(new_max, d, maxima + r);
      hn::Store(sum, d, sums + r);
      hn::Store(factor, d, shrink + r);
    } else {
      for (int64_t o = range.begin; o < range.end; ++o) {
        const auto p = weight_of<kFunction>(d, hn::MulAdd(hn::Load(d, scores + o * kBlock + r), scale, bias.at(d, o, r)));
        hn::Store(p, d, scores + o * kBlock + r);
      }
    }
  }
}

template <class T>
void weigh_by(AttentionFunction function, const BlockPair& pair, const BiasBlock<T, Side::kQueries>& bias, const T* scales, T* scores, T* maxima,
              T* sums, T* shrink) {
  switch (function) {
    case AttentionFunction::kSoftmax:
      return weigh<AttentionFunction::kSoftmax>(pair, bias, scales, scores, maxima, sums, shrink);
    case AttentionFunction::kRelu2:
      return weigh<AttentionFunction::kRelu2>(pair, bias, scales, scores, maxima, sums, shrink);
    case AttentionFunction::kLaplace:
      return weigh<AttentionFunction::kLaplace>(pair, bias, scales, scores, maxima, sums, shrink);
  }
}

}  // namespace window_attention_impl
}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
