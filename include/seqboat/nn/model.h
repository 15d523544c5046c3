#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "seqboat/config/model_config.h"

namespace seqboat::nn {

/// Packed sequences: rows cu_seqlens[b] .. cu_seqlens[b+1]-1 belong to sequence b. No padding anywhere.
struct PackedSequences {
  torch::Tensor tokens;      ///< (sum T) int64, for token input
  torch::Tensor values;      ///< (sum T, channels) floating, for real input
  torch::Tensor cu_seqlens;  ///< (B+1) int64
  int64_t batch() const { return cu_seqlens.size(0) - 1; }
};

/// Keys of the counter-based random numbers of one forward (dropout). Masks depend on these, the layer, the site, the sequence's number in
/// `sequence_ids` and the position in it, never on how sequences are packed.
struct RandomKey {
  uint64_t seed = 0;
  uint64_t update = 0;
  uint64_t micro_batch = 0;
  torch::Tensor sequence_ids;  ///< (B) int64; undefined = 0 .. B-1
};

/// What a layer's router did: recorded when asked for, in packed order.
struct LayerTrace {
  torch::Tensor active;       ///< (sum T) uint8
  torch::Tensor probability;  ///< (sum T) P(active) of every token
};

struct ForwardOptions {
  RandomKey random;
  std::vector<torch::Tensor> forced_active;  ///< per layer (sum T) uint8 or undefined; empty = the routers decide
  std::vector<LayerTrace>* trace = nullptr;  ///< one entry a layer is appended
};

/// A whole model: embedding, layers, head. Parameters carry our tensor names (docs/CONFIG.md).
class Model : public torch::nn::Module {
 public:
  explicit Model(config::ModelConfig config) : config_(std::move(config)) {}
  const config::ModelConfig& config() const { return config_; }

  /// Logits: classification (B, classes); retrieval (B, classes) of the pair (src, src1); language model (sum T, V).
  virtual torch::Tensor forward(const PackedSequences& src, const PackedSequences* src1, const ForwardOptions& options) = 0;

 private:
  config::ModelConfig config_;
};

/// Builds a model for the config (validated) with the initialisation of the official code, drawn from `seed`. float32.
std::shared_ptr<Model> make_model(const config::ModelConfig& config, uint64_t seed);

}  // namespace seqboat::nn
