// The fused Mega layer. One pass is one parallel loop; between two of them stands only what needs all tokens of a sequence or of a chunk: the scan
// and the attention. With n = norm(x) (or x), v = act(v_proj n), m = dropout(SiLU(EMA(n))), in_proj m = (u, z, r, g), a = attention(q, k, v):
//
//   pre = g + out_proj(a SiLU(r)),   h = dropout(act(pre)),   y = x + sigma(u) (h - x)
//
// and backwards
//
//   dh  = dy sigma(u),   du = dy (h - x) sigma'(u),   dx = dy - dh + (through v_proj, EMA and norm)
//   dg  = dpre = dropout(dh) act'(pre)
//   d(a SiLU(r)) = dpre out_proj;  through the attention dq, dk, dv;  dz from both of dq and dk
//   dm  = (du, dz, dr, dg) in_proj,   dema = dropout(dm) SiLU'(ema_out)
//
// Weight gradients are sums over tokens: a chunk of kChunkRows tokens is one task with partial sums of its own, block after block while the block is
// in the cache, and the chunks are added in order.

#include "ops/cpu/mega_view.h"
#include "seqboat/kernels/gated_rows.h"

namespace seqboat::ops {
namespace {

using kernels::Activation;

template <class T>
void drop(const MegaView<T>& v, uint32_t site, int64_t begin, int64_t rows, T* t) {
  if (v.dropout <= 0) return;
  kernels::DropoutKey key = v.random;
  key.site += site;
  kernels::dropout<T>(key, v.dropout, 0, rows, v.dim, v.sequence_ids + begin, v.positions + begin, t, t);
}

/// The attention's sequences: each of the batch cut into blocks of chunk_size tokens, the last one shorter.
template <class T>
kernels::WindowAttentionShape attention_shape(const MegaView<T>& v, Scratch& scratch) {
  kernels::WindowAttentionShape shape = v.attention;
  shape.batch = v.batch;
  shape.active_cu_seqlens = v.cu_seqlens;
  if (v.chunk_size < 0) return shape;
  int64_t chunks = 0;
  for (int64_t b = 0; b < v.batch; ++b) chunks += (v.cu_seqlens[b + 1] - v.cu_seqlens[b] + v.chunk_size - 1) / v.chunk_size;
  int64_t* offsets = scratch.take<int64_t>(chunks + 1);
  int64_t* next = offsets;
  *next++ = 0;
  for (int64_t b = 0; b < v.batch; ++b) {
    const int64_t end = v.cu_seqlens[b + 1];
    for (int64_t begin = v.cu_seqlens[b]; begin < end; begin += v.chunk_size) *next++ = std::min(begin + v.chunk_size, end);
  }
  shape.batch = chunks;
  shape.active_cu_seqlens = offsets;
  return shape;
}

/// m = dropout(SiLU(ema_out)) of rows [begin, begin + rows).
template <class T>
void state_rows(const MegaView<T>& v, int64_t begin, int64_t rows, const T* ema_out, T* m) {
  kernels::activation_fwd<T>(Activation::kSilu, rows * v.dim, ema_out + begin * v.dim, m);
  drop(v, kStateSite, begin, rows, m);
}

/// What the attention reads, made of `base` and of v before its activation.
template <class T>
struct AttentionRows {
  T *q, *k;  ///< (M, Z)
  T* value;  ///< (M, H)

