#include "seqboat/nn/transformer_layer.h"

#include "seqboat/nn/carry.h"
#include "seqboat/nn/dropout_sites.h"
#include "seqboat/nn/initialization.h"
#include "seqboat/ops/ops.h"

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

// The heads stand one after the other as if they were sequences of their own.
Tensor TransformerLayerImpl::attend(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& positions, const Tensor& cu_seqlens) const {
  const int64_t heads = options_.n_heads, tokens = q.size(0), width = q.size(1) / heads;
  const auto split = [&](const Tensor& t) { return t.reshape({tokens, heads, width}).transpose(0, 1).reshape({heads * tokens, width}); };
  const Tensor starts = torch::arange(heads, torch::kInt64).unsqueeze(1) * tokens;
  const Tensor offsets =
      torch::cat({(starts + cu_seqlens.narrow(0, 0, cu_seqlens.size(0) - 1)).reshape({-1}), torch::tensor({heads * tokens}, torch::kInt64)});
  const Tensor out = std::get<0>(ops::window_attention(split(q), split(k), split(v), positions.repeat({heads}), offsets, std::nullopt, "none",
                                                       options_.window, options_.causal, "softmax"));
  return out.reshape({heads, tokens, width}).transpose(0, 1).reshape({tokens, heads * width});
}

Tensor TransformerLayerImpl::forward(const Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t number) {
  const int64_t d = options_.d_model, heads = options_.n_heads, tokens = x.size(0);
  const Tensor qkv = in_proj(norm(x));
  const Tensor head_positions = layout.positions.repeat_interleave(heads);
  const auto rotated = [&](int64_t part) {
    return ops::rotary(qkv.narrow(1, part * d, d).reshape({tokens * heads, d / heads}), head_positions).reshape({tokens, d});
  };
  const Tensor q = rotated(0), k = rotated(1), v = qkv.narrow(1, 2 * d, d);
  Tensor attention;
  if (options.state == nullptr) {
    attention = attend(q, k, v, layout.positions, layout.cu_seqlens);
  } else {
    TORCH_CHECK(options_.causal && options_.window >= 0, "seqboat::nn::TransformerLayer: only causal attention with a window can carry a state");
    const auto within = [this](const Tensor& all_q, const Tensor& all_k, const Tensor& all_v, const Tensor& all_positions, const Tensor& offsets) {
      return attend(all_q, all_k, all_v, all_positions, offsets);
    };
    AttentionState& kept = options.state->layers.at(static_cast<size_t>(number)).attention;
    attention = attend_on({within, keep_window(options_.window)}, q, k, v, layout.positions, layout.cu_seqlens, &kept);
  }
  if (options.trace != nullptr) options.trace->emplace_back();
  return x + dropout(out_proj(attention), options_.dropout, is_training(), options.random, layout, number, kDropoutOutput);
}

}  // namespace seqboat::nn
