#include "seqboat/nn/router.h"

#include <cmath>

#include "support/torch_checks.h"

namespace seqboat {
namespace {

using test::close;
using test::Tolerance;
using torch::Tensor;

constexpr int64_t kD = 16;

/// In float64, with logits of about one.
nn::TemperedSoftmaxRouter lively_router(double temperature, double act_bias) {
  PhiloxStream random(3, 1);
  nn::TemperedSoftmaxRouter router(kD, temperature, act_bias, random);
  router->to(torch::kFloat64);
  torch::NoGradGuard no_grad;
  torch::manual_seed(1);
  router->proj->weight.mul_(20);
  router->proj->bias.normal_();
  return router;
}

TEST(TemperedSoftmaxRouter, IsATemperedSoftmaxOfTwoLogits) {
  torch::NoGradGuard no_grad;
  constexpr double kBias = 0.1;
  auto router = lively_router(0.3, kBias);
  const double temperature = std::exp(router->log_temperature.item<double>());
  EXPECT_NEAR(temperature, 0.3 * std::sqrt(16.0), 1e-6);
  const Tensor m = torch::randn({200, kD}, torch::kFloat64);
  const auto got = router->decide(m, {});
  const Tensor logits = torch::linear(m, router->proj->weight, router->proj->bias);
  // The bias is rounded to float32 whatever the model's precision, and is added to the inactive logit.
  const auto probability = [&](double bias) { return torch::sigmoid((logits.select(1, 1) - logits.select(1, 0) - bias) / temperature); };
  const Tensor want = probability(static_cast<float>(kBias));
  const Tolerance tolerance = Tolerance::sum<double>(kD, 20);
  EXPECT_TRUE(close(got.logits, logits, tolerance));
  EXPECT_TRUE(close(got.probability, want, tolerance));
  EXPECT_FALSE(close(got.probability, probability(kBias), tolerance));
  EXPECT_TRUE(torch::equal(got.active, (want > 0.5).to(torch::kUInt8)));
  EXPECT_TRUE(close(got.p, want * got.active, tolerance));
  EXPECT_GT(got.active.sum().item<int64_t>(), 20);
  EXPECT_LT(got.active.sum().item<int64_t>(), 180);
}

TEST(TemperedSoftmaxRouter, ForcedDecisionsReplaceTheLogitsOwn) {
  auto router = lively_router(0.3, 0);
  const Tensor m = torch::randn({60, kD}, torch::kFloat64), forced = (torch::arange(60) % 3 == 0).to(torch::kUInt8);
  const auto free = router->decide(m, {}), got = router->decide(m, forced);
  EXPECT_TRUE(torch::equal(got.active, forced));
  EXPECT_TRUE(torch::equal(got.probability, free.probability));
  EXPECT_TRUE(torch::equal(got.p, free.probability * forced));
}

TEST(TemperedSoftmaxRouter, TiesAreInactive) {
  auto router = lively_router(0.3, 0);
  torch::NoGradGuard no_grad;
  router->proj->weight.zero_();
  router->proj->bias.fill_(2);
  const auto got = router->decide(torch::randn({5, kD}, torch::kFloat64), {});
  EXPECT_TRUE((got.active == 0).all().item<bool>());
  EXPECT_TRUE((got.p == 0).all().item<bool>());
  EXPECT_TRUE((got.probability == 0.5).all().item<bool>());
}

TEST(TemperedSoftmaxRouter, GradientsOfTheConfidence) {
  auto router = lively_router(0.3, 0.2);
  const Tensor forced = (torch::arange(12) % 2).to(torch::kUInt8);  // decisions fixed: no jump near a difference
  Tensor m = test::leaf({12, kD});
  test::check_gradients([&](const std::vector<Tensor>& in) { return router->decide(in[0], forced).p; },
                        {m, router->proj->weight, router->proj->bias, router->log_temperature});
}

TEST(TemperedSoftmaxRouter, Misuse) {
  auto router = lively_router(0.3, 0);
  const Tensor m = torch::randn({6, kD}, torch::kFloat64);
  EXPECT_C10_ERROR(router->decide(m, torch::ones({5}, torch::kUInt8)), "forced must be (6) uint8, got [5]");
  EXPECT_C10_ERROR(router->decide(m, torch::ones({6}, torch::kInt64)), "forced must be (6) uint8, got [6] Long");
  EXPECT_C10_ERROR(router->decide(torch::randn({6, 3}, torch::kFloat64), {}), "weight must be (out, 3)");
}

}  // namespace
}  // namespace seqboat
