#pragma once

#include <torch/torch.h>

#include <string>

#include "seqboat/base/philox.h"
#include "seqboat/nn/layer.h"
#include "seqboat/nn/linear.h"
#include "seqboat/nn/multi_head_attention.h"
#include "seqboat/nn/norm.h"
#include "seqboat/nn/packed.h"

namespace seqboat::nn {

struct TransformerLayerOptions {
  int64_t d_model = 0;  ///< D
  int64_t n_heads = 1;  ///< divides D; the width of a head, D / n_heads, is even
  int64_t window = -1;  ///< W tokens on a side (causal: before); negative = all
  bool causal = false;
  std::string norm = "layernorm";
  bool norm_affine = true;
  double dropout = 0.0;  ///< on the output
};

/// The attention half of a pre-norm Transformer, with rotary positions; its feed-forward half is the block's.
///
///   q, k, v = in_proj(norm x) (D each), cut into heads, q and k rotated by the time;   y = x + dropout(out_proj(softmax attention))
///
/// Parameters: norm.*, in_proj.{weight (3D, D), bias}, out_proj.{weight (D, D), bias}; weights by Xavier's uniform, each of q, k, v by itself.
class TransformerLayerImpl : public Layer {
 public:
  TransformerLayerImpl(const TransformerLayerOptions& options, PhiloxStream& random);

  torch::Tensor forward(const torch::Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t number) override;

  /// The fused operator (ops/transformer_layer.h) stands in for the composite of single operators wherever it can; false: never. Forwards have the
  /// same bits.
  void use_fused(bool fused) { fused_ = fused; }

  Norm norm{nullptr};
  Linear in_proj{nullptr}, out_proj{nullptr};

 private:
  torch::Tensor forward_fused(const torch::Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t number);
  torch::Tensor forward_composite(const torch::Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t number);

  TransformerLayerOptions options_;
  HeadedAttention attention_;
  bool fused_ = true;
};
TORCH_MODULE(TransformerLayer);

}  // namespace seqboat::nn
