#include "seqboat/nn/transformer_layer.h"

#include "seqboat/nn/dropout_sites.h"
#include "seqboat/ops/transformer_layer.h"

namespace seqboat::nn {

using torch::Tensor;

TransformerLayerImpl::TransformerLayerImpl(const TransformerLayerOptions& options, PhiloxStream& random)
    : options_(options), attention_({options.d_model, options.n_heads, options.window, options.causal}) {
  const int64_t d = options.d_model;
  norm = register_module("norm", Norm(options.norm, d, options.norm_affine));
  in_proj = register_module("in_proj", Linear(d, 3 * d));
  out_proj = register_module("out_proj", Linear(d, d));
  fill_attention_projections(in_proj, out_proj, random);
}

Tensor TransformerLayerImpl::forward(const Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t number) {
  const bool asked = options.trace != nullptr && options.distances;
  if (!fused_ || options.state != nullptr || asked) return forward_composite(x, layout, options, number);
  if (options.trace != nullptr) options.trace->emplace_back();
  return forward_fused(x, layout, options, number);
}

Tensor TransformerLayerImpl::forward_fused(const Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t number) {
  const NormImpl::Statistics statistics = norm->statistics(x);
  ops::TransformerLayerArguments a;
  a.x = x;
  a.cu_seqlens = layout.cu_seqlens;
  a.positions = layout.positions;
  a.sequence_ids = layout.sequence_ids;
  a.norm_weight = norm->weight;
  a.norm_bias = norm->bias;
  a.norm_mean = statistics.mean;
  a.norm_var = statistics.var;
  a.batch_stats = statistics.of_batch;
  a.in_weight = in_proj->weight;
  a.in_bias = in_proj->bias;
  a.out_weight = out_proj->weight;
  a.out_bias = out_proj->bias;
  a.norm = options_.norm;
  a.eps = NormImpl::kEps;
  a.n_heads = options_.n_heads;
  a.window = options_.window;
  a.causal = options_.causal;
  a.dropout = is_training() ? options_.dropout : 0.0;
  a.random = dropout_key(options.random, layout, number, 0);
  a.keep_inputs_only = options.recompute;
  return ops::transformer_layer(a);
}

Tensor TransformerLayerImpl::forward_composite(const Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t number) {
  AttentionState* kept = options.state != nullptr ? &options.state->layers.at(static_cast<size_t>(number)).attention : nullptr;
  Tensor reach;
  const bool asked = options.trace != nullptr && options.distances;
  const Tensor h = attention_.forward(in_proj(norm(x)), layout.positions, layout.cu_seqlens, kept, asked ? &reach : nullptr);
  if (options.trace != nullptr) options.trace->emplace_back().distances = reach;
  return x + dropout(out_proj(h), options_.dropout, is_training(), options.random, layout, number, kDropoutOutput);
}

}  // namespace seqboat::nn
