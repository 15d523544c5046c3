// The fused layer, forward, and what the backward computes again in the same way. One pass is one parallel loop; between two of them stands only what
// needs all tokens of a sequence: the scan, the list of active tokens, the attention.

#include <numeric>

#include "ops/cpu/layer_view.h"
#include "seqboat/kernels/compress.h"
#include "seqboat/kernels/elementwise.h"
#include "seqboat/kernels/gated_rows.h"
#include "seqboat/kernels/router.h"

namespace seqboat::ops {

using kernels::Activation;

template <class T>
void state_rows(const LayerView<T>& v, int64_t begin, int64_t rows, const T* ema_out, T* m) {
  kernels::activation_fwd<T>(Activation::kSilu, rows * v.dim, ema_out + begin * v.dim, m);
  if (v.dropout > 0) kernels::dropout<T>(v.key(kStateSite), v.dropout, 0, rows, v.dim, v.sequence_ids + begin, v.positions + begin, m, m);
}

template <class T>
ActiveIndex make_index(const LayerView<T>& v, const uint8_t* active, Scratch& scratch) {
  const PhaseScope phase(Phase::kCompress);
  if (!v.has_unit) {
    int64_t* none = scratch.take<int64_t>(v.batch + 1);
    std::fill(none, none + v.batch + 1, int64_t{0});
    return {0, none, none, none};
  }
  if (!v.selects) {
    int64_t* all = scratch.take<int64_t>(v.tokens);
    std::iota(all, all + v.tokens, int64_t{0});
    return {v.tokens, all, v.positions, v.cu_seqlens};
  }
  int64_t* offsets = scratch.take<int64_t>(v.batch + 1);
  const int64_t count = kernels::count_active(v.batch, v.cu_seqlens, active, offsets);
  int64_t* index = scratch.take<int64_t>(count);
  int64_t* positions = scratch.take<int64_t>(count);
  kernels::fill_active_index(v.batch, v.cu_seqlens, active, index, nullptr);
  for (int64_t i = 0; i < count; ++i) positions[i] = v.positions[index[i]];
  return {count, index, positions, offsets};
}

template <class T>
void unit_rows(const LayerView<T>& v, const ActiveIndex& active, int64_t begin, int64_t rows, const T* base, const UnitActivations<T>& out) {
  const int64_t z = v.d_attn;
  T* all = out.all + begin * v.width;
  T* q = out.q + begin * z;
  T* k = out.k + begin * z;
  kernels::activation_fwd<T>(Activation::kSilu, rows * v.width, base + begin * v.width, all);
  kernels::qk_affine_fwd<T>(rows, z, all, v.width, v.qk_gamma, v.qk_beta, q, z, k, z);
  if (v.rotary) {
    kernels::rotary<T>(rows, z, z, z, active.positions + begin, false, q, q);
    kernels::rotary<T>(rows, z, z, z, active.positions + begin, false, k, k);
  }
}

template <class T>
void active_ids(const LayerView<T>& v, const ActiveIndex& active, int64_t begin, int64_t rows, int64_t* ids) {
  for (int64_t i = 0; i < rows; ++i) ids[i] = v.sequence_ids[active.index[begin + i]];
}

template <class T>
kernels::WindowAttentionShape attention_shape(const LayerView<T>& v, const ActiveIndex& active) {
  kernels::WindowAttentionShape shape = v.attention;
  shape.active_cu_seqlens = active.active_cu_seqlens;
  return shape;
}

template <class T>
void layer_forward(const LayerView<T>& v, const KeptTokens<T>& kept, const std::function<T*(int64_t)>& allocate_active, const LayerOutput<T>& out) {
  Scratch& scratch = Scratch::mine();
  const Scratch::Frame frame(scratch);
  const int64_t d = v.dim, h = v.d_hidden;
  using Weight = PackedWeight<T>;
  Weight router(scratch, v.router_weight, v.has_router ? 2 : 0, d, Weight::kForward), skip(scratch, v.skip_weight, d, d, Weight::kForward);
  Weight in_proj(scratch, v.in_weight, v.width, d, Weight::kForward), out_proj(scratch, v.out_weight, d, h, Weight::kForward);
  {
    const PhaseScope phase(Phase::kProducts);
    pack_weights({&in_proj, &out_proj, &skip, &router});
  }

  const T* input = v.x;
  T* m_active = scratch.take<T>(v.tokens * d);  // m, written at the active rows alone
  {
    const Scratch::Frame inner(scratch);
    if (v.prenorm) {
      T* normed = scratch.take<T>(v.tokens * d);
      norm_pass(v.norm, v.tokens, v.x, normed, kept.mean, kept.rstd);
      input = normed;
    }
    const PhaseScope phase(Phase::kEma);
    scan_forward<T>(v.scan, input, kept.ema_out, nullptr);
  }

  // m = dropout(SiLU(EMA)), the router's decision, skip_proj(m): into `pre`, which the last pass completes.
  {
    PhaseSplit split;
    parallel_tasks(blocks_of(v.tokens), [&](int64_t block) {
      PhaseSplit::Laps laps(split);
      const int64_t begin = block * kBlockRows, rows = std::min(kBlockRows, v.tokens - begin);
      LocalBuffers<T> local(kBlockRows * (d + 1), 2);
      T* m = local.take(kBlockRows * d);
      T* p = local.take(kBlockRows);
      state_rows(v, begin, rows, kept.ema_out, m);
      laps.done(Phase::kElementwise);
      if (v.has_router) {
        T* u = kept.logits + 2 * begin;
        router.multiply(rows, m, v.router_bias, u);
        kernels::router_fwd<T>(rows, 2, u, static_cast<T>(v.act_bias), *v.log_temperature, v.forced ? v.forced + begin : nullptr, out.active + begin,
                               p, out.probability + begin);
        laps.done(Phase::kRouter);
      } else if (v.selects) {
        std::copy_n(v.forced + begin, rows, out.active + begin);
      }
      skip.multiply(rows, m, v.skip_bias, kept.pre + begin * d);
      laps.done(Phase::kProducts);
      for (int64_t i = 0; i < rows; ++i) {
        if (v.has_unit && (!v.selects || out.active[begin + i])) std::copy_n(m + i * d, d, m_active + (begin + i) * d);
      }
      laps.done(Phase::kCompress);
    });
  }

  const ActiveIndex active = make_index(v, out.active, scratch);
  const KeptActive<T> unit(allocate_active(active.count), active.count, v.width, h);
  const UnitActivations<T> act{scratch.take<T>(active.count * v.width), scratch.take<T>(active.count * v.d_attn),
                               scratch.take<T>(active.count * v.d_attn)};
  {
    PhaseSplit split;
    parallel_tasks(blocks_of(active.count), [&](int64_t block) {
      PhaseSplit::Laps laps(split);
      const int64_t begin = block * kBlockRows, rows = std::min(kBlockRows, active.count - begin);
      LocalBuffers<T> local(kBlockRows * d, 1);
      T* m = local.take(kBlockRows * d);
      kernels::compress_rows<T>(0, rows, d, active.index + begin, m_active, d, m, d);
      laps.done(Phase::kCompress);
      in_proj.multiply(rows, m, v.in_bias, unit.base + begin * v.width);
      laps.done(Phase::kProducts);
      unit_rows(v, active, begin, rows, unit.base, act);
      laps.done(Phase::kElementwise);
    });
  }
  if (v.has_unit) {
    const PhaseScope phase(Phase::kAttention);
    attention_forward<T>(attention_shape(v, active), {act.q, act.k, act.all + v.d_attn + h, active.positions, v.bias_table}, unit.attention,
                         unit.lse);
  }

  // y = SiLU(skip + extract(p * out_proj(attention * r)) + x), and the norm where it comes last.
  PhaseSplit split;
  parallel_tasks(blocks_of(v.tokens), [&](int64_t block) {
    PhaseSplit::Laps laps(split);
    const int64_t begin = block * kBlockRows, rows = std::min(kBlockRows, v.tokens - begin);
    const auto [first, last] = active.within(begin, begin + rows);
    const int64_t count = last - first;
    LocalBuffers<T> local(kBlockRows * (h + 2 * d), 3);
    T* gated = local.take(kBlockRows * h);
    T* branch = local.take(kBlockRows * d);
    T* sum = local.take(kBlockRows * d);
    kernels::gate_fwd<T>(count, h, unit.attention + first * h, h, act.all + first * v.width + v.d_attn, v.width, gated, h);
    laps.done(Phase::kElementwise);
    out_proj.multiply(count, gated, v.out_bias, branch);
    laps.done(Phase::kProducts);
    if (v.drops_attention()) {
      int64_t ids[kBlockRows];
      active_ids(v, active, first, count, ids);
      kernels::dropout<T>(v.key(kAttentionSite), v.dropout, 0, count, d, ids, active.positions + first, branch, branch);
      laps.done(Phase::kDropout);
    }
    // Of a layer without a unit nobody is active.
    static constexpr uint8_t kNobody[kBlockRows] = {};
    const uint8_t* mask = v.selects ? out.active + begin : v.has_unit ? nullptr : kNobody;
    const T* p = v.has_router ? out.probability + begin : nullptr;
    T* pre = kept.pre + begin * d;
    T* y = out.y + begin * d;
    if (!v.drops_output()) {
      kernels::branch_sum_fwd<T>(0, rows, d, mask, 0, branch, d, p, pre, d, v.x + begin * d, d, pre, d, y, d);
    } else {
      // Both branches are dropped together, so their sum is made first; x then joins a sum in which nobody is active.
      if (v.has_router) {
        T confidence[kBlockRows];
        for (int64_t i = 0; i < count; ++i) confidence[i] = out.probability[active.index[first + i]];
        kernels::scale_rows<T>(count, d, confidence, branch, d, branch, d);
      }
      if (mask != nullptr) kernels::extract_rows<T>(0, rows, d, mask, 0, branch, d, sum, d);
      const T* extracted = mask != nullptr ? sum : branch;
      for (int64_t i = 0; i < rows * d; ++i) sum[i] = pre[i] + extracted[i];
      kernels::dropout<T>(v.key(kOutputSite), v.dropout, 0, rows, d, v.sequence_ids + begin, v.positions + begin, sum, sum);
      kernels::branch_sum_fwd<T>(0, rows, d, kNobody, 0, branch, d, nullptr, sum, d, v.x + begin * d, d, pre, d, y, d);
    }
    laps.done(Phase::kExtract);
    if (!v.prenorm) {
      v.norm.forward(rows, y, y, kept.mean + begin, kept.rstd + begin);
      laps.done(Phase::kNorm);
    }
  });
}

#define SEQBOAT_LAYER_FORWARD(T)                                                                                              \
  template void state_rows<T>(const LayerView<T>&, int64_t, int64_t, const T*, T*);                                           \
  template ActiveIndex make_index<T>(const LayerView<T>&, const uint8_t*, Scratch&);                                          \
  template void unit_rows<T>(const LayerView<T>&, const ActiveIndex&, int64_t, int64_t, const T*, const UnitActivations<T>&); \
  template void active_ids<T>(const LayerView<T>&, const ActiveIndex&, int64_t, int64_t, int64_t*);                           \
  template kernels::WindowAttentionShape attention_shape<T>(const LayerView<T>&, const ActiveIndex&);                         \
  template void layer_forward<T>(const LayerView<T>&, const KeptTokens<T>&, const std::function<T*(int64_t)>&, const LayerOutput<T>&);
SEQBOAT_LAYER_FORWARD(float)
SEQBOAT_LAYER_FORWARD(double)

}  // namespace seqboat::ops
