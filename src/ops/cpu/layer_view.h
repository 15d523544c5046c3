#pragma once

// Private to src/ops/cpu: what the passes of the fused layer share. The forward is in seqboat_layer_forward.cc, the backward in
// seqboat_layer_backward.cc.
//
// A pass walks over blocks of kBlockRows tokens (or active tokens); what it makes of a block it makes while the block lies in the cache, by the same
// kernels, in the same order, as the composite of single operators: so the forward has the composite's bits.

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <utility>

#include "ops/common.h"
#include "ops/cpu/attention_passes.h"
#include "ops/cpu/scan_passes.h"
#include "ops/cpu/scratch.h"
#include "seqboat/kernels/dropout.h"
#include "seqboat/kernels/gemm.h"
#include "seqboat/kernels/norm.h"
#include "seqboat/ops/phases.h"
#include "seqboat/ops/seqboat_layer.h"

namespace seqboat::ops {

inline constexpr int64_t kBlockRows = 128;
// Sums over tokens are taken in chunks of this many, each by one thread in order, whatever their number; the chunks are added in order. A multiple of
// kBlockRows.
inline constexpr int64_t kChunkRows = 512;

/// The order in which a layer's dropouts are numbered (nn/dropout_sites.h gives the same to the composite).
inline constexpr uint32_t kStateSite = 0, kAttentionSite = 1, kOutputSite = 2;

/// The layer's arguments as plain pointers; the tensors they point into are contiguous and outlive it.
template <class T>
struct LayerView {
  int64_t batch, tokens, dim, d_attn, d_hidden;
  int64_t width;  ///< Z + 2H
  const int64_t *cu_seqlens, *positions, *sequence_ids;
  const uint8_t* forced;
  const T *x, *norm_weight, *norm_bias, *norm_mean;
  const T* norm_rstd;  ///< batch norm: 1 / sqrt(var + eps)
  const T *router_weight, *router_bias, *log_temperature, *skip_weight, *skip_bias, *in_weight, *in_bias, *qk_gamma, *qk_beta, *bias_table;
  const T *out_weight, *out_bias;
  ScanArguments<T> scan;
  kernels::WindowAttentionShape attention;  ///< without active_cu_seqlens
  kernels::RowNorm row_norm;
  bool is_batch_norm, prenorm, batch_stats, causal, rotary;
  bool has_unit;    ///< else nothing is active
  bool has_router;  ///< decides, and weighs by its confidence
  bool selects;     ///< a router or forced decisions say which tokens are active; else all are
  double eps, act_bias, dropout;
  kernels::DropoutKey random;  ///< its site is that of the pass's first

  kernels::DropoutKey key(uint32_t site) const {
    kernels::DropoutKey out = random;
    out.site += site;
    return out;
  }
  bool drops_attention() const { return dropout > 0 && !causal; }
  bool drops_output() const { return dropout > 0 && causal; }
};

/// Kept per token: one buffer of M (2D + 4) elements.
template <class T>
struct KeptTokens {
  static int64_t size(int64_t tokens, int64_t dim) { return tokens * (2 * dim + 4); }
  KeptTokens(T* buffer, int64_t tokens, int64_t dim)
      : ema_out(buffer), pre(buffer + tokens * dim), mean(pre + tokens * dim), rstd(mean + tokens), logits(rstd + tokens) {}
  T* ema_out;  ///< (M, D) before SiLU
  T* pre;      ///< (M, D) argument of the last SiLU
  T* mean;     ///< (M) of the row norm; batch norm keeps nothing here
  T* rstd;     ///< (M)
  T* logits;   ///< (M, 2)
};

/// Kept per active token: one buffer of K (Z + 3H + 1) elements.
template <class T>
struct KeptActive {
  static int64_t size(int64_t active, int64_t width, int64_t d_hidden) { return active * (width + d_hidden + 1); }
  KeptActive(T* buffer, int64_t active, int64_t width, int64_t d_hidden)
      : base(buffer), attention(buffer + active * width), lse(attention + active * d_hidden) {}
  T* base;       ///< (K, Z+2H) the unit's projection before SiLU
  T* attention;  ///< (K, H)
  T* lse;        ///< (K)
};

/// The active tokens of all sequences.
struct ActiveIndex {
  int64_t count;                     ///< K
  const int64_t* index;              ///< (K) rows
  const int64_t* positions;          ///< (K) time within the sequence
  const int64_t* active_cu_seqlens;  ///< (B+1)

  /// Numbers of the active tokens among rows [begin, end).
  std::pair<int64_t, int64_t> within(int64_t begin, int64_t end) const {
    const int64_t* first = std::lower_bound(index, index + count, begin);
    return {first - index, std::lower_bound(first, index + count, end) - index};
  }
};

/// What the unit's attention reads, made again from `base`.
template <class T>
struct UnitActivations {
  T* all;    ///< (K, Z+2H) SiLU(base): z, r, v
  T *q, *k;  ///< (K, Z), rotated
};

// ---- products of blocks of rows ----

/// A weight W (out, in) in the order in which products read it, packed once for all blocks of a pass.
template <class T>
class PackedWeight {
 public:
  enum Use { kForward, kBackward };
  /// kForward: y (rows, out) = x (rows, in) W^T + bias. kBackward: dx (rows, in) = dy (rows, out) W. Memory is taken here; pack() fills it.
  PackedWeight(Scratch& scratch, const T* weight, int64_t out, int64_t in, Use use)
      : weight_(weight),
        shape_{.m = 0, .n = use == kForward ? out : in, .k = use == kForward ? in : out, .lda = 0, .ldb = in, .ldc = 0, .trans_b = use == kForward} {
    packed_ = scratch.take<T>(static_cast<int64_t>(kernels::gemm_packed_size<T>(shape_)));
  }
  void pack() { kernels::gemm_pack_b<T>(shape_, weight_, packed_); }

