#pragma once

#include <torch/torch.h>

#include <memory>
#include <vector>

#include "seqboat/config/model_config.h"
#include "seqboat/nn/feed_forward.h"
#include "seqboat/nn/layer.h"
#include "seqboat/nn/norm.h"

namespace seqboat::nn {

/// One layer of the stack, of the kind that the config names, with its optional feed-forward block.
class BlockImpl : public torch::nn::Module {
 public:
  BlockImpl(const config::ModelConfig& config, int64_t number, PhiloxStream& random);
  torch::Tensor forward(const torch::Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t number);

  std::shared_ptr<Layer> layer;
  FeedForward ffn{nullptr};
};
TORCH_MODULE(Block);

/// The stack of layers and, for prenorm models and Transformers, the final norm. Parameters: layers.<i>.{layer,ffn}.*, final_norm.*.
class EncoderImpl : public torch::nn::Module {
 public:
  EncoderImpl(const config::ModelConfig& config, PhiloxStream& random);
  torch::Tensor forward(torch::Tensor x, const PackedLayout& layout, const ForwardOptions& options);

  std::vector<Block> layers;
  Norm final_norm{nullptr};
};
TORCH_MODULE(Encoder);

}  // namespace seqboat::nn
