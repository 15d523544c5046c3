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
#include "kernels/cpu/window_attention_weights-inl.h"

#ifndef SEQBOAT_KERNELS_CPU_WINDOW_ATTENTION_ONCE_
#define SEQBOAT_KERNELS_CPU_WINDOW_ATTENTION_ONCE_
namespace seqboat::kernels {
namespace window_attention_impl {

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

template <class T>
struct BackwardArgs {
  const WindowAttentionShape* shape;
  int64_t phase, item_begin, item_end;
  const T *q, *k, *v;
  const int64_t* positions;
  const T *bias_table, *out, *lse, *dout;
  T *dq, *dk, *dv, *dbias, *delta, *workspace;
};

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
