#include "seqboat/nn/transformer_layer.h"

#include "seqboat/nn/attention_distances.h"
#include "seqboat/nn/carry.h"
#include "seqboat/nn/dropout_sites.h"
#include "seqboat/nn/initialization.h"
#include "seqboat/ops/ops.h"
#include "seqboat/ops/transformer_layer.h"

namespace seqboat::nn {

using torch::Tensor;

TransformerLayerImpl::TransformerLayerImpl(const TransformerLayerOptions& options, PhiloxStream& random) : options_(options) {
  const int64_t d = options.d_model;
  TORCH_CHECK(options.n_heads > 0 && d % (2 * options.n_heads) == 0, "seqboat::nn::TransformerLayer: n_heads must cut d_model = ", d,
              " into heads of an even width, got ", options.n_heads);
  norm = register_module("norm", Norm(options.norm, d, options.norm_affine));
  in_proj = register_module("in_proj", Linear(d, 3 * d));
  out_proj = register_module("out_proj", Linear(d, d));
  for (int64_t part = 0; part < 3; ++part) {
    Tensor rows = in_proj->weight.detach().narrow(0, part * d, d);
    fill_xavier_uniform(rows, random);
  }
  fill_xavier_uniform(out_proj->weight, random);
}

Tensor TransformerLayerImpl::split_heads(const Tensor& t) const {
  const int64_t heads = options_.n_heads, tokens = t.size(0), width = t.size(1) / heads;
  return t.reshape({tokens, heads, width}).transpose(0, 1).reshape({heads * tokens, width});
}

Tensor TransformerLayerImpl::head_offsets(const Tensor& cu_seqlens, int64_t tokens) const {
  const int64_t heads = options_.n_heads;
  const Tensor starts = torch::arange(heads, torch::kInt64).unsqueeze(1) * tokens;
  return torch::cat({(starts + cu_seqlens.narrow(0, 0, cu_seqlens.size(0) - 1)).reshape({-1}), torch::tensor({heads * tokens}, torch::kInt64)});
}

Tensor TransformerLayerImpl::attend(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& positions, const Tensor& cu_seqlens) const {
  const int64_t heads = options_.n_heads, tokens = q.size(0), width = q.size(1) / heads;
  const Tensor out =
      std::get<0>(ops::window_attention(split_heads(q), split_heads(k), split_heads(v), positions.repeat({heads}), head_offsets(cu_seqlens, tokens),
                                        std::nullopt, "none", options_.window, options_.causal, "softmax"));
  return out.reshape({heads, tokens, width}).transpose(0, 1).reshape({tokens, heads * width});
}

Tensor TransformerLayerImpl::distances(const Tensor& q, const Tensor& k, const Tensor& positions, const Tensor& cu_seqlens) const {
  const int64_t heads = options_.n_heads, tokens = q.size(0);
  AttentionOptions how;
  how.position = "rotary";  // they are rotated already
  how.window = options_.window;
  how.causal = options_.causal;
  const Tensor each = attention_distances(split_heads(q), split_heads(k), positions.repeat({heads}), head_offsets(cu_seqlens, tokens), Tensor(), how);
  return each.reshape({heads, tokens}).mean(0);
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
  const int64_t d = options_.d_model, heads = options_.n_heads, tokens = x.size(0);
  const Tensor qkv = in_proj(norm(x));
  const Tensor head_positions = layout.positions.repeat_interleave(heads);
  const auto rotated = [&](int64_t part) {
    return ops::rotary(qkv.narrow(1, part * d, d).reshape({tokens * heads, d / heads}), head_positions).reshape({tokens, d});
  };
  const Tensor q = rotated(0), k = rotated(1), v = qkv.narrow(1, 2 * d, d);
  const bool asked = options.trace != nullptr && options.distances;
  Tensor attention, reach;
  if (options.state == nullptr) {
    attention = attend(q, k, v, layout.positions, layout.cu_seqlens);
    if (asked) reach = distances(q, k, layout.positions, layout.cu_seqlens);
  } else {
    TORCH_CHECK(options_.causal && options_.window >= 0, "seqboat::nn::TransformerLayer: only causal attention with a window can carry a state");
    const auto within = [this](const Tensor& all_q, const Tensor& all_k, const Tensor& all_v, const Tensor& all_positions, const Tensor& offsets) {
      return attend(all_q, all_k, all_v, all_positions, offsets);
    };
    AttentionState& kept = options.state->layers.at(static_cast<size_t>(number)).attention;
    CarriedAttention how{within, keep_window(options_.window), nullptr};
    if (asked) {
      how.observe = [&](const Tensor& all_q, const Tensor& all_k, const Tensor& all_positions, const Tensor& offsets, const Tensor& asking) {
        reach = distances(all_q, all_k, all_positions, offsets).index_select(0, asking);
      };
    }
    attention = attend_on(how, q, k, v, layout.positions, layout.cu_seqlens, &kept);
  }
  if (options.trace != nullptr) options.trace->emplace_back().distances = reach;
  return x + dropout(out_proj(attention), options_.dropout, is_training(), options.random, layout, number, kDropoutOutput);
}

}  // namespace seqboat::nn
