#include "seqboat/kernels/window_attention.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/window_attention.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/window_attention-blocks.h"
#include "kernels/cpu/window_attention-inl.h"

#ifndef SEQBOAT_KERNELS_CPU_WINDOW_ATTENTION_ONCE_
#define SEQBOAT_KERNELS_CPU_WINDOW_ATTENTION_ONCE_
namespace seqboat::kernels {
namespace window_attention_impl {

// mu and sigma sqrt(2) of the laplace function, as published.
constexpr double kLaplaceMean = 0.707107;
constexpr double kLaplaceScale = 0.282095 * 1.4142135623730950488;

// Elements of a tile copied by accumulate(): kBlock rows of at most four vectors of 64 bytes.
template <class T>
constexpr int64_t kPanelSize = kBlock * 4 * static_cast<int64_t>(64 / sizeof(T));

// Block of scores, and one row more: tiles read (never use) a few weights past the last row.
constexpr int64_t kScoreSize = kBlock * kBlock + kBlock;

// Blocks of a chunk in the backward, and the widest window of a narrow one.
constexpr int64_t kNarrowChunk = 8;
constexpr int64_t kWideChunk = 2;
constexpr int64_t kWideWindow = 4 * kBlock;

struct Sequence {
  int64_t begin;  // of its active tokens in the packed tensors
  int64_t count;
};

// Goes through the work items in order.
class ItemCursor {
 public:
  ItemCursor(const WindowAttentionShape& shape, int64_t item) : shape_(shape), block_(item) {
    while (sequence_ < shape_.batch && block_ >= blocks()) next_sequence();
  }
  void next() {
    ++block_;
    while (sequence_ < shape_.batch && block_ >= blocks()) next_sequence();
  }
  Sequence sequence() const {
    return {shape_.active_cu_seqlens[sequence_], shape_.active_cu_seqlens[sequence_ + 1] - shape_.active_cu_seqlens[sequence_]};
  }
  int64_t first_row() const { return block_ * kBlock; }

 private:
  int64_t blocks() const { return (sequence().count + kBlock - 1) / kBlock; }
  void next_sequence() {
    block_ -= blocks();
    ++sequence_;
  }
  const WindowAttentionShape& shape_;
  int64_t sequence_ = 0;
  int64_t block_;
};

// Blocks of a chunk of the backward. A chunk is what one item has of either side: large ones pack a block of keys for more queries, small ones leave
// items enough where the window is wide and the sequences are few.
inline int64_t chunk_blocks(const WindowAttentionShape& shape) {
  return shape.window >= 0 && shape.window <= kWideWindow ? kNarrowChunk : kWideChunk;
}

// Chunks of a sequence.
struct Chunks {
  int64_t rows;      // of a chunk
  int64_t count;     // chunks
  int64_t farthest;  // number of chunks that a query may be away from a key it sees; -1: there is none
  Chunks(const WindowAttentionShape& shape, int64_t tokens) {
    rows = chunk_blocks(shape) * kBlock;
    count = (tokens + rows - 1) / rows;
    const int64_t window = shape.window < 0 ? tokens : std::min(shape.window, tokens);
    farthest = count == 0 ? -1 : std::min(count - 1, window == 0 ? 0 : (window - 1) / rows + 1);
  }
  // Items of a phase: pairs of chunks whose distance is the phase's.
  int64_t items(int64_t distance) const { return std::abs(distance) <= farthest ? count - std::abs(distance) : 0; }
};

// chunk(query) - chunk(key) of the items of a phase: 0, 1, 2, ... causal, 0, 1, -1, 2, -2, ... bidirectional.
inline int64_t phase_distance(const WindowAttentionShape& shape, int64_t phase) {
  if (shape.causal) return phase;
  return phase % 2 == 1 ? (phase + 1) / 2 : -(phase / 2);
}

// What a query of this sequence sees among its keys.
inline Visible visible_keys(const WindowAttentionShape& shape, int64_t count) {
  const int64_t window = shape.window < 0 ? count : std::min(shape.window, count);
  return {count, window, shape.causal ? 0 : window};
}

// The queries of an item's chunk that see a key of its chunk, and these keys.
struct PairExtent {
  int64_t chunk_key_begin, key_begin, key_end, query_begin, query_end;
};

// Goes through the items of one phase of the backward in order.
class PairCursor {
 public:
  PairCursor(const WindowAttentionShape& shape, int64_t phase, int64_t item) : shape_(shape), distance_(phase_distance(shape, phase)), item_(item) {
    while (sequence_ < shape_.batch && item_ >= items()) next_sequence();
  }
  void next() {
    ++item_;
    while (sequence_ < shape_.batch && item_ >= items()) next_sequence();
  }
  Sequence sequence() const {
    return {shape_.active_cu_seqlens[sequence_], shape_.active_cu_seqlens[sequence_ + 1] - shape_.active_cu_seqlens[sequence_]};
  }
  PairExtent extent() const {
    const int64_t count = sequence().count;
    const Visible sees = visible_keys(shape_, count), seen_by = sees.inverse();
    const int64_t rows = Chunks(shape_, count).rows;
    const int64_t key_chunk = item_ + std::max<int64_t>(0, -distance_);
    const int64_t chunk_keys = key_chunk * rows, chunk_queries = (key_chunk + distance_) * rows;
    const int64_t chunk_keys_end = std::min(count, chunk_keys + rows);
    const int64_t query_begin = std::max(chunk_queries, seen_by.begin(chunk_keys));
    const int64_t query_end = std::min({count, chunk_queries + rows, seen_by.end(chunk_keys_end - 1)});
    return {chunk_keys, std::max(chunk_keys, sees.begin(query_begin)), std::min(chunk_keys_end, sees.end(query_end - 1)), query_begin, query_end};
  }

