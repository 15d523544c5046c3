#include "seqboat/nn/multi_head_ema.h"

#include <cmath>

#include "seqboat/nn/initialization.h"
#include "seqboat/ops/ops.h"

namespace seqboat::nn {

MultiHeadEmaImpl::MultiHeadEmaImpl(int64_t dim, int64_t n_state, bool bidirectional, int64_t truncation, PhiloxStream& random, bool truncated_init)
    : truncation_(truncation), bidirectional_(bidirectional) {
  const int64_t rows = bidirectional ? 2 * dim : dim;
  delta = register_parameter("delta", torch::empty({rows, n_state}));
  alpha = register_parameter("alpha", torch::empty({rows, n_state}));
  beta = register_parameter("beta", torch::empty({rows, n_state}));
  gamma = register_parameter("gamma", torch::empty({rows, n_state}));
  omega = register_parameter("omega", torch::empty({dim}));
  const auto fill = truncated_init ? fill_truncated_normal : fill_normal;
  fill(delta, 0.2, random);
  fill(alpha, 0.2, random);
  fill(beta, 0.02, random);
  fill(gamma, 1.0, random);
  fill(omega, 1.0, random);
  torch::NoGradGuard no_grad;
  for (int64_t n = 0; n < n_state; ++n) beta.select(1, n).add_(n % 2 == 0 ? 1.0 : -1.0);
}

std::pair<torch::Tensor, torch::Tensor> MultiHeadEmaImpl::coefficients() const {
  const torch::Tensor p = ops::activation(delta, "sigmoid");
  const torch::Tensor q = 1.0 - p * ops::activation(alpha, "sigmoid");
  const torch::Tensor c = p * beta * gamma * std::sqrt(1.0 / static_cast<double>(delta.size(1)));
  return {q, c};
}

std::optional<StateEncoder::Scan> MultiHeadEmaImpl::scan() const {
  auto [q, c] = coefficients();
  return Scan{q, c, omega};
}

torch::Tensor MultiHeadEmaImpl::forward(const torch::Tensor& x, const torch::Tensor& cu_seqlens) {
  auto [q, c] = coefficients();
  return std::get<0>(ops::ema_scan(x, cu_seqlens, q, c, omega, truncation_, bidirectional_, std::nullopt, std::nullopt));
}

std::pair<torch::Tensor, torch::Tensor> MultiHeadEmaImpl::forward_with_state(const torch::Tensor& x, const torch::Tensor& cu_seqlens,
                                                                             const torch::Tensor& state, const torch::Tensor& history) {
  TORCH_CHECK(!bidirectional_, "seqboat::nn::MultiHeadEma: a bidirectional EMA carries no state");
  auto [q, c] = coefficients();
  const auto optional = [](const torch::Tensor& t) { return t.defined() ? std::optional<torch::Tensor>(t) : std::nullopt; };
  auto [y, state_out] = ops::ema_scan(x, cu_seqlens, q, c, omega, truncation_, false, optional(state), optional(history));
  return {y, state_out};
}

}  // namespace seqboat::nn
