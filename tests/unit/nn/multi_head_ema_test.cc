#include "seqboat/nn/multi_head_ema.h"

#include <cmath>

#include "support/torch_checks.h"

namespace seqboat {
namespace {

using test::close;
using test::offsets;
using test::same_bits;
using test::Tolerance;
using torch::Tensor;
using torch::indexing::Slice;

constexpr int64_t kD = 5, kN = 4;

nn::MultiHeadEma make_ema(bool bidirectional, int64_t truncation) {
  PhiloxStream random(3, 1);
  return nn::MultiHeadEma(kD, kN, bidirectional, truncation, random);
}

TEST(MultiHeadEma, Coefficients) {
  auto ema = make_ema(true, 0);
  ema->to(torch::kFloat64);
  const Tensor p = torch::sigmoid(ema->delta);
  const auto [q, c] = ema->coefficients();
  EXPECT_TRUE(close(q, 1 - p * torch::sigmoid(ema->alpha), Tolerance::ulps<double>(16, 1)));
  EXPECT_TRUE(close(c, std::sqrt(1.0 / kN) * p * ema->beta * ema->gamma, Tolerance::ulps<double>(16, 4)));
  EXPECT_EQ(q.sizes(), at::IntArrayRef({2 * kD, kN}));
  EXPECT_EQ(ema->omega.sizes(), at::IntArrayRef({kD}));
}

TEST(MultiHeadEma, IsTheConvolutionOfItsKernel) {
  torch::NoGradGuard no_grad;
  constexpr int64_t kTokens = 30;
  for (const bool bidirectional : {false, true}) {
    for (const int64_t truncation : {0, 7}) {
      auto ema = make_ema(bidirectional, truncation);
      ema->to(torch::kFloat64);
      torch::manual_seed(2);
      const Tensor x = torch::randn({kTokens, kD}, torch::kFloat64);
      const auto [q, c] = ema->coefficients();
      Tensor want = x * ema->omega;
      for (int64_t t = 0; t < kTokens; ++t) {
        for (int64_t s = 0; s < kTokens; ++s) {
          const int64_t lag = std::abs(t - s);
          if (truncation > 0 && lag >= truncation) continue;
          const Tensor kernel = (c * q.pow(static_cast<double>(lag))).sum(1);
          if (s <= t) want[t] += kernel.slice(0, 0, kD) * x[s];
          if (bidirectional && s >= t) want[t] += kernel.slice(0, kD) * x[s];
        }
      }
      const double magnitude = x.abs().max().item<double>() * (c.abs().sum(1).max().item<double>() * kTokens + 2) * 2;
      EXPECT_TRUE(close(ema(x, offsets({kTokens})), want, Tolerance::sum<double>(2 * kTokens * kN, magnitude)))
          << (bidirectional ? "both ways" : "causal") << ", truncation " << truncation;
    }
  }
}

TEST(MultiHeadEma, TwoChunksWithStateEqualTheWhole) {
  torch::NoGradGuard no_grad;
  torch::manual_seed(4);
  const std::vector<int64_t> first{17, 3}, second{23, 14};
  const Tensor a = torch::randn({40, kD}), b = torch::randn({17, kD});  // two sequences of 40 and 17 tokens
  for (const int64_t truncation : {0, 8}) {
    auto ema = make_ema(false, truncation);
    const auto [whole, end] = ema->forward_with_state(torch::cat({a, b}), offsets({40, 17}), {}, {});
    EXPECT_TRUE(same_bits(whole, ema(torch::cat({a, b}), offsets({40, 17}))));
    EXPECT_EQ(end.sizes(), at::IntArrayRef({2, kD, kN}));

    const auto [y0, state] = ema->forward_with_state(torch::cat({a.slice(0, 0, 17), b.slice(0, 0, 3)}), offsets(first), {}, {});
    Tensor history;
    if (truncation > 0) {
      history = torch::zeros({2, truncation, kD});  // the second sequence has had but three inputs
      history[0] = a.slice(0, 17 - truncation, 17);
      history.index_put_({1, Slice(truncation - 3)}, b.slice(0, 0, 3));
    }
    const auto [y1, last] = ema->forward_with_state(torch::cat({a.slice(0, 17), b.slice(0, 3)}), offsets(second), state, history);
    const Tensor joined = torch::cat({y0.slice(0, 0, 17), y1.slice(0, 0, 23), y0.slice(0, 17), y1.slice(0, 23)});
    EXPECT_TRUE(same_bits(joined, whole)) << "truncation " << truncation;
    EXPECT_TRUE(same_bits(last, end)) << "truncation " << truncation;
  }
}

TEST(MultiHeadEma, StateIsTheSumOfDecayedInputs) {
  torch::NoGradGuard no_grad;
  auto ema = make_ema(false, 0);
  ema->to(torch::kFloat64);
  const Tensor x = torch::randn({12, kD}, torch::kFloat64);
  const Tensor q = ema->coefficients().first, state = ema->forward_with_state(x, offsets({12}), {}, {}).second;
  Tensor want = torch::zeros({kD, kN}, torch::kFloat64);
  for (int64_t t = 0; t < 12; ++t) want = q * want + x[t].unsqueeze(1);
  EXPECT_TRUE(close(state[0], want, Tolerance::sum<double>(12, 12 * x.abs().max().item<double>())));
}

TEST(MultiHeadEma, Misuse) {
  auto both = make_ema(true, 0), causal = make_ema(false, 0);
  const Tensor x = torch::randn({6, kD});
  EXPECT_C10_ERROR(both->forward_with_state(x, offsets({6}), {}, {}), "a bidirectional EMA carries no state");
  EXPECT_C10_ERROR(causal->forward_with_state(x, offsets({6}), torch::zeros({2, kD, kN}), {}), "state must be (1, 5, 4) Float, got [2, 5, 4]");
  EXPECT_C10_ERROR(causal->forward_with_state(x, offsets({6}), {}, torch::zeros({1, 3, kD})), "needs a truncation, got [1, 3, 5]");
  EXPECT_C10_ERROR(causal(torch::randn({6, 4}), offsets({6})), "q and c must be (4, N), got [5, 4]");
  EXPECT_C10_ERROR(causal(x, offsets({7})), "cu_seqlens must go from 0 to 6, got 0 to 7");
}

}  // namespace
}  // namespace seqboat
