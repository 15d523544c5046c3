#include "seqboat/kernels/router.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "support/expect_close.h"
#include "support/guarded.h"

namespace seqboat::kernels {
namespace {

using test::awkward_sizes;
using test::Guarded;
using test::on_every_target;
using test::random_numbers;
using test::same_bits;
using test::Tolerance;

template <class T>
class Router : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Router, Types);

// The logits' difference d is off by two roundings of at most |u1 - u0| + |bias| <= 5, and P by at most a quarter of z = d / temperature's error
// and four units of its own.
TYPED_TEST(Router, ForwardEqualsTheDefinition) {
  using T = TypeParam;
  for (T bias : {T{0}, T(0.5), T(-0.75)}) {
    for (T log_temperature : {T(-1.5), T{0}, T(1.25)}) {
      on_every_target([&] {
        for (int64_t tokens : awkward_sizes()) {
          for (int64_t stride : {2, 5}) {
            SCOPED_TRACE(testing::Message() << tokens << " tokens, stride " << stride << ", bias " << bias << ", " << log_temperature);
            const Guarded<T> u = random_numbers<T>(tokens * stride, static_cast<uint32_t>(tokens));
            Guarded<uint8_t> active(tokens), active_alone(tokens);
            Guarded<T> p(tokens), probability(tokens), p_alone(tokens);
            router_fwd(tokens, stride, u.data(), bias, log_temperature, nullptr, active.data(), p.data(), probability.data());
            std::vector<double> want_probability(tokens), want_p(tokens);
            std::vector<uint8_t> want_active(tokens);
            const double temperature = std::exp(static_cast<double>(log_temperature));
            for (int64_t t = 0; t < tokens; ++t) {
              const double margin = static_cast<double>(u[t * stride + 1]) - u[t * stride] - bias;
              want_probability[t] = 1 / (1 + std::exp(-margin / temperature));
              want_active[t] = margin > 0;
              want_p[t] = want_active[t] ? want_probability[t] : 0;
            }
            const Tolerance tolerance = Tolerance::ulps<T>(0.25 * 5 / temperature * 6 + 6, 1);
            // The margins' grid of 2^-30 is far coarser than their rounding, so no decision is in doubt.
            EXPECT_TRUE(std::equal(active.begin(), active.end(), want_active.begin()));
            test::expect_close(probability.data(), want_probability.data(), tokens, tolerance);
            test::expect_close(p.data(), want_p.data(), tokens, tolerance);
            router_fwd<T>(tokens, stride, u.data(), bias, log_temperature, nullptr, active_alone.data(), p_alone.data(), nullptr);
            EXPECT_TRUE(same_bits(p.data(), p_alone.data(), tokens) && same_bits(active.data(), active_alone.data(), tokens));
            EXPECT_TRUE(active.intact() && p.intact() && probability.intact());
          }
        }
      });
    }
  }
}

TYPED_TEST(Router, ATieIsInactiveAndTheNextNumberActive) {
  using T = TypeParam;
  const T one = 1, above = std::nextafter(one, T{2}), below = std::nextafter(one, T{0});
  const T u[] = {one, one, one, above, one, below, 0, 0, 0, std::numeric_limits<T>::min()};
  on_every_target([&] {
    uint8_t active[5];
    T p[5];
    router_fwd<T>(5, 2, u, 0, T(3), nullptr, active, p, nullptr);
    EXPECT_EQ(std::vector<int>(active, active + 5), (std::vector<int>{0, 1, 0, 0, 1}));
    EXPECT_GE(p[1], T(0.5));
    EXPECT_EQ(p[0], T{0});
    // A bias above zero favours the inactive side.
    const T logits[] = {0, T(0.25), 0, T(0.5), 0, T(0.75)};
    router_fwd<T>(3, 2, logits, T(0.5), 0, nullptr, active, p, nullptr);
    EXPECT_EQ(std::vector<int>(active, active + 3), (std::vector<int>{0, 0, 1}));
  });
}

TYPED_TEST(Router, ForcedDecisions) {
  using T = TypeParam;
  const int64_t tokens = 70;
  const Guarded<T> u = random_numbers<T>(tokens * 2, 4);
  Guarded<uint8_t> forced(tokens);
  for (int64_t t = 0; t < tokens; ++t) forced[t] = t % 3 == 0;
  on_every_target([&] {
    Guarded<uint8_t> active(tokens), free(tokens);
    Guarded<T> p(tokens), probability(tokens), free_p(tokens), free_probability(tokens);
    router_fwd<T>(tokens, 2, u.data(), 0, 0, forced.data(), active.data(), p.data(), probability.data());
    router_fwd<T>(tokens, 2, u.data(), 0, 0, nullptr, free.data(), free_p.data(), free_probability.data());
    EXPECT_TRUE(same_bits(active.data(), forced.data(), tokens));
    EXPECT_TRUE(same_bits(probability.data(), free_probability.data(), tokens));
    for (int64_t t = 0; t < tokens; ++t) EXPECT_EQ(p[t], forced[t] ? probability[t] : T{0});
  });
}

TYPED_TEST(Router, BackwardEqualsTheAnalyticGradient) {
  using T = TypeParam;
  const T bias = T(0.25), log_temperature = T(-0.5);
  const double temperature = std::exp(static_cast<double>(log_temperature));
  on_every_target([&] {
    for (int64_t tokens : awkward_sizes()) {
      SCOPED_TRACE(tokens);
      const int64_t stride = 4, du_stride = 3;
      const Guarded<T> u = random_numbers<T>(tokens * stride, 9), dp = random_numbers<T>(tokens, 8), dprobability = random_numbers<T>(tokens, 7);
      Guarded<uint8_t> active(tokens);
      for (int64_t t = 0; t < tokens; ++t) active[t] = t % 4 != 1;
      // Of the confidence, of the probability, of both: the gradients add up.
      for (int which = 1; which <= 3; ++which) {
        SCOPED_TRACE(which);
        const bool of_p = (which & 1) != 0, of_probability = (which & 2) != 0;
        Guarded<T> du(tokens * du_stride);
        const double got = router_bwd<T>(tokens, stride, u.data(), bias, log_temperature, active.data(), of_p ? dp.data() : nullptr,
                                         of_probability ? dprobability.data() : nullptr, du_stride, du.data());
        double want = 0;
        for (int64_t t = 0; t < tokens; ++t) {
          const double z = (static_cast<double>(u[t * stride + 1]) - u[t * stride] - bias) / temperature;
          const double upstream = (of_p && active[t] ? dp[t] : 0.0) + (of_probability ? dprobability[t] : 0.0);
          const double slope = upstream * std::exp(-std::abs(z)) / std::pow(1 + std::exp(-std::abs(z)), 2);
          const double pair[] = {-slope / temperature, slope / temperature};
          // P (1 - P) <= 1/4 and its relative error is that of z, at most 5 / temperature in size, and a few units; upstream is at most 4 / 2.
          test::expect_close(du.data() + t * du_stride, pair, 2, Tolerance::ulps<T>(6 * 5 / temperature + 13, 1 / temperature));
          EXPECT_TRUE(std::isnan(du[t * du_stride + 2])) << "the gap between the rows was written";
          want -= slope * z;
        }
        EXPECT_NEAR(got, want, tokens * Tolerance::ulps<T>(6 * 5 / temperature + 13, 5 / temperature).absolute);
        EXPECT_TRUE(du.intact());
      }
    }
  });
}

// sum(c p) by central differences away from the decision: h^2 f''' / 6 stays below 1e-9 and rounding over h below 1e-10 a token.
TEST(RouterGradient, IsTheSlopeOfTheForward) {
  const int64_t tokens = 12;
  std::vector<double> u(2 * tokens);
  const Guarded<double> noise = random_numbers<double>(2 * tokens, 1), c = random_numbers<double>(tokens, 2);
  for (int64_t t = 0; t < tokens; ++t) {
    u[2 * t] = noise[2 * t];
    u[2 * t + 1] = noise[2 * t] + 0.3 + (t % 2 == 0 ? 0.1 : -1) * (1 + std::abs(noise[2 * t + 1]));
  }
  double log_temperature = 0.4;
  std::vector<uint8_t> active(tokens);
  std::vector<double> p(tokens), du(2 * tokens);
  const auto loss = [&] {
    router_fwd<double>(tokens, 2, u.data(), 0.3, log_temperature, nullptr, active.data(), p.data(), nullptr);
    double sum = 0;
    for (int64_t t = 0; t < tokens; ++t) sum += c[t] * p[t];
    return sum;
  };
  const double h = 1e-5;
  const auto slope = [&](double& x) {
    const double kept = x;
    x = kept + h;
    const double above = loss();
    x = kept - h;
    const double below = loss();
    x = kept;
    return (above - below) / (2 * h);
  };
  loss();
  const std::vector<uint8_t> decided = active;
  EXPECT_NE(std::count(decided.begin(), decided.end(), 1), 0);
  EXPECT_NE(std::count(decided.begin(), decided.end(), 0), 0);
  const double dlog_temperature = router_bwd<double>(tokens, 2, u.data(), 0.3, log_temperature, decided.data(), c.data(), nullptr, 2, du.data());
  for (int64_t i = 0; i < 2 * tokens; ++i) EXPECT_NEAR(du[i], slope(u[i]), 5e-9) << i;
  EXPECT_NEAR(dlog_temperature, slope(log_temperature), 5e-9 * tokens);
}

// Where P is one to the last bit its slope still is exp(-z), not zero.
TEST(RouterGradient, KeepsItsPrecisionAtConfidentTokens) {
  const float u[] = {0, 30}, dp = 1;
  const uint8_t active = 1;
  on_every_target([&] {
    float du[2];
    router_bwd<float>(1, 2, u, 0, 0, &active, &dp, nullptr, 2, du);
    const double want = std::exp(-30.0);
    EXPECT_NEAR(du[1], want, 8 * std::numeric_limits<float>::epsilon() * want);
    EXPECT_EQ(du[0], -du[1]);
  });
}

}  // namespace
}  // namespace seqboat::kernels
