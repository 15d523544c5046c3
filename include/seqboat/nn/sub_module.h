#pragma once

#include <torch/torch.h>

#include "seqboat/nn/model_state.h"
#include "seqboat/nn/packed.h"

namespace seqboat::nn {

/// What a sub-module is told beside the states of the tokens that it works on.
struct SubModuleCall {
  const PackedLayout& tokens;       ///< of the activated tokens: offsets (B+1), times within their sequences (K), their sequences' ids (K)
  const RandomKey& random;          ///< key of dropout
  int64_t layer = 0;                ///< number in the stack, as a key of dropout
  AttentionState* state = nullptr;  ///< what the sequences' earlier chunks left, to go on from and move on; nullptr: they begin here
  LayerTrace* details = nullptr;    ///< asks for intermediates
  torch::Tensor confidence =
      {};  ///< (K) the router's, where a token that others look at is to train it (ForwardOptions::memory_gradients); or undefined
  torch::Tensor* distances = nullptr;  ///< asks how far each token's attention looks (attention_distances.h); may be left alone
};

/// A sub-module that may be activated: from the states of some tokens of each sequence to a contribution for each of them. It sees no other tokens,
/// and what it does not see costs nothing. Derive from this for one of your own (docs/MODULES.md).
class SubModule : public torch::nn::Module {
 public:
  /// m (K, D): states of the activated tokens of all sequences, in order; K may be 0. -> (K, D). A sequence must see itself alone.
  virtual torch::Tensor forward(const torch::Tensor& m, const SubModuleCall& call) = 0;

  /// Whether a token's result depends on that token alone: then there is nothing to carry from chunk to chunk.
  virtual bool pointwise() const { return false; }
};

}  // namespace seqboat::nn
