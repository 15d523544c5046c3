#include "seqboat/nn/seqboat_layer.h"

#include "seqboat/nn/carry.h"
#include "seqboat/nn/dropout_sites.h"
#include "seqboat/nn/initialization.h"
#include "seqboat/nn/sparse_modular_activation.h"
#include "seqboat/ops/ops.h"
#include "seqboat/ops/seqboat_layer.h"

namespace seqboat::nn {

using torch::Tensor;

SeqBoatLayerImpl::SeqBoatLayerImpl(const SeqBoatLayerOptions& options, PhiloxStream& random) : options_(options) {
  options_.attention.causal = options.causal;
  options_.attention.dropout = options.causal ? 0.0 : options.dropout;  // a causal layer drops the sum with the skip path instead
  norm = register_module("norm", Norm(options.norm, options.d_model, options.norm_affine));
  if (options.encoder == "s4d") {
    encoder_ = (s4d = register_module("s4d", S4d(options.d_model, options.d_state, !options.causal, options.truncation, random))).ptr();
  } else {
    TORCH_CHECK(options.encoder == "ema", "seqboat::nn::SeqBoatLayer: encoder must be ema or s4d, got '", options.encoder, "'");
    encoder_ = (ema = register_module("ema", MultiHeadEma(options.d_model, options.d_state, !options.causal, options.truncation, random))).ptr();
  }
  const std::string& kind = options.router.kind;
  TORCH_CHECK(options.use_attention || kind == "never",
              "seqboat::nn::SeqBoatLayer: without attention there is nothing for a router to activate, got ", kind);
  if (options.use_attention && kind != "always") {
    router_ = register_module("router", make_router(options.router, options.d_model, random));
    learns_ = !router_->parameters().empty();
    if (const auto tempered = std::dynamic_pointer_cast<TemperedSoftmaxRouterImpl>(router_)) router = TemperedSoftmaxRouter(tempered);
  }
  skip_proj = register_module("skip_proj", Linear(options.d_model, options.d_model));
  fill_truncated_normal(skip_proj->weight, 0.02, random);
  if (!options.use_attention) return;
  attention = register_module("attention", GatedAttentionUnit(options.d_model, options.d_attn, options.d_hidden, options_.attention, random));
}

Tensor SeqBoatLayerImpl::forward(const Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t layer) {
  const bool attention_fuses = !attention || (!attention->uses_composite() && options_.attention.position != "t5");
  const bool router_fuses = router || !learns_;
  const bool can_fuse = fused_ && options.state == nullptr && !(options.memory_gradients && learns_) && attention_fuses && router_fuses &&
                        (options_.prenorm || options_.norm != "batchnorm");
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
  const StateEncoder::Scan scan = *encoder_->scan();
  a.encoder_decay = scan.decay;
  a.encoder_weight = scan.weight;
  a.encoder_skip = scan.skip;
  const Tensor forced = router_ ? forced_decisions(options, layout, layer) : Tensor();
  a.forced =
      router_ && !learns_ ? router_->forward(x, {.layout = layout, .random = options.random, .layer = layer, .forced = forced}).active : forced;
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
    if (router_) record.active = out.active;
    if (!attention) record.active = torch::zeros({x.size(0)}, torch::kUInt8);
    if (router) record.probability = options.router_gradients ? out.probability : out.probability.detach();
    options.trace->push_back(std::move(record));
  }
  return out.y;
}

Tensor SeqBoatLayerImpl::forward_composite(const Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t layer,
                                           const NormImpl::Statistics& first_norm) {
  const auto drop = [&](const Tensor& t, int64_t site) { return dropout(t, options_.dropout, is_training(), options.random, layout, layer, site); };
  LayerTrace record;
  LayerTrace* details = options.intermediates ? &record : nullptr;
  Tensor* distances = options.trace != nullptr && options.distances ? &record.distances : nullptr;

  LayerState* state = options.state != nullptr ? &options.state->layers.at(static_cast<size_t>(layer)) : nullptr;
  const Tensor input = options_.prenorm ? norm->apply_with(x, first_norm) : x;
  const Tensor encoded = state != nullptr ? encode_on(*encoder_, input, layout, state) : encoder_->forward(input, layout.cu_seqlens);
  const Tensor m = drop(ops::activation(encoded, "silu"), kDropoutState);

  Tensor branches = skip_proj(m);
  if (attention) {
    RouterDecision decision;
    if (router_) {
      decision = router_->forward(m, {.layout = layout,
                                      .random = options.random,
                                      .layer = layer,
                                      .forced = forced_decisions(options, layout, layer),
                                      .carried = state != nullptr ? &state->router : nullptr});
      record.active = decision.active;
      if (learns_) record.probability = options.router_gradients ? decision.probability : decision.probability.detach();
      if (details != nullptr && learns_) record.logits = decision.logits.detach();
    }
    branches =
        branches + activate(*attention, decision, m, layout, options, layer, 0, state != nullptr ? &state->attention : nullptr, details, distances);
  } else {
    record.active = torch::zeros({x.size(0)}, torch::kUInt8);
  }

  if (options_.causal) branches = drop(branches, kDropoutOutput);
  Tensor y = ops::activation(branches + x, "silu");
  if (!options_.prenorm) y = norm(y);
  if (options.trace != nullptr) {
    if (details != nullptr) record.ema_out = encoded.detach();
    options.trace->push_back(std::move(record));
  }
  return y;
}

}  // namespace seqboat::nn