 private:
  int64_t items() const { return Chunks(shape_, sequence().count).items(distance_); }
  void next_sequence() {
    item_ -= items();
    ++sequence_;
  }
  const WindowAttentionShape& shape_;
  int64_t sequence_ = 0;
  int64_t distance_;
  int64_t item_;
};

// Hands out 64-byte aligned pieces of the caller's workspace.
template <class T>
class Arena {
 public:
  explicit Arena(T* memory) : memory_(memory) {}
  T* take(int64_t count) {
    T* piece = memory_;
    memory_ += rounded(count);
    return piece;
  }
  static int64_t rounded(int64_t count) {
    constexpr int64_t kLine = 64 / sizeof(T);
    return (count + kLine - 1) / kLine * kLine;
  }

 private:
  T* memory_;
};

template <class T>
struct BackwardArgs {
  const WindowAttentionShape* shape;
  int64_t phase, item_begin, item_end;
  const T *q, *k, *v;
  const int64_t* positions;
  const T *bias_table, *out, *lse, *dout;
  T *dq, *dk, *dv, *dbias, *delta, *workspace;
};

inline int64_t table_size(const WindowAttentionShape& shape) {
  return shape.bias == PositionBias::kNone || shape.max_positions < 1 ? 0 : 2 * shape.max_positions - 1;
}

// The divisor of relu2 and laplace that all queries share, 0 where each has its own.
inline double common_scale(const WindowAttentionShape& shape, int64_t count) {
  if (shape.function == AttentionFunction::kSoftmax) return 1.0 / std::sqrt(static_cast<double>(shape.d_attn));
  if (shape.window >= 0) return 1.0 / (static_cast<double>(std::max<int64_t>(shape.window, 1)) * (shape.causal ? 1 : 2));
  return shape.causal ? 0.0 : 1.0 / static_cast<double>(count);
}

// scales[r] of the queries first, first + 1, ..., a whole block.
template <class T>
void query_scales(const WindowAttentionShape& shape, int64_t count, int64_t first, T* scales) {
  const double common = common_scale(shape, count);
  for (int64_t r = 0; r < kBlock; ++r) scales[r] = static_cast<T>(common != 0 ? common : 1.0 / static_cast<double>(first + r + 1));
}

}  // namespace window_attention_impl
}  // namespace seqboat::kernels
#endif  // SEQBOAT_KERNELS_CPU_WINDOW_ATTENTION_ONCE_

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using namespace window_attention_impl;                      // NOLINT: this target's block products
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

