#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "seqboat/config/model_config.h"

namespace seqboat::nn {

/// Keys and values of activated tokens that the next chunk of each sequence may still attend to: packed (R, ...), sequence after sequence.
///
/// Kept are the last W activated tokens of a sequence, and before them as many as make the first one's number (counted among the sequence's
/// activated tokens from its start) a multiple of the attention's block of 64. So the blocks of a chunk are the blocks of the whole sequence, and
/// its results have the same bits.
struct AttentionState {
  torch::Tensor k;          ///< (R, Z), rotated where positions are rotary
  torch::Tensor v;          ///< (R, H)
  torch::Tensor positions;  ///< (R) int64, time within the sequence
  torch::Tensor offsets;    ///< (B+1) int64
  torch::Tensor first;      ///< (B) int64, number of the first kept token among the sequence's activated ones
};

/// What one causal layer carries from chunk to chunk.
struct LayerState {
  torch::Tensor encoder;  ///< StateEncoder::forward_with_state: EMA (B, D, N), S4D (B, D, P, 2); undefined at the start
  torch::Tensor history;  ///< (B, truncation, D), only with a truncation
  torch::Tensor router;   ///< of a router that remembers: top-share's scores (B, horizon - 1) float64
  AttentionState attention;
};

/// The state of a causal model over B sequences that come in chunks. A fresh one stands before the first token.
///
/// Law: a sequence gives the same bits whole or in any chunks, if the chunks are forwarded in order through one state; and gradients flow back
/// through it (detach() cuts them, for truncated back-propagation through time). Its size is bounded: W + 63 keys and values a sequence and layer.
struct ModelState {
  torch::Tensor time;  ///< (B) int64: tokens so far; undefined at the start
  std::vector<LayerState> layers;

  bool fresh() const { return !time.defined(); }
  void detach();

  /// All tensors by name ("time", "layers.0.ema", "layers.0.attention.k", ...), to save; a fresh state has none.
  std::vector<std::pair<std::string, torch::Tensor>> named() const;
  /// From named()'s tensors, found by name. Throws c10::Error for one that is missing or does not go with the config.
  static ModelState from_named(const std::vector<std::pair<std::string, torch::Tensor>>& tensors, const config::ModelConfig& config);

  /// Throws Error (kConfig) naming the key if a model of this config cannot carry a state: it must be causal, its window must have
  /// an end, and its positions must not be t5.
  static void check_can_carry(const config::ModelConfig& config);
};

}  // namespace seqboat::nn
