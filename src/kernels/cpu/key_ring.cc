// Attention of one stream to the keys and values in its ring.
//
// Keys and queries keep their numbers modulo blocks of 64 that count from number 0, so that blocks, and with them the bits, are
// window_attention.cc's.

#include "seqboat/kernels/key_ring.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/key_ring.cc"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/simd_partial-inl.h"
#include "kernels/cpu/widen-inl.h"
#include "kernels/cpu/window_attention-blocks.h"
#include "kernels/cpu/window_attention-inl.h"
#include "kernels/cpu/window_attention_weights-inl.h"
#include "seqboat/kernels/packed_weight.h"

#ifndef SEQBOAT_KERNELS_CPU_KEY_RING_ONCE_
#define SEQBOAT_KERNELS_CPU_KEY_RING_ONCE_
namespace seqboat::kernels {
namespace key_ring_impl {

constexpr int64_t kPadding = 16;  // columns of the last tile of values come in so many, whole vectors on every target

inline int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}
inline int64_t element_bytes(RingType type) {
  return type == RingType::kFloat32 ? 4 : 2;
}
// Columns that the tile beginning at `col` has in memory.
inline int64_t tile_width(const KeyRingShape& shape, int64_t col) {
  return std::min(kValueTile, round_up(shape.d_hidden - col, kPadding));
}

// Element type E of the ring: float or uint16_t.
template <class E>
struct Ring {
  KeyRingShape shape;
  E* memory;

  // Keys of 64 numbers from a multiple of 64 on: (Z, 64).
  E* keys(int64_t number) const { return memory + number % shape.capacity / kBlock * kBlock * shape.d_attn; }
  // Values of these numbers in the tile that begins at column `col`: rows of tile_width().
  E* values(int64_t number, int64_t col) const {
    return memory + shape.capacity * (shape.d_attn + col) + number % shape.capacity * tile_width(shape, col);
  }
};

// Keys that a query sees, [begin, end), and the number of the first block's first key.
struct Span {
  int64_t begin, end, origin;
  Span(const RingAttention& attention, int64_t number) {
    begin = attention.window < 0 ? 0 : std::max<int64_t>(0, number - attention.window);
    end = number + 1;
    origin = begin / kBlock * kBlock;
  }
  int64_t items() const { return (end - origin + kBlock - 1) / kBlock; }
  // Of the keys of an item those that are seen: [seen_begin, seen_end).
  int64_t seen_begin(int64_t item) const { return std::max<int64_t>(0, begin - origin - item * kBlock); }
  int64_t seen_end(int64_t item) const { return std::min(kBlock, end - origin - item * kBlock); }
};

inline WindowAttentionShape shape_of(const RingAttention& attention) {
  WindowAttentionShape shape{};
  shape.d_attn = attention.ring.d_attn;
  shape.d_hidden = attention.ring.d_hidden;
  shape.window = attention.window;
  shape.causal = true;
  shape.function = attention.function;
  shape.bias = attention.bias;
  shape.max_positions = attention.max_positions;
  return shape;
}

inline int64_t scores_size(const RingAttention& attention) {
  return attention.ring.capacity + kBlock;
}
inline int64_t step_workspace_size(const RingAttention& attention) {
  return scores_size(attention) + round_up(attention.ring.capacity / kBlock + 1, kPadding);
}

// Original times of the keys that a block of queries sees, in a row; in floats.
inline int64_t times_size(const RingAttention& attention) {
  return attention.bias == PositionBias::kOriginalDistance ? 2 * (attention.ring.capacity + kBlock) : 0;
}
inline int64_t block_workspace_size(const RingAttention& attention) {
  const int64_t d_attn = attention.ring.d_attn, wide = attention.ring.type == RingType::kBf16 ? kBlock : 0;
  const int64_t pieces[] = {d_attn * kBlock, window_attention_impl::kScoreSize, window_attention_impl::kPanelSize<float>,
                            4 * kBlock,      wide * (d_attn + kValueTile),      times_size(attention)};
  int64_t size = 0;
  for (const int64_t piece : pieces) size += window_attention_impl::Arena<float>::rounded(piece);
  return std::max(size, scores_size(attention) + step_workspace_size(attention));
}

struct ScoresArgs {
  const RingAttention* attention;
  int64_t number, item_begin, item_end;
  const float* q;
  const void* ring;
  const int64_t* positions;
  const float* bias_table;
  float* scores;
};

struct SumArgs {
  const RingAttention* attention;
  int64_t number, col_begin, col_end;
  const float* scores;
  const void* ring;
  float* out;
  float* workspace;
};

struct BlockArgs {
  const RingAttention* attention;
  int64_t first, count;
  const float* q;
  int64_t q_stride;
  const void* ring;
  const int64_t* positions;
  const float* bias_table;
  float* out;
  int64_t out_stride;
  float* workspace;
};

}  // namespace key_ring_impl
}  // namespace seqboat::kernels
#endif  // SEQBOAT_KERNELS_CPU_KEY_RING_ONCE_

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using namespace window_attention_impl;                      // NOLINT: this target's block products
using namespace ::seqboat::kernels::window_attention_impl;  // NOLINT: what all targets share
using namespace ::seqboat::kernels::key_ring_impl;          // NOLINT

