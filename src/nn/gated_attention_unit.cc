#include "seqboat/nn/gated_attention_unit.h"

#include <cmath>

#include "seqboat/nn/attention_distances.h"
#include "seqboat/nn/carry.h"
#include "seqboat/nn/dropout_sites.h"
#include "seqboat/nn/initialization.h"
#include "seqboat/ops/ops.h"

namespace seqboat::nn {

using torch::Tensor;

PositionBiasImpl::PositionBiasImpl(const std::string& kind, int64_t max_positions, PhiloxStream& random) : kind_(kind) {
  TORCH_CHECK(kind == "simple" || kind == "local" || kind == "rotary" || kind == "t5",
              "seqboat::nn::PositionBias: kind must be simple, local, rotary or t5, got '", kind, "'");
  if (kind == "rotary") return;
  table = register_parameter("table", torch::empty({kind == "t5" ? 32 : 2 * max_positions - 1}));
  fill_truncated_normal(table, 0.02, random);
}

Tensor t5_bucket(const Tensor& distance, bool causal) {
  int64_t buckets = 32;
  constexpr double kMaxDistance = 128;
  Tensor n = -distance;
  Tensor base = torch::zeros_like(distance);
  if (causal) {
    n = n.clamp_min(0);
  } else {
    buckets /= 2;
    base = (n < 0).to(torch::kInt64) * buckets;
    n = n.abs();
  }
  const int64_t exact = buckets / 2;
  const Tensor logarithmic = exact + (torch::log(n.to(torch::kFloat32) / static_cast<double>(exact)) /
                                      std::log(kMaxDistance / static_cast<double>(exact)) * static_cast<double>(buckets - exact))
                                         .to(torch::kInt64);
  return base + torch::where(n < exact, n, logarithmic.clamp_max(buckets - 1));
}

Tensor position_bias_matrix(const Tensor& positions, const Tensor& table, const AttentionOptions& options) {
  if (options.position == "rotary") return {};
  const Tensor number = torch::arange(positions.size(0), torch::kInt64);
  if (options.position == "local")
    return table.index({(number.unsqueeze(0) - number.unsqueeze(1) + (4 * options.window - 1)).clamp(0, table.size(0) - 1)});
  const Tensor distance = positions.unsqueeze(0) - positions.unsqueeze(1);  // t_j - t_i
  if (options.position == "t5") return table.index({t5_bucket(distance, options.causal)});
  const int64_t m = (table.size(0) + 1) / 2;
  return table.index({(distance + (m - 1)).clamp(0, 2 * m - 2)});
}

Tensor attention_weights(const Tensor& q, const Tensor& k, const Tensor& positions, const Tensor& table, const AttentionOptions& options) {
  const int64_t count = q.size(0);
  const Tensor number = torch::arange(count, torch::kInt64);
  const bool softmax = options.function == "softmax";
  Tensor scores = torch::matmul(q, k.t());
  if (softmax) {
    scores = scores / std::sqrt(static_cast<double>(q.size(1)));
  } else if (options.window >= 0) {
    scores = scores / static_cast<double>(options.causal ? options.window : 2 * options.window);
  } else if (options.causal) {
    scores = scores / (number + 1).to(q.scalar_type()).unsqueeze(1);
  } else {
    scores = scores / static_cast<double>(count);
  }
  const Tensor apart = number.unsqueeze(0) - number.unsqueeze(1);  // j - i
  const Tensor bias = position_bias_matrix(positions, table, options);
  if (bias.defined()) scores = scores + bias;
  Tensor seen = torch::ones({count, count}, torch::kBool);
  if (options.causal) seen = seen & (apart <= 0);
  if (options.window >= 0) seen = seen & (apart.abs() <= options.window);
  if (softmax) return torch::softmax(scores.masked_fill(~seen, -std::numeric_limits<double>::infinity()), 1);
  return ops::activation(scores, options.function).masked_fill(~seen, 0.0);
}

Tensor composite_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& positions, const Tensor& active_cu_seqlens,
                           const Tensor& table, const AttentionOptions& options) {
  const int64_t batch = active_cu_seqlens.size(0) - 1;
  const int64_t* offsets = active_cu_seqlens.const_data_ptr<int64_t>();
  std::vector<Tensor> rows;
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t count = offsets[b + 1] - offsets[b];
    if (count == 0) continue;
    const Tensor qb = q.narrow(0, offsets[b], count), kb = k.narrow(0, offsets[b], count), vb = v.narrow(0, offsets[b], count);
    const Tensor weights = attention_weights(qb, kb, positions.narrow(0, offsets[b], count), table, options);
    rows.push_back(torch::matmul(weights, vb));
  }
  return rows.empty() ? v * 1 : torch::cat(rows, 0);
}

