#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <memory>

#include "seqboat/config/model_config.h"
#include "seqboat/nn/packed.h"

namespace seqboat::nn {

/// A whole model: embedding, encoder, head. Parameters carry our tensor names (docs/CONFIG.md).
class Model : public torch::nn::Module {
 public:
  explicit Model(config::ModelConfig config) : config_(std::move(config)) {}
  const config::ModelConfig& config() const { return config_; }

  /// Logits: classification (B, classes); retrieval (B, classes) of the pair (src, src1), src1 required; language model (sum T, V).
  virtual torch::Tensor forward(const PackedSequences& src, const PackedSequences* src1, const ForwardOptions& options) = 0;

 private:
  config::ModelConfig config_;
};

/// Builds a model for the config (validated here) with the initialisation of the official code, drawn from `seed`. float32.
std::shared_ptr<Model> make_model(const config::ModelConfig& config, uint64_t seed);

}  // namespace seqboat::nn