using D = Tag<float>;
using V = hn::Vec<D>;

// Vectors of a block of keys, or of a tile of values, that are worked on at once.
#if HWY_TARGET <= HWY_AVX3 || HWY_TARGET == HWY_NEON
constexpr int kStepVectors = 4;
#else
constexpr int kStepVectors = 8;
#endif

/// to[j] = bias of key origin + j for the query `number`, where that is seen.
class StepBias {
 public:
  StepBias(const RingAttention& attention, int64_t number, const int64_t* positions, const float* table)
      : attention_(attention), number_(number), positions_(positions), table_(table) {
    if (table == nullptr || attention.max_positions < 1) return;
    kind_ = attention.bias;
    last_ = 2 * attention.max_positions - 2;
    offset_ = attention.max_positions - 1 + (kind_ == PositionBias::kWindowDistance ? std::max<int64_t>(0, attention.window) : 0);
  }

  /// Biases of the 64 keys from number `key` on, of which [begin, end) are seen; may be where the table lies.
  const float* of(int64_t key, int64_t begin, int64_t end, float* HWY_RESTRICT buffer) const {
    if (kind_ == PositionBias::kNone) {
      std::fill(buffer, buffer + kBlock, 0.0f);
      return buffer;
    }
    if (kind_ == PositionBias::kWindowDistance) {
      const int64_t entry = offset_ + key - number_;
      if (entry >= 0 && entry + kBlock - 1 <= last_) return table_ + entry;
      for (int64_t j = 0; j < kBlock; ++j) buffer[j] = table_[std::clamp<int64_t>(entry + j, 0, last_)];
      return buffer;
    }
    const int64_t capacity = attention_.ring.capacity;
    const int64_t* HWY_RESTRICT times = positions_ + key % capacity;
    const int64_t now = positions_[number_ % capacity];
    std::fill(buffer, buffer + begin, 0.0f);
    std::fill(buffer + end, buffer + kBlock, 0.0f);
    for (int64_t j = begin; j < end; ++j) buffer[j] = table_[std::clamp<int64_t>(offset_ + times[j] - now, 0, last_)];
    return buffer;
  }

 private:
  const RingAttention& attention_;
  int64_t number_;
  const int64_t* positions_;
  const float* table_;
  PositionBias kind_ = PositionBias::kNone;
  int64_t offset_ = 0, last_ = 0;
};

/// How far ahead memory is asked for, in bytes. A narrow ring is read at a pace that the machine's own prefetching does not keep up with; float32 it
/// foresees as well, and what is small lies in the cache.
template <class E>
constexpr int64_t ahead_of(int64_t elements) {
  constexpr int64_t kSmallBytes = 64 * 1024, kAheadBytes = 8192;
  const int64_t bytes = elements * static_cast<int64_t>(sizeof(E));
  return sizeof(E) < sizeof(float) && bytes > kSmallBytes ? kAheadBytes : 0;
}

/// Asks for the lines `ahead` bytes behind a row of kVec vectors: keys, and values of a tile, follow each other in memory.
template <int kVec, class E>
HWY_INLINE void prefetch(const E* row, int64_t ahead) {
  if constexpr (sizeof(E) < sizeof(float)) {
    constexpr int64_t kRowBytes = kVec * static_cast<int64_t>(hn::MaxLanes(D()) * sizeof(E));
    for (int64_t byte = 0; byte < kRowBytes; byte += 64) hwy::Prefetch(reinterpret_cast<const char*>(row) + ahead + byte);
  }
}

