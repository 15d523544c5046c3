#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

/// A whole Transformer layer (without its feed-forward block) as one operator: what nn::TransformerLayer composes of single operators, in passes over
/// blocks of rows that stay in the cache, with a backward of its own.
namespace seqboat::ops {

/// M packed tokens, B sequences, D channels, A heads of D / A channels each, an even number. Tensors are float32 or float64 (all alike), contiguous
/// or not, but for the int64 ones. "or undefined" is how an absent tensor is given.
struct TransformerLayerArguments {
  at::Tensor x;             ///< (M, D)
  at::Tensor cu_seqlens;    ///< (B+1) int64
  at::Tensor positions;     ///< (M) int64: time within the sequence
  at::Tensor sequence_ids;  ///< (M) int64: key of dropout
  at::Tensor norm_weight;   ///< (D), scalenorm (1); or undefined
  at::Tensor norm_bias;     ///< (D); or undefined
  at::Tensor norm_mean;     ///< (D) batchnorm: the statistics to use; else undefined
  at::Tensor norm_var;      ///< (D) biased; likewise
  at::Tensor in_weight;     ///< (3D, D): rows of q, k, v, each head after head
  at::Tensor in_bias;       ///< (3D)
  at::Tensor out_weight;    ///< (D, D)
  at::Tensor out_bias;      ///< (D)

  std::string norm = "layernorm";  ///< layernorm | scalenorm | rmsnorm | batchnorm; it comes first
  bool batch_stats = false;        ///< batchnorm: norm_mean and norm_var are those of x, and the gradient counts them as functions of x
  double eps = 1e-5;
  int64_t n_heads = 1;  ///< A
  int64_t window = -1;  ///< W; negative: full attention
  bool causal = false;
  double dropout = 0;                             ///< 0 outside training
  std::vector<int64_t> random = {0, 0, 0, 0, 0};  ///< keys of dropout: seed, update, micro-batch, layer + 1, first site of the pass
  bool keep_inputs_only = false;                  ///< the backward computes the layer again from x
};

/// y (M, D) = x + dropout(out_proj(attention of rotated queries and keys, in_proj norm(x))). The forward has the composite's bits on the same SIMD
/// target; gradients agree to rounding.
///
/// Keeps for the backward: x, and per token 4D + A + 2 numbers (rotated queries and keys, values, the attention's output, log-sum-exp, statistics of
/// the norm). keep_inputs_only: x alone.
at::Tensor transformer_layer(const TransformerLayerArguments& arguments);

}  // namespace seqboat::ops
