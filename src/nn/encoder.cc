#include "seqboat/nn/encoder.h"

namespace seqboat::nn {

BlockImpl::BlockImpl(const config::ModelConfig& config, int64_t number, PhiloxStream& random) {
  layer = register_module("layer", make_layer(config, number, random));
  // Mega's normals are whole, those of SeqBoat's language models cut.
  const bool truncated_init = config.task == "language-model" && !config.is_mega();
  if (config.feed_forward() > 0)
    ffn = register_module("ffn", FeedForward(config.d_model, config.feed_forward(), config.norm, config.norm_first(), config.norm_affine,
                                             config.dropout, truncated_init, random));
}

torch::Tensor BlockImpl::forward(const torch::Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t number) {
  const torch::Tensor y = layer->forward(x, layout, options, number);
  return ffn ? ffn(y, layout, options.random, number, options.recompute) : y;
}

EncoderImpl::EncoderImpl(const config::ModelConfig& config, PhiloxStream& random) {
  torch::nn::ModuleList list;
  for (int64_t i = 0; i < config.n_layers; ++i) {
    layers.emplace_back(config, i, random);
    list->push_back(layers.back());
  }
  register_module("layers", list);
  if (config.norm_first()) final_norm = register_module("final_norm", Norm(config.norm, config.d_model, config.final_norm_affine));
}

torch::Tensor EncoderImpl::forward(torch::Tensor x, const PackedLayout& layout, const ForwardOptions& options) {
  for (size_t i = 0; i < layers.size(); ++i) x = layers[i](x, layout, options, static_cast<int64_t>(i));
  return final_norm ? final_norm(x) : x;
}

}  // namespace seqboat::nn