// Derivative of function at s.
template <AttentionFunction kFunction, class D, class V = hn::Vec<D>>
HWY_INLINE V slope_of(D d, V s) {
  using T = hn::TFromD<D>;
  if constexpr (kFunction == AttentionFunction::kRelu2) {
    const auto r = hn::IfThenZeroElse(hn::Lt(s, hn::Zero(d)), s);
    return hn::Add(r, r);
  } else {
    const auto z = hn::Mul(hn::Sub(s, hn::Set(d, static_cast<T>(kLaplaceMean))), hn::Set(d, static_cast<T>(1.0 / kLaplaceScale)));
    return hn::Mul(hn::Set(d, static_cast<T>(1.0 / (kLaplaceScale * 1.7724538509055160273))), vector_exp(d, hn::Neg(hn::Mul(z, z))));
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

template <class T>
void forward(const WindowAttentionShape& shape, int64_t item_begin, int64_t item_end, const T* q, const T* k, const T* v, const int64_t* positions,
             const T* bias_table, T* out, T* lse, T* workspace) {
  const bool softmax = shape.function == AttentionFunction::kSoftmax;
  const Tag<T> d;
  Arena<T> arena(workspace);
  T* packed_q = arena.take(shape.d_attn * kBlock);
  T* scores = arena.take(kScoreSize);
  T* panel = arena.take(kPanelSize<T>);
  T* scales = arena.take(kBlock);
  T* maxima = arena.take(kBlock);
  T* sums = arena.take(kBlock);
  T* shrink = arena.take(kBlock);
  BiasBlock<T, Side::kQueries> bias(shape, bias_table);
  Ranges by_own, by_other;
  Prefetcher prefetcher(16);
  ItemCursor cursor(shape, item_begin);
  for (int64_t item = item_begin; item < item_end; ++item) {
    const auto [begin, count] = cursor.sequence();
    const Visible sees = visible_keys(shape, count);
    BlockPair pair{sees, sees.inverse(), cursor.first_row(), std::min(kBlock, count - cursor.first_row()), 0};
    const int64_t row = begin + pair.own;
    // What the next item reads that this one does not.
    cursor.next();
    if (item + 1 < item_end) {
      const auto [next_begin, next_count] = cursor.sequence();
      const Visible next_sees = visible_keys(shape, next_count);
      const int64_t next_row = next_begin + cursor.first_row();
      const int64_t rows = std::min(kBlock, next_count - cursor.first_row());
      const int64_t seen = begin + sees.end(pair.own + pair.own_count - 1);  // the keys of this item end here
      const int64_t key_begin = std::max(seen, next_begin + next_sees.begin(cursor.first_row()));
      const int64_t keys = next_begin + next_sees.end(cursor.first_row() + rows - 1) - key_begin;
      prefetcher.add(q + next_row * shape.q_stride, rows, shape.d_attn, shape.q_stride);
      prefetcher.add(k + key_begin * shape.k_stride, keys, shape.d_attn, shape.k_stride);
      prefetcher.add(v + key_begin * shape.v_stride, keys, shape.d_hidden, shape.v_stride);
      prefetcher.add(out + next_row * shape.out_stride, rows, shape.d_hidden, shape.out_stride);
    }
    pack_transposed(d, pair.own_count, shape.d_attn, q + row * shape.q_stride, shape.q_stride, packed_q);
    query_scales(shape, count, pair.own, scales);
    bias.set_own(pair, positions, begin);
    if (softmax) {
      std::fill(maxima, maxima + kBlock, -std::numeric_limits<T>::infinity());
      std::fill(sums, sums + kBlock, T{0});
    }
    for (int64_t block = pair.first_block(); block <= pair.last_block(); ++block) {
      pair.move_to(block);
      by_own.set_own(pair);
      by_other.set_other(pair);
      const int64_t other = begin + pair.other;
      dots(d, pair, by_other, shape.d_attn, k + other * shape.k_stride, shape.k_stride, packed_q, scores, prefetcher);
      bias.set_other(pair);
      weigh_by(shape.function, pair, bias, scales, scores, maxima, sums, shrink);
      accumulate<false>(d, by_own, pair.other_begin, pair.other_end, scores, shape.d_hidden, v + other * shape.v_stride, shape.v_stride,
                        block == pair.first_block(), softmax ? shrink : nullptr, out + row * shape.out_stride, shape.out_stride, panel, prefetcher);
    }
    if (softmax) {
      for (int64_t r = 0; r < pair.own_count; ++r) {
        scale_row(d, shape.d_hidden, T{1} / sums[r], out + (row + r) * shape.out_stride);
        if (lse != nullptr) lse[row + r] = maxima[r] + std::log(sums[r]);
      }
    }
  }
}

// Scores to weights, d(loss)/d(weight) to d(loss)/d(score); own rows are keys. Per query: scale, lse and delta.
template <AttentionFunction kFunction, class T>
HWY_NOINLINE void slopes(const BlockPair& pair, const BiasBlock<T, Side::kKeys>& bias, const T* HWY_RESTRICT scales, const T* HWY_RESTRICT lse,
                         const T* HWY_RESTRICT delta, T* HWY_RESTRICT scores, T* HWY_RESTRICT grads) {
  const Tag<T> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t r = 0; r < pair.own_count; r += lanes) {
    const VectorRange range(pair, r, lanes);
    for (int64_t o = range.begin; o < range.end; ++o) {
      const auto s = hn::MulAdd(hn::Load(d, scores + o * kBlock + r), hn::Set(d, scales[o]), bias.at(d, o, r));
      auto grad = hn::Load(d, grads + o * kBlock + r);
      hn::Vec<Tag<T>> weight;
      if constexpr (kFunction == AttentionFunction::kSoftmax) {
        weight = vector_exp(d, hn::Sub(s, hn::Set(d, lse[o])));
        grad = hn::Mul(weight, hn::Sub(grad, hn::Set(d, delta[o])));
      } else {
        weight = weight_of<kFunction>(d, s);
        grad = hn::Mul(slope_of<kFunction>(d, s), grad);
      }
      hn::Store(grad, d, grads + o * kBlock + r);
      hn::Store(weight, d, scores + o * kBlock + r);
    }
  }
}

template <class T>
void slopes_by(AttentionFunction function, const BlockPair& pair, const BiasBlock<T, Side::kKeys>& bias, const T* scales, const T* lse,
               const T* delta, T* scores, T* grads) {
  switch (function) {
    case AttentionFunction::kSoftmax:
      return slopes<AttentionFunction::kSoftmax>(pair, bias, scales, lse, delta, scores, grads);
    case AttentionFunction::kRelu2:
      return slopes<AttentionFunction::kRelu2>(pair, bias, scales, lse, delta, scores, grads);
    case AttentionFunction::kLaplace:
      return slopes<AttentionFunction::kLaplace>(pair, bias, scales, lse, delta, scores, grads);
  }
}

// grads[o][:] *= scales[o]: for queries and keys; the bias is added after the scale.
template <class T>
void scale_block(const BlockPair& pair, const T* HWY_RESTRICT scales, T* HWY_RESTRICT grads) {
  const Tag<T> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t o = pair.other_begin; o < pair.other_end; ++o) {
    const auto scale = hn::Set(d, scales[o]);
    T* HWY_RESTRICT row = grads + o * kBlock;
    for (int64_t r = 0; r < kBlock; r += lanes) hn::Store(hn::Mul(hn::Load(d, row + r), scale), d, row + r);
  }
}

