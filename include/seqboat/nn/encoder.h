#pragma once

#include <torch/torch.h>

#include <vector>

#include "seqboat/config/model_config.h"
#include "seqboat/nn/feed_forward.h"
#include "seqboat/nn/seqboat_layer.h"

namespace seqboat::nn {

/// One layer of the stack with its optional feed-forward block: children of `layers.<i>` are those of SeqBoatLayer, and `ffn`.
class BlockImpl : public torch::nn::Module {
 public:
  BlockImpl(const config::ModelConfig& config, PhiloxStream& random);
  torch::Tensor forward(const torch::Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t number);

  SeqBoatLayer layer{nullptr};
  FeedForward ffn{nullptr};
};
TORCH_MODULE(Block);

/// The stack of layers and, for prenorm models, the final norm. Parameters: layers.<i>.{layer,ffn}.*, final_norm.*.
class EncoderImpl : public torch::nn::Module {
 public:
  EncoderImpl(const config::ModelConfig& config, PhiloxStream& random);
  torch::Tensor forward(torch::Tensor x, const PackedLayout& layout, const ForwardOptions& options);

  std::vector<Block> layers;
  Norm final_norm{nullptr};
};
TORCH_MODULE(Encoder);

/// The options of one layer that a model's config asks for.
SeqBoatLayerOptions layer_options(const config::ModelConfig& config);

}  // namespace seqboat::nn
