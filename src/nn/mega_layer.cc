#include "seqboat/nn/mega_layer.h"

#include <cmath>

#include "seqboat/nn/attention_distances.h"
#include "seqboat/nn/carry.h"
#include "seqboat/nn/dropout_sites.h"
#include "seqboat/nn/initialization.h"
#include "seqboat/ops/mega_layer.h"
#include "seqboat/ops/ops.h"

namespace seqboat::nn {

using torch::Tensor;

MegaPositionBiasImpl::MegaPositionBiasImpl(const std::string& kind, int64_t d_attn, int64_t max_positions, PhiloxStream& random) {
  TORCH_CHECK(kind == "simple" || kind == "rotary", "seqboat::nn::MegaPositionBias: kind must be simple or rotary, got '", kind, "'");
  if (kind == "simple") {
    table = register_parameter("table", torch::empty({2 * max_positions - 1}));
    fill_normal(table, 0.02, random);
    return;
  }
  TORCH_CHECK(d_attn % 2 == 0, "seqboat::nn::MegaPositionBias: rotary positions need an even d_attn, got ", d_attn);
  alpha = register_parameter("alpha", torch::empty({d_attn}));
  beta = register_parameter("beta", torch::empty({d_attn}));
  fill_normal(alpha, 0.02, random);
  fill_normal(beta, 0.02, random);
}

Tensor MegaPositionBiasImpl::table_for(int64_t longest) {
  if (table.defined()) {
    TORCH_CHECK(longest <= (table.size(0) + 1) / 2, "seqboat::nn::MegaLayer: a block of ", longest,
                " tokens is longer than the position table, which ", "tells ", (table.size(0) + 1) / 2, " distances apart (model.max_positions)");
    return table;
  }
  // R(alpha, i) . R(beta, j) = sum_d (a1 b1 + a2 b2) cos((j - i) phi_d) + (a2 b1 - a1 b2) sin((j - i) phi_d)
  const int64_t half = alpha.size(0) / 2;
  if (!angles_.defined() || angles_.size(0) != 2 * longest - 1) {
    const Tensor frequency = torch::pow(10000.0, -torch::arange(half, torch::kFloat64) / static_cast<double>(half));
    const Tensor angle = torch::arange(1 - longest, longest, torch::kFloat64).unsqueeze(1) * frequency;
    angles_ = torch::cat({angle.cos(), angle.sin()}, 1);
  }
  const Tensor a1 = alpha.narrow(0, 0, half), a2 = alpha.narrow(0, half, half), b1 = beta.narrow(0, 0, half), b2 = beta.narrow(0, half, half);
  const Tensor amplitude = torch::cat({a1 * b1 + a2 * b2, a2 * b1 - a1 * b2});
  return ops::linear(angles_.to(alpha.scalar_type()), amplitude.unsqueeze(0), std::nullopt).squeeze(1);
}

Tensor chunk_offsets(const Tensor& cu_seqlens, int64_t chunk) {
  if (chunk < 0) return cu_seqlens;
  const int64_t* offsets = cu_seqlens.const_data_ptr<int64_t>();
  std::vector<int64_t> out{0};
  for (int64_t b = 0; b + 1 < cu_seqlens.size(0); ++b) {
    for (int64_t begin = offsets[b]; begin < offsets[b + 1]; begin += chunk) out.push_back(std::min(begin + chunk, offsets[b + 1]));
  }
  return torch::tensor(out, torch::kInt64);
}

MegaLayerImpl::MegaLayerImpl(const MegaLayerOptions& options, PhiloxStream& random) : options_(options) {
  TORCH_CHECK(options.chunk_size != 0, "seqboat::nn::MegaLayer: chunk_size must be positive, or negative for one block, got 0");
  const int64_t d = options.d_model, z = options.d_attn, h = options.d_hidden;
  norm = register_module("norm", Norm(options.norm, d, options.norm_affine));
  if (options.encoder == "s4d") {
    encoder_ = (s4d = register_module("s4d", S4d(d, options.d_state, !options.causal, options.truncation, random))).ptr();
  } else {
    TORCH_CHECK(options.encoder == "ema", "seqboat::nn::MegaLayer: encoder must be ema or s4d, got '", options.encoder, "'");
    ema = register_module("ema", MultiHeadEma(d, options.d_state, !options.causal, options.truncation, random, /*truncated_init=*/false));
    encoder_ = ema.ptr();
  }
  v_proj = register_module("v_proj", Linear(d, h));
  in_proj = register_module("in_proj", Linear(d, z + h + 2 * d));
  out_proj = register_module("out_proj", Linear(h, d));
  for (Linear* linear : {&v_proj, &in_proj, &out_proj}) fill_normal((*linear)->weight, 0.02, random);
  qk_gamma = register_parameter("qk_gamma", torch::empty({2, z}));
  qk_beta = register_parameter("qk_beta", torch::zeros({2, z}));
  fill_normal(qk_gamma, 0.02, random);
  position =
      register_module("position", MegaPositionBias(options.position, z, options.chunk_size > 0 ? options.chunk_size : options.max_positions, random));
}

Tensor MegaLayerImpl::table_for(const Tensor& cu_seqlens) {
  int64_t longest = cu_seqlens.size(0) > 1 ? cu_seqlens.diff().max().item<int64_t>() : 0;
  if (options_.chunk_size > 0) longest = std::min(longest, options_.chunk_size);
  return position->table_for(std::max<int64_t>(1, longest));
}

Tensor MegaLayerImpl::attend(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& positions, const Tensor& cu_seqlens) {
  return std::get<0>(ops::window_attention(q, k, v, positions, chunk_offsets(cu_seqlens, options_.chunk_size), table_for(cu_seqlens), "simple", -1,
                                           options_.causal, options_.function));
}

Tensor MegaLayerImpl::distances(const Tensor& q, const Tensor& k, const Tensor& positions, const Tensor& cu_seqlens) {
  AttentionOptions within;
  within.function = options_.function;
  within.causal = options_.causal;
  return attention_distances(q, k, positions, chunk_offsets(cu_seqlens, options_.chunk_size), table_for(cu_seqlens), within);
}

Tensor MegaLayerImpl::forward(const Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t number) {
  const bool can_fuse = fused_ && options.state == nullptr && (options_.prenorm || options_.norm != "batchnorm");
  const NormImpl::Statistics first_norm = options_.prenorm ? norm->statistics(x) : NormImpl::Statistics{};
  if (!can_fuse) return forward_composite(x, layout, options, number, first_norm);
  const Tensor y = forward_fused(x, layout, options, number, first_norm);
  if (options.trace != nullptr && (options.intermediates || options.distances)) {
    torch::NoGradGuard no_grad;
    forward_composite(x, layout, options, number, first_norm);
  } else if (options.trace != nullptr) {
    options.trace->emplace_back();
  }
  return y;
}

Tensor MegaLayerImpl::forward_fused(const Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t number,
                                    const NormImpl::Statistics& first_norm) {
  ops::MegaLayerArguments a;
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
  a.v_weight = v_proj->weight;
  a.v_bias = v_proj->bias;
  a.in_weight = in_proj->weight;
  a.in_bias = in_proj->bias;
  a.qk_gamma = qk_gamma;
  a.qk_beta = qk_beta;
  a.bias_table = table_for(layout.cu_seqlens);
  a.out_weight = out_proj->weight;
  a.out_bias = out_proj->bias;
  a.norm = options_.norm;
  a.prenorm = options_.prenorm;
  a.eps = NormImpl::kEps;
  a.causal = options_.causal;
  a.truncation = options_.truncation;
  a.chunk_size = options_.chunk_size;
  a.function = options_.function;
  a.activation = options_.activation;
  a.dropout = is_training() ? options_.dropout : 0.0;
  a.random = dropout_key(options.random, layout, number, 0);
  a.keep_inputs_only = options.recompute;
  return ops::mega_layer(a);
}

Tensor MegaLayerImpl::forward_composite(const Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t number,
                                        const NormImpl::Statistics& first_norm) {
  const auto drop = [&](const Tensor& t, int64_t site) { return dropout(t, options_.dropout, is_training(), options.random, layout, number, site); };
  LayerState* state = options.state != nullptr ? &options.state->layers.at(static_cast<size_t>(number)) : nullptr;
  const int64_t d = options_.d_model, z = options_.d_attn, h = options_.d_hidden;
  const Tensor input = options_.prenorm ? norm->apply_with(x, first_norm) : x;
  const Tensor v = ops::activation(v_proj(input), options_.activation);
  const Tensor encoded = state != nullptr ? encode_on(*encoder_, input, layout, state) : encoder_->forward(input, layout.cu_seqlens);
  const Tensor m = drop(ops::activation(encoded, "silu"), kDropoutState);

  const Tensor base = in_proj(m);
  const Tensor update = ops::activation(base.narrow(1, 0, d), "sigmoid");
  const Tensor zr = ops::activation(base.narrow(1, d, z + h), "silu");
  const Tensor shared = zr.narrow(1, 0, z), reset = zr.narrow(1, z, h), candidate = base.narrow(1, d + z + h, d);
  const Tensor q = shared * qk_gamma[0] + qk_beta[0], k = shared * qk_gamma[1] + qk_beta[1];
  const bool asked = options.trace != nullptr && options.distances;
  Tensor attention, reach;
  if (state == nullptr) {
    attention = attend(q, k, v, layout.positions, layout.cu_seqlens);
    if (asked) reach = distances(q, k, layout.positions, layout.cu_seqlens);
  } else {
    TORCH_CHECK(options_.causal && options_.chunk_size > 0, "seqboat::nn::MegaLayer: only causal attention in chunks can carry a state");
    const auto within = [this](const Tensor& all_q, const Tensor& all_k, const Tensor& all_v, const Tensor& all_positions, const Tensor& offsets) {
      return attend(all_q, all_k, all_v, all_positions, offsets);
    };
    // The block that is not complete; what is kept begins with it.
    const auto keep_from = [chunk = options_.chunk_size](int64_t, int64_t next) { return next / chunk * chunk; };
    CarriedAttention how{within, keep_from, nullptr};
    if (asked) {
      how.observe = [&](const Tensor& all_q, const Tensor& all_k, const Tensor& all_positions, const Tensor& offsets, const Tensor& asking) {
        reach = distances(all_q, all_k, all_positions, offsets).index_select(0, asking);
      };
    }
    attention = attend_on(how, q, k, v, layout.positions, layout.cu_seqlens, &state->attention);
  }
  const Tensor proposed = drop(ops::activation(candidate + out_proj(attention * reset), options_.activation), kDropoutOutput);
  const Tensor y = x + update * (proposed - x);
  if (options.trace != nullptr) {
    LayerTrace record;
    record.distances = reach;
    if (options.intermediates) {
      record.ema_out = encoded.detach();
      record.q = q;
      record.k = k;
      record.v = v;
      record.attention = attention;
      record.reset = reset;
    }
    options.trace->push_back(std::move(record));
  }
  return options_.prenorm ? y : norm(y);
}

}  // namespace seqboat::nn
