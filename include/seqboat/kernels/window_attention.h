#pragma once

#include <cstddef>
#include <cstdint>

namespace seqboat::kernels {

/// Rows of a work item, and the grid on which keys are taken in blocks, counted from the start of a sequence. The grid is part of the definition of a
/// result's bits (softmax rescales once a block), so it does not depend on the SIMD target.
inline constexpr int64_t kAttentionBlock = 64;

enum class AttentionFunction {
  kSoftmax,  ///< exp(s) / sum exp(s)
  kRelu2,    ///< max(s, 0)^2
  kLaplace,  ///< (1 + erf((s - 0.707107) / (0.282095 sqrt 2))) / 2
};

enum class PositionBias {
  kNone,
  kOriginalDistance,  ///< table[clamp(M-1 + t_j - t_i, 0, 2M-2)], t = original time of the active token   ("simple")
  kWindowDistance,    ///< table[M-1 + W + j - i], i, j = number among the active tokens, M = 3W           ("local_pos")
};

/// Attention of the active tokens of each sequence to the last W active ones (causal) or to W on either side.
///
///   active tokens of one sequence      o o o o o o o o o o        window W = 3
///   keys of query i, causal                  x x x Q              0 <= i-j <= W       (W+1 keys)
///   keys of query i, bidirectional           x x x Q x x x        |i-j| <= W          (2W+1 keys)
struct WindowAttentionShape {
  int64_t batch;                     ///< B
  const int64_t* active_cu_seqlens;  ///< (B+1) offsets of the K active tokens
  int64_t d_attn;                    ///< Z
  int64_t d_hidden;                  ///< H
  int64_t q_stride, k_stride;        ///< row strides in elements, >= Z
  int64_t v_stride, out_stride;      ///< row strides in elements, >= H; gradients use the stride of their tensor
  int64_t window;                    ///< W; negative: no end (full attention)
  bool causal;
  AttentionFunction function;
  PositionBias bias = PositionBias::kNone;
  int64_t max_positions = 0;  ///< M; the table has 2M-1 entries
};

/// Work items of the forward: blocks of consecutive queries, sequence after sequence; their borders depend on a token's number within its
/// sequence alone. Calls over disjoint item ranges may run in parallel; results have the same bits however the items are cut.
int64_t window_attention_items(const WindowAttentionShape& shape) noexcept;

/// out[i] = sum_j a_ij v_j,  a_ij = function(scale_i q_i . k_j + bias_ij)
/// scale: softmax Z^-1/2; relu2 and laplace 1/L with L = W (causal) or 2W (bidirectional) for a window, and without one
/// L = i+1 (causal, i = number among the active tokens of its sequence) or the number of active tokens of the sequence
/// (a window of 0 counts as L = 1). A key outside the window weighs exactly zero under every function and is not multiplied by it: it may be NaN.
///
/// q, k (K, Z); v, out (K, H); positions (K) original time within the sequence, increasing, read for kOriginalDistance; bias_table (2M-1) or
/// nullptr, every index into it is clamped to its ends; lse (K): log-sum-exp of the scores, written for softmax, else untouched (may be
/// nullptr). float32 or float64. Inputs and outputs do not overlap. Accumulated in T.
/// Blocked and online: no score matrix in memory. Row i depends on its own sequence alone, in a fixed order of sums that anything which must give
/// the same bits (a streaming step) can follow: a score is one chain of fused multiply-adds over z in increasing order from zero, then
/// fma(dot, scale, bias); an output element is one chain over the keys in increasing order from zero. Softmax does this in blocks of 64 keys
/// counted from the start of the sequence: the new maximum m' of the block's keys in the window and all before, sum and output times exp(m - m'),
/// then exp(score - m') of each key added to the sum and times v to the output; at the end the output times 1 / sum.
/// workspace: window_attention_workspace_size<T>() elements a thread, 64-byte aligned. Calling thread only; allocates nothing.
template <class T>
void window_attention_fwd(const WindowAttentionShape& shape, int64_t item_begin, int64_t item_end, const T* q, const T* k, const T* v,
                          const int64_t* positions, const T* bias_table, T* out, T* lse, T* workspace) noexcept;

/// Work items of the backward. A sequence is cut into chunks of a few blocks (how many depends on the window alone); an item is one chunk of keys
/// with one chunk of queries, so that scores are computed once for all gradients. A phase has the items of one distance d = chunk of the queries -
/// chunk of the keys, which share no row of any gradient:
///
///   causal          d = 0, 1, 2, ...             keys      0 1 2 3
///   bidirectional   d = 0, 1, -1, 2, -2, ...     queries 0 a c        a  phase 0 (d = 0)
///                                                        1 b a c      b  phase 1 (d = 1)
///                                                        2   b a c    c  phase 2 (d = -1)
///
/// Phases are done in order, 0 first, each to its end before the next; calls over disjoint item ranges of one phase may run in parallel. Results have
/// the same bits however items are cut. A batch of nothing has no phase.
int64_t window_attention_bwd_phases(const WindowAttentionShape& shape) noexcept;
int64_t window_attention_bwd_items(const WindowAttentionShape& shape, int64_t phase) noexcept;

/// Gradients of queries, keys, values and bias table. out and lse are the forward's. dq (K, Z, stride q_stride), dk (K, Z, stride k_stride) and
/// dv (K, H, stride v_stride) are written by phase 0 and added to by the others. delta (K) = sum_h dout[i,h] out[i,h] is written by phase 0 and read
/// by the others (softmax; untouched otherwise, may be nullptr). dbias (2M-1) or nullptr is added to, a sum an item: give each fixed group of
/// items its own and add them in order. What lies outside a row's window does not touch its gradients: it may be NaN.
/// Row i depends on its own sequence alone: a gradient is one chain of fused multiply-adds over the rows it sees, in the order of the phases and
/// increasing within one; scores and d(loss)/d(weight) are such chains over z and h.
/// workspace: as for the forward. Calling thread only; allocates nothing.
template <class T>
void window_attention_bwd(const WindowAttentionShape& shape, int64_t phase, int64_t item_begin, int64_t item_end, const T* q, const T* k, const T* v,
                          const int64_t* positions, const T* bias_table, const T* out, const T* lse, const T* dout, T* dq, T* dk, T* dv, T* dbias,
                          T* delta, T* workspace) noexcept;

/// Elements of T for one thread's workspace, enough for forward and backward.
template <class T>
size_t window_attention_workspace_size(const WindowAttentionShape& shape) noexcept;

/// Rotates pairs (2i, 2i+1) of each row by the angle position * base^(-2i/Z), i = 0 .. Z/2-1; inverse = true rotates back (the gradient).
/// x, y (rows, Z) with row strides, y may be x; Z even; positions (rows) original time, >= 0. base 10000.
/// Angles are computed and reduced in double, so that they stay exact at position 1e9; sine and cosine are rounded to T.
template <class T>
void rotary(int64_t rows, int64_t d_attn, int64_t x_stride, int64_t y_stride, const int64_t* positions, bool inverse, const T* x, T* y) noexcept;

}  // namespace seqboat::kernels
