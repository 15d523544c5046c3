#include "seqboat/base/philox.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

namespace seqboat {
namespace {

using Words = std::array<uint32_t, 4>;

TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t ones = 0xffffffff;
  EXPECT_EQ(philox4x32({ones, ones, ones, ones}, {ones, ones}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxStream, IsTheBlocksOfItsCounterInOrder) {
  const uint64_t seed = 0x0123456789abcdef, stream = 0xfedcba9876543210;
  PhiloxStream words(seed, stream), pairs(seed, stream);
  for (uint32_t block = 0; block < 3; ++block) {
    const Words expected = philox4x32({block, 0, 0x76543210, 0xfedcba98}, {0x89abcdef, 0x01234567});
    for (uint32_t word : expected) EXPECT_EQ(words.next_u32(), word);
    EXPECT_EQ(pairs.next_u64(), expected[0] | uint64_t{expected[1]} << 32);
    EXPECT_EQ(pairs.next_u64(), expected[2] | uint64_t{expected[3]} << 32);
  }
}

TEST(PhiloxStream, SeedsAndStreamsDiffer) {
  std::set<uint64_t> first;
  for (uint64_t seed = 0; seed < 32; ++seed) {
    for (uint64_t stream = 0; stream < 32; ++stream) first.insert(PhiloxStream(seed, stream).next_u64());
  }
  EXPECT_EQ(first.size(), 32u * 32u);
}

// Mean, spread and the 256 cells of n draws lie within six standard deviations of what equal chances give.
TEST(PhiloxStream, UniformStatistics) {
  const int n = 200000, cells = 256;
  PhiloxStream random(7, 1);
  std::vector<int> count(cells);
  double sum = 0, sum_squares = 0;
  for (int i = 0; i < n; ++i) {
    const double u = random.next_uniform();
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
    sum_squares += (u - 0.5) * (u - 0.5);
    ++count[static_cast<int>(u * cells)];
  }
  EXPECT_NEAR(sum / n, 0.5, 6 * std::sqrt(1.0 / 12 / n));
  EXPECT_NEAR(sum_squares / n, 1.0 / 12, 6 * std::sqrt(1.0 / 180 / n));
  double chi_square = 0;
  for (int c : count) chi_square += std::pow(c - double(n) / cells, 2) / (double(n) / cells);
  EXPECT_NEAR(chi_square, cells - 1, 6 * std::sqrt(2.0 * (cells - 1)));
}

TEST(PhiloxStream, UniformHasFiftyThreeBits) {
  PhiloxStream random(3, 0);
  uint64_t seen = 0;
  for (int i = 0; i < 200; ++i) seen |= static_cast<uint64_t>(random.next_uniform() * 0x1p53);
  EXPECT_EQ(seen, (uint64_t{1} << 53) - 1);
}

TEST(PhiloxStream, BelowIsInRangeAndEven) {
  PhiloxStream random(11, 5);
  for (uint64_t bound : {uint64_t{1}, uint64_t{2}, uint64_t{7}, uint64_t{1000}}) {
    const int64_t n = 60000, cells = static_cast<int64_t>(std::min<uint64_t>(bound, 10));
    std::vector<int64_t> count(cells);
    for (int64_t i = 0; i < n; ++i) {
      const uint64_t value = random.next_below(bound);
      ASSERT_LT(value, bound);
      ++count[value * cells / bound];
    }
    for (int64_t c : count) EXPECT_NEAR(double(c), double(n) / cells, 6 * std::sqrt(double(n) / cells) + (cells == 1 ? 0 : 1));
  }
}

// Three quarters of 2^64: taking the word modulo the bound would give the lower third of the range twice as often as the rest.
TEST(PhiloxStream, BelowHasNoBiasForHugeBounds) {
  const uint64_t bound = uint64_t{3} << 62;
  const int n = 30000;
  PhiloxStream random(1, 2);
  int lower = 0;
  for (int i = 0; i < n; ++i) {
    const uint64_t value = random.next_below(bound);
    ASSERT_LT(value, bound);
    lower += value < (uint64_t{1} << 62);
  }
  EXPECT_NEAR(double(lower) / n, 1.0 / 3, 6 * std::sqrt(2.0 / 9 / n));
}

TEST(PhiloxStream, NormalStatistics) {
  const int n = 200000;
  PhiloxStream random(42, 0);
  double sum = 0, squares = 0, fourth = 0;
  int within = 0;
  for (int i = 0; i < n; ++i) {
    const double z = random.next_normal();
    ASSERT_TRUE(std::isfinite(z));
    sum += z;
    squares += z * z;
    fourth += z * z * z * z;
    within += std::abs(z) < 1;
  }
  EXPECT_NEAR(sum / n, 0, 6 / std::sqrt(double(n)));
  EXPECT_NEAR(squares / n, 1, 6 * std::sqrt(2.0 / n));
  EXPECT_NEAR(fourth / n, 3, 6 * std::sqrt(96.0 / n));
  EXPECT_NEAR(double(within) / n, std::erf(1 / std::sqrt(2.0)), 6 * std::sqrt(0.25 / n));
}

// The inverse by bisection of the distribution function in long double; the upper half by symmetry, where 1 - p is exact.
double quantile_by_bisection(double p) {
  if (p > 0.5) return -quantile_by_bisection(1 - p);
  long double low = -40, high = 0;
  for (int i = 0; i < 100; ++i) {
    const long double middle = (low + high) / 2;
    (std::erfc(-middle / std::sqrt(2.0L)) / 2 < p ? low : high) = middle;
  }
  return static_cast<double>((low + high) / 2);
}

TEST(NormalQuantile, IsTheInverseOfTheDistributionFunction) {
  std::vector<double> probabilities = {1e-300, 1e-100,  1e-20, 1.3e-11,   1.4e-11,   0.075,      0.0750001,
                                       0.4999, 0.50001, 0.925, 0.9250001, 1 - 1e-12, 1 - 0x1p-53};
  for (int i = 1; i < 200; ++i) probabilities.push_back(i / 200.0);
  for (double e = -15; e < -1; e += 0.25) probabilities.push_back(std::pow(10, e));
  for (double p : probabilities) {
    const double want = quantile_by_bisection(p);
    EXPECT_NEAR(normal_quantile(p), want, 1e-9 * std::abs(want) + 1e-18) << p;
  }
}

TEST(NormalQuantile, Edges) {
  EXPECT_EQ(normal_quantile(0.5), 0.0);
  EXPECT_EQ(normal_quantile(0), -std::numeric_limits<double>::infinity());
  EXPECT_EQ(normal_quantile(1), std::numeric_limits<double>::infinity());
  EXPECT_TRUE(std::isnan(normal_quantile(-0.1)));
  EXPECT_TRUE(std::isnan(normal_quantile(1.1)));
  EXPECT_TRUE(std::isnan(normal_quantile(std::nan(""))));
}

}  // namespace
}  // namespace seqboat
