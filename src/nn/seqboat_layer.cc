#include "seqboat/nn/seqboat_layer.h"

#include "seqboat/nn/dropout_sites.h"
#include "seqboat/nn/initialization.h"
#include "seqboat/ops/ops.h"

namespace seqboat::nn {

using torch::Tensor;

SeqBoatLayerImpl::SeqBoatLayerImpl(const SeqBoatLayerOptions& options, PhiloxStream& random) : options_(options) {
  options_.attention.causal = options.causal;
  norm = register_module("norm", Norm(options.norm, options.d_model, options.norm_affine));
  ema = register_module("ema", MultiHeadEma(options.d_model, options.d_state, !options.causal, options.truncation, random));
  if (options.use_router) router = register_module("router", SmaRouter(options.d_model, options.temperature_init, options.act_bias, random));
  skip_proj = register_module("skip_proj", Linear(options.d_model, options.d_model));
  fill_truncated_normal(skip_proj->weight, 0.02, random);
  attention = register_module("attention", GatedAttentionUnit(options.d_model, options.d_attn, options.d_hidden, options_.attention, random));
}

Tensor SeqBoatLayerImpl::encode_on(const Tensor& x, const PackedLayout& layout, LayerState* state) {
  const auto [y, ema_state] = ema->forward_with_state(x, layout.cu_seqlens, state->ema, state->history);
  state->ema = ema_state;
  if (options_.truncation > 0) {
    const int64_t batch = layout.cu_seqlens.size(0) - 1;
    const int64_t* offsets = layout.cu_seqlens.const_data_ptr<int64_t>();
    const Tensor past = state->history.defined() ? state->history : x.new_zeros({batch, options_.truncation, x.size(1)});
    std::vector<Tensor> last;
    for (int64_t b = 0; b < batch; ++b) {
      const Tensor seen = torch::cat({past[b], x.narrow(0, offsets[b], offsets[b + 1] - offsets[b])});
      last.push_back(seen.narrow(0, seen.size(0) - options_.truncation, options_.truncation));
    }
    state->history = torch::stack(last);
  }
  return y;
}

Tensor SeqBoatLayerImpl::forward(const Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t layer) {
  const auto drop = [&](const Tensor& t, const PackedLayout& where, int64_t site) {
    return dropout(t, options_.dropout, is_training(), options.random, where, layer, site);
  };
  LayerTrace record;
  LayerTrace* details = options.intermediates ? &record : nullptr;

  LayerState* state = options.state != nullptr ? &options.state->layers.at(static_cast<size_t>(layer)) : nullptr;
  AttentionState* attended = state != nullptr ? &state->attention : nullptr;
  const Tensor input = options_.prenorm ? norm(x) : x;
  const Tensor ema_out = state != nullptr ? encode_on(input, layout, state) : ema(input, layout.cu_seqlens);
  const Tensor m = drop(ops::activation(ema_out, "silu"), layout, kDropoutState);
  const Tensor skip = skip_proj(m);

  Tensor h;
  if (options_.use_router) {
    const bool is_forced = !options.forced_active.empty();
    TORCH_CHECK(!is_forced || static_cast<size_t>(layer) < options.forced_active.size(), "seqboat: forced_active has ", options.forced_active.size(),
                " layers, none for layer ", layer);
    const auto decision = router(m, is_forced ? options.forced_active[static_cast<size_t>(layer)] : Tensor());
    auto [index, positions, active_cu_seqlens] = ops::active_index(decision.active, layout.cu_seqlens);
    // Time within the sequence, which began before this chunk.
    if (state != nullptr) positions = layout.positions.index_select(0, index);
    h = attention(ops::compress(m, decision.active, index), positions, active_cu_seqlens, details, attended);
    if (!options_.causal && is_training() && options_.dropout > 0)
      h = drop(h, PackedLayout{active_cu_seqlens, positions, layout.sequence_ids.index_select(0, index), layout.pass}, kDropoutAttention);
    h = ops::extract(h * ops::compress(decision.p.unsqueeze(1), decision.active, index), decision.active, index);
    record.active = decision.active;
    record.probability = options.router_gradients ? decision.probability : decision.probability.detach();
    if (details != nullptr) record.logits = decision.logits.detach();
  } else {
    h = attention(m, layout.positions, layout.cu_seqlens, details, attended);
    if (!options_.causal) h = drop(h, layout, kDropoutAttention);
  }

  Tensor branches = skip + h;
  if (options_.causal) branches = drop(branches, layout, kDropoutOutput);
  Tensor y = ops::activation(branches + x, "silu");
  if (!options_.prenorm) y = norm(y);
  if (options.trace != nullptr) {
    if (details != nullptr) record.ema_out = ema_out.detach();
    options.trace->push_back(std::move(record));
  }
  return y;
}

}  // namespace seqboat::nn
