#include "seqboat/nn/feed_forward.h"

#include "seqboat/nn/dropout_sites.h"
#include "seqboat/nn/initialization.h"
#include "seqboat/ops/ops.h"

namespace seqboat::nn {

FeedForwardImpl::FeedForwardImpl(int64_t dim, int64_t ffn_dim, const std::string& norm_kind, bool prenorm, bool norm_affine, double dropout,
                                 bool truncated_init, PhiloxStream& random)
    : prenorm_(prenorm), dropout_(dropout) {
  norm = register_module("norm", Norm(norm_kind, dim, norm_affine));
  fc1 = register_module("fc1", Linear(dim, ffn_dim));
  fc2 = register_module("fc2", Linear(ffn_dim, dim));
  for (Linear* linear : {&fc1, &fc2})
    truncated_init ? fill_truncated_normal((*linear)->weight, 0.02, random) : fill_normal((*linear)->weight, 0.02, random);
}

torch::Tensor FeedForwardImpl::forward(const torch::Tensor& x, const PackedLayout& layout, const RandomKey& random, int64_t layer) {
  const torch::Tensor inner = prenorm_ ? norm(x) : x;
  torch::Tensor h = fc2(ops::activation(fc1(inner), "silu"));
  h = x + dropout(h, dropout_, is_training(), random, layout, layer, kDropoutFeedForward);
  return prenorm_ ? h : norm(h);
}

}  // namespace seqboat::nn
