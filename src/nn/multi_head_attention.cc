#include "seqboat/nn/multi_head_attention.h"

#include "seqboat/nn/attention_distances.h"
#include "seqboat/nn/carry.h"
#include "seqboat/nn/dropout_sites.h"
#include "seqboat/nn/initialization.h"
#include "seqboat/ops/ops.h"

namespace seqboat::nn {

using torch::Tensor;

HeadedAttention::HeadedAttention(const MultiHeadAttentionOptions& options) : options_(options) {
  TORCH_CHECK(options.n_heads > 0 && options.d_model % (2 * options.n_heads) == 0, "seqboat::nn: n_heads must cut d_model = ", options.d_model,
              " into heads of an even width, got ", options.n_heads);
}

Tensor HeadedAttention::split_heads(const Tensor& t) const {
  const int64_t heads = options_.n_heads, tokens = t.size(0), width = t.size(1) / heads;
  return t.reshape({tokens, heads, width}).transpose(0, 1).reshape({heads * tokens, width});
}

Tensor HeadedAttention::head_offsets(const Tensor& cu_seqlens, int64_t tokens) const {
  const int64_t heads = options_.n_heads;
  const Tensor starts = torch::arange(heads, torch::kInt64).unsqueeze(1) * tokens;
  return torch::cat({(starts + cu_seqlens.narrow(0, 0, cu_seqlens.size(0) - 1)).reshape({-1}), torch::tensor({heads * tokens}, torch::kInt64)});
}

Tensor HeadedAttention::attend(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& positions, const Tensor& cu_seqlens) const {
  const int64_t heads = options_.n_heads, tokens = q.size(0), width = q.size(1) / heads;
  const Tensor out =
      std::get<0>(ops::window_attention(split_heads(q), split_heads(k), split_heads(v), positions.repeat({heads}), head_offsets(cu_seqlens, tokens),
                                        std::nullopt, "none", options_.window, options_.causal, "softmax"));
  return out.reshape({heads, tokens, width}).transpose(0, 1).reshape({tokens, heads * width});
}

Tensor HeadedAttention::distances(const Tensor& q, const Tensor& k, const Tensor& positions, const Tensor& cu_seqlens) const {
  const int64_t heads = options_.n_heads, tokens = q.size(0);
  AttentionOptions how;
  how.position = "rotary";  // they are rotated already
  how.window = options_.window;
  how.causal = options_.causal;
  const Tensor each = attention_distances(split_heads(q), split_heads(k), positions.repeat({heads}), head_offsets(cu_seqlens, tokens), Tensor(), how);
  return each.reshape({heads, tokens}).mean(0);
}

Tensor HeadedAttention::forward(const Tensor& qkv, const Tensor& positions, const Tensor& cu_seqlens, AttentionState* state, Tensor* reach) const {
  const int64_t d = options_.d_model, heads = options_.n_heads, tokens = qkv.size(0);
  const Tensor head_positions = positions.repeat_interleave(heads);
  const auto rotated = [&](int64_t part) {
    return ops::rotary(qkv.narrow(1, part * d, d).reshape({tokens * heads, d / heads}), head_positions).reshape({tokens, d});
  };
  const Tensor q = rotated(0), k = rotated(1), v = qkv.narrow(1, 2 * d, d);
  if (state == nullptr) {
    if (reach != nullptr) *reach = distances(q, k, positions, cu_seqlens);
    return attend(q, k, v, positions, cu_seqlens);
  }
  TORCH_CHECK(options_.causal && options_.window >= 0, "seqboat::nn: only causal attention with a window can carry a state");
  const auto within = [this](const Tensor& all_q, const Tensor& all_k, const Tensor& all_v, const Tensor& all_positions, const Tensor& offsets) {
    return attend(all_q, all_k, all_v, all_positions, offsets);
  };
  CarriedAttention how{within, keep_window(options_.window), nullptr};
  if (reach != nullptr) {
    how.observe = [&](const Tensor& all_q, const Tensor& all_k, const Tensor& all_positions, const Tensor& offsets, const Tensor& asking) {
      *reach = distances(all_q, all_k, all_positions, offsets).index_select(0, asking);
    };
  }
  return attend_on(how, q, k, v, positions, cu_seqlens, state);
}

void fill_attention_projections(Linear& in_proj, Linear& out_proj, PhiloxStream& random) {
  const int64_t d = out_proj->weight.size(0);
  for (int64_t part = 0; part < 3; ++part) {
    Tensor rows = in_proj->weight.detach().narrow(0, part * d, d);
    fill_xavier_uniform(rows, random);
  }
  fill_xavier_uniform(out_proj->weight, random);
}

MultiHeadAttentionImpl::MultiHeadAttentionImpl(const MultiHeadAttentionOptions& options, double dropout, PhiloxStream& random)
    : in_proj(register_module("in_proj", Linear(options.d_model, 3 * options.d_model))),
      out_proj(register_module("out_proj", Linear(options.d_model, options.d_model))),
      attention_(options),
      dropout_(dropout) {
  fill_attention_projections(in_proj, out_proj, random);
}

Tensor MultiHeadAttentionImpl::forward(const Tensor& m, const SubModuleCall& call) {
  const Tensor h = attention_.forward(in_proj(m), call.tokens.positions, call.tokens.cu_seqlens, call.state, call.distances);
  return dropout(out_proj(h), dropout_, is_training(), call.random, call.tokens, call.layer, kDropoutAttention);
}

}  // namespace seqboat::nn
