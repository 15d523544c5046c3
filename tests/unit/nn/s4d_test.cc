#include "seqboat/nn/s4d.h"

#include <cmath>
#include <limits>

#include "seqboat/nn/official_names.h"
#include "support/torch_checks.h"

namespace seqboat {
namespace {

using test::close;
using test::offsets;
using test::same_bits;
using test::Tolerance;
using torch::Tensor;
using torch::indexing::Slice;

constexpr int64_t kD = 5, kN = 6, kP = kN / 2;

nn::S4d make_s4d(bool bidirectional, int64_t truncation, torch::ScalarType dtype = torch::kFloat32) {
  PhiloxStream random(3, 1);
  nn::S4d s4d(kD, kN, bidirectional, truncation, random);
  s4d->to(dtype);
  torch::manual_seed(11);
  torch::NoGradGuard no_grad;
  s4d->log_a_real.add_(0.3 * torch::randn_like(s4d->log_a_real));  // nothing is left at a value that hides a term
  s4d->b.add_(0.3 * torch::randn_like(s4d->b));
  return s4d;
}

/// d and w by LibTorch's complex numbers.
std::pair<Tensor, Tensor> complex_coefficients(const nn::S4dImpl& s4d) {
  const auto wide = [](const Tensor& t) { return t.detach().to(torch::kFloat64); };
  const Tensor dt = wide(s4d.log_dt).exp().unsqueeze(1), a = torch::complex(-wide(s4d.log_a_real).exp(), wide(s4d.a_imag)), z = dt * a / 2;
  return {(1 + z) / (1 - z), torch::view_as_complex(wide(s4d.b)) * torch::view_as_complex(wide(s4d.c)) * dt / (1 - z)};
}

TEST(S4d, Coefficients) {
  auto s4d = make_s4d(true, 0, torch::kFloat64);
  const auto [d, w] = s4d->coefficients();
  const auto [want_d, want_w] = complex_coefficients(*s4d);
  EXPECT_TRUE(close(d, torch::view_as_real(want_d), Tolerance::ulps<double>(16, 1)));
  EXPECT_TRUE(close(w, torch::view_as_real(want_w), Tolerance::ulps<double>(32, want_w.abs().max().item<double>())));
  EXPECT_EQ(d.sizes(), at::IntArrayRef({2 * kD, kP, 2}));
  EXPECT_EQ(s4d->skip.sizes(), at::IntArrayRef({kD}));
  EXPECT_LT(want_d.abs().max().item<double>(), 1.0);
}

// The float32 coefficients are the exact ones of the float32 parameters, rounded: within half a unit in the last place, and what float64's own
// rounding may turn over.
TEST(S4d, CoefficientsAreRoundedOnce) {
  auto s4d = make_s4d(true, 0);
  const auto [d, w] = s4d->coefficients();
  const auto [want_d, want_w] = complex_coefficients(*s4d);
  EXPECT_EQ(d.scalar_type(), torch::kFloat32);
  for (const auto& [got, want] : {std::pair(d, torch::view_as_real(want_d)), std::pair(w, torch::view_as_real(want_w))}) {
    const Tensor error = (got.detach().to(torch::kFloat64) - want).abs();
    EXPECT_TRUE((error <= 0.5001 * std::numeric_limits<float>::epsilon() * want.abs() + 1e-15).all().item<bool>());
  }
}

TEST(S4d, IsTheConvolutionOfItsKernel) {
  torch::NoGradGuard no_grad;
  constexpr int64_t kTokens = 30;
  for (const bool bidirectional : {false, true}) {
    for (const int64_t truncation : {0, 7}) {
      auto s4d = make_s4d(bidirectional, truncation, torch::kFloat64);
      torch::manual_seed(2);
      const Tensor x = torch::randn({kTokens, kD}, torch::kFloat64);
      const auto [d, w] = complex_coefficients(*s4d);
      Tensor want = x * s4d->skip;
      for (int64_t t = 0; t < kTokens; ++t) {
        for (int64_t s = 0; s < kTokens; ++s) {
          const int64_t lag = std::abs(t - s);
          if (truncation > 0 && lag >= truncation) continue;
          const Tensor kernel = 2 * torch::real((w * d.pow(static_cast<double>(lag))).sum(1));
          if (s <= t) want[t] += kernel.slice(0, 0, kD) * x[s];
          if (bidirectional && s >= t) want[t] += kernel.slice(0, kD) * x[s];
        }
      }
      const double magnitude = x.abs().max().item<double>() * (2 * w.abs().sum(1).max().item<double>() * kTokens + 2) * 2;
      EXPECT_TRUE(close(s4d(x, offsets({kTokens})), want, Tolerance::sum<double>(2 * kTokens * kN, magnitude)))
          << (bidirectional ? "both ways" : "causal") << ", truncation " << truncation;
    }
  }
}

TEST(S4d, TwoChunksWithStateEqualTheWhole) {
  torch::NoGradGuard no_grad;
  torch::manual_seed(4);
  const std::vector<int64_t> first{17, 3}, second{23, 14};
  const Tensor a = torch::randn({40, kD}), b = torch::randn({17, kD});  // two sequences of 40 and 17 tokens
  for (const int64_t truncation : {0, 8}) {
    auto s4d = make_s4d(false, truncation);
    const auto [whole, end] = s4d->forward_with_state(torch::cat({a, b}), offsets({40, 17}), {}, {});
    EXPECT_TRUE(same_bits(whole, s4d(torch::cat({a, b}), offsets({40, 17}))));
    EXPECT_EQ(end.sizes(), at::IntArrayRef({2, kD, kP, 2}));

    const auto [y0, state] = s4d->forward_with_state(torch::cat({a.slice(0, 0, 17), b.slice(0, 0, 3)}), offsets(first), {}, {});
    Tensor history;
    if (truncation > 0) {
      history = torch::zeros({2, truncation, kD});  // the second sequence has had but three inputs
      history[0] = a.slice(0, 17 - truncation, 17);
      history.index_put_({1, Slice(truncation - 3)}, b.slice(0, 0, 3));
    }
    const auto [y1, last] = s4d->forward_with_state(torch::cat({a.slice(0, 17), b.slice(0, 3)}), offsets(second), state, history);
    const Tensor joined = torch::cat({y0.slice(0, 0, 17), y1.slice(0, 0, 23), y0.slice(0, 17), y1.slice(0, 23)});
    EXPECT_TRUE(same_bits(joined, whole)) << "truncation " << truncation;
    EXPECT_TRUE(same_bits(last, end)) << "truncation " << truncation;
  }
}

TEST(S4d, StateIsTheSumOfDecayedInputs) {
  torch::NoGradGuard no_grad;
  auto s4d = make_s4d(false, 0, torch::kFloat64);
  const Tensor x = torch::randn({12, kD}, torch::kFloat64);
  const Tensor d = complex_coefficients(*s4d).first, state = s4d->forward_with_state(x, offsets({12}), {}, {}).second;
  Tensor want = torch::zeros({kD, kP}, torch::kComplexDouble);
  for (int64_t t = 0; t < 12; ++t) want = d * want + x[t].unsqueeze(1);
  EXPECT_TRUE(close(state[0], torch::view_as_real(want), Tolerance::sum<double>(24, 12 * x.abs().max().item<double>())));
}

// Everything of the module has one official name, and what is loaded under these names comes back under them.
TEST(S4d, OfficialNames) {
  auto from = make_s4d(true, 0), to = make_s4d(true, 0);
  nn::NamedTensors official{{"D", from->skip},
                            {"ssm.kernel.log_dt", from->log_dt},
                            {"ssm.kernel.inv_A_real", from->log_a_real},
                            {"ssm.kernel.A_imag", from->a_imag},
                            {"ssm.kernel.B", from->b},
                            {"ssm.kernel.C", from->c.unsqueeze(0)}};
  torch::NoGradGuard no_grad;
  for (Tensor& parameter : to->parameters()) parameter.zero_();
  nn::load_official(*to, official, nn::official_s4d_parts);
  const auto ours = nn::named_tensors(*from);
  for (const auto& [name, value] : nn::named_tensors(*to)) EXPECT_TRUE(same_bits(value, ours.at(name))) << name;
  EXPECT_TRUE(nn::official_s4d_parts("ssm.kernel.E").empty());
}

TEST(S4d, Misuse) {
  auto both = make_s4d(true, 0), causal = make_s4d(false, 0);
  const Tensor x = torch::randn({6, kD});
  PhiloxStream random(3, 1);
  EXPECT_C10_ERROR(nn::S4d(kD, 3, false, 0, random), "must be even, two a complex mode, got 3");
  EXPECT_C10_ERROR(nn::S4d(kD, 0, false, 0, random), "must be even, two a complex mode, got 0");
  EXPECT_C10_ERROR(both->forward_with_state(x, offsets({6}), {}, {}), "a bidirectional S4D carries no state");
  EXPECT_C10_ERROR(causal->forward_with_state(x, offsets({6}), torch::zeros({2, kD, kP, 2}), {}),
                   "state must be (1, 5, 3, 2) Float, got [2, 5, 3, 2]");
  EXPECT_C10_ERROR(causal->forward_with_state(x, offsets({6}), {}, torch::zeros({1, 3, kD})), "needs a truncation, got [1, 3, 5]");
  EXPECT_C10_ERROR(causal(torch::randn({6, 4}), offsets({6})), "d and w must be (4, P, 2), got [5, 3, 2]");
  EXPECT_C10_ERROR(causal(x, offsets({7})), "cu_seqlens must go from 0 to 6, got 0 to 7");
}

}  // namespace
}  // namespace seqboat
