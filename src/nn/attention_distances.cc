#include "seqboat/nn/attention_distances.h"

#include "seqboat/ops/ops.h"

namespace seqboat::nn {
namespace {

using torch::Tensor;

/// sum_j w_ij (1, t_j) of all that a query sees (K, 2), and for softmax the log-sum-exp of its scores.
struct WeightSums {
  Tensor sums, lse;
};

WeightSums weight_sums(const Tensor& q, const Tensor& k, const Tensor& positions, const Tensor& offsets, const std::optional<Tensor>& table,
                       const AttentionOptions& options, bool causal) {
  const Tensor times = positions.to(torch::kFloat64), v = torch::stack({torch::ones_like(times), times}, 1);
  const std::string bias = table ? options.position : "none";
  const auto [sums, lse] = ops::window_attention(q, k, v, positions, offsets, table, bias, options.window, causal, options.function);
  return {sums, lse};
}

/// The one-sided attention's queries, scaled so that its scores are those of the two-sided one, whose divisor is another
/// (kernels/window_attention.h).
Tensor one_sided_queries(const Tensor& q, const Tensor& offsets, const AttentionOptions& options) {
  if (options.function == "softmax") return q;
  if (options.window > 0) return q / 2;
  const Tensor lengths = offsets.diff(), starts = offsets.narrow(0, 0, offsets.size(0) - 1).repeat_interleave(lengths);
  const Tensor number = torch::arange(q.size(0), torch::kInt64) - starts;
  return q * ((number + 1).to(torch::kFloat64) / lengths.repeat_interleave(lengths).to(torch::kFloat64)).unsqueeze(1);
}

Tensor dense_distances(const Tensor& q, const Tensor& k, const Tensor& positions, const Tensor& offsets, const Tensor& table,
                       const AttentionOptions& options) {
  const int64_t* bounds = offsets.const_data_ptr<int64_t>();
  std::vector<Tensor> parts{torch::empty({0}, torch::kFloat64)};
  for (int64_t b = 0; b + 1 < offsets.size(0); ++b) {
    const int64_t count = bounds[b + 1] - bounds[b];
    if (count == 0) continue;
    const Tensor times = positions.narrow(0, bounds[b], count);
    const Tensor weights = attention_weights(q.narrow(0, bounds[b], count), k.narrow(0, bounds[b], count), times, table, options);
    parts.push_back((weights * (times.unsqueeze(0) - times.unsqueeze(1)).abs()).sum(1) / weights.sum(1));
  }
  return torch::cat(parts);
}

}  // namespace

Tensor attention_distances(const Tensor& q_in, const Tensor& k_in, const Tensor& positions, const Tensor& offsets, const Tensor& table_in,
                           const AttentionOptions& options) {
  const torch::NoGradGuard no_grad;
  const Tensor q = q_in.detach().to(torch::kFloat64), k = k_in.detach().to(torch::kFloat64);
  std::optional<Tensor> table;
  if (table_in.defined()) table = table_in.detach().to(torch::kFloat64);
  if (options.position == "t5") return dense_distances(q, k, positions, offsets, *table, options);

  const Tensor times = positions.to(torch::kFloat64);
  const WeightSums all = weight_sums(q, k, positions, offsets, table, options, options.causal);
  const Tensor weight = all.sums.select(1, 0), moment = all.sums.select(1, 1);  // sum_j w_ij, sum_j w_ij t_j
  if (options.causal) return (times * weight - moment) / weight;
  WeightSums earlier = weight_sums(one_sided_queries(q, offsets, options), k, positions, offsets, table, options, true);
  // Softmax made each of them a share of its own whole.
  if (options.function == "softmax") earlier.sums = earlier.sums * (earlier.lse - all.lse).exp().unsqueeze(1);
  const Tensor left = times * earlier.sums.select(1, 0) - earlier.sums.select(1, 1);
  const Tensor right = (moment - earlier.sums.select(1, 1)) - times * (weight - earlier.sums.select(1, 0));
  return (left + right) / weight;
}

}  // namespace seqboat::nn
