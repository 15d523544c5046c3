#pragma once

#include <torch/torch.h>

#include "seqboat/nn/gated_attention_unit.h"

namespace seqboat::nn {

/// How far each query looks, by the weights that attention gives it: (K) float64, without gradient,
///
///   d_i = sum_j w_ij |t_i - t_j| / sum_j w_ij      over the keys j that query i sees, itself included; NaN where no key weighs anything (relu2)
///
/// with w_ij, q, k (K, Z) (rotated where positions are rotary), t = positions (K), offsets and table as composite_attention() has them. Two passes of
/// the attention operator in float64 with v_j = (1, t_j): distances need no absolute value on one side of a query, so one pass over the earlier keys
/// and one over all give both sides, and no K x K matrix is in memory. T5's buckets, which the operator does not know, take a dense matrix a
/// sequence, as the layer's own attention does.
torch::Tensor attention_distances(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& positions, const torch::Tensor& offsets,
                                  const torch::Tensor& table, const AttentionOptions& options);

}  // namespace seqboat::nn
