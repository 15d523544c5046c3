#pragma once

#include <torch/torch.h>

#include <functional>

#include "seqboat/nn/model_state.h"
#include "seqboat/nn/packed.h"
#include "seqboat/nn/state_encoder.h"

/// How causal layers go on where an earlier chunk of the sequences ended.
namespace seqboat::nn {

/// The encoder's output for x (M, D), going on from the state and moving it.
torch::Tensor encode_on(StateEncoder& encoder, const torch::Tensor& x, const PackedLayout& layout, LayerState* state);

/// A layer's attention, as attend_on uses it.
struct CarriedAttention {
  /// attend(q, k, v, positions, offsets) -> (K, H): attention within packed sequences that begin with the kept tokens.
  std::function<torch::Tensor(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, const torch::Tensor& positions,
                              const torch::Tensor& offsets)>
      attend;
  /// The number of the first token that the next chunk may still see, where that chunk begins with token `next` and `first` is the first one kept
  /// up to now.
  std::function<int64_t(int64_t first, int64_t next)> keep_from;
  /// Where given, called beside attend() with what it is given; `asking` (rows) int64 are the new tokens, in order: the others are kept ones, which
  /// ask nothing.
  std::function<void(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& positions, const torch::Tensor& offsets,
                     const torch::Tensor& asking)>
      observe;
};

/// Attention of new queries to the keys in `state` and to their own: q (K, Z), k (K, Z), v (K, H), positions (K), cu_seqlens (B+1) of the new tokens
/// -> (K, H). The state is moved on to hold what the next chunk may see. An undefined state stands before the first token.
torch::Tensor attend_on(const CarriedAttention& how, const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v,
                        const torch::Tensor& positions, const torch::Tensor& cu_seqlens, AttentionState* state);

/// CarriedAttention::keep_from of attention to the last `window` tokens: the last of them on the kernel's grid of blocks, so that the blocks of a
/// chunk are those of the whole sequence.
std::function<int64_t(int64_t first, int64_t next)> keep_window(int64_t window);

}  // namespace seqboat::nn
