// The fused layer, backward. With g = attention * r, h = out_proj(g), b = skip + extract(p h), y = SiLU(b + x):
//
//   dpre = dy SiLU'(pre)                     dx  = dpre + (through norm and EMA)
//   dg   = p (db out_proj)                   dp  = (db out_proj) . g + db . out_bias        so h itself is not needed
//   dm   = db skip_proj + du router_proj + extract(dbase in_proj)
//   dema = dm SiLU'(ema_out)
//
// (dropouts stand where the forward has them). Weight gradients are sums over tokens: a chunk of kChunkRows tokens is one task with partial sums of
// its own, block after block while the block is in the cache, and the chunks are added in order.

#include "ops/cpu/layer_view.h"
#include "seqboat/kernels/elementwise.h"
#include "seqboat/kernels/gated_rows.h"
#include "seqboat/kernels/router.h"

namespace seqboat::ops {
namespace {

using kernels::Activation;

template <class T>
struct Buffers {
  T* dm;          // (M, D)
  T* m_active;    // (K, D)
  T* dattention;  // (K, H)
  T *dq, *dk;     // (K, Z)
  T* dall;        // (K, Z+2H): gradient of SiLU(base), column ranges z, r, v
};

/// From dy to dx's direct part, dm's part through skip and router, dattention, dr; gradients of skip, router, out_proj and a last norm. On the way
/// what the unit's attention reads (act) is made again.
template <class T>
void branches_backward(const LayerView<T>& v, const KeptTokens<T>& kept, const KeptActive<T>& unit, const ActiveIndex& active,
                       const UnitActivations<T>& act, const uint8_t* mask, const T* grad_y, const T* grad_probability, const Buffers<T>& to,
                       const LayerGradients<T>& grad) {
  Scratch& scratch = Scratch::mine();
  const Scratch::Frame frame(scratch);
  const int64_t d = v.dim, h = v.d_hidden, chunks = chunks_of(v.tokens), workspace_size = gradient_workspace_size(v);
  enum { kSkipWeight, kSkipBias, kRouterWeight, kRouterBias, kOutWeight, kOutBias, kNormWeight, kNormBias };
  PartialSums<T> sums(scratch, chunks,
                      {{d * d, grad.skip_weight},
                       {d, grad.skip_bias},
                       {v.has_router ? 2 * d : 0, grad.router_weight},
                       {v.has_router ? 2 : 0, grad.router_bias},
                       {d * h, grad.out_weight},
                       {v.has_unit ? d : 0, grad.out_bias},
                       {v.prenorm ? 0 : v.norm.weight_size(), v.prenorm ? nullptr : grad.norm_weight},
                       {v.prenorm ? 0 : v.norm.bias_size(), v.prenorm ? nullptr : grad.norm_bias}});
  std::vector<double> dlog_temperature(static_cast<size_t>(chunks), 0.0);
  using Weight = PackedWeight<T>;
  Weight skip(scratch, v.skip_weight, d, d, Weight::kBackward), out_proj(scratch, v.out_weight, d, h, Weight::kBackward);
  Weight router(scratch, v.router_weight, v.has_router ? 2 : 0, d, Weight::kBackward);
  {
    const PhaseScope phase(Phase::kProducts);
    pack_weights({&out_proj, &skip, &router});
  }
  const int64_t local_size = kBlockRows * (4 * d + 2 * h + 8) + std::max(d, h) + workspace_size;
  {
    PhaseSplit split;
    parallel_tasks(chunks, [&](int64_t chunk) {
      PhaseSplit::Laps laps(split);
      T* partial = sums.begin_chunk(chunk);
      LocalBuffers<T> local(local_size, 12);
      T* dz = local.take(kBlockRows * d);
      T* db_own = local.take(kBlockRows * d);
      T* m = local.take(kBlockRows * d);
      T* dh = local.take(kBlockRows * d);
      T* gated = local.take(kBlockRows * h);
      T* dgated = local.take(kBlockRows * h);
      T* dp = local.take(kBlockRows);
      T* dp_active = local.take(kBlockRows);
      T* dots = local.take(kBlockRows);
      T* du = local.take(2 * kBlockRows);
      T* temporary = local.take(std::max(d, h));
      T* workspace = local.take(workspace_size);
      const int64_t chunk_end = std::min((chunk + 1) * kChunkRows, v.tokens);
      for (int64_t begin = chunk * kChunkRows; begin < chunk_end; begin += kBlockRows) {
        const int64_t rows = std::min(kBlockRows, chunk_end - begin);
        const T* pre = kept.pre + begin * d;
        T* dx = grad.x + begin * d;
        const T* dlast = grad_y + begin * d;
        if (!v.prenorm) {
          kernels::activation_fwd<T>(Activation::kSilu, rows * d, pre, m);
          v.norm.backward(rows, m, kept.mean + begin, kept.rstd + begin, dlast, dz, sums.part_or_null(partial, kNormWeight),
                          sums.part_or_null(partial, kNormBias));
          dlast = dz;
          laps.done(Phase::kNorm);
        }
        kernels::activation_bwd<T>(Activation::kSilu, rows * d, pre, dlast, dx);
        laps.done(Phase::kElementwise);
        const T* db = dx;
        if (v.drops_output()) {
          kernels::dropout<T>(v.key(kOutputSite), v.dropout, 0, rows, d, v.sequence_ids + begin, v.positions + begin, dx, db_own);
          db = db_own;
          laps.done(Phase::kDropout);
        }
        state_rows(v, begin, rows, kept.ema_out, m);
        laps.done(Phase::kElementwise);
        T* dm = to.dm + begin * d;
        skip.multiply(rows, db, nullptr, dm);
        add_weight_gradient<T>(rows, d, d, db, m, sums.part(partial, kSkipWeight), workspace);
        add_column_sums<T>(rows, d, d, db, sums.part(partial, kSkipBias), temporary);
        laps.done(Phase::kProducts);

        const auto [first, last] = active.within(begin, begin + rows);
        const int64_t count = last - first;
        if (count > 0) {
          unit_rows(v, active, first, count, unit.base, act);
          laps.done(Phase::kElementwise);
          for (int64_t i = 0; i < count; ++i) {
            const int64_t row = active.index[first + i] - begin;
            std::copy_n(db + row * d, d, dh + i * d);
            std::copy_n(m + row * d, d, to.m_active + (first + i) * d);
          }
          laps.done(Phase::kCompress);
          if (v.drops_attention()) {
            int64_t ids[kBlockRows];
            active_ids(v, active, first, count, ids);
            kernels::dropout<T>(v.key(kAttentionSite), v.dropout, 0, count, d, ids, active.positions + first, dh, dh);
            laps.done(Phase::kDropout);
          }
          const T* attended = unit.attention + first * h;
          const T* r = act.all + first * v.width + v.d_attn;
          kernels::gate_fwd<T>(count, h, attended, h, r, v.width, gated, h);
          laps.done(Phase::kElementwise);
          out_proj.multiply(count, dh, nullptr, dgated);
          laps.done(Phase::kProducts);
          if (v.has_router) {
            kernels::row_dots<T>(count, h, dgated, h, gated, h, dp_active);
            kernels::row_dots<T>(count, d, dh, d, v.out_bias, 0, dots);
            T confidence[kBlockRows];
            uint8_t decided[kBlockRows];
            kernels::router_fwd<T>(rows, 2, kept.logits + 2 * begin, static_cast<T>(v.act_bias), *v.log_temperature, mask + begin, decided,
                                   confidence, nullptr);
            for (int64_t i = 0; i < count; ++i) {
              dp_active[i] += dots[i];
              dots[i] = confidence[active.index[first + i] - begin];
            }
            kernels::scale_rows<T>(count, h, dots, dgated, h, dgated, h);
            kernels::scale_rows<T>(count, d, dots, dh, d, dh, d);
            laps.done(Phase::kRouter);
          }
          add_weight_gradient<T>(count, d, h, dh, gated, sums.part(partial, kOutWeight), workspace);
          add_column_sums<T>(count, d, d, dh, sums.part(partial, kOutBias), temporary);
          laps.done(Phase::kProducts);
          kernels::gate_bwd<T>(count, h, dgated, h, attended, h, r, v.width, to.dattention + first * h, h, to.dall + first * v.width + v.d_attn,
                               v.width);
          laps.done(Phase::kElementwise);
        }
        if (v.has_router) {
          std::fill(dp, dp + rows, T(0));
          for (int64_t i = 0; i < count; ++i) dp[active.index[first + i] - begin] = dp_active[i];
          dlog_temperature[static_cast<size_t>(chunk)] +=
              kernels::router_bwd<T>(rows, 2, kept.logits + 2 * begin, static_cast<T>(v.act_bias), *v.log_temperature, mask + begin, dp,
                                     grad_probability ? grad_probability + begin : nullptr, 2, du);
          router.multiply(rows, du, nullptr, dm, true);
          add_weight_gradient<T>(rows, 2, d, du, m, sums.part(partial, kRouterWeight), workspace);
          add_column_sums<T>(rows, 2, 2, du, sums.part(partial, kRouterBias), temporary);
          laps.done(Phase::kRouter);
        }
      }
    });
  }
  const PhaseScope phase(Phase::kProducts);
  sums.add_up();
  if (v.has_router) {
    double total = 0;
    for (const double term : dlog_temperature) total += term;
    *grad.log_temperature = static_cast<T>(total);
  }
}

/// From the attention's gradients to dbase and through in_proj to dm; gradients of in_proj, qk_gamma, qk_beta.
template <class T>
void unit_backward(const LayerView<T>& v, const KeptActive<T>& unit, const ActiveIndex& active, const UnitActivations<T>& act, const Buffers<T>& to,
                   const LayerGradients<T>& grad) {
  Scratch& scratch = Scratch::mine();
  const Scratch::Frame frame(scratch);
  const int64_t d = v.dim, z = v.d_attn, chunks = chunks_of(active.count), workspace_size = gradient_workspace_size(v);
  enum { kInWeight, kInBias, kGamma, kBeta };
  PartialSums<T> sums(scratch, chunks, {{v.width * d, grad.in_weight}, {v.width, grad.in_bias}, {2 * z, grad.qk_gamma}, {2 * z, grad.qk_beta}});
  PackedWeight<T> in_proj(scratch, v.in_weight, v.width, d, PackedWeight<T>::kBackward);
  in_proj.pack();
  {
    PhaseSplit split;
    parallel_tasks(chunks, [&](int64_t chunk) {
      PhaseSplit::Laps laps(split);
      T* partial = sums.begin_chunk(chunk);
      LocalBuffers<T> local(kBlockRows * d + v.width + workspace_size, 3);
      T* dm = local.take(kBlockRows * d);
      T* temporary = local.take(v.width);
      T* workspace = local.take(workspace_size);
      const int64_t chunk_end = std::min((chunk + 1) * kChunkRows, active.count);
      for (int64_t begin = chunk * kChunkRows; begin < chunk_end; begin += kBlockRows) {
        const int64_t rows = std::min(kBlockRows, chunk_end - begin);
        T* dq = to.dq + begin * z;
        T* dk = to.dk + begin * z;
        T* dall = to.dall + begin * v.width;
        if (v.rotary) {
          kernels::rotary<T>(rows, z, z, z, active.positions + begin, true, dq, dq);
          kernels::rotary<T>(rows, z, z, z, active.positions + begin, true, dk, dk);
          laps.done(Phase::kAttention);
        }
        kernels::qk_affine_bwd<T>(rows, z, act.all + begin * v.width, v.width, v.qk_gamma, dq, z, dk, z, dall, v.width, sums.part(partial, kGamma),
                                  sums.part(partial, kBeta));
        T* dbase = dall;
        kernels::activation_bwd<T>(Activation::kSilu, rows * v.width, unit.base + begin * v.width, dall, dbase);
        laps.done(Phase::kElementwise);
        const T* m = to.m_active + begin * d;
        add_weight_gradient<T>(rows, v.width, d, dbase, m, sums.part(partial, kInWeight), workspace);
        add_column_sums<T>(rows, v.width, v.width, dbase, sums.part(partial, kInBias), temporary);
        in_proj.multiply(rows, dbase, nullptr, dm);
        laps.done(Phase::kProducts);
        kernels::scatter_add_rows<T>(rows, d, active.index + begin, dm, d, to.dm, d);
        laps.done(Phase::kExtract);
      }
    });
  }
  const PhaseScope phase(Phase::kProducts);
  sums.add_up();
}

}  // namespace

template <class T>
void layer_backward(const LayerView<T>& v, const KeptTokens<T>& kept, T* kept_active, const uint8_t* active_mask, const T* grad_y,
                    const T* grad_probability, const LayerGradients<T>& grad) {
  Scratch& scratch = Scratch::mine();
  const Scratch::Frame frame(scratch);
  const int64_t d = v.dim, h = v.d_hidden, z = v.d_attn;
  const ActiveIndex active = make_index(v, active_mask, scratch);
  const KeptActive<T> unit(kept_active, active.count, v.width, h);
  T* dm = scratch.take<T>(v.tokens * d);
  {
    const Scratch::Frame inner(scratch);
    const UnitActivations<T> act{scratch.take<T>(active.count * v.width), scratch.take<T>(active.count * z), scratch.take<T>(active.count * z)};
    const Buffers<T> to{.dm = dm,
                        .m_active = scratch.take<T>(active.count * d),
                        .dattention = scratch.take<T>(active.count * h),
                        .dq = scratch.take<T>(active.count * z),
                        .dk = scratch.take<T>(active.count * z),
                        .dall = scratch.take<T>(active.count * v.width)};
    branches_backward(v, kept, unit, active, act, active_mask, grad_y, grad_probability, to, grad);
    if (v.has_unit) {
      const PhaseScope phase(Phase::kAttention);
      attention_backward<T>(attention_shape(v, active), {act.q, act.k, act.all + z + h, active.positions, v.bias_table}, unit.attention, unit.lse,
                            to.dattention, to.dq, to.dk, to.dall + z + h, grad.bias_table);
    }
    if (v.has_unit) unit_backward(v, unit, active, act, to, grad);
  }
  {
    const PhaseScope phase(Phase::kElementwise);
    parallel_tasks((v.tokens + kBlockRows - 1) / kBlockRows, [&](int64_t block) {
      const int64_t begin = block * kBlockRows, rows = std::min(kBlockRows, v.tokens - begin);
      T* rows_dm = dm + begin * d;
      kernels::silu_dropout_bwd<T>(v.key(kStateSite), v.dropout, 0, rows, d, v.sequence_ids + begin, v.positions + begin, kept.ema_out + begin * d,
                                   rows_dm, rows_dm);
    });
  }
  const T* input = v.x;
  T* dinput = grad.x;
  if (v.prenorm) {
    T* normed = scratch.take<T>(v.tokens * d);
    norm_pass(v.norm, v.tokens, v.x, normed, scratch.take<T>(v.tokens), scratch.take<T>(v.tokens));
    input = normed;
    dinput = scratch.take<T>(v.tokens * d);
  }
  {
    const PhaseScope phase(Phase::kEma);
    scan_backward<T>(v.scan, input, dm, nullptr,
                     {.x = dinput,
                      .accumulate_x = !v.prenorm,
                      .decay = grad.encoder_decay,
                      .weight = grad.encoder_weight,
                      .skip = grad.encoder_skip,
                      .partial = scratch.take<T>(scan_partial_size(v.scan))});
  }
  if (v.prenorm) norm_backward<T>(v.norm, v.tokens, v.x, kept.mean, kept.rstd, dinput, grad.x, grad.norm_weight, grad.norm_bias);
}

template void layer_backward<float>(const LayerView<float>&, const KeptTokens<float>&, float*, const uint8_t*, const float*, const float*,
                                    const LayerGradients<float>&);
template void layer_backward<double>(const LayerView<double>&, const KeptTokens<double>&, double*, const uint8_t*, const double*, const double*,
                                     const LayerGradients<double>&);

}  // namespace seqboat::ops