/// function(scale q . k + bias), or the score itself for softmax, of kStepVectors vectors of keys.
template <AttentionFunction kFunction, class E>
HWY_INLINE void score_keys(int64_t d_attn, int64_t ahead, const float* HWY_RESTRICT q, const E* HWY_RESTRICT keys, V scale,
                           const float* HWY_RESTRICT bias, float* HWY_RESTRICT scores) {
  const D d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  V sum[kStepVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kStepVectors; ++v) sum[v] = hn::Zero(d);
  for (int64_t z = 0; z < d_attn; ++z) {
    const V x = hn::Set(d, q[z]);
    prefetch<kStepVectors>(keys + z * kBlock, ahead);
#pragma GCC unroll 8
    for (int v = 0; v < kStepVectors; ++v) sum[v] = hn::MulAdd(x, widened(d, keys + z * kBlock + v * lanes), sum[v]);
  }
#pragma GCC unroll 8
  for (int v = 0; v < kStepVectors; ++v) {
    V s = hn::MulAdd(sum[v], scale, hn::LoadU(d, bias + v * lanes));
    if constexpr (kFunction != AttentionFunction::kSoftmax) s = weight_of<kFunction>(d, s);
    hn::Store(s, d, scores + v * lanes);
  }
}

template <AttentionFunction kFunction, class E>
void score_items(const ScoresArgs& args) {
  const D d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const RingAttention& attention = *args.attention;
  const Ring<const E> ring{attention.ring, static_cast<const E*>(args.ring)};
  const Span span(attention, args.number);
  const StepBias bias(attention, args.number, args.positions, args.bias_table);
  const double common = common_scale(shape_of(attention), 0);
  const V scale = hn::Set(d, static_cast<float>(common != 0 ? common : 1.0 / static_cast<double>(args.number + 1)));
  const int64_t ahead = ahead_of<E>(span.items() * kBlock * attention.ring.d_attn);
  HWY_ALIGN float buffer[kBlock];
  for (int64_t item = args.item_begin; item < args.item_end; ++item) {
    const int64_t key = span.origin + item * kBlock;
    const float* biases = bias.of(key, span.seen_begin(item), span.seen_end(item), buffer);
    for (int64_t j = 0; j < kBlock; j += kStepVectors * lanes) {
      score_keys<kFunction>(attention.ring.d_attn, ahead, args.q, ring.keys(key) + j, scale, biases + j, args.scores + item * kBlock + j);
    }
  }
}

template <class E>
void scores_by_function(const ScoresArgs& args) {
  switch (args.attention->function) {
    case AttentionFunction::kSoftmax:
      return score_items<AttentionFunction::kSoftmax, E>(args);
    case AttentionFunction::kRelu2:
      return score_items<AttentionFunction::kRelu2, E>(args);
    case AttentionFunction::kLaplace:
      return score_items<AttentionFunction::kLaplace, E>(args);
  }
}

/// Softmax block by block: weights, and for each block the factor by which all before it shrink.
void soften(const Span& span, const float* HWY_RESTRICT scores, float* HWY_RESTRICT weights, float* HWY_RESTRICT shrink) {
  const D d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const V lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  V max = lowest;
  for (int64_t item = 0; item < span.items(); ++item) {
    const V begin = hn::Set(d, static_cast<float>(span.seen_begin(item))), end = hn::Set(d, static_cast<float>(span.seen_end(item)));
    const float* HWY_RESTRICT from = scores + item * kBlock;
    float* HWY_RESTRICT to = weights + item * kBlock;
    V lane_max = lowest;
    for (int64_t j = 0; j < kBlock; j += lanes) {
      const V lane = hn::Iota(d, static_cast<float>(j));
      const V s = hn::IfThenElse(hn::And(hn::Ge(lane, begin), hn::Lt(lane, end)), hn::Load(d, from + j), lowest);
      hn::Store(s, d, to + j);
      lane_max = hn::Max(lane_max, s);
    }
    const V new_max = hn::Max(max, hn::MaxOfLanes(d, lane_max));
    const V factor = hn::IfThenElse(hn::Eq(max, new_max), hn::Set(d, 1.0f), vector_exp(d, hn::Sub(max, new_max)));
    const V subtract = hn::IfThenZeroElse(hn::Eq(new_max, lowest), new_max);
    for (int64_t j = 0; j < kBlock; j += lanes) hn::Store(vector_exp(d, hn::Sub(hn::Load(d, to + j), subtract)), d, to + j);
    shrink[item] = hn::GetLane(factor);
    max = new_max;
  }
}

