#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

/// A whole feed-forward block as one operator: what nn::FeedForward composes of single operators, in one pass over blocks of rows that stay in the
/// cache, with a backward of its own.
namespace seqboat::ops {

/// M tokens, D channels, F inner width. Tensors are float32 or float64 (all alike), contiguous or not, but for the int64 ones. "or undefined" is how
/// an absent tensor is given.
struct FeedForwardArguments {
  at::Tensor x;             ///< (M, D)
  at::Tensor positions;     ///< (M) int64: time within the sequence, key of dropout
  at::Tensor sequence_ids;  ///< (M) int64: key of dropout
  at::Tensor norm_weight;   ///< (D), scalenorm (1); or undefined
  at::Tensor norm_bias;     ///< (D); or undefined
  at::Tensor norm_mean;     ///< (D) batchnorm: the statistics to use; else undefined
  at::Tensor norm_var;      ///< (D) biased; likewise
  at::Tensor in_weight;     ///< (F, D)
  at::Tensor in_bias;       ///< (F)
  at::Tensor out_weight;    ///< (D, F)
  at::Tensor out_bias;      ///< (D)

  std::string norm = "layernorm";  ///< layernorm | scalenorm | rmsnorm | batchnorm (the last with prenorm only)
  bool prenorm = true;
  bool batch_stats = false;  ///< batchnorm: norm_mean and norm_var are those of x, and the gradient counts them as functions of x
  double eps = 1e-5;
  double dropout = 0;                             ///< 0 outside training
  std::vector<int64_t> random = {0, 0, 0, 0, 0};  ///< keys of dropout: seed, update, micro-batch, layer + 1, site
  bool keep_inputs_only = false;                  ///< the backward computes the block again from x
};

/// y (M, D) = x + dropout(out_proj SiLU(in_proj norm(x))) with prenorm, else norm(x + dropout(out_proj SiLU(in_proj x))). The forward has the
/// composite's bits on the same SIMD target; gradients agree to rounding.
///
/// Keeps for the backward: x, and per token F + D + 2 numbers (SiLU's argument, the last norm's argument, statistics of the norm); with prenorm F
/// + 2.
at::Tensor feed_forward(const FeedForwardArguments& arguments);

}  // namespace seqboat::ops
