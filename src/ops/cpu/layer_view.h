#pragma once

// Private to src/ops/cpu: what the passes of the fused layer share. The forward is in seqboat_layer_forward.cc, the backward in
// seqboat_layer_backward.cc. Their blocks are of tokens or of active tokens (row_blocks.h).

#include <cstdint>
#include <functional>
#include <utility>

#include "ops/cpu/attention_passes.h"
#include "ops/cpu/norm_view.h"
#include "ops/cpu/row_blocks.h"
#include "ops/cpu/scan_passes.h"
#include "seqboat/kernels/dropout.h"
#include "seqboat/ops/phases.h"
#include "seqboat/ops/seqboat_layer.h"

namespace seqboat::ops {

/// The layer's arguments as plain pointers; the tensors they point into are contiguous and outlive it.
template <class T>
struct LayerView {
  int64_t batch, tokens, dim, d_attn, d_hidden;
  int64_t width;  ///< Z + 2H
  const int64_t *cu_seqlens, *positions, *sequence_ids;
  const uint8_t* forced;
  const T *x, *router_weight, *router_bias, *log_temperature, *skip_weight, *skip_bias, *in_weight, *in_bias, *qk_gamma, *qk_beta, *bias_table;
  const T *out_weight, *out_bias;
  ScanArguments<T> scan;
  kernels::WindowAttentionShape attention;  ///< without active_cu_seqlens
  NormView<T> norm;
  bool prenorm, causal, rotary;
  bool has_unit;    ///< else nothing is active
  bool has_router;  ///< decides, and weighs by its confidence
  bool selects;     ///< a router or forced decisions say which tokens are active; else all are
  double act_bias, dropout;
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

/// Workspace of add_weight_gradient for any weight of a layer.
template <class T>
int64_t gradient_workspace_size(const LayerView<T>& v) {
  return gradient_workspace_size<T>({{v.dim, v.dim}, {v.width, v.dim}, {v.dim, v.d_hidden}, {int64_t{2}, v.dim}});
}

// ---- passes that forward and backward share ----

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
