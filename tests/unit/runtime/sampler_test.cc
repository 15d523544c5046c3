#include "seqboat/runtime/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "seqboat/base/error.h"

namespace seqboat::runtime {
namespace {

constexpr int64_t kDraws = 20000;

/// How often each token comes.
std::map<int64_t, int64_t> counts(const SamplerOptions& options, const std::vector<float>& logits) {
  Sampler sampler(options, static_cast<int64_t>(logits.size()));
  std::map<int64_t, int64_t> out;
  for (int64_t n = 0; n < kDraws; ++n) ++out[sampler.sample(logits, n)];
  return out;
}

/// Holds counts to probabilities that add up to one: five standard deviations, one in two millions. Tokens of probability 0 must not come at all.
void expect_distribution(const std::map<int64_t, int64_t>& found, const std::map<int64_t, double>& expected) {
  for (const auto& [token, count] : found) EXPECT_GT(expected.count(token), 0u) << "token " << token << " came " << count << " times";
  for (const auto& [token, p] : expected) {
    const auto at = found.find(token);
    const auto count = static_cast<double>(at == found.end() ? 0 : at->second);
    EXPECT_NEAR(count, p * kDraws, 5 * std::sqrt(kDraws * p * (1 - p)) + 1e-9) << "token " << token;
  }
}

// Logits of these probabilities.
std::vector<float> logs(const std::vector<double>& probabilities) {
  std::vector<float> out;
  for (const double p : probabilities) out.push_back(static_cast<float>(std::log(p)));
  return out;
}

TEST(Sampler, DrawsByTheSoftmax) {
  expect_distribution(counts({}, logs({0.1, 0.4, 0.2, 0.3})), {{0, 0.1}, {1, 0.4}, {2, 0.2}, {3, 0.3}});
  // A constant changes nothing, and large logits do not overflow.
  std::vector<float> shifted = logs({0.25, 0.5, 0.25});
  for (float& x : shifted) x += 1e4f;
  Sampler sampler({}, 3);
  EXPECT_NO_THROW(sampler.sample(shifted, 0));
}

TEST(Sampler, TemperatureSharpens) {
  const double a = std::sqrt(0.1), b = std::sqrt(0.4), c = std::sqrt(0.5), sum = a + b + c;
  expect_distribution(counts({.temperature = 2}, logs({0.1, 0.4, 0.5})), {{0, a / sum}, {1, b / sum}, {2, c / sum}});
  // The smallest temperature that there is draws the largest.
  expect_distribution(counts({.temperature = std::numeric_limits<double>::min()}, logs({0.3, 0.4, 0.3})), {{1, 1.0}});
}

TEST(Sampler, TopKKeepsTheMostProbable) {
  const std::vector<float> logits = logs({0.1, 0.4, 0.2, 0.3});
  expect_distribution(counts({.top_k = 2}, logits), {{1, 4.0 / 7}, {3, 3.0 / 7}});
  expect_distribution(counts({.top_k = 1}, logits), {{1, 1.0}});
  const auto all = counts({}, logits);
  EXPECT_EQ(counts({.top_k = 4}, logits), all);
  EXPECT_EQ(counts({.top_k = 1000}, logits), all);
}

TEST(Sampler, TopPKeepsTheFewestThatReachIt) {
  const std::vector<float> logits = logs({0.1, 0.4, 0.2, 0.3});
  expect_distribution(counts({.top_p = 0.69}, logits), {{1, 4.0 / 7}, {3, 3.0 / 7}});
  expect_distribution(counts({.top_p = 0.75}, logits), {{1, 4.0 / 9}, {3, 3.0 / 9}, {2, 2.0 / 9}});
  expect_distribution(counts({.top_p = 1e-9}, logits), {{1, 1.0}});
  EXPECT_EQ(counts({.top_p = 1}, logits), counts({}, logits));
}

TEST(Sampler, TemperatureThenTopKThenTopP) {
  // Shares of what top_k leaves: 4/7 alone reaches 0.55 of it, though 0.4 of the whole does not.
  expect_distribution(counts({.top_k = 2, .top_p = 0.55}, logs({0.1, 0.4, 0.2, 0.3})), {{1, 1.0}});
  expect_distribution(counts({.top_p = 0.55}, logs({0.1, 0.4, 0.2, 0.3})), {{1, 4.0 / 7}, {3, 3.0 / 7}});
  // A high temperature evens out, so that more tokens are needed for the same share.
  expect_distribution(counts({.temperature = 1e6, .top_p = 0.74}, logs({0.01, 0.97, 0.01, 0.01})), {{0, 1.0 / 3}, {1, 1.0 / 3}, {2, 1.0 / 3}});
}

TEST(Sampler, TiesGoToTheLowestToken) {
  const std::vector<float> logits{1, 3, 3, 3, 2};
  EXPECT_EQ(Sampler({.temperature = 0}, 5).sample(logits, 7), 1);
  expect_distribution(counts({.top_k = 2}, logits), {{1, 0.5}, {2, 0.5}});
  expect_distribution(counts({.top_p = 0.5}, {0, 0, 0, 0}), {{0, 0.5}, {1, 0.5}});
}

TEST(Sampler, ADrawIsAFunctionOfSeedAndNumber) {
  const std::vector<float> logits(260, 0.0f);
  Sampler one({.seed = 5}, 260), other({.seed = 5}, 260), third({.seed = 6}, 260);
  std::vector<int64_t> in_order, from_the_middle, of_another_seed;
  for (int64_t n = 0; n < 100; ++n) in_order.push_back(one.sample(logits, n));
  for (int64_t n = 99; n >= 0; --n) from_the_middle.insert(from_the_middle.begin(), other.sample(logits, n));
  for (int64_t n = 0; n < 100; ++n) of_another_seed.push_back(third.sample(logits, n));
  EXPECT_EQ(in_order, from_the_middle);
  EXPECT_NE(in_order, of_another_seed);
  // Numbers beyond 32 bits are numbers of their own.
  int64_t different = 0;
  for (int64_t n = 0; n < 100; ++n) different += one.sample(logits, n) != one.sample(logits, n + (int64_t{1} << 32));
  EXPECT_GT(different, 90);
}

TEST(Sampler, ImpossibleTokensNeverCome) {
  const float never = -std::numeric_limits<float>::infinity();
  expect_distribution(counts({.top_k = 3}, {never, 0, never, 0}), {{1, 0.5}, {3, 0.5}});
  EXPECT_EQ(Sampler({.temperature = 0}, 3).sample(std::vector<float>{never, never, -5}, 0), 2);
}

template <class Call>
void expect_error(ErrorKind kind, const std::string& part, Call&& call) {
  try {
    call();
    FAIL() << "expected an error with: " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(Sampler, Misuse) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  for (const double temperature : {0.0, 1.0}) {
    Sampler sampler({.temperature = temperature}, 3);
    expect_error(ErrorKind::kDiverged, "logit 1: expected a number, found nan", [&] { sampler.sample(std::vector<float>{0, nan, 0}, 0); });
    expect_error(ErrorKind::kDiverged, "logit 0: expected a number, found nan", [&] { sampler.sample(std::vector<float>{nan, 0, 0}, 0); });
    expect_error(ErrorKind::kDiverged, "logit 2", [&] { sampler.sample(std::vector<float>{0, 0, infinity}, 0); });
    expect_error(ErrorKind::kDiverged, "all 3 logits", [&] { sampler.sample(std::vector<float>(3, -infinity), 0); });
    expect_error(ErrorKind::kUsage, "made for 3 logits, found 2", [&] { sampler.sample(std::vector<float>{0, 0}, 0); });
  }
  expect_error(ErrorKind::kUsage, "temperature", [] { Sampler({.temperature = -0.5}, 3); });
  expect_error(ErrorKind::kUsage, "temperature", [nan] { Sampler({.temperature = nan}, 3); });
  expect_error(ErrorKind::kUsage, "top_k", [] { Sampler({.top_k = -1}, 3); });
  for (const double p : {0.0, 1.1, std::numeric_limits<double>::quiet_NaN()})
    expect_error(ErrorKind::kUsage, "top_p", [p] { Sampler({.top_p = p}, 3); });
  expect_error(ErrorKind::kUsage, "vocabulary", [] { Sampler({}, 0); });
}

}  // namespace
}  // namespace seqboat::runtime
