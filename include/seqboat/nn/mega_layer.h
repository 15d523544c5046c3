#pragma once

#include <torch/torch.h>

#include <string>

#include "seqboat/base/philox.h"
#include "seqboat/nn/layer.h"
#include "seqboat/nn/linear.h"
#include "seqboat/nn/model_state.h"
#include "seqboat/nn/multi_head_ema.h"
#include "seqboat/nn/norm.h"
#include "seqboat/nn/packed.h"
#include "seqboat/nn/s4d.h"

namespace seqboat::nn {

struct MegaLayerOptions {
  int64_t d_model = 0;               ///< D
  int64_t d_attn = 0;                ///< Z
  int64_t d_hidden = 0;              ///< H
  int64_t d_state = 16;              ///< N
  std::string encoder = "ema";       ///< ema | s4d
  int64_t truncation = 0;            ///< the encoder's kernel length; 0 = none
  bool causal = false;               ///< causal EMA and attention
  int64_t chunk_size = -1;           ///< C: attention within blocks of C tokens of a sequence, the last one shorter; negative = one block
  std::string function = "softmax";  ///< softmax | relu2 | laplace
  std::string position = "simple";   ///< simple | rotary (Mega's: a learned bias, see MegaPositionBias)
  int64_t max_positions = 1024;      ///< distances of the simple table without chunks; with them it has those of a chunk
  std::string activation = "silu";   ///< of v and of the candidate: silu | gelu
  std::string norm = "layernorm";
  bool norm_affine = true;
  bool prenorm = true;
  double dropout = 0.0;  ///< on the EMA's output and on the candidate
};

/// Bias b_ij of Mega's attention by the distance j - i alone, as a table (2M-1) of distances -(M-1) .. M-1.
///
///   simple: the table is the parameter.   rotary: b_ij = R(alpha, i) . R(beta, j), where R rotates the pair (w_d, w_{d+Z/2}) by
///   10000^(-d/(Z/2)) times the position; queries and keys themselves are not rotated.
///
/// Parameters: table (2M-1), or alpha and beta (Z).
class MegaPositionBiasImpl : public torch::nn::Module {
 public:
  MegaPositionBiasImpl(const std::string& kind, int64_t d_attn, int64_t max_positions, PhiloxStream& random);

  /// The table for blocks of at most `longest` tokens, differentiable. simple: an error if it does not reach that far.
  torch::Tensor table_for(int64_t longest);

  torch::Tensor table, alpha, beta;

 private:
  torch::Tensor angles_;  // (2M-1, Z): cosines and sines of the last M that was asked for, in double
};
TORCH_MODULE(MegaPositionBias);

/// Moving-average equipped gated attention (Ma et al., arXiv 2209.10655), the layer that SeqBoat is measured against:
///
///   n = prenorm ? norm(x) : x;   v = act(v_proj n);   m = dropout(SiLU(EMA(n)))
///   in_proj m, split u (D), z (Z), r (H), g (D):  u = sigma(u), z = SiLU(z), r = SiLU(r);   q, k = z * qk_gamma[0|1] + qk_beta[0|1]
///   h = dropout(act(g + out_proj(attention(q, k, v) * r)));   y = x + u * (h - x);   postnorm: y = norm(y)
///
/// Every token attends, to those of its own chunk; what is further away comes through the EMA. Parameters: norm.*, ema.* or s4d.*, v_proj, in_proj,
/// out_proj {weight, bias}, qk_gamma, qk_beta (2, Z), position.{table | alpha, beta}. All normals of the initialisation are whole, not truncated.
class MegaLayerImpl : public Layer {
 public:
  MegaLayerImpl(const MegaLayerOptions& options, PhiloxStream& random);

  torch::Tensor forward(const torch::Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t number) override;

  /// The fused operator (ops/mega_layer.h) stands in for the composite of single operators wherever it can; false: never. Forwards have the same
  /// bits.
  void use_fused(bool fused) { fused_ = fused; }

  Norm norm{nullptr};
  MultiHeadEma ema{nullptr};  ///< this or
  S4d s4d{nullptr};           ///< that is the encoder
  Linear v_proj{nullptr}, in_proj{nullptr}, out_proj{nullptr};
  torch::Tensor qk_gamma, qk_beta;
  MegaPositionBias position{nullptr};

 private:
  /// first_norm: statistics of x for a norm that comes first, taken once.
  torch::Tensor forward_fused(const torch::Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t number,
                              const NormImpl::Statistics& first_norm);
  torch::Tensor forward_composite(const torch::Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t number,
                                  const NormImpl::Statistics& first_norm);
  torch::Tensor attend(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, const torch::Tensor& positions,
                       const torch::Tensor& cu_seqlens);
  torch::Tensor distances(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& positions, const torch::Tensor& cu_seqlens);
  /// The position bias for the longest block of these sequences.
  torch::Tensor table_for(const torch::Tensor& cu_seqlens);

  MegaLayerOptions options_;
  std::shared_ptr<StateEncoder> encoder_;
  bool fused_ = true;
};
TORCH_MODULE(MegaLayer);

/// Cuts each sequence into blocks of `chunk` tokens, the last one shorter: offsets of the blocks. chunk < 0: the sequences themselves.
torch::Tensor chunk_offsets(const torch::Tensor& cu_seqlens, int64_t chunk);

}  // namespace seqboat::nn
