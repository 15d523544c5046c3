#include "seqboat/nn/layer.h"

#include "seqboat/nn/mega_layer.h"
#include "seqboat/nn/seqboat_layer.h"
#include "seqboat/nn/transformer_layer.h"

namespace seqboat::nn {
namespace {

using config::ModelConfig;

SeqBoatLayerOptions seqboat_options(const ModelConfig& config, int64_t number) {
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
  options.encoder = config.state_encoder();
  options.use_attention = config.has_unit();
  options.router.kind = config.chooser();
  options.router.temperature_init = config.temperature_init;
  options.router.bias = config.router_bias;
  options.router.temperature = config.router_temperature;
  options.router.threshold = config.router_threshold;
  options.router.rate = config.rate(number);
  options.router.horizon = config.router_horizon;
  options.dropout = config.dropout;
  return options;
}

MegaLayerOptions mega_options(const ModelConfig& config) {
  MegaLayerOptions options;
  options.encoder = config.state_encoder();
  options.d_model = config.d_model;
  options.d_attn = config.d_attn;
  options.d_hidden = config.hidden();
  options.d_state = config.d_state;
  options.truncation = config.truncation;
  options.causal = config.causal;
  options.chunk_size = config.chunk() > 0 ? config.chunk() : -1;
  options.function = config.attention;
  options.position = config.position;
  options.max_positions = config.max_positions;
  options.norm = config.norm;
  options.norm_affine = config.norm_affine;
  options.prenorm = config.prenorm;
  options.dropout = config.dropout;
  return options;
}

TransformerLayerOptions transformer_options(const ModelConfig& config) {
  TransformerLayerOptions options;
  options.d_model = config.d_model;
  options.n_heads = config.heads();
  options.window = config.window_size > 0 ? config.window_size : -1;
  options.causal = config.causal;
  options.norm = config.norm;
  options.norm_affine = config.norm_affine;
  options.dropout = config.dropout;
  return options;
}

}  // namespace

std::shared_ptr<Layer> make_layer(const ModelConfig& config, int64_t number, PhiloxStream& random) {
  if (config.is_mega()) return std::make_shared<MegaLayerImpl>(mega_options(config), random);
  if (config.layer == "attention") return std::make_shared<TransformerLayerImpl>(transformer_options(config), random);
  return std::make_shared<SeqBoatLayerImpl>(seqboat_options(config, number), random);
}

}  // namespace seqboat::nn