/// kVec vectors of columns of the sum over all keys. weight_sum: sum of the weights, or nullptr.
template <int kVec, class E>
HWY_NOINLINE void sum_values(const Span& span, const Ring<const E>& ring, int64_t tile, int64_t within, const float* HWY_RESTRICT weights,
                             const float* HWY_RESTRICT shrink, V (&sum)[kVec], float* weight_sum) {
  const D d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), width = tile_width(ring.shape, tile);
  const int64_t ahead = ahead_of<E>(span.items() * kBlock * width);
  V acc[kVec];
#pragma GCC unroll 8
  for (int v = 0; v < kVec; ++v) acc[v] = hn::Zero(d);
  float total = 0;
  for (int64_t item = 0; item < span.items(); ++item) {
    const int64_t begin = span.seen_begin(item), end = span.seen_end(item);
    const E* HWY_RESTRICT values = ring.values(span.origin + item * kBlock, tile) + within;
    const float* HWY_RESTRICT weight = weights + item * kBlock;
    if (shrink != nullptr && item > 0) {
      const V factor = hn::Set(d, shrink[item]);
#pragma GCC unroll 8
      for (int v = 0; v < kVec; ++v) acc[v] = hn::Mul(acc[v], factor);
      total *= shrink[item];
    }
    for (int64_t j = begin; j < end; ++j) {
      const V w = hn::Set(d, weight[j]);
      prefetch<kVec>(values + j * width, ahead);
#pragma GCC unroll 8
      for (int v = 0; v < kVec; ++v) acc[v] = hn::MulAdd(w, widened(d, values + j * width + v * lanes), acc[v]);
      total += weight[j];
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < kVec; ++v) sum[v] = acc[v];
  *weight_sum = total;
}

template <class E>
void sum_columns(const SumArgs& args) {
  const D d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const RingAttention& attention = *args.attention;
  const Ring<const E> ring{attention.ring, static_cast<const E*>(args.ring)};
  const Span span(attention, args.number);
  const bool softmax = attention.function == AttentionFunction::kSoftmax;
  const float* weights = args.scores;
  float* shrink = nullptr;
  if (softmax) {
    shrink = args.workspace + scores_size(attention);
    soften(span, args.scores, args.workspace, shrink);
    weights = args.workspace;
  }
  float total = 0;
  for (int64_t tile = args.col_begin; tile < args.col_end; tile += kValueTile) {
    const int64_t width = tile_width(attention.ring, tile);
    const auto columns = [&](auto vectors, int64_t within) HWY_ATTR {
      constexpr int kVec = decltype(vectors)::value;
      V sum[kVec];
      sum_values<kVec>(span, ring, tile, within, weights, shrink, sum, &total);
      for (int v = 0; v < kVec; ++v) {
        const int64_t col = tile + within + v * lanes;
        if (softmax) sum[v] = hn::Mul(sum[v], hn::Set(d, 1.0f / total));
        if (col + lanes <= attention.ring.d_hidden) {
          hn::StoreU(sum[v], d, args.out + col);
        } else if (col < attention.ring.d_hidden) {
          store_partial(sum[v], d, args.out + col, static_cast<size_t>(attention.ring.d_hidden - col));
        }
      }
    };
    int64_t within = 0;
    for (; width - within >= kStepVectors * lanes; within += kStepVectors * lanes) columns(std::integral_constant<int, kStepVectors>(), within);
    for (; within < width; within += lanes) columns(std::integral_constant<int, 1>(), within);
  }
}

