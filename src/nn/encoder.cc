#include "seqboat/nn/encoder.h"

namespace seqboat::nn {

SeqBoatLayerOptions layer_options(const config::ModelConfig& config) {
  SeqBoatLayerOptions options;
  options.d_model = config.d_model;
  options.d_attn = config.d_attn;
  options.d_hidden = config.hidden();
  options.d_state = config.d_state;
  options.truncation = config.truncation;
  options.causal = config.causal;
  options.attention.function = config.attention;
  options.attention.position = config.position;
  options.attention.max_positions = config.max_positions;
  options.attention.window = config.window_size > 0 ? config.window_size : -1;
  options.norm = config.norm;
  options.norm_affine = config.norm_affine;
  options.prenorm = config.prenorm;
  options.use_router = config.uses_router();
  options.temperature_init = config.temperature_init;
  options.act_bias = config.router_bias;
  options.dropout = config.dropout;
  return options;
}

BlockImpl::BlockImpl(const config::ModelConfig& config, PhiloxStream& random) {
  layer = register_module("layer", SeqBoatLayer(layer_options(config), random));
  if (config.ffn_dim > 0)
    ffn = register_module("ffn", FeedForward(config.d_model, config.ffn_dim, config.norm, config.prenorm, config.norm_affine, config.dropout,
                                             config.task == "language-model", random));
}

torch::Tensor BlockImpl::forward(const torch::Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t number) {
  const torch::Tensor y = layer(x, layout, options, number);
  return ffn ? ffn(y, layout, options.random, number) : y;
}

EncoderImpl::EncoderImpl(const config::ModelConfig& config, PhiloxStream& random) {
  torch::nn::ModuleList list;
  for (int64_t i = 0; i < config.n_layers; ++i) {
    layers.emplace_back(config, random);
    list->push_back(layers.back());
  }
  register_module("layers", list);
  if (config.prenorm) final_norm = register_module("final_norm", Norm(config.norm, config.d_model, config.final_norm_affine));
}

torch::Tensor EncoderImpl::forward(torch::Tensor x, const PackedLayout& layout, const ForwardOptions& options) {
  for (size_t i = 0; i < layers.size(); ++i) x = layers[i](x, layout, options, static_cast<int64_t>(i));
  return final_norm ? final_norm(x) : x;
}

}  // namespace seqboat::nn