GatedAttentionUnitImpl::GatedAttentionUnitImpl(int64_t dim, int64_t d_attn, int64_t d_hidden, const AttentionOptions& options, PhiloxStream& random)
    : d_attn_(d_attn), d_hidden_(d_hidden), options_(options) {
  TORCH_CHECK(options.position != "local" || options.window > 0, "seqboat::nn::GatedAttentionUnit: a local position bias needs a window");
  TORCH_CHECK(options.position != "rotary" || d_attn % 2 == 0, "seqboat::nn::GatedAttentionUnit: rotary positions need an even d_attn, got ", d_attn);
  in_proj = register_module("in_proj", Linear(dim, d_attn + 2 * d_hidden));
  out_proj = register_module("out_proj", Linear(d_hidden, dim));
  qk_gamma = register_parameter("qk_gamma", torch::empty({2, d_attn}));
  qk_beta = register_parameter("qk_beta", torch::zeros({2, d_attn}));
  fill_truncated_normal(in_proj->weight, 0.02, random);
  fill_truncated_normal(out_proj->weight, 0.02, random);
  fill_truncated_normal(qk_gamma, 0.02, random);
  position =
      register_module("position", PositionBias(options.position, options.position == "local" ? 3 * options.window : options.max_positions, random));
}

Tensor GatedAttentionUnitImpl::attend(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& positions, const Tensor& cu_seqlens) const {
  if (composite_ || options_.position == "t5") return composite_attention(q, k, v, positions, cu_seqlens, position->table, options_);
  const bool has_table = position->table.defined();
  return std::get<0>(ops::window_attention(q, k, v, positions, cu_seqlens, has_table ? std::optional<Tensor>(position->table) : std::nullopt,
                                           has_table ? options_.position : "none", options_.window, options_.causal, options_.function));
}

Tensor GatedAttentionUnitImpl::attend_with_state(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& positions, const Tensor& cu_seqlens,
                                                 AttentionState* state, Tensor* distances) const {
  TORCH_CHECK(options_.causal && options_.window >= 0, "seqboat::nn::GatedAttentionUnit: only causal attention with a window can carry a state");
  const auto within = [this](const Tensor& all_q, const Tensor& all_k, const Tensor& all_v, const Tensor& all_positions, const Tensor& offsets) {
    return attend(all_q, all_k, all_v, all_positions, offsets);
  };
  CarriedAttention how{within, keep_window(options_.window), nullptr};
  if (distances != nullptr) {
    how.observe = [&](const Tensor& all_q, const Tensor& all_k, const Tensor& all_positions, const Tensor& offsets, const Tensor& asking) {
      *distances = attention_distances(all_q, all_k, all_positions, offsets, position->table, options_).index_select(0, asking);
    };
  }
  return attend_on(how, q, k, v, positions, cu_seqlens, state);
}

Tensor GatedAttentionUnitImpl::apply(const Tensor& m, const Tensor& positions, const Tensor& cu_seqlens, LayerTrace* trace, AttentionState* state,
                                     Tensor* distances, const Tensor& confidence) {
  const Tensor base = ops::activation(in_proj(m), "silu");
  const Tensor z = base.narrow(1, 0, d_attn_), r = base.narrow(1, d_attn_, d_hidden_);
  Tensor v = base.narrow(1, d_attn_ + d_hidden_, d_hidden_);
  if (confidence.defined()) v = v * (1 + (confidence - confidence.detach())).unsqueeze(1);
  Tensor q = z * qk_gamma[0] + qk_beta[0], k = z * qk_gamma[1] + qk_beta[1];
  if (trace != nullptr) {
    trace->q = q;
    trace->k = k;
    trace->v = v;
  }
  if (options_.position == "rotary") {
    q = ops::rotary(q, positions);
    k = ops::rotary(k, positions);
  }
  const Tensor h = state != nullptr ? attend_with_state(q, k, v, positions, cu_seqlens, state, distances) : attend(q, k, v, positions, cu_seqlens);
  if (distances != nullptr && state == nullptr) *distances = attention_distances(q, k, positions, cu_seqlens, position->table, options_);
  if (trace != nullptr) trace->attention = h;
  return out_proj(h * r);
}

Tensor GatedAttentionUnitImpl::forward(const Tensor& m, const SubModuleCall& call) {
  const Tensor h = apply(m, call.tokens.positions, call.tokens.cu_seqlens, call.details, call.state, call.distances, call.confidence);
  return dropout(h, options_.dropout, is_training(), call.random, call.tokens, call.layer, kDropoutAttention);
}

}  // namespace seqboat::nn
