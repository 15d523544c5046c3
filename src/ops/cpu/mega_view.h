#pragma once

// Private to src/ops/cpu: what the passes of the fused Mega layer share with the glue in mega_layer.cc; the passes are in mega_layer_passes.cc.

#include <cstdint>

#include "ops/cpu/attention_passes.h"
#include "ops/cpu/norm_view.h"
#include "ops/cpu/scan_passes.h"
#include "seqboat/kernels/dropout.h"

namespace seqboat::ops {

/// The layer's arguments as plain pointers; the tensors they point into are contiguous and outlive it.
template <class T>
struct MegaView {
  int64_t batch, tokens, dim, d_attn, d_hidden;
  const int64_t *cu_seqlens, *positions, *sequence_ids;
  const T *x, *v_weight, *v_bias, *in_weight, *in_bias, *qk_gamma, *qk_beta, *bias_table, *out_weight, *out_bias;
  NormView<T> norm;
  ScanArguments<T> scan;
  kernels::WindowAttentionShape attention;  ///< without the chunks
  int64_t chunk_size;                       ///< negative: none
  kernels::Activation activation;
  bool prenorm;
  double dropout;
  kernels::DropoutKey random;  ///< its site is that of the pass's first

  /// m's projection: columns u (D), z (Z), r (H), g (D).
  int64_t width() const { return 2 * dim + d_attn + d_hidden; }
  int64_t z_column() const { return dim; }
  int64_t r_column() const { return dim + d_attn; }
  int64_t g_column() const { return dim + d_attn + d_hidden; }
};

/// What a forward keeps: one buffer of M (Z + 3H + 3D + 3) elements.
template <class T>
struct MegaKept {
  static int64_t row(int64_t dim, int64_t d_attn, int64_t d_hidden) { return d_attn + 3 * d_hidden + 3 * dim + 3; }
  MegaKept(T* buffer, const MegaView<T>& v)
      : ema_out(buffer),
        v_pre(ema_out + v.tokens * v.dim),
        base(v_pre + v.tokens * v.d_hidden),
        attention(base + v.tokens * v.width()),
        lse(attention + v.tokens * v.d_hidden),
        mean(lse + v.tokens),
        rstd(mean + v.tokens) {}
  T* ema_out;    ///< (M, D) before SiLU
  T* v_pre;      ///< (M, H) v before its activation
  T* base;       ///< (M, Z+H+2D) m's projection; in g's columns, in the end, the argument of the candidate's activation
  T* attention;  ///< (M, H)
  T* lse;        ///< (M)
  T* mean;       ///< (M) of the row norm; batch norm keeps nothing here
  T* rstd;       ///< (M)
};

template <class T>
struct MegaGradients {
  T *x, *norm_weight, *norm_bias, *encoder_decay, *encoder_weight, *encoder_skip, *v_weight, *v_bias, *in_weight, *in_bias, *qk_gamma, *qk_beta,
      *bias_table, *out_weight,
      *out_bias;  ///< nullptr where the argument is absent
};

/// keeps_v: kept.v_pre is wanted; else it is not written.
template <class T>
void mega_forward(const MegaView<T>& v, const MegaKept<T>& kept, bool keeps_v, T* y);

template <class T>
void mega_backward(const MegaView<T>& v, const MegaKept<T>& kept, const T* grad_y, const MegaGradients<T>& grad);

}  // namespace seqboat::ops
