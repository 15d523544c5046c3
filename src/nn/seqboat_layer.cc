#include "seqboat/nn/seqboat_layer.h"

#include "seqboat/nn/carry.h"
#include "seqboat/nn/dropout_sites.h"
#include "seqboat/nn/fixed_choice.h"
#include "seqboat/nn/initialization.h"
#include "seqboat/ops/ops.h"
#include "seqboat/ops/seqboat_layer.h"

namespace seqboat::nn {

using torch::Tensor;

namespace {

/// The decisions that stand in the router's place, or an undefined tensor.
Tensor forced_decisions(const PackedLayout& layout, const ForwardOptions& options, int64_t layer) {
  const std::vector<Tensor>& forced = layout.pass == 1 && !options.forced_active1.empty() ? options.forced_active1 : options.forced_active;
  if (forced.empty()) return {};
  TORCH_CHECK(static_cast<size_t>(layer) < forced.size(), "seqboat: forced_active has ", forced.size(), " layers, none for layer ", layer);
  return forced[static_cast<size_t>(layer)];
}

}  // namespace

SeqBoatLayerImpl::SeqBoatLayerImpl(const SeqBoatLayerOptions& options, PhiloxStream& random) : options_(options) {
  options_.attention.causal = options.causal;
  norm = register_module("norm", Norm(options.norm, options.d_model, options.norm_affine));
  ema = register_module("ema", MultiHeadEma(options.d_model, options.d_state, !options.causal, options.truncation, random));
  if (options.use_router) router = register_module("router", SmaRouter(options.d_model, options.temperature_init, options.act_bias, random));
  skip_proj = register_module("skip_proj", Linear(options.d_model, options.d_model));
  fill_truncated_normal(skip_proj->weight, 0.02, random);
  TORCH_CHECK(options.fixed_choice.empty() || !options.use_router, "seqboat::nn::SeqBoatLayer: a fixed choice stands in the router's place");
  TORCH_CHECK(options.use_attention || !options.use_router, "seqboat::nn::SeqBoatLayer: without attention there is nothing for a router to activate");
  if (!options.use_attention) return;
  attention = register_module("attention", GatedAttentionUnit(options.d_model, options.d_attn, options.d_hidden, options_.attention, random));
}

Tensor SeqBoatLayerImpl::decisions(const PackedLayout& layout, const ForwardOptions& options, int64_t layer) const {
  if (!router && options_.fixed_choice.empty()) return {};
  const Tensor forced = forced_decisions(layout, options, layer);
  if (router || forced.defined()) return forced;
  return fixed_choice(options_.fixed_choice, options_.rate, layout, options.random, layer);
}

Tensor SeqBoatLayerImpl::forward(const Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t layer) {
  const bool attention_fuses = !attention || (!attention->uses_composite() && options_.attention.position != "t5");
  const bool can_fuse = fused_ && options.state == nullptr && attention_fuses && (options_.prenorm || options_.norm != "batchnorm");
  const NormImpl::Statistics first_norm = options_.prenorm ? norm->statistics(x) : NormImpl::Statistics{};
  if (!can_fuse) return forward_composite(x, layout, options, layer, first_norm);
  const Tensor y = forward_fused(x, layout, options, layer, first_norm);
  if (options.trace != nullptr && (options.intermediates || options.distances)) {
    torch::NoGradGuard no_grad;
    std::vector<LayerTrace> details;
    ForwardOptions again = options;
    again.trace = &details;
    forward_composite(x, layout, again, layer, first_norm);
    details[0].probability = options.trace->back().probability;  // with its gradient
    options.trace->back() = std::move(details[0]);
  }
  return y;
}

Tensor SeqBoatLayerImpl::forward_fused(const Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t layer,
                                       const NormImpl::Statistics& first_norm) {
  ops::SeqBoatLayerArguments a;
  a.x = x;
  a.cu_seqlens = layout.cu_seqlens;
  a.positions = layout.positions;
  a.sequence_ids = layout.sequence_ids;
  a.norm_weight = norm->weight;
  a.norm_bias = norm->bias;
  a.norm_mean = first_norm.mean;
  a.norm_var = first_norm.var;
  a.batch_stats = first_norm.of_batch;
  std::tie(a.ema_q, a.ema_c) = ema->coefficients();
  a.ema_omega = ema->omega;
  a.forced = decisions(layout, options, layer);
  if (router) {
    a.router_weight = router->proj->weight;
    a.router_bias = router->proj->bias;
    a.log_temperature = router->log_temperature;
    a.act_bias = router->act_bias();
  }
  a.skip_weight = skip_proj->weight;
  a.skip_bias = skip_proj->bias;
  if (attention) {
    a.in_weight = attention->in_proj->weight;
    a.in_bias = attention->in_proj->bias;
    a.qk_gamma = attention->qk_gamma;
    a.qk_beta = attention->qk_beta;
    a.bias_table = attention->position->table;
    a.out_weight = attention->out_proj->weight;
    a.out_bias = attention->out_proj->bias;
  }
  a.norm = options_.norm;
  a.prenorm = options_.prenorm;
  a.eps = NormImpl::kEps;
  a.causal = options_.causal;
  a.truncation = options_.truncation;
  a.window = options_.attention.window;
  a.position = options_.attention.position;
  a.function = options_.attention.function;
  a.dropout = is_training() ? options_.dropout : 0.0;
  a.random = dropout_key(options.random, layout, layer, 0);
  a.keep_inputs_only = options.recompute;
  const ops::SeqBoatLayerResult out = ops::seqboat_layer(a);
  if (options.trace != nullptr) {
    LayerTrace record;
    if (router || !options_.fixed_choice.empty()) record.active = out.active;
    if (!attention) record.active = torch::zeros({x.size(0)}, torch::kUInt8);
    if (router) record.probability = options.router_gradients ? out.probability : out.probability.detach();
    options.trace->push_back(std::move(record));
  }
  return out.y;
}

Tensor SeqBoatLayerImpl::forward_composite(const Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t layer,
                                           const NormImpl::Statistics& first_norm) {
  const auto drop = [&](const Tensor& t, const PackedLayout& where, int64_t site) {
    return dropout(t, options_.dropout, is_training(), options.random, where, layer, site);
  };
  LayerTrace record;
  LayerTrace* details = options.intermediates ? &record : nullptr;
  Tensor* distances = options.trace != nullptr && options.distances ? &record.distances : nullptr;

  LayerState* state = options.state != nullptr ? &options.state->layers.at(static_cast<size_t>(layer)) : nullptr;
  AttentionState* attended = state != nullptr ? &state->attention : nullptr;
  const Tensor input = options_.prenorm ? norm->apply_with(x, first_norm) : x;
  const Tensor ema_out = state != nullptr ? encode_on(ema, options_.truncation, input, layout, state) : ema(input, layout.cu_seqlens);
  const Tensor m = drop(ops::activation(ema_out, "silu"), layout, kDropoutState);
  const Tensor skip = skip_proj(m);

  Tensor branches = skip;
  if (router || !options_.fixed_choice.empty()) {
    Tensor active = decisions(layout, options, layer), confidence;
    if (router) {
      const auto decision = router(m, active);
      active = decision.active;
      confidence = decision.p;
      record.probability = options.router_gradients ? decision.probability : decision.probability.detach();
      if (details != nullptr) record.logits = decision.logits.detach();
    }
    auto [index, positions, active_cu_seqlens] = ops::active_index(active, layout.cu_seqlens);
    // Time within the sequence, which began before this chunk.
    if (state != nullptr) positions = layout.positions.index_select(0, index);
    Tensor h = attention(ops::compress(m, active, index), positions, active_cu_seqlens, details, attended, distances);
    if (!options_.causal && is_training() && options_.dropout > 0)
      h = drop(h, PackedLayout{active_cu_seqlens, positions, layout.sequence_ids.index_select(0, index), layout.pass}, kDropoutAttention);
    if (confidence.defined()) h = h * ops::compress(confidence.unsqueeze(1), active, index);
    branches = skip + ops::extract(h, active, index);
    record.active = active;
  } else if (!attention) {
    record.active = torch::zeros({x.size(0)}, torch::kUInt8);
  } else {
    Tensor h = attention(m, layout.positions, layout.cu_seqlens, details, attended, distances);
    if (!options_.causal) h = drop(h, layout, kDropoutAttention);
    branches = skip + h;
  }

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
