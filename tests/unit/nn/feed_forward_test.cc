#include "seqboat/nn/feed_forward.h"

#include "support/torch_checks.h"

namespace seqboat {
namespace {

using test::close;
using test::offsets;
using test::Tolerance;
using torch::Tensor;

constexpr int64_t kD = 12, kF = 40;

nn::FeedForward make_block(bool prenorm, double dropout, bool truncated = false) {
  PhiloxStream random(3, 1);
  return nn::FeedForward(kD, kF, "layernorm", prenorm, true, dropout, truncated, random);
}

TEST(FeedForward, NormsBeforeOrAfter) {
  torch::NoGradGuard no_grad;
  torch::manual_seed(1);
  for (const bool prenorm : {true, false}) {
    auto block = make_block(prenorm, 0.5);
    block->to(torch::kFloat64);
    block->eval();  // no dropout
    for (const Tensor& parameter : block->parameters()) parameter.normal_();
    const Tensor x = torch::randn({30, kD}, torch::kFloat64);
    const auto norm = [&](const Tensor& t) { return torch::layer_norm(t, {kD}, block->norm->weight, block->norm->bias, 1e-5); };
    const Tensor inner = torch::silu(torch::linear(prenorm ? norm(x) : x, block->fc1->weight, block->fc1->bias));
    const Tensor sum = x + torch::linear(inner, block->fc2->weight, block->fc2->bias);
    const double magnitude = kD * kF * 10.0 * (1 + inner.abs().max().item<double>());
    EXPECT_TRUE(
        close(block->forward(x, nn::PackedLayout::make(offsets({30}), {}), {}, 0), prenorm ? sum : norm(sum), Tolerance::sum<double>(kF, magnitude)))
        << (prenorm ? "before" : "after");
  }
}

TEST(FeedForward, DropsItsOutput) {
  torch::NoGradGuard no_grad;
  auto block = make_block(true, 0.25);
  block->to(torch::kFloat64);
  const Tensor x = torch::randn({400, kD}, torch::kFloat64);
  const auto layout = nn::PackedLayout::make(offsets({150, 250}), {});
  block->eval();
  const Tensor whole = block->forward(x, layout, {}, 2) - x;
  block->train();
  const Tensor dropped = block->forward(x, layout, {}, 2) - x, zero = dropped == 0;
  EXPECT_TRUE(close(dropped, torch::where(zero, torch::zeros_like(whole), whole / 0.75), Tolerance::ulps<double>(8, 8)));
  EXPECT_NEAR(zero.to(torch::kFloat64).mean().item<double>(), 0.25, 5 * std::sqrt(0.25 * 0.75 / (400 * kD)));
  EXPECT_FALSE(torch::equal(block->forward(x, layout, {}, 3) - x, dropped));
}

TEST(FeedForward, InitialWeights) {
  // Of 480 normal numbers some twenty lie beyond two standard deviations; none of the truncated ones does.
  EXPECT_LE(make_block(true, 0, true)->fc1->weight.abs().max().item<double>(), 0.04 * (1 + 1e-6));
  EXPECT_GT(make_block(true, 0, false)->fc1->weight.abs().max().item<double>(), 0.04);
  EXPECT_EQ(make_block(true, 0)->fc1->weight.sizes(), at::IntArrayRef({kF, kD}));
  EXPECT_EQ(make_block(true, 0)->fc2->weight.sizes(), at::IntArrayRef({kD, kF}));
}

TEST(FeedForward, Misuse) {
  auto block = make_block(false, 0);
  EXPECT_C10_ERROR(block->forward(torch::randn({4, 5}), nn::PackedLayout::make(offsets({4}), {}), {}, 0), "in_weight must be [40, 5]");
}

}  // namespace
}  // namespace seqboat