/// dst[o][v] (+)= sum_z keys[z][o] packed[z][v] for kTileRows keys o and kVectors vectors v of queries. Keys past the last one repeat it and are not
/// stored.
template <int kVectors>
HWY_INLINE void dots_tile_of_keys(int64_t rows, int64_t depth, bool add, const float* HWY_RESTRICT keys, const float* HWY_RESTRICT packed,
                                  float* HWY_RESTRICT dst) {
  const D d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  V sum[kTileRows][kVectors];
  int64_t at[kTileRows];
  for (int64_t r = 0; r < kTileRows; ++r) {
    at[r] = std::min(r, rows - 1);
    for (int v = 0; v < kVectors; ++v) sum[r][v] = add ? hn::Load(d, dst + at[r] * kBlock + v * lanes) : hn::Zero(d);
  }
  const auto multiply = [&](const auto& place) HWY_ATTR {
    for (int64_t z = 0; z < depth; ++z) {
      V own[kVectors];
      for (int v = 0; v < kVectors; ++v) own[v] = hn::Load(d, packed + z * kBlock + v * lanes);
      for (int64_t r = 0; r < kTileRows; ++r) {
        const V x = hn::Set(d, keys[z * kBlock + place(r)]);
        for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::MulAdd(x, own[v], sum[r][v]);
      }
    }
  };
  if (rows == kTileRows) {
    multiply([](int64_t r) HWY_ATTR { return r; });
  } else {
    multiply([&](int64_t r) HWY_ATTR { return at[r]; });
  }
  for (int64_t r = 0; r < kTileRows; ++r) {
    if (r >= rows) break;
    for (int v = 0; v < kVectors; ++v) hn::Store(sum[r][v], d, dst + r * kBlock + v * lanes);
  }
}

/// dots() of window_attention-inl.h for keys that lie transposed, (Z, 64).
void dots_of_keys(const BlockPair& pair, const Ranges& by_other, int64_t depth, const float* HWY_RESTRICT keys, const float* HWY_RESTRICT packed,
                  float* HWY_RESTRICT dst) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(D()));
  for (int64_t z = 0; z < depth; z += kDepthChunk) {
    const int64_t chunk = std::min(kDepthChunk, depth - z);
    for (int64_t o = pair.other_begin; o < pair.other_end; o += kTileRows) {
      const int64_t rows = std::min(kTileRows, pair.other_end - o);
      const int64_t vector_end = (by_other.end[o + rows - 1] + lanes - 1) / lanes;
      for (int64_t v = by_other.begin[o] / lanes; v < vector_end; v += kTileVectors) {
        const float* HWY_RESTRICT from = keys + z * kBlock + o;
        const float* HWY_RESTRICT own = packed + z * kBlock + v * lanes;
        float* HWY_RESTRICT to = dst + o * kBlock + v * lanes;
        const int64_t left = vector_end - v;
        if (left == 1) {
          dots_tile_of_keys<1>(rows, chunk, z > 0, from, own, to);
        } else if (kTileVectors == 2 || left == 2) {
          dots_tile_of_keys<2>(rows, chunk, z > 0, from, own, to);
        } else if (left == 3) {
          dots_tile_of_keys<3>(rows, chunk, z > 0, from, own, to);
        } else {
          dots_tile_of_keys<kTileVectors>(rows, chunk, z > 0, from, own, to);
        }
      }
    }
  }
}

template <class E>
void attend_one(const BlockArgs& args) {
  const RingAttention& attention = *args.attention;
  float* scores = args.workspace;
  scores_by_function<E>({&attention, args.first, 0, Span(attention, args.first).items(), args.q, args.ring, args.positions, args.bias_table, scores});
  sum_columns<E>({&attention, args.first, 0, attention.ring.d_hidden, scores, args.ring, args.out, args.workspace + scores_size(attention)});
}

