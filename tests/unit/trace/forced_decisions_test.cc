#include "seqboat/trace/forced_decisions.h"

#include <gtest/gtest.h>

#include <cmath>
#include <thread>

namespace seqboat::trace {
namespace {

constexpr int64_t kTokens = 20000;

double share(const std::vector<uint8_t>& active) {
  double sum = 0;
  for (const uint8_t one : active) sum += one;
  return sum / static_cast<double>(active.size());
}

// Five standard deviations of a binomial share.
double bound(double rate) {
  return 5 * std::sqrt(rate * (1 - rate) / kTokens);
}

TEST(ForcedDecisions, TheRateIsMet) {
  for (const double rate : {0.0, 0.001, 0.1, 0.4, 0.5, 0.9, 1.0}) {
    for (const int64_t layer : {0, 1, 11}) EXPECT_NEAR(share(forced_decisions(1, layer, kTokens, rate)), rate, bound(rate)) << rate << " " << layer;
  }
  EXPECT_EQ(share(forced_decisions(1, 0, kTokens, 0)), 0);
  EXPECT_EQ(share(forced_decisions(1, 0, kTokens, 1)), 1);
}

TEST(ForcedDecisions, LayersAndSeedsAreIndependent) {
  const double rate = 0.3;
  const auto first = forced_decisions(1, 0, kTokens, rate);
  for (const auto& other : {forced_decisions(1, 1, kTokens, rate), forced_decisions(2, 0, kTokens, rate)}) {
    std::vector<uint8_t> both(first.size());
    for (size_t i = 0; i < first.size(); ++i) both[i] = first[i] & other[i];
    EXPECT_NEAR(share(both), rate * rate, bound(rate * rate));
  }
  // Nor does one token say anything of the next.
  std::vector<uint8_t> neighbours(first.size() - 1);
  for (size_t i = 0; i + 1 < first.size(); ++i) neighbours[i] = first[i] & first[i + 1];
  EXPECT_NEAR(share(neighbours), rate * rate, bound(rate * rate));
}

TEST(ForcedDecisions, AFunctionOfItsArgumentsAlone) {
  const auto here = forced_decisions(7, 3, kTokens, 0.25);
  std::vector<uint8_t> there;
  std::thread([&there] { there = forced_decisions(7, 3, kTokens, 0.25); }).join();
  EXPECT_EQ(here, there);
  // A shorter batch begins the same, and a higher rate activates more tokens and none less.
  const auto shorter = forced_decisions(7, 3, 1001, 0.25);
  EXPECT_TRUE(std::equal(shorter.begin(), shorter.end(), here.begin()));
  const auto more = forced_decisions(7, 3, kTokens, 0.5);
  for (size_t i = 0; i < here.size(); ++i) EXPECT_GE(more[i], here[i]);
  EXPECT_TRUE(forced_decisions(7, 3, 0, 0.5).empty());
  // A piece that begins anywhere is a piece of the whole.
  for (const int64_t first : {0, 1, 2, 3, 4, 998}) {
    std::vector<uint8_t> piece(11);
    forced_decisions(7, 3, first, 0.25, piece);
    EXPECT_TRUE(std::equal(piece.begin(), piece.end(), here.begin() + first)) << first;
  }
}

}  // namespace
}  // namespace seqboat::trace
