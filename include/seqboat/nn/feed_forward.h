#pragma once

#include <torch/torch.h>

#include <string>

#include "seqboat/base/philox.h"
#include "seqboat/nn/linear.h"
#include "seqboat/nn/norm.h"
#include "seqboat/nn/packed.h"

namespace seqboat::nn {

/// Normalised feed-forward block: prenorm x + fc2(SiLU(fc1(norm x))), postnorm norm(x + fc2(SiLU(fc1 x))); dropout on the output of fc2.
/// Parameters: norm.*, fc1.{weight (F, D), bias}, fc2.{weight (D, F), bias}; weights N(0, 0.02) or, truncated (language models), TN(0.02).
class FeedForwardImpl : public torch::nn::Module {
 public:
  FeedForwardImpl(int64_t dim, int64_t ffn_dim, const std::string& norm_kind, bool prenorm, bool norm_affine, double dropout, bool truncated_init,
                  PhiloxStream& random);
  /// recompute: in training x alone is kept for the backward.
  torch::Tensor forward(const torch::Tensor& x, const PackedLayout& layout, const RandomKey& random, int64_t layer, bool recompute = false);

  /// The fused operator (ops/feed_forward.h) stands in for the composite of single operators wherever it can; false: never. Forwards have the same
  /// bits.
  void use_fused(bool fused) { fused_ = fused; }

  Norm norm{nullptr};
  Linear fc1{nullptr}, fc2{nullptr};

 private:
  bool prenorm_;
  double dropout_;
  bool fused_ = true;
};
TORCH_MODULE(FeedForward);

}  // namespace seqboat::nn