// The block of queries is one item of window_attention.cc's forward pass, of a sequence that begins with the first block of keys that it sees: only
// differences of numbers matter there, but for the scale, which takes the true one.
template <class E>
void attend(const BlockArgs& args) {
  if (args.count <= 0) return;
  if (args.count == 1) return attend_one<E>(args);
  const RingAttention& attention = *args.attention;
  const WindowAttentionShape shape = shape_of(attention);
  const Ring<const E> ring{attention.ring, static_cast<const E*>(args.ring)};
  const int64_t d_attn = shape.d_attn, d_hidden = shape.d_hidden, capacity = attention.ring.capacity;
  const bool softmax = shape.function == AttentionFunction::kSoftmax;
  const D d;
  Arena<float> arena(args.workspace);
  float* packed_q = arena.take(d_attn * kBlock);
  float* scores = arena.take(kScoreSize);
  float* panel = arena.take(kPanelSize<float>);
  float* scales = arena.take(kBlock);
  float* maxima = arena.take(kBlock);
  float* sums = arena.take(kBlock);
  float* shrink = arena.take(kBlock);
  float* wide_keys = arena.take(attention.ring.type == RingType::kBf16 ? d_attn * kBlock : 0);
  float* wide_values = arena.take(attention.ring.type == RingType::kBf16 ? kBlock * kValueTile : 0);
  int64_t* times = reinterpret_cast<int64_t*>(arena.take(times_size(attention)));

  const int64_t origin = Span(attention, args.first).origin, own = args.first - origin, keys_end = own + args.count;
  const Visible sees = visible_keys(shape, keys_end);
  BlockPair pair{sees, sees.inverse(), own, args.count, 0};
  BiasBlock<float, Side::kQueries> bias(shape, args.bias_table);
  if (bias.kind() == PositionBias::kOriginalDistance) {
    for (int64_t i = 0; i < keys_end;) {
      const int64_t row = (origin + i) % capacity, rows = std::min(capacity - row, keys_end - i);
      std::copy_n(args.positions + row, rows, times + i);
      i += rows;
    }
  }
  pack_transposed(d, args.count, d_attn, args.q, args.q_stride, packed_q);
  query_scales(shape, 0, args.first, scales);
  bias.set_own(pair, times, 0);
  std::fill(maxima, maxima + kBlock, -std::numeric_limits<float>::infinity());
  std::fill(sums, sums + kBlock, 0.0f);
  Ranges by_own, by_other;
  Prefetcher prefetcher(0);
  for (int64_t block = pair.first_block(); block <= pair.last_block(); ++block) {
    pair.move_to(block);
    by_own.set_own(pair);
    by_other.set_other(pair);
    const int64_t key = origin + pair.other;
    const float* keys = wide_keys;
    if constexpr (sizeof(E) == sizeof(float)) {
      keys = ring.keys(key);
    } else {
      widen(d, ring.keys(key), d_attn * kBlock, wide_keys);
    }
    dots_of_keys(pair, by_other, d_attn, keys, packed_q, scores);
    bias.set_other(pair);
    weigh_by(shape.function, pair, bias, scales, scores, maxima, sums, shrink);
    for (int64_t tile = 0; tile < d_hidden; tile += kValueTile) {
      const int64_t width = tile_width(attention.ring, tile);
      const float* values = wide_values;
      if constexpr (sizeof(E) == sizeof(float)) {
        values = ring.values(key, tile);
      } else {
        const int64_t begin = pair.other_begin * width;
        widen(d, ring.values(key, tile) + begin, pair.other_end * width - begin, wide_values + begin);
      }
      accumulate<false>(d, by_own, pair.other_begin, pair.other_end, scores, std::min(kValueTile, d_hidden - tile), values, width,
                        block == pair.first_block(), softmax ? shrink : nullptr, args.out + tile, args.out_stride, panel, prefetcher);
    }
  }
  if (!softmax) return;
  for (int64_t r = 0; r < args.count; ++r) scale_row(d, d_hidden, 1.0f / sums[r], args.out + r * args.out_stride);
}