  /// Rows of x and y are contiguous.
  void multiply(int64_t rows, const T* x, const T* bias, T* y, bool accumulate = false) const {
    kernels::GemmShape shape = shape_;
    shape.m = rows;
    shape.lda = shape.k;
    shape.ldc = shape.n;
    shape.accumulate = accumulate;
    kernels::gemm_packed<T>(shape, x, packed_, bias, y);
  }

 private:
  const T* weight_;
  kernels::GemmShape shape_;
  T* packed_;
};

/// Packs all of them, a weight a task.
template <class T>
void pack_weights(std::initializer_list<PackedWeight<T>*> weights) {
  parallel_tasks(static_cast<int64_t>(weights.size()), [&](int64_t i) { weights.begin()[i]->pack(); });
}

/// dW (out, in) += dy (rows, out)^T x (rows, in), rows contiguous.
template <class T>
void add_weight_gradient(int64_t rows, int64_t out, int64_t in, const T* dy, const T* x, T* dw, T* workspace) {
  kernels::gemm<T>({.m = out, .n = in, .k = rows, .lda = out, .ldb = in, .ldc = in, .trans_a = true, .accumulate = true}, dy, x, nullptr, dw,
                   workspace);
}

/// Workspace of add_weight_gradient for any weight of a layer and at most kBlockRows rows.
template <class T>
int64_t gradient_workspace_size(const LayerView<T>& v) {
  size_t size = 0;
  for (const auto& [in, out] : {std::pair{v.dim, v.dim}, std::pair{v.dim, v.width}, std::pair{v.d_hidden, v.dim}, std::pair{v.dim, int64_t{2}}})
    size = std::max(size, kernels::gemm_workspace_size<T>(
                              {.m = out, .n = in, .k = kBlockRows, .lda = out, .ldb = in, .ldc = in, .trans_a = true, .accumulate = true}));
  return static_cast<int64_t>(size + 15) / 16 * 16;
}

/// Buffers of one worker, cut from its thread's workspace in multiples of a cache line.
template <class T>
class LocalBuffers {
 public:
  explicit LocalBuffers(int64_t elements, int buffers) : next_(thread_workspace<T>(static_cast<size_t>(elements + 16 * buffers))) {}
  T* take(int64_t count) {
    T* out = next_;
    next_ += (count + 15) / 16 * 16;
    return out;
  }

 private:
  T* next_;
};

/// acc[j] += sum of column j of x (rows, dim).
template <class T>
void add_column_sums(int64_t rows, int64_t dim, int64_t stride, const T* x, T* acc, T* temporary) {
  kernels::column_sum<T>(rows, dim, stride, 0, dim, x, temporary);
  for (int64_t j = 0; j < dim; ++j) acc[j] += temporary[j];
}

// ---- passes that forward and backward share ----

/// Statistics aside: y = norm(x) for all rows. mean and rstd (M) are written for row norms (mean: layer norm).
template <class T>
void norm_pass(const LayerView<T>& v, const T* x, T* y, T* mean, T* rstd);

/// m = dropout(SiLU(ema_out)) of rows [begin, begin + rows).
template <class T>
void state_rows(const LayerView<T>& v, int64_t begin, int64_t rows, const T* ema_out, T* m);

template <class T>
ActiveIndex make_index(const LayerView<T>& v, const uint8_t* active, Scratch& scratch);

/// SiLU(base), q and k of active rows [begin, begin + rows).
template <class T>
void unit_rows(const LayerView<T>& v, const ActiveIndex& active, int64_t begin, int64_t rows, const T* base, const UnitActivations<T>& out);

/// Sequence ids of active rows [begin, begin + rows), for dropout.
template <class T>
void active_ids(const LayerView<T>& v, const ActiveIndex& active, int64_t begin, int64_t rows, int64_t* ids);

template <class T>
kernels::WindowAttentionShape attention_shape(const LayerView<T>& v, const ActiveIndex& active);

// ---- the two directions ----

template <class T>
struct LayerOutput {
  T* y;             ///< (M, D)
  uint8_t* active;  ///< (M); nullptr where nobody decides
  T* probability;   ///< (M); nullptr without a router
};

/// allocate_active(K) gives the buffer of KeptActive.
template <class T>
void layer_forward(const LayerView<T>& v, const KeptTokens<T>& kept, const std::function<T*(int64_t)>& allocate_active, const LayerOutput<T>& out);

template <class T>
struct LayerGradients {
  T *x, *norm_weight, *norm_bias, *encoder_decay, *encoder_weight, *encoder_skip, *router_weight, *router_bias, *log_temperature, *skip_weight,
      *skip_bias, *in_weight, *in_bias, *qk_gamma, *qk_beta, *bias_table, *out_weight, *out_bias;  ///< nullptr where the argument is absent
};

template <class T>
void layer_backward(const LayerView<T>& v, const KeptTokens<T>& kept, T* kept_active, const uint8_t* active, const T* grad_y,
                    const T* grad_probability, const LayerGradients<T>& grad);

}  // namespace seqboat::ops
