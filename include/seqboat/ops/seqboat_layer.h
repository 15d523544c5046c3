#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

/// A whole SeqBoat layer as one operator: what nn::SeqBoatLayer composes of single operators, in passes over blocks of rows that stay in the cache,
/// with a backward of its own that keeps little and computes the cheap again.
namespace seqboat::ops {

/// Everything a layer's forward needs. M packed tokens, B sequences, D channels, N EMA states, Z query/key width, H value width. Tensors are float32
/// or float64 (all alike), contiguous or not, but for the int64 and uint8 ones. "or undefined" is how an absent tensor is given.
struct SeqBoatLayerArguments {
  at::Tensor x;                ///< (M, D)
  at::Tensor cu_seqlens;       ///< (B+1) int64
  at::Tensor positions;        ///< (M) int64: time within the sequence
  at::Tensor sequence_ids;     ///< (M) int64: key of dropout
  at::Tensor forced;           ///< (M) uint8: decisions in the router's place (without one: with confidence 1); or undefined
  at::Tensor norm_weight;      ///< (D), scalenorm (1); or undefined
  at::Tensor norm_bias;        ///< (D); or undefined
  at::Tensor norm_mean;        ///< (D) batchnorm: the statistics to use; else undefined
  at::Tensor norm_var;         ///< (D) biased; likewise
  at::Tensor encoder_decay;    ///< of the state encoder. EMA: q (D, N), or (2D, N) when not causal; 0 <= q <= 1. S4D: d (D or 2D, P, 2)
  at::Tensor encoder_weight;   ///< like q
  at::Tensor encoder_skip;     ///< (D)
  at::Tensor router_weight;    ///< (2, D); undefined: no router, every token is active with confidence 1, or those of `forced`
  at::Tensor router_bias;      ///< (2)
  at::Tensor log_temperature;  ///< (1)
  at::Tensor skip_weight;      ///< (D, D)
  at::Tensor skip_bias;        ///< (D)
  at::Tensor in_weight;        ///< (Z+2H, D): rows of z, r (gate), v; undefined, and all below with it: no unit, nothing is activated
  at::Tensor in_bias;          ///< (Z+2H)
  at::Tensor qk_gamma;         ///< (2, Z)
  at::Tensor qk_beta;          ///< (2, Z)
  at::Tensor bias_table;       ///< (2M-1); undefined for rotary
  at::Tensor out_weight;       ///< (D, H)
  at::Tensor out_bias;         ///< (D)

  std::string norm = "layernorm";  ///< layernorm | scalenorm | rmsnorm | batchnorm (the last with prenorm only)
  bool prenorm = true;
  bool batch_stats = false;  ///< batchnorm: norm_mean and norm_var are those of x, and the gradient counts them as functions of x
  double eps = 1e-5;
  bool causal = false;
  int64_t truncation = 0;            ///< EMA kernel length; 0 = none
  int64_t window = -1;               ///< W; negative: full attention
  std::string position = "simple";   ///< simple | local | rotary
  std::string function = "softmax";  ///< softmax | relu2 | laplace
  double act_bias = 0;
  double dropout = 0;                             ///< 0 outside training
  std::vector<int64_t> random = {0, 0, 0, 0, 0};  ///< keys of dropout: seed, update, micro-batch, layer + 1, first site of the pass
  bool keep_inputs_only = false;                  ///< the backward computes the layer again from x and the decisions
};

struct SeqBoatLayerResult {
  at::Tensor y;            ///< (M, D)
  at::Tensor active;       ///< (M) uint8; empty where nobody decides
  at::Tensor probability;  ///< (M) P(active), differentiable; empty without a router
};

/// y as nn::SeqBoatLayer's formula. The forward has the composite's bits on the same SIMD target; gradients agree to rounding. Given the same
/// decisions, that is: the operator takes them itself, by the same arithmetic.
///
/// Keeps for the backward, a layer: x, and per token 2D + 4 numbers (the EMA's output, the last SiLU's argument, statistics of the norm, router's
/// logits), per active token Z + 3H + 1 (the unit's projection before SiLU, the attention's output, log-sum-exp). keep_inputs_only: x alone.
/// So it is also while a graph is traced (torch.compile, torch.export) of a layer that chooses tokens: the size of the rest depends on the data.
SeqBoatLayerResult seqboat_layer(const SeqBoatLayerArguments& arguments);

}  // namespace seqboat::ops