void scores_f32(const ScoresArgs& args) {
  scores_by_function<float>(args);
}
void scores_bf16(const ScoresArgs& args) {
  scores_by_function<uint16_t>(args);
}
void sum_f32(const SumArgs& args) {
  sum_columns<float>(args);
}
void sum_bf16(const SumArgs& args) {
  sum_columns<uint16_t>(args);
}
void attend_f32(const BlockArgs& args) {
  attend<float>(args);
}
void attend_bf16(const BlockArgs& args) {
  attend<uint16_t>(args);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqboat::kernels {
namespace {

HWY_EXPORT(scores_f32);
HWY_EXPORT(scores_bf16);
HWY_EXPORT(sum_f32);
HWY_EXPORT(sum_bf16);
HWY_EXPORT(attend_f32);
HWY_EXPORT(attend_bf16);

inline void copy_row(const float* from, int64_t count, float* to) {
  std::copy_n(from, count, to);
}
inline void copy_row(const float* from, int64_t count, uint16_t* to) {
  float_to_bf16(count, from, to);
}

template <class E>
void append(const key_ring_impl::Ring<E>& ring, int64_t first, int64_t n, const float* k, int64_t k_stride, const float* v, int64_t v_stride) {
  constexpr int64_t kPiece = 64;
  const KeyRingShape& shape = ring.shape;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t number = first + i;
    E* column = ring.keys(number) + number % kBlock;
    for (int64_t z = 0; z < shape.d_attn; z += kPiece) {
      E piece[kPiece];
      const int64_t count = std::min(kPiece, shape.d_attn - z);
      copy_row(k + i * k_stride + z, count, piece);
      for (int64_t y = 0; y < count; ++y) column[(z + y) * kBlock] = piece[y];
    }
    for (int64_t col = 0; col < shape.d_hidden; col += kValueTile) {
      copy_row(v + i * v_stride + col, std::min(kValueTile, shape.d_hidden - col), ring.values(number, col));
    }
  }
}

}  // namespace

int64_t key_ring_capacity(int64_t window, int64_t most_queries) noexcept {
  return key_ring_impl::round_up(std::max<int64_t>(0, window) + most_queries, kBlock);
}

size_t key_ring_bytes(const KeyRingShape& shape) noexcept {
  using namespace key_ring_impl;
  return static_cast<size_t>(shape.capacity * (shape.d_attn + round_up(shape.d_hidden, kPadding)) * element_bytes(shape.type));
}

void key_ring_append(const KeyRingShape& shape, int64_t first, int64_t n, const float* k, int64_t k_stride, const float* v, int64_t v_stride,
                     void* ring) noexcept {
  if (shape.type == RingType::kFloat32) {
    append(key_ring_impl::Ring<float>{shape, static_cast<float*>(ring)}, first, n, k, k_stride, v, v_stride);
  } else {
    append(key_ring_impl::Ring<uint16_t>{shape, static_cast<uint16_t*>(ring)}, first, n, k, k_stride, v, v_stride);
  }
}

void position_ring_append(int64_t capacity, int64_t first, int64_t n, const int64_t* positions, int64_t* ring) noexcept {
  for (int64_t i = 0; i < n; ++i) ring[(first + i) % capacity] = positions[i];
}

int64_t key_ring_step_items(const RingAttention& attention, int64_t number) noexcept {
  return key_ring_impl::Span(attention, number).items();
}

size_t key_ring_step_scores_size(const RingAttention& attention) noexcept {
  return static_cast<size_t>(key_ring_impl::scores_size(attention));
}

size_t key_ring_step_workspace_size(const RingAttention& attention) noexcept {
  return static_cast<size_t>(key_ring_impl::step_workspace_size(attention));
}

void key_ring_step_scores(const RingAttention& attention, int64_t number, int64_t item_begin, int64_t item_end, const float* q, const void* ring,
                          const int64_t* positions, const float* bias_table, float* scores) noexcept {
  const key_ring_impl::ScoresArgs args{&attention, number, item_begin, item_end, q, ring, positions, bias_table, scores};
  if (attention.ring.type == RingType::kFloat32) {
    HWY_DYNAMIC_DISPATCH(scores_f32)(args);
  } else {
    HWY_DYNAMIC_DISPATCH(scores_bf16)(args);
  }
}

void key_ring_step_sum(const RingAttention& attention, int64_t number, int64_t col_begin, int64_t col_end, const float* scores, const void* ring,
                       float* out, float* workspace) noexcept {
  const key_ring_impl::SumArgs args{&attention, number, col_begin, col_end, scores, ring, out, workspace};
  if (attention.ring.type == RingType::kFloat32) {
    HWY_DYNAMIC_DISPATCH(sum_f32)(args);
  } else {
    HWY_DYNAMIC_DISPATCH(sum_bf16)(args);
  }
}

size_t key_ring_attention_workspace_size(const RingAttention& attention) noexcept {
  return static_cast<size_t>(key_ring_impl::block_workspace_size(attention));
}

void key_ring_attention(const RingAttention& attention, int64_t first, int64_t count, const float* q, int64_t q_stride, const void* ring,
                        const int64_t* positions, const float* bias_table, float* out, int64_t out_stride, float* workspace) noexcept {
  const key_ring_impl::BlockArgs args{&attention, first, count, q, q_stride, ring, positions, bias_table, out, out_stride, workspace};
  if (attention.ring.type == RingType::kFloat32) {
    HWY_DYNAMIC_DISPATCH(attend_f32)(args);
  } else {
    HWY_DYNAMIC_DISPATCH(attend_bf16)(args);
  }
}

}  // namespace seqboat::kernels
#endif  // HWY_ONCE
