// The kinds of routers beside the paper's: what each decides, and with what confidence.

#include <algorithm>

#include "seqboat/nn/fixed_choice.h"
#include "seqboat/nn/router.h"
#include "support/torch_checks.h"

namespace seqboat {
namespace {

using test::close;
using test::offsets;
using test::same_bits;
using test::Tolerance;
using torch::Tensor;

constexpr int64_t kD = 12;

std::shared_ptr<nn::Router> lively(const nn::RouterOptions& options, torch::ScalarType dtype = torch::kFloat64) {
  PhiloxStream random(3, 1);
  auto router = nn::make_router(options, kD, random);
  router->to(dtype);
  torch::NoGradGuard no_grad;
  torch::manual_seed(1);
  for (const Tensor& p : router->parameters()) p.copy_(torch::randn_like(p));
  return router;
}

nn::RouterOptions kind(const std::string& word) {
  nn::RouterOptions options;
  options.kind = word;
  return options;
}

struct Asked {
  Asked(nn::Router& router, const Tensor& state, const std::vector<int64_t>& lengths, const Tensor& forced = {}, uint64_t update = 0,
        const Tensor& ids = {})
      : random{.seed = 5, .update = update, .micro_batch = 0, .sequence_ids = ids},
        layout(nn::PackedLayout::make(offsets(lengths), random)),
        out(router.forward(state, {.layout = layout, .random = random, .layer = 2, .module = 1, .forced = forced})) {}
  nn::RandomKey random;
  nn::PackedLayout layout;
  nn::RouterDecision out;
};

TEST(SigmoidThresholdRouter, IsActiveAboveItsThreshold) {
  nn::RouterOptions options = kind("sigmoid-threshold");
  options.threshold = 0.7;
  auto router = lively(options);
  const Tensor state = torch::randn({300, kD}, torch::kFloat64),
               u = torch::linear(state, router->parameters()[0], router->parameters()[1]).select(1, 0);
  const auto got = Asked(*router, state, {300}).out;
  const Tensor p = torch::sigmoid(u);
  EXPECT_TRUE(torch::equal(got.active, (p > 0.7).to(torch::kUInt8)));
  EXPECT_TRUE(close(got.probability, p, Tolerance::sum<double>(kD, 20)));
  EXPECT_TRUE(torch::equal(got.p, got.probability * got.active));
  EXPECT_GT(got.active.sum().item<int64_t>(), 30);
  EXPECT_LT(got.active.sum().item<int64_t>(), 270);
}

TEST(GumbelRouter, FallsAsOftenAsItsProbabilitySaysAndOnlyInTraining) {
  for (const char* word : {"gumbel-soft", "gumbel-hard"}) {
    nn::RouterOptions options = kind(word);
    options.temperature = 0.6;
    auto router = lively(options);
    constexpr int64_t kTokens = 20000;
    const Tensor state = torch::randn({1, kD}, torch::kFloat64).repeat({kTokens, 1}) * 0.2;
    const auto drawn = Asked(*router, state, {kTokens}).out;
    const double p = drawn.probability[0].item<double>(), share = drawn.active.to(torch::kFloat64).mean().item<double>();
    ASSERT_GT(p, 0.1);
    ASSERT_LT(p, 0.9);
    EXPECT_NEAR(share, p, 5 * std::sqrt(p * (1 - p) / kTokens)) << word;
    // Soft: above a half and not always one thing; hard: exactly one.
    const Tensor confidence = drawn.p.masked_select(drawn.active.to(torch::kBool));
    if (std::string(word) == "gumbel-hard") {
      EXPECT_TRUE((confidence == 1).all().item<bool>());
    } else {
      EXPECT_GT(confidence.min().item<double>(), 0.5);
      EXPECT_GT(confidence.std().item<double>(), 0.01);
    }
    EXPECT_FALSE(torch::equal(drawn.active, Asked(*router, state, {kTokens}, {}, 1).out.active)) << "another update draws again";
    EXPECT_TRUE(torch::equal(drawn.active, Asked(*router, state, {kTokens}).out.active)) << "the same one draws the same";
    router->eval();
    const auto quiet = Asked(*router, state, {kTokens}).out;
    EXPECT_TRUE((quiet.active == (p > 0.5 ? 1 : 0)).all().item<bool>());
    EXPECT_TRUE(torch::equal(quiet.p, quiet.active.to(torch::kFloat64)));
  }
}

TEST(GumbelRouter, NoiseGoesWithTheSequenceWhereverItStands) {
  auto router = lively(kind("gumbel-soft"), torch::kFloat32);
  const Tensor state = torch::randn({90, kD});
  const auto all = Asked(*router, state, {30, 60}, {}, 3, torch::tensor({8, 9}, torch::kInt64)).out;
  const auto second = Asked(*router, state.narrow(0, 30, 60), {60}, {}, 3, torch::tensor({9}, torch::kInt64)).out;
  EXPECT_TRUE(same_bits(second.p, all.p.narrow(0, 30, 60)));
}

TEST(GumbelRouter, StraightThroughHasTheGradientOfTheSoftOne) {
  Tensor logits = test::leaf({40, 2});
  const Tensor noise = torch::randn({40, 2}, torch::kFloat64), w = torch::randn({40, 2}, torch::kFloat64);
  const auto gradient = [&](bool hard) { return torch::autograd::grad({(nn::gumbel_weights(logits, noise, 0.8, hard) * w).sum()}, {logits})[0]; };
  EXPECT_TRUE(torch::equal(gradient(true), gradient(false)));
  const Tensor soft = torch::softmax((logits + noise) / 0.8, 1);
  EXPECT_TRUE(close(nn::gumbel_weights(logits, noise, 0.8, false), soft.detach(), Tolerance::sum<double>(4, 20)));
  EXPECT_TRUE(torch::equal(nn::gumbel_weights(logits, noise, 0.8, true).select(1, 1), (soft.select(1, 1) > 0.5).to(torch::kFloat64)));
}

TEST(TopShareRouter, RanksEachScoreAmongTheLastOnesOfItsSequence) {
  nn::RouterOptions options = kind("top-share");
  options.rate = 0.3;
  options.horizon = 17;
  auto router = lively(options);
  const std::vector<int64_t> lengths{200, 1, 90};
  const Tensor state = torch::randn({291, kD}, torch::kFloat64);
  const auto got = Asked(*router, state, lengths).out;
  const double* u = got.logits.const_data_ptr<double>();
  int64_t begin = 0;
  for (const int64_t length : lengths) {
    for (int64_t t = 0; t < length; ++t) {
      const int64_t first = std::max<int64_t>(0, t - options.horizon + 1);
      int64_t above = 0;
      for (int64_t i = first; i < t; ++i) above += u[begin + i] >= u[begin + t];
      EXPECT_EQ(got.active[begin + t].item<int64_t>(), static_cast<double>(above) < 0.3 * static_cast<double>(t - first + 1)) << begin << " + " << t;
    }
    begin += length;
  }
  EXPECT_TRUE(torch::equal(got.p, got.probability * got.active));
  // Over scores without a trend its share is the rate, rounded up to a whole number of the horizon.
  constexpr int64_t kMany = 20000;
  options.horizon = 100;
  const auto many = Asked(*lively(options), torch::randn({kMany, kD}, torch::kFloat64), {kMany}).out;
  EXPECT_NEAR(many.active.to(torch::kFloat64).mean().item<double>(), 0.3, 5 * std::sqrt(0.3 * 0.7 / kMany));
}

TEST(FixedRouters, LearnNothing) {
  const Tensor state = torch::randn({50, kD});
  for (const char* word : {"always", "never", "random", "stride"}) {
    nn::RouterOptions options = kind(word);
    options.rate = 0.4;
    auto router = lively(options, torch::kFloat32);
    EXPECT_TRUE(router->parameters().empty());
    const Asked asked(*router, state, {20, 30});
    EXPECT_FALSE(asked.out.p.defined() || asked.out.probability.defined() || asked.out.logits.defined());
    EXPECT_EQ(asked.out.active.defined(), std::string(word) != "always");
    // A layer's second sub-module draws for itself; a stride is one for all.
    if (asked.out.active.defined()) {
      const Tensor first =
          std::string(word) == "never" ? torch::zeros({50}, torch::kUInt8) : nn::fixed_choice(word, 0.4, asked.layout, asked.random, 2);
      EXPECT_EQ(torch::equal(asked.out.active, first), std::string(word) != "random") << word;
    }
    const Tensor forced = (torch::arange(50) % 7 == 0).to(torch::kUInt8);
    EXPECT_TRUE(torch::equal(Asked(*router, state, {20, 30}, forced).out.active, forced));
  }
}

TEST(Routers, ForcedDecisionsKeepTheRoutersConfidence) {
  const Tensor state = torch::randn({50, kD}, torch::kFloat64), forced = (torch::arange(50) % 3 == 0).to(torch::kUInt8);
  for (const char* word : {"tempered-softmax", "sigmoid-threshold", "top-share"}) {
    const auto got = Asked(*lively(kind(word)), state, {50}, forced).out;
    EXPECT_TRUE(torch::equal(got.active, forced)) << word;
    EXPECT_TRUE(torch::equal(got.p, got.probability * forced)) << word;
  }
  const auto hard = Asked(*lively(kind("gumbel-hard")), state, {50}, forced).out;
  EXPECT_TRUE(close(hard.p, forced.to(torch::kFloat64), Tolerance::sum<double>(2, 1)));
}

TEST(Routers, GradientsOfTheConfidence) {
  const Tensor forced = (torch::arange(30) % 2).to(torch::kUInt8);  // decisions fixed: no jump near a difference
  for (const char* word : {"sigmoid-threshold", "gumbel-soft", "top-share"}) {
    auto router = lively(kind(word));
    std::vector<Tensor> inputs{test::leaf({30, kD})};
    for (const Tensor& p : router->parameters()) inputs.push_back(p);
    test::check_gradients(
        [&](const std::vector<Tensor>& in) {
          const auto out = Asked(*router, in[0], {10, 20}, forced).out;
          return out.p + 0.3 * out.probability;
        },
        inputs);
  }
}

TEST(Routers, Misuse) {
  PhiloxStream random(3, 1);
  EXPECT_C10_ERROR(nn::make_router(kind("topk"), kD, random), "stride, got 'topk'");
  nn::RouterOptions options = kind("sigmoid-threshold");
  options.threshold = 1;
  EXPECT_C10_ERROR(nn::make_router(options, kD, random), "the threshold must lie in (0, 1), got 1");
  options = kind("gumbel-soft");
  options.temperature = 0;
  EXPECT_C10_ERROR(nn::make_router(options, kD, random), "the temperature must be above 0");
  options = kind("random");
  options.rate = 1.5;
  EXPECT_C10_ERROR(nn::make_router(options, kD, random), "the rate must lie in [0, 1], got 1.5");
  options = kind("top-share");
  options.horizon = 0;
  EXPECT_C10_ERROR(nn::make_router(options, kD, random), "the horizon must be at least 1");
  EXPECT_C10_ERROR(Asked(*lively(kind("gumbel-soft")), torch::randn({6, kD}, torch::kFloat64), {6}, torch::ones({5}, torch::kUInt8)),
                   "forced must be (6) uint8, got [5]");
}

}  // namespace
}  // namespace seqboat