template <class T>
void backward(const BackwardArgs<T>& args) {
  const WindowAttentionShape& shape = *args.shape;
  const bool softmax = shape.function == AttentionFunction::kSoftmax;
  const Tag<T> d;
  Arena<T> arena(args.workspace);
  T* packed_k = arena.take(shape.d_attn * kBlock);
  T* packed_v = arena.take(shape.d_hidden * kBlock);
  T* scores = arena.take(kScoreSize);
  arena.take(kBlock);  // add_gradient() reads up to a row before the block
  T* grads = arena.take(kScoreSize);
  T* panel = arena.take(kPanelSize<T>);
  T* scales = arena.take(kBlock);
  T* partial = arena.take(table_size(shape) + kBlock);  // add_gradient() adds nothing in whole vectors behind the end
  BiasBlock<T, Side::kKeys> bias(shape, args.bias_table);
  const bool with_bias = args.dbias != nullptr && bias.kind() != PositionBias::kNone;
  const int64_t q_stride = shape.q_stride, k_stride = shape.k_stride, v_stride = shape.v_stride, out_stride = shape.out_stride;
  Ranges by_own, by_other;
  Prefetcher prefetcher(32);
  const auto prefetch_keys = [&](int64_t row, int64_t rows) {
    prefetcher.add(args.k + row * k_stride, rows, shape.d_attn, k_stride);
    prefetcher.add(args.v + row * v_stride, rows, shape.d_hidden, v_stride);
    prefetcher.add(args.dv + row * v_stride, rows, shape.d_hidden, v_stride);
    prefetcher.add(args.dk + row * k_stride, rows, shape.d_attn, k_stride);
  };
  const auto prefetch_queries = [&](int64_t row, int64_t rows) {
    prefetcher.add(args.q + row * q_stride, rows, shape.d_attn, q_stride);
    prefetcher.add(args.dout + row * out_stride, rows, shape.d_hidden, out_stride);
    if (softmax && args.phase == 0) prefetcher.add(args.out + row * out_stride, rows, shape.d_hidden, out_stride);
    prefetcher.add(args.dq + row * q_stride, rows, shape.d_attn, q_stride);
  };
  PairCursor cursor(shape, args.phase, args.item_begin);
  for (int64_t item = args.item_begin; item < args.item_end; ++item) {
    const auto [begin, count] = cursor.sequence();
    const Visible sees = visible_keys(shape, count);
    const Visible seen_by = sees.inverse();
    const auto [chunk_key_begin, key_begin, key_end, query_begin, query_end] = cursor.extent();
    cursor.next();                          // only to look ahead from here on
    const bool diagonal = args.phase == 0;  // the first to touch its gradients
    int64_t entry_begin = 0, entry_last = -1;
    if (with_bias) {
      bias.touched(key_begin, key_end - 1, query_begin, query_end - 1, args.positions == nullptr ? nullptr : args.positions + begin, &entry_begin,
                   &entry_last);
      std::fill(partial + entry_begin, partial + entry_last + 1, T{0});
    }
    const int64_t first_query_block = query_begin / kBlock, query_blocks_end = (query_end - 1) / kBlock + 1;
    int64_t query_blocks_read = first_query_block;
    for (int64_t key_block = key_begin / kBlock; key_block * kBlock < key_end; ++key_block) {
      const int64_t own = key_block * kBlock;
      BlockPair pair{seen_by, sees, own, std::min(kBlock, count - own), 0};
      const int64_t row = begin + own;
      const int64_t pair_begin = std::max(first_query_block, pair.first_block());
      const int64_t pair_end = std::min(query_blocks_end, pair.last_block() + 1);
      pack_transposed(d, pair.own_count, shape.d_attn, args.k + row * k_stride, k_stride, packed_k);
      pack_transposed(d, pair.own_count, shape.d_hidden, args.v + row * v_stride, v_stride, packed_v);
      bias.set_own(pair, args.positions, begin);
      for (int64_t block = pair_begin; block < pair_end; ++block) {
        pair.move_to(block);
        by_own.set_own(pair);
        by_other.set_other(pair);
        const int64_t other = begin + pair.other;
        if (block >= query_blocks_read) {
          query_blocks_read = block + 1;
          if (diagonal && softmax) {
            for (int64_t i = other; i < other + pair.other_count(); ++i) {
              args.delta[i] = row_dot(d, shape.d_hidden, args.dout + i * out_stride, args.out + i * out_stride);
            }
          }
          if (block + 1 < query_blocks_end) prefetch_queries(other + kBlock, std::min(kBlock, count - pair.other - kBlock));
        }
        if (block == pair_begin) {
          if (own + kBlock < key_end) {
            prefetch_keys(row + kBlock, std::min(kBlock, count - own - kBlock));
          } else if (item + 1 < args.item_end) {
            const auto [next_begin, next_count] = cursor.sequence();
            const PairExtent next = cursor.extent();
            prefetch_keys(next_begin + next.key_begin / kBlock * kBlock, std::min(kBlock, next_count - next.key_begin / kBlock * kBlock));
            prefetch_queries(next_begin + next.query_begin / kBlock * kBlock, std::min(kBlock, next_count - next.query_begin / kBlock * kBlock));
          }
        }
        const T* const query = args.q + other * q_stride;
        const T* const grad_out = args.dout + other * out_stride;
        const bool first_of_key = diagonal && block == pair_begin;
        const bool first_of_query = diagonal && key_block == std::max(chunk_key_begin, sees.begin(pair.other)) / kBlock;
        dots(d, pair, by_other, shape.d_attn, query, q_stride, packed_k, scores, prefetcher);
        dots(d, pair, by_other, shape.d_hidden, grad_out, out_stride, packed_v, grads, prefetcher);
        bias.set_other(pair);
        query_scales(shape, count, pair.other, scales);
        slopes_by(shape.function, pair, bias, scales, softmax ? args.lse + other : nullptr, softmax ? args.delta + other : nullptr, scores, grads);
        if (with_bias) bias.add_gradient(d, pair, grads, partial);
        scale_block(pair, scales, grads);
        accumulate<false>(d, by_own, pair.other_begin, pair.other_end, scores, shape.d_hidden, grad_out, out_stride, first_of_key,
                          static_cast<const T*>(nullptr), args.dv + row * v_stride, v_stride, panel, prefetcher);
        accumulate<false>(d, by_own, pair.other_begin, pair.other_end, grads, shape.d_attn, query, q_stride, first_of_key,
                          static_cast<const T*>(nullptr), args.dk + row * k_stride, k_stride, panel, prefetcher);
        accumulate<true>(d, by_other, 0, pair.own_count, grads, shape.d_attn, args.k + row * k_stride, k_stride, first_of_query,
                         static_cast<const T*>(nullptr), args.dq + other * q_stride, q_stride, panel, prefetcher);
      }
    }
    for (int64_t entry = entry_begin; entry <= entry_last; ++entry) args.dbias[entry] += partial[entry];
  }
}

