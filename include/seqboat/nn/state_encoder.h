#pragma once

#include <torch/torch.h>

#include <optional>
#include <utility>

namespace seqboat::nn {

/// Gives each token of packed sequences a state: what there was before it (and after it, if the encoder is bidirectional). Routers decide by it, and
/// sub-modules work on it. MultiHeadEma and S4d are two; derive from this for one of your own.
class StateEncoder : public torch::nn::Module {
 public:
  /// x (M, D), cu_seqlens (B+1) -> (M, D). A sequence sees itself alone.
  virtual torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& cu_seqlens) = 0;

  /// The causal form, going on from a state of everything before the first token of each sequence, and with a truncation from its last `truncation`
  /// inputs (B, truncation, D), oldest first; undefined tensors stand before the beginning. Returns y and the state after the last token; the caller
  /// keeps the history. An encoder that carries no state leaves this alone: asking it is a c10::Error.
  virtual std::pair<torch::Tensor, torch::Tensor> forward_with_state(const torch::Tensor& x, const torch::Tensor& cu_seqlens,
                                                                     const torch::Tensor& state, const torch::Tensor& history);

  /// Inputs that it looks back; 0 = all.
  virtual int64_t truncation() const { return 0; }

  /// What the fused layer's scan needs (ops/seqboat_layer.h: encoder_decay, encoder_weight, encoder_skip), differentiable. nullopt: an encoder that
  /// it does not know, whose layers are composed of single operators.
  struct Scan {
    torch::Tensor decay, weight, skip;
  };
  virtual std::optional<Scan> scan() const { return std::nullopt; }
};

}  // namespace seqboat::nn
