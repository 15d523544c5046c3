#pragma once

#include <torch/torch.h>

#include <memory>

#include "seqboat/base/philox.h"
#include "seqboat/config/model_config.h"
#include "seqboat/nn/packed.h"

namespace seqboat::nn {

/// One layer of a stack, of whatever kind: packed tokens (M, D) -> (M, D). A sequence sees itself alone.
class Layer : public torch::nn::Module {
 public:
  /// `number` is the layer's in the stack: a key of dropout, index into options.forced_active and options.state. One entry is appended to
  /// options.trace where it is asked for.
  virtual torch::Tensor forward(const torch::Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t number) = 0;
};

/// The layer that config.layer names, as the number-th of the stack.
std::shared_ptr<Layer> make_layer(const config::ModelConfig& config, int64_t number, PhiloxStream& random);

}  // namespace seqboat::nn