// Dispatch goes through plain functions, one a type.
void forward_f32(const WindowAttentionShape& shape, int64_t item_begin, int64_t item_end, const float* q, const float* k, const float* v,
                 const int64_t* positions, const float* bias_table, float* out, float* lse, float* workspace) {
  forward(shape, item_begin, item_end, q, k, v, positions, bias_table, out, lse, workspace);
}
void forward_f64(const WindowAttentionShape& shape, int64_t item_begin, int64_t item_end, const double* q, const double* k, const double* v,
                 const int64_t* positions, const double* bias_table, double* out, double* lse, double* workspace) {
  forward(shape, item_begin, item_end, q, k, v, positions, bias_table, out, lse, workspace);
}
void backward_f32(const BackwardArgs<float>& args) {
  backward(args);
}
void backward_f64(const BackwardArgs<double>& args) {
  backward(args);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqboat::kernels {
namespace {

HWY_EXPORT(forward_f32);
HWY_EXPORT(forward_f64);
HWY_EXPORT(backward_f32);
HWY_EXPORT(backward_f64);

}  // namespace

int64_t window_attention_items(const WindowAttentionShape& shape) noexcept {
  int64_t items = 0;
  for (int64_t b = 0; b < shape.batch; ++b) {
    items += (shape.active_cu_seqlens[b + 1] - shape.active_cu_seqlens[b] + kBlock - 1) / kBlock;
  }
  return items;
}

template <class T>
void window_attention_fwd(const WindowAttentionShape& shape, int64_t item_begin, int64_t item_end, const T* q, const T* k, const T* v,
                          const int64_t* positions, const T* bias_table, T* out, T* lse, T* workspace) noexcept {
  if constexpr (sizeof(T) == 4) {
    HWY_DYNAMIC_DISPATCH(forward_f32)(shape, item_begin, item_end, q, k, v, positions, bias_table, out, lse, workspace);
  } else {
    HWY_DYNAMIC_DISPATCH(forward_f64)(shape, item_begin, item_end, q, k, v, positions, bias_table, out, lse, workspace);
  }
}

int64_t window_attention_bwd_phases(const WindowAttentionShape& shape) noexcept {
  int64_t farthest = -1;
  for (int64_t b = 0; b < shape.batch; ++b) {
    const window_attention_impl::Chunks chunks(shape, shape.active_cu_seqlens[b + 1] - shape.active_cu_seqlens[b]);
    farthest = std::max(farthest, chunks.farthest);
  }
  return farthest < 0 ? 0 : shape.causal ? farthest + 1 : 2 * farthest + 1;
}

int64_t window_attention_bwd_items(const WindowAttentionShape& shape, int64_t phase) noexcept {
  const int64_t distance = window_attention_impl::phase_distance(shape, phase);
  int64_t items = 0;
  for (int64_t b = 0; b < shape.batch; ++b) {
    items += window_attention_impl::Chunks(shape, shape.active_cu_seqlens[b + 1] - shape.active_cu_seqlens[b]).items(distance);
  }
  return items;
}

template <class T>
void window_attention_bwd(const WindowAttentionShape& shape, int64_t phase, int64_t item_begin, int64_t item_end, const T* q, const T* k, const T* v,
                          const int64_t* positions, const T* bias_table, const T* out, const T* lse, const T* dout, T* dq, T* dk, T* dv, T* dbias,
                          T* delta, T* workspace) noexcept {
  const window_attention_impl::BackwardArgs<T> args{&shape, phase, item_begin, item_end, q,  k,  v,     positions, bias_table,
                                                    out,    lse,   dout,       dq,       dk, dv, dbias, delta,     workspace};
  if constexpr (sizeof(T) == 4) {
    HWY_DYNAMIC_DISPATCH(backward_f32)(args);
  } else {
    HWY_DYNAMIC_DISPATCH(backward_f64)(args);
  }
}

template <class T>
size_t window_attention_workspace_size(const WindowAttentionShape& shape) noexcept {
  using window_attention_impl::Arena;
  using window_attention_impl::kPanelSize;
  using window_attention_impl::kScoreSize;
  using window_attention_impl::table_size;
  const int64_t pieces[] = {shape.d_attn * kBlock,     shape.d_hidden * kBlock, 2 * kScoreSize + kBlock, kPanelSize<T>, 4 * kBlock,
                            table_size(shape) + kBlock};
  int64_t size = 0;
  for (const int64_t piece : pieces) size += Arena<T>::rounded(piece);
  return static_cast<size_t>(size);
}

#define SEQBOAT_INSTANTIATE(T)                                                                                                                     \
  template void window_attention_fwd<T>(const WindowAttentionShape&, int64_t, int64_t, const T*, const T*, const T*, const int64_t*, const T*, T*, \
                                        T*, T*) noexcept;                                                                                          \
  template void window_attention_bwd<T>(const WindowAttentionShape&, int64_t, int64_t, int64_t, const T*, const T*, const T*, const int64_t*,      \
                                        const T*, const T*, const T*, const T*, T*, T*, T*, T*, T*, T*) noexcept;                                  \
  template size_t window_attention_workspace_size<T>(const WindowAttentionShape&) noexcept;
SEQBOAT_INSTANTIATE(float)
SEQBOAT_INSTANTIATE(double)
#undef SEQBOAT_INSTANTIATE

}  // namespace seqboat::kernels
#endif  // HWY_ONCE