  /// z: room for (rows, Z).
  void make(const MegaView<T>& v, int64_t begin, int64_t rows, const T* base, const T* v_pre, T* z) const {
    const int64_t width = v.d_attn, h = v.d_hidden;
    kernels::activation_fwd<T>(v.activation, rows * h, v_pre, value + begin * h);
    kernels::activation_rows_fwd<T>(Activation::kSilu, rows, width, base + v.z_column(), v.width(), z, width);
    kernels::qk_affine_fwd<T>(rows, width, z, width, v.qk_gamma, v.qk_beta, q + begin * width, width, k + begin * width, width);
  }
};

template <class T>
AttentionRows<T> take_attention_rows(const MegaView<T>& v, Scratch& scratch) {
  return {scratch.take<T>(v.tokens * v.d_attn), scratch.take<T>(v.tokens * v.d_attn), scratch.take<T>(v.tokens * v.d_hidden)};
}

/// h = dropout(act(pre)), pre in g's columns of the block's rows of base.
template <class T>
void proposed_rows(const MegaView<T>& v, int64_t begin, int64_t rows, const T* base, T* h) {
  kernels::activation_rows_fwd<T>(v.activation, rows, v.dim, base + v.g_column(), v.width(), h, v.dim);
  drop(v, kOutputSite, begin, rows, h);
}

/// Where gradients lie between the passes of the backward.
template <class T>
struct Between {
  T* dattention;  ///< (M, H)
  T* dbase;       ///< (M, Z+H+2D)
  T *dq, *dk;     ///< (M, Z)
  T* dvalue;      ///< (M, H)
};

/// From dy to dx's direct part, dattention and dbase but for z's columns; gradients of out_proj and a last norm. On the way what the attention reads
/// is made again.
template <class T>
void output_backward(const MegaView<T>& v, const MegaKept<T>& kept, const T* grad_y, const AttentionRows<T>& rows_of, const Between<T>& to,
                     const MegaGradients<T>& grad) {
  Scratch& scratch = Scratch::mine();
  const Scratch::Frame frame(scratch);
  const int64_t d = v.dim, h = v.d_hidden, width = v.width(), chunks = chunks_of(v.tokens), workspace_size = gradient_workspace_size<T>({{d, h}});
  enum { kOutWeight, kOutBias, kNormWeight, kNormBias };
  PartialSums<T> sums(scratch, chunks,
                      {{d * h, grad.out_weight},
                       {d, grad.out_bias},
                       {v.prenorm ? 0 : v.norm.weight_size(), v.prenorm ? nullptr : grad.norm_weight},
                       {v.prenorm ? 0 : v.norm.bias_size(), v.prenorm ? nullptr : grad.norm_bias}});
  PackedWeight<T> out_proj(scratch, v.out_weight, d, h, PackedWeight<T>::kBackward);
  out_proj.pack();
  {
    PhaseSplit split;
    parallel_tasks(chunks, [&](int64_t chunk) {
      PhaseSplit::Laps laps(split);
      T* partial = sums.begin_chunk(chunk);
      LocalBuffers<T> local(kBlockRows * (3 * h + 4 * d + v.d_attn) + d + workspace_size, 10);
      T* reset = local.take(kBlockRows * h);
      T* gated = local.take(kBlockRows * h);
      T* dgated = local.take(kBlockRows * h);
      T* proposed = local.take(kBlockRows * d);
      T* dproposed = local.take(kBlockRows * d);
      T* last = local.take(kBlockRows * d);
      T* dlast = local.take(kBlockRows * d);
      T* z = local.take(kBlockRows * v.d_attn);
      T* temporary = local.take(d);
      T* workspace = local.take(workspace_size);
      const int64_t chunk_end = std::min((chunk + 1) * kChunkRows, v.tokens);
      for (int64_t begin = chunk * kChunkRows; begin < chunk_end; begin += kBlockRows) {
        const int64_t rows = std::min(kBlockRows, chunk_end - begin);
        const T* x = v.x + begin * d;
        const T* base = kept.base + begin * width;
        const T* attention = kept.attention + begin * h;
        const T* dy = grad_y + begin * d;
        T* dbase = to.dbase + begin * width;
        proposed_rows(v, begin, rows, base, proposed);
        laps.done(Phase::kElementwise);
        if (!v.prenorm) {
          kernels::update_fwd<T>(rows, d, base, width, proposed, d, x, d, last, d);
          v.norm.backward(rows, last, kept.mean + begin, kept.rstd + begin, dy, dlast, sums.part_or_null(partial, kNormWeight),
                          sums.part_or_null(partial, kNormBias));
          dy = dlast;
          laps.done(Phase::kNorm);
        }
        kernels::update_bwd<T>(rows, d, base, width, proposed, d, x, d, dy, d, dbase, width, dproposed, d, grad.x + begin * d, d);
        drop(v, kOutputSite, begin, rows, dproposed);
        T* dpre = dproposed;
        kernels::activation_rows_bwd<T>(v.activation, rows, d, base + v.g_column(), width, dproposed, d, dpre, d);
        for (int64_t i = 0; i < rows; ++i) std::copy_n(dpre + i * d, d, dbase + i * width + v.g_column());
        kernels::activation_rows_fwd<T>(Activation::kSilu, rows, h, base + v.r_column(), width, reset, h);
        kernels::gate_fwd<T>(rows, h, attention, h, reset, h, gated, h);
        laps.done(Phase::kElementwise);
        out_proj.multiply(rows, dpre, nullptr, dgated);
        add_weight_gradient<T>(rows, d, h, dpre, gated, sums.part(partial, kOutWeight), workspace);
        add_column_sums<T>(rows, d, d, dpre, sums.part(partial, kOutBias), temporary);
        laps.done(Phase::kProducts);
        kernels::gate_bwd<T>(rows, h, dgated, h, attention, h, reset, h, to.dattention + begin * h, h, dgated, h);
        kernels::activation_rows_bwd<T>(Activation::kSilu, rows, h, base + v.r_column(), width, dgated, h, dbase + v.r_column(), width);
        rows_of.make(v, begin, rows, base, kept.v_pre + begin * h, z);
        laps.done(Phase::kElementwise);
      }
    });
  }
  const PhaseScope phase(Phase::kProducts);
  sums.add_up();
}

/// From the attention's gradients and dbase through in_proj to the EMA's output, and through v_proj to dinput (added to where `adds`); gradients of
/// both, of qk_gamma and qk_beta.
template <class T>
void input_backward(const MegaView<T>& v, const MegaKept<T>& kept, const T* input, const Between<T>& from, T* dema, T* dinput, bool adds,
                    const MegaGradients<T>& grad) {
  Scratch& scratch = Scratch::mine();
  const Scratch::Frame frame(scratch);
  const int64_t d = v.dim, z = v.d_attn, h = v.d_hidden, width = v.width(), chunks = chunks_of(v.tokens);
  const int64_t workspace_size = gradient_workspace_size<T>({{width, d}, {h, d}});
  enum { kInWeight, kInBias, kVWeight, kVBias, kGamma, kBeta };
  PartialSums<T> sums(
      scratch, chunks,
      {{width * d, grad.in_weight}, {width, grad.in_bias}, {h * d, grad.v_weight}, {h, grad.v_bias}, {2 * z, grad.qk_gamma}, {2 * z, grad.qk_beta}});
  using Weight = PackedWeight<T>;
  Weight in_proj(scratch, v.in_weight, width, d, Weight::kBackward), v_proj(scratch, v.v_weight, h, d, Weight::kBackward);
  {
    const PhaseScope phase(Phase::kProducts);
    pack_weights({&in_proj, &v_proj});
  }
  kernels::DropoutKey state_key = v.random;
  state_key.site += kStateSite;
  {
    PhaseSplit split;
    parallel_tasks(chunks, [&](int64_t chunk) {
      PhaseSplit::Laps laps(split);
      T* partial = sums.begin_chunk(chunk);
      LocalBuffers<T> local(kBlockRows * (d + z) + width + workspace_size, 4);
      T* m = local.take(kBlockRows * d);
      T* shared = local.take(kBlockRows * z);
      T* temporary = local.take(width);
      T* workspace = local.take(workspace_size);
      const int64_t chunk_end = std::min((chunk + 1) * kChunkRows, v.tokens);
      for (int64_t begin = chunk * kChunkRows; begin < chunk_end; begin += kBlockRows) {
        const int64_t rows = std::min(kBlockRows, chunk_end - begin);
        const T* base_z = kept.base + begin * width + v.z_column();
        T* dbase = from.dbase + begin * width;
        kernels::activation_rows_fwd<T>(Activation::kSilu, rows, z, base_z, width, shared, z);
        kernels::qk_affine_bwd<T>(rows, z, shared, z, v.qk_gamma, from.dq + begin * z, z, from.dk + begin * z, z, dbase + v.z_column(), width,
                                  sums.part(partial, kGamma), sums.part(partial, kBeta));
        kernels::activation_rows_bwd<T>(Activation::kSilu, rows, z, base_z, width, dbase + v.z_column(), width, dbase + v.z_column(), width);
        T* dv_pre = from.dvalue + begin * h;
        kernels::activation_bwd<T>(v.activation, rows * h, kept.v_pre + begin * h, dv_pre, dv_pre);
        state_rows(v, begin, rows, kept.ema_out, m);
        laps.done(Phase::kElementwise);
        T* dm = dema + begin * d;
        in_proj.multiply(rows, dbase, nullptr, dm);
        add_weight_gradient<T>(rows, width, d, dbase, m, sums.part(partial, kInWeight), workspace);
        add_column_sums<T>(rows, width, width, dbase, sums.part(partial, kInBias), temporary);
        v_proj.multiply(rows, dv_pre, nullptr, dinput + begin * d, adds);
        add_weight_gradient<T>(rows, h, d, dv_pre, input + begin * d, sums.part(partial, kVWeight), workspace);
        add_column_sums<T>(rows, h, h, dv_pre, sums.part(partial, kVBias), temporary);
        laps.done(Phase::kProducts);
        kernels::silu_dropout_bwd<T>(state_key, v.dropout, 0, rows, d, v.sequence_ids + begin, v.positions + begin, kept.ema_out + begin * d, dm, dm);
        laps.done(Phase::kElementwise);
      }
    });
  }
  const PhaseScope phase(Phase::kProducts);
  sums.add_up();
}

}  // namespace

template <class T>
void mega_forward(const MegaView<T>& v, const MegaKept<T>& kept, bool keeps_v, T* y) {
  Scratch& scratch = Scratch::mine();
  const Scratch::Frame frame(scratch);
  const int64_t d = v.dim, h = v.d_hidden, width = v.width();
  using Weight = PackedWeight<T>;
  Weight v_proj(scratch, v.v_weight, h, d, Weight::kForward), in_proj(scratch, v.in_weight, width, d, Weight::kForward);
  Weight out_proj(scratch, v.out_weight, d, h, Weight::kForward);
  {
    const PhaseScope phase(Phase::kProducts);
    pack_weights({&in_proj, &v_proj, &out_proj});
  }
  const T* input = v.x;
  if (v.prenorm) {
    T* normed = scratch.take<T>(v.tokens * d);
    norm_pass(v.norm, v.tokens, v.x, normed, kept.mean, kept.rstd);
    input = normed;
  }
  {
    const PhaseScope phase(Phase::kEma);
    scan_forward<T>(v.scan, input, kept.ema_out, nullptr);
  }

  const AttentionRows<T> rows_of = take_attention_rows(v, scratch);
  {
    PhaseSplit split;
    parallel_tasks(blocks_of(v.tokens), [&](int64_t block) {
      PhaseSplit::Laps laps(split);
      const int64_t begin = block * kBlockRows, rows = std::min(kBlockRows, v.tokens - begin);
      LocalBuffers<T> local(kBlockRows * (d + v.d_attn), 2);
      T* m = local.take(kBlockRows * d);
      T* z = local.take(kBlockRows * v.d_attn);
      T* base = kept.base + begin * width;
      T* v_pre = (keeps_v ? kept.v_pre : rows_of.value) + begin * h;
      state_rows(v, begin, rows, kept.ema_out, m);
      laps.done(Phase::kElementwise);
      in_proj.multiply(rows, m, v.in_bias, base);
      v_proj.multiply(rows, input + begin * d, v.v_bias, v_pre);
      laps.done(Phase::kProducts);
      rows_of.make(v, begin, rows, base, v_pre, z);
      laps.done(Phase::kElementwise);
    });
  }
  {
    const PhaseScope phase(Phase::kAttention);
    attention_forward<T>(attention_shape(v, scratch), {rows_of.q, rows_of.k, rows_of.value, v.positions, v.bias_table}, kept.attention, kept.lse);
  }

  PhaseSplit split;
  parallel_tasks(blocks_of(v.tokens), [&](int64_t block) {
    PhaseSplit::Laps laps(split);
    const int64_t begin = block * kBlockRows, rows = std::min(kBlockRows, v.tokens - begin);
    LocalBuffers<T> local(kBlockRows * (h + d), 2);
    T* gated = local.take(kBlockRows * h);
    T* proposed = local.take(kBlockRows * d);
    T* base = kept.base + begin * width;
    T* out = y + begin * d;
    kernels::activation_rows_fwd<T>(Activation::kSilu, rows, h, base + v.r_column(), width, gated, h);
    kernels::gate_fwd<T>(rows, h, kept.attention + begin * h, h, gated, h, gated, h);
    laps.done(Phase::kElementwise);
    out_proj.multiply(rows, gated, v.out_bias, proposed);
    laps.done(Phase::kProducts);
    kernels::add_rows<T>(rows, d, proposed, d, base + v.g_column(), width);
    proposed_rows(v, begin, rows, base, proposed);
    kernels::update_fwd<T>(rows, d, base, width, proposed, d, v.x + begin * d, d, out, d);
    laps.done(Phase::kElementwise);
    if (!v.prenorm) {
      v.norm.forward(rows, out, out, kept.mean + begin, kept.rstd + begin);
      laps.done(Phase::kNorm);
    }
  });
}

template <class T>
void mega_backward(const MegaView<T>& v, const MegaKept<T>& kept, const T* grad_y, const MegaGradients<T>& grad) {
  Scratch& scratch = Scratch::mine();
  const Scratch::Frame frame(scratch);
  const int64_t d = v.dim, h = v.d_hidden, z = v.d_attn;
  const T* input = v.x;
  T* dinput = grad.x;
  T* dema = scratch.take<T>(v.tokens * d);
  if (v.prenorm) {
    T* normed = scratch.take<T>(v.tokens * d);
    dinput = scratch.take<T>(v.tokens * d);
    norm_pass(v.norm, v.tokens, v.x, normed, scratch.take<T>(v.tokens), scratch.take<T>(v.tokens));
    input = normed;
  }
  {
    const Scratch::Frame inner(scratch);
    const AttentionRows<T> rows_of = take_attention_rows(v, scratch);
    const Between<T> between{.dattention = scratch.take<T>(v.tokens * h),
                             .dbase = scratch.take<T>(v.tokens * v.width()),
                             .dq = scratch.take<T>(v.tokens * z),
                             .dk = scratch.take<T>(v.tokens * z),
                             .dvalue = scratch.take<T>(v.tokens * h)};
    output_backward(v, kept, grad_y, rows_of, between, grad);
    {
      const PhaseScope phase(Phase::kAttention);
      attention_backward<T>(attention_shape(v, scratch), {rows_of.q, rows_of.k, rows_of.value, v.positions, v.bias_table}, kept.attention, kept.lse,
                            between.dattention, between.dq, between.dk, between.dvalue, grad.bias_table);
    }
    input_backward(v, kept, input, between, dema, dinput, !v.prenorm, grad);
  }
  {
    const PhaseScope phase(Phase::kEma);
    scan_backward<T>(v.scan, input, dema, nullptr,
                     {.x = dinput,
                      .accumulate_x = true,
                      .decay = grad.encoder_decay,
                      .weight = grad.encoder_weight,
                      .skip = grad.encoder_skip,
                      .partial = scratch.take<T>(scan_partial_size(v.scan))});
  }
  if (v.prenorm) norm_backward<T>(v.norm, v.tokens, v.x, kept.mean, kept.rstd, dinput, grad.x, grad.norm_weight, grad.norm_bias);
}

#define SEQBOAT_MEGA_PASSES(T)                                                     \
  template void mega_forward<T>(const MegaView<T>&, const MegaKept<T>&, bool, T*); \
  template void mega_backward<T>(const MegaView<T>&, const MegaKept<T>&, const T*, const MegaGradients<T>&);
SEQBOAT_MEGA_PASSES(float)
SEQBOAT_MEGA_PASSES(double)

}  // namespace seqboat::ops
