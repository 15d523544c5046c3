#pragma once

#include <torch/torch.h>

#include "seqboat/base/philox.h"
#include "seqboat/nn/linear.h"
#include "seqboat/nn/model_state.h"
#include "seqboat/nn/sub_module.h"

namespace seqboat::nn {

struct MultiHeadAttentionOptions {
  int64_t d_model = 0;  ///< D
  int64_t n_heads = 1;  ///< divides D; the width of a head, D / n_heads, is even
  int64_t window = -1;  ///< W of the tokens given, on a side (causal: before); negative = all
  bool causal = false;
};

/// Softmax attention in heads with rotary positions, between the projections: what a Transformer's layer and the sub-module below share.
///
///   heads of q, k rotated by the time;   out = softmax attention of each head to the last W tokens given, heads side by side
class HeadedAttention {
 public:
  /// c10::Error for heads that do not cut D into even widths.
  explicit HeadedAttention(const MultiHeadAttentionOptions& options);

  /// qkv (K, 3D): queries, keys, values; positions (K) times within the sequences; cu_seqlens (B+1) -> (K, D). `state`: go on from what the
  /// sequences' earlier chunks left, and move it on (causal, with a window); `reach`: how far each token looks (attention_distances.h), the mean over
  /// heads. Both may be nullptr.
  torch::Tensor forward(const torch::Tensor& qkv, const torch::Tensor& positions, const torch::Tensor& cu_seqlens, AttentionState* state,
                        torch::Tensor* reach) const;

 private:
  torch::Tensor attend(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, const torch::Tensor& positions,
                       const torch::Tensor& cu_seqlens) const;
  torch::Tensor distances(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& positions, const torch::Tensor& cu_seqlens) const;
  /// (K, D) -> (heads K, D / heads): the heads stand one after the other as if they were sequences of their own.
  torch::Tensor split_heads(const torch::Tensor& t) const;
  torch::Tensor head_offsets(const torch::Tensor& cu_seqlens, int64_t tokens) const;

  MultiHeadAttentionOptions options_;
};

/// Fills in_proj (3D, D) with Xavier's uniform, each of q, k, v by itself, then out_proj (D, D).
void fill_attention_projections(Linear& in_proj, Linear& out_proj, PhiloxStream& random);

/// Multi-head attention as a sub-module: the activated tokens of a sequence attend to each other, the last W activated ones.
///
///   q, k, v = in_proj(m) (D each);   f(m) = dropout(out_proj(attention))
///
/// Parameters: in_proj.{weight (3D, D), bias}, out_proj.{weight (D, D), bias}.
class MultiHeadAttentionImpl : public SubModule {
 public:
  MultiHeadAttentionImpl(const MultiHeadAttentionOptions& options, double dropout, PhiloxStream& random);

  torch::Tensor forward(const torch::Tensor& m, const SubModuleCall& call) override;

  Linear in_proj{nullptr}, out_proj{nullptr};

 private:
  HeadedAttention attention_;
  double dropout_;
};
TORCH_MODULE(MultiHeadAttention);

}  // namespace seqboat::nn
