#include "seqboat/nn/embedding.h"

#include <cmath>

#include "support/torch_checks.h"

namespace seqboat {
namespace {

using test::close;
using test::Tolerance;
using torch::Tensor;

TEST(TokenEmbedding, GivesTheRowsOfItsTokens) {
  PhiloxStream random(3, 1), again(3, 1);
  nn::TokenEmbedding plain(7, 5, false, random), zero_pad(7, 5, true, again);
  const Tensor tokens = torch::tensor({6, 0, 1, 1}, torch::kInt64);
  EXPECT_TRUE(test::same_bits(plain(tokens), plain->weight.index_select(0, tokens)));
  EXPECT_FALSE((plain->weight[nn::kPadToken] == 0).any().item<bool>());
  EXPECT_TRUE((zero_pad->weight[nn::kPadToken] == 0).all().item<bool>());
  EXPECT_TRUE(torch::equal(zero_pad->weight[2], plain->weight[2]));
  EXPECT_EQ(plain(torch::empty({0}, torch::kInt64)).sizes(), at::IntArrayRef({0, 5}));
  EXPECT_C10_ERROR(plain(torch::tensor({3, 7}, torch::kInt64)), "must lie in [0, 7), got 7 at 1");
  EXPECT_C10_ERROR(plain(torch::tensor({-1}, torch::kInt64)), "must lie in [0, 7), got -1 at 0");
  EXPECT_C10_ERROR(plain(torch::tensor({3}, torch::kInt32)), "int64");
}

TEST(RealEmbedding, IsALinearMapOfTheChannels) {
  PhiloxStream random(3, 1);
  nn::RealEmbedding embedding(3, 8, random);
  embedding->to(torch::kFloat64);
  const Tensor x = torch::randn({11, 3}, torch::kFloat64);
  EXPECT_TRUE(close(embedding(x), torch::linear(x, embedding->weight, embedding->bias), Tolerance::sum<double>(3, 40)));
  EXPECT_C10_ERROR(embedding(torch::randn({11, 2}, torch::kFloat64)), "weight must be (out, 2)");
}

TEST(SinusoidalPositions, AddScaledSinesThenCosines) {
  nn::SinusoidalPositions positions(6);
  EXPECT_NEAR(positions->scale.item<double>(), 1 / std::sqrt(6.0), 1e-7);
  positions->to(torch::kFloat64);
  torch::NoGradGuard no_grad;
  positions->scale.fill_(0.7);
  const Tensor times = torch::tensor({0, 1, 2, 90, 0, 1}, torch::kInt64), x = torch::randn({6, 6}, torch::kFloat64);
  Tensor want = x.clone();
  for (int64_t row = 0; row < 6; ++row) {
    for (int64_t i = 0; i < 3; ++i) {
      const double angle = times[row].item<double>() * std::pow(10000.0, -2.0 * static_cast<double>(i) / 6);
      want[row][i] += 0.7 * std::sin(angle);
      want[row][3 + i] += 0.7 * std::cos(angle);
    }
  }
  // The frequencies are held in float32: half a unit of roundoff of an angle of at most 90.
  EXPECT_TRUE(close(positions(x, times), want, Tolerance::ulps<float>(0.5, 90)));
  EXPECT_EQ(positions(torch::empty({0, 6}, torch::kFloat64), torch::empty({0}, torch::kInt64)).size(0), 0);
  EXPECT_C10_ERROR(nn::SinusoidalPositions(7), "the width must be even, got 7");
}

// A stretch of neighbouring times and times far apart are looked up in two ways: the bits are the same, and neither needs a table from 0 on.
TEST(SinusoidalPositions, TheSameBitsHoweverFarTheStreamIs) {
  const nn::SinusoidalPositions positions(6);
  torch::NoGradGuard no_grad;
  const int64_t far = 1'000'000'000;
  const Tensor x = torch::zeros({8, 6}), stretch = torch::arange(far, far + 8), apart = torch::cat({stretch.narrow(0, 0, 4), torch::arange(4)});
  const Tensor together = nn::SinusoidalPositions(positions)(x, stretch), alone = nn::SinusoidalPositions(positions)(x, apart);
  EXPECT_TRUE(test::same_bits(alone.narrow(0, 0, 4), together.narrow(0, 0, 4)));
  EXPECT_TRUE(test::same_bits(alone.narrow(0, 4, 4), nn::SinusoidalPositions(positions)(x, torch::arange(8)).narrow(0, 0, 4)));
}

}  // namespace
}  // namespace seqboat
