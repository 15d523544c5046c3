#include "seqboat/nn/initialization.h"

#include <cmath>

namespace seqboat::nn {
namespace {

template <class F>
void fill(torch::Tensor& t, const F& draw) {
  torch::NoGradGuard no_grad;
  torch::Tensor values = torch::empty(t.sizes(), torch::kFloat64);
  double* p = values.mutable_data_ptr<double>();
  for (int64_t i = 0; i < values.numel(); ++i) p[i] = draw();
  t.copy_(values);
}

}  // namespace

void fill_normal(torch::Tensor& t, double std, PhiloxStream& random) {
  fill(t, [&] { return std * random.next_normal(); });
}

void fill_uniform(torch::Tensor& t, double low, double high, PhiloxStream& random) {
  fill(t, [&] { return low + (high - low) * random.next_uniform(); });
}

void fill_truncated_normal(torch::Tensor& t, double std, PhiloxStream& random) {
  const double low = 0.5 * std::erfc(2.0 / std::sqrt(2.0));  // distribution function at -2
  fill(t, [&] { return std * normal_quantile(low + (1 - 2 * low) * random.next_uniform()); });
}

void fill_xavier_uniform(torch::Tensor& t, PhiloxStream& random) {
  const double bound = std::sqrt(6.0 / static_cast<double>(t.size(0) + t.size(1)));
  fill(t, [&] { return bound * (2 * random.next_uniform() - 1); });
}

}  // namespace seqboat::nn
