#include "seqboat/nn/feed_forward.h"

#include "seqboat/nn/dropout_sites.h"
#include "seqboat/nn/initialization.h"
#include "seqboat/ops/feed_forward.h"
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

torch::Tensor FeedForwardImpl::forward(const torch::Tensor& x, const PackedLayout& layout, const RandomKey& random, int64_t layer, bool recompute) {
  const NormImpl::Statistics first_norm = prenorm_ ? norm->statistics(x) : NormImpl::Statistics{};
  if (!fused_ || (!prenorm_ && norm->kind() == "batchnorm")) {
    const torch::Tensor inner = prenorm_ ? norm->apply_with(x, first_norm) : x;
    torch::Tensor h = fc2(ops::activation(fc1(inner), "silu"));
    h = x + dropout(h, dropout_, is_training(), random, layout, layer, kDropoutFeedForward);
    return prenorm_ ? h : norm(h);
  }
  ops::FeedForwardArguments a;
  a.x = x;
  a.positions = layout.positions;
  a.sequence_ids = layout.sequence_ids;
  a.norm_weight = norm->weight;
  a.norm_bias = norm->bias;
  a.norm_mean = first_norm.mean;
  a.norm_var = first_norm.var;
  a.in_weight = fc1->weight;
  a.in_bias = fc1->bias;
  a.out_weight = fc2->weight;
  a.out_bias = fc2->bias;
  a.norm = norm->kind();
  a.prenorm = prenorm_;
  a.batch_stats = first_norm.of_batch;
  a.eps = NormImpl::kEps;
  a.dropout = is_training() ? dropout_ : 0.0;
  a.random = dropout_key(random, layout, layer, kDropoutFeedForward);
  a.keep_inputs_only = recompute;
  return ops::feed_forward(a);
}

}  // namespace seqboat::nn
