#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

/// A whole Mega layer as one operator: what nn::MegaLayer composes of single operators, in passes over blocks of rows that stay in the cache, with a
/// backward of its own that keeps little and computes the cheap again.
namespace seqboat::ops {

/// Everything a layer's forward needs. M packed tokens, B sequences, D channels, N EMA states, Z query/key width, H value width. Tensors are float32
/// or float64 (all alike), contiguous or not, but for the int64 ones. "or undefined" is how an absent tensor is given.
struct MegaLayerArguments {
  at::Tensor x;               ///< (M, D)
  at::Tensor cu_seqlens;      ///< (B+1) int64
  at::Tensor positions;       ///< (M) int64: time within the sequence
  at::Tensor sequence_ids;    ///< (M) int64: key of dropout
  at::Tensor norm_weight;     ///< (D), scalenorm (1); or undefined
  at::Tensor norm_bias;       ///< (D); or undefined
  at::Tensor norm_mean;       ///< (D) batchnorm: the statistics to use; else undefined
  at::Tensor norm_var;        ///< (D) biased; likewise
  at::Tensor encoder_decay;   ///< of the state encoder. EMA: q (D, N), or (2D, N) when not causal; 0 <= q <= 1. S4D: d (D or 2D, P, 2)
  at::Tensor encoder_weight;  ///< c, or w, like encoder_decay
  at::Tensor encoder_skip;    ///< (D) omega, or skip
  at::Tensor v_weight;        ///< (H, D)
  at::Tensor v_bias;          ///< (H)
  at::Tensor in_weight;       ///< (Z+H+2D, D): rows of u (update gate), z, r (reset gate), g (candidate)
  at::Tensor in_bias;         ///< (Z+H+2D)
  at::Tensor qk_gamma;        ///< (2, Z)
  at::Tensor qk_beta;         ///< (2, Z)
  at::Tensor bias_table;      ///< (2L-1) by distance; distances beyond its ends have the value there
  at::Tensor out_weight;      ///< (D, H)
  at::Tensor out_bias;        ///< (D)

  std::string norm = "layernorm";  ///< layernorm | scalenorm | rmsnorm | batchnorm (the last with prenorm only)
  bool prenorm = true;
  bool batch_stats = false;  ///< batchnorm: norm_mean and norm_var are those of x, and the gradient counts them as functions of x
  double eps = 1e-5;
  bool causal = false;
  int64_t truncation = 0;                         ///< EMA kernel length; 0 = none
  int64_t chunk_size = -1;                        ///< attention within blocks of so many tokens of a sequence; negative: one block
  std::string function = "softmax";               ///< softmax | relu2 | laplace
  std::string activation = "silu";                ///< of v and of the candidate: silu | gelu
  double dropout = 0;                             ///< 0 outside training
  std::vector<int64_t> random = {0, 0, 0, 0, 0};  ///< keys of dropout: seed, update, micro-batch, layer + 1, first site of the pass
  bool keep_inputs_only = false;                  ///< the backward computes the layer again from x
};

/// y (M, D) as nn::MegaLayer's formula. The forward has the composite's bits on the same SIMD target; gradients agree to rounding.
///
/// Keeps for the backward, a layer: x, and per token Z + 3H + 3D + 3 numbers (the EMA's output, v and the projection of m before their activations,
/// in the candidate's place the argument of its activation, the attention's output, log-sum-exp, statistics of the norm). keep_inputs_only: x alone.
at::Tensor mega_layer(const MegaLayerArguments& arguments);

}  // namespace seqboat::ops
