#include "seqboat/nn/s4d.h"

#include <cmath>
#include <numbers>

#include "seqboat/nn/initialization.h"
#include "seqboat/ops/ops.h"

namespace seqboat::nn {

using torch::Tensor;

S4dImpl::S4dImpl(int64_t dim, int64_t n_state, bool bidirectional, int64_t truncation, PhiloxStream& random)
    : truncation_(truncation), bidirectional_(bidirectional) {
  TORCH_CHECK(n_state >= 2 && n_state % 2 == 0, "seqboat::nn::S4d: the number of states must be even, two a complex mode, got ", n_state);
  const int64_t rows = bidirectional ? 2 * dim : dim, modes = n_state / 2;
  log_dt = register_parameter("log_dt", torch::empty({rows}));
  log_a_real = register_parameter("log_a_real", torch::full({rows, modes}, std::log(0.5)));
  a_imag = register_parameter("a_imag", torch::empty({rows, modes}));
  b = register_parameter("b", torch::zeros({rows, modes, 2}));
  c = register_parameter("c", torch::empty({rows, modes, 2}));
  skip = register_parameter("skip", torch::empty({dim}));
  fill_uniform(log_dt, std::log(0.001), std::log(0.1), random);
  fill_normal(c, std::sqrt(0.5), random);
  fill_truncated_normal(skip, 1.0, random);
  torch::NoGradGuard no_grad;
  b.select(2, 0).fill_(1.0);
  const double n = static_cast<double>(n_state);
  for (int64_t p = 0; p < modes; ++p) {
    const double mode = static_cast<double>(p);
    a_imag.select(1, p).slice(0, 0, rows / 2).fill_(n / std::numbers::pi * (n / (1 + 2 * mode) - 1));
    a_imag.select(1, p).slice(0, rows / 2).fill_(std::numbers::pi * mode);
  }
}

std::pair<Tensor, Tensor> S4dImpl::coefficients() const {
  const auto wide = [](const Tensor& t) { return t.to(torch::kFloat64); };
  // In real numbers, where each step but exp is one rounding. q = 1/|1 - z|^2.
  const Tensor dt = wide(log_dt).exp().unsqueeze(1);
  const Tensor z_re = -0.5 * dt * wide(log_a_real).exp(), z_im = 0.5 * dt * wide(a_imag);
  const Tensor q = ((1 - z_re).square() + z_im.square()).reciprocal();
  const Tensor d = torch::stack({(1 - z_re.square() - z_im.square()) * q, 2 * z_im * q}, 2);
  const Tensor gain_re = dt * q * (1 - z_re), gain_im = dt * q * z_im;
  const auto part = [&](const Tensor& t, int64_t which) { return wide(t).select(2, which); };
  const Tensor bc_re = part(b, 0) * part(c, 0) - part(b, 1) * part(c, 1), bc_im = part(b, 0) * part(c, 1) + part(b, 1) * part(c, 0);
  const Tensor w = torch::stack({bc_re * gain_re - bc_im * gain_im, bc_re * gain_im + bc_im * gain_re}, 2);
  return {d.to(log_dt.scalar_type()), w.to(log_dt.scalar_type())};
}

std::optional<StateEncoder::Scan> S4dImpl::scan() const {
  auto [d, w] = coefficients();
  return Scan{d, w, skip};
}

Tensor S4dImpl::forward(const Tensor& x, const Tensor& cu_seqlens) {
  auto [d, w] = coefficients();
  return std::get<0>(ops::s4d_scan(x, cu_seqlens, d, w, skip, truncation_, bidirectional_, std::nullopt, std::nullopt));
}

std::pair<Tensor, Tensor> S4dImpl::forward_with_state(const Tensor& x, const Tensor& cu_seqlens, const Tensor& state, const Tensor& history) {
  TORCH_CHECK(!bidirectional_, "seqboat::nn::S4d: a bidirectional S4D carries no state");
  auto [d, w] = coefficients();
  const auto optional = [](const Tensor& t) { return t.defined() ? std::optional<Tensor>(t) : std::nullopt; };
  auto [y, state_out] = ops::s4d_scan(x, cu_seqlens, d, w, skip, truncation_, false, optional(state), optional(history));
  return {y, state_out};
}

}  // namespace seqboat::nn
