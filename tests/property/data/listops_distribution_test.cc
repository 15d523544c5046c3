// Do generated samples come from the distribution of the Long Range Arena's own generator? Its 2,000 reference samples are summarised in
// tests/golden/listops_reference_stats.json (made by the script beside it); both sides are samples, so every test is a two-sample one.
//
//   one number a sample (length, number of operators, depth, label, root operator, root arguments): chi-square of homogeneity
//   counts of nodes (how often each operator, each number of arguments, each depth occurs in a sample): nodes of one tree are not independent, so
//   the means over samples are compared by Welch's z, with the variances between samples
//
// All tests together raise a false alarm with probability at most kSignificance (Bonferroni). The seed is fixed, so a test that passes passes always.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "seqboat/base/file_io.h"
#include "seqboat/data/listops.h"

namespace seqboat::data {
namespace {

constexpr double kSignificance = 1e-3;

struct Summary {
  int64_t samples = 0;
  std::map<std::string, std::vector<double>> per_sample;  // one number a sample
};

Summary summarize(const SequenceDataset& dataset) {
  Summary summary;
  summary.samples = dataset.size();
  const char* names[] = {"MIN", "MAX", "MED", "SM"};
  for (int64_t i = 0; i < dataset.size(); ++i) {
    std::map<std::string, double> counts;
    std::vector<std::pair<int32_t, int64_t>> open;  // operator, arguments so far
    double depth = 1;
    const auto tokens = dataset.sequence(i);
    for (int32_t token : tokens) {
      if (token == kListopsClose) {
        ++counts["arguments " + std::to_string(open.back().second)];
        if (open.size() == 1) {
          counts["root_arguments"] = static_cast<double>(open.back().second);
          counts["root"] = open.back().first - kListopsMin;
        }
        open.pop_back();
        continue;
      }
      if (!open.empty()) ++open.back().second;
      if (token <= kListopsSum) {
        open.emplace_back(token, 0);
        ++counts[std::string("operator ") + names[token - kListopsMin]];
        ++counts["operators at depth " + std::to_string(open.size())];
        ++counts["operators_per_sample"];
      } else {
        ++counts["digits"];
        depth = std::max(depth, static_cast<double>(open.size()) + 1);
      }
    }
    counts["length"] = static_cast<double>(tokens.size());
    counts["depth"] = depth;
    counts["label"] = static_cast<double>(dataset.labels[i]);
    for (const auto& [key, value] : counts) {
      summary.per_sample[key].resize(static_cast<size_t>(dataset.size()));
      summary.per_sample[key][i] = value;
    }
  }
  return summary;
}

/// Upper tail of the chi-square distribution: Q(dof / 2, x / 2), the regularised incomplete gamma function, by its power series.
double chi_square_tail(double x, int dof) {
  const double a = dof / 2.0;
  const double half = x / 2;
  if (half > a + 200) return 0;  // far below any significance that is asked for; the series would lose its digits
  double term = 1 / a;
  double sum = term;
  for (int n = 1; n < 10000 && term > sum * 1e-17; ++n) sum += term *= half / (a + n);
  return std::max(0.0, 1 - sum * std::exp(-half + a * std::log(half) - std::lgamma(a)));
}

TEST(ChiSquareTail, KnownValues) {
  EXPECT_NEAR(chi_square_tail(3.841459, 1), 0.05, 1e-6);
  EXPECT_NEAR(chi_square_tail(16.918978, 9), 0.05, 1e-6);
  EXPECT_NEAR(chi_square_tail(27.877165, 9), 0.001, 1e-8);
  EXPECT_NEAR(chi_square_tail(2.0, 2), std::exp(-1.0), 1e-12);
}

/// Probability of counts at least this different when both come from one distribution. Neighbouring cells are merged until each expects five.
double homogeneity(const std::vector<double>& a, const std::vector<double>& b) {
  double total_a = 0;
  double total_b = 0;
  for (double n : a) total_a += n;
  for (double n : b) total_b += n;
  const double smaller = std::min(total_a, total_b) / (total_a + total_b);
  double chi_square = 0;
  int cells = 0;
  double in_a = 0;
  double in_b = 0;
  double rest = total_a + total_b;
  for (size_t i = 0; i < a.size(); ++i) {
    in_a += a[i];
    in_b += b[i];
    const double both = in_a + in_b;
    if (both * smaller < 5 || ((rest - both) * smaller < 5 && i + 1 < a.size())) continue;
    const double expect_a = both * total_a / (total_a + total_b);
    const double expect_b = both * total_b / (total_a + total_b);
    chi_square += (in_a - expect_a) * (in_a - expect_a) / expect_a + (in_b - expect_b) * (in_b - expect_b) / expect_b;
    ++cells;
    rest -= both;
    in_a = in_b = 0;
  }
  return cells < 2 ? 1 : chi_square_tail(chi_square, cells - 1);
}

/// p value of every test, by name.
std::map<std::string, double> compare(const Summary& made, const nlohmann::json& reference) {
  std::map<std::string, double> p;
  const auto numbers = [](const nlohmann::json& list) { return list.get<std::vector<double>>(); };
  for (const std::string key : {"length", "operators_per_sample"}) {
    const std::vector<double> edges = numbers(reference[key]["edges"]);
    std::vector<double> counts(10);
    for (double value : made.per_sample.at(key)) ++counts[std::count_if(edges.begin(), edges.end(), [&](double edge) { return value > edge; })];
    p[key] = homogeneity(counts, numbers(reference[key]["counts"]));
  }
  const auto compare_values = [&](const std::string& key, double first, const std::vector<double>& expected) {
    std::vector<double> counts(expected.size());
    for (double value : made.per_sample.at(key)) {
      const double cell = std::clamp(value - first, 0.0, static_cast<double>(expected.size()) - 1);
      ++counts[static_cast<size_t>(cell)];
    }
    p[key] = homogeneity(counts, expected);
  };
  compare_values("label", 0, numbers(reference["labels"]));
  compare_values("root", 0, numbers(reference["roots"]));
  compare_values("root_arguments", 2, numbers(reference["root_arguments"]));
  std::vector<double> depths(20);
  for (const auto& [depth, count] : reference["depth"].items()) depths[std::stoul(depth)] = count.get<double>();
  compare_values("depth", 0, depths);

  const auto samples = static_cast<double>(made.samples);
  for (const auto& [key, moments] : reference["per_sample"].items()) {
    const auto found = made.per_sample.find(key);
    const std::vector<double> values = found == made.per_sample.end() ? std::vector<double>(static_cast<size_t>(made.samples)) : found->second;
    double mean = 0;
    for (double value : values) mean += value / samples;
    double variance = 0;
    for (double value : values) variance += (value - mean) * (value - mean) / (samples - 1);
    const double error = std::sqrt(variance / samples + moments["variance"].get<double>() / reference["samples"].get<double>());
    p[key] = std::erfc(std::abs(mean - moments["mean"].get<double>()) / error / std::sqrt(2.0));
  }
  return p;
}

class ListopsDistribution : public ::testing::Test {
 protected:
  nlohmann::json reference_ = nlohmann::json::parse(read_file(std::string(SEQBOAT_SOURCE_DIR) + "/tests/golden/listops_reference_stats.json"));
  double lowest(const Summary& made) {
    const std::map<std::string, double> p = compare(made, reference_);
    const auto least = std::min_element(p.begin(), p.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    // Bonferroni: the least of n p-values is significant below kSignificance / n.
    const double corrected = std::min(1.0, least->second * static_cast<double>(p.size()));
    std::printf("  %zu tests, lowest p %.3g (%s), corrected %.3g\n", p.size(), least->second, least->first.c_str(), corrected);
    return corrected;
  }
  static SequenceDataset make(const ListopsOptions& options, int64_t samples) { return generate_listops(options, 2026, Split::kTrain, 0, samples); }
};

TEST_F(ListopsDistribution, AgreesWithTheReference) {
  EXPECT_GT(lowest(summarize(make(ListopsOptions::lra(), 6000))), kSignificance);
}

TEST_F(ListopsDistribution, OtherSplitsAgreeToo) {
  for (Split split : {Split::kValid, Split::kTest}) {
    EXPECT_GT(lowest(summarize(generate_listops(ListopsOptions::lra(), 1, split, 0, 2000))), kSignificance);
  }
}

// What the tests must be able to see: each of these differs from the reference in one respect.
TEST_F(ListopsDistribution, WrongOptionsAreSeen) {
  EXPECT_LT(lowest(summarize(make({500, 2000, 10, 9}, 2000))), kSignificance);
  EXPECT_LT(lowest(summarize(make({500, 2000, 9, 10}, 2000))), kSignificance);
  EXPECT_LT(lowest(summarize(make({500, 2000, 11, 10}, 2000))), kSignificance);
  EXPECT_LT(lowest(summarize(make({450, 2000, 10, 10}, 2000))), kSignificance);
  EXPECT_LT(lowest(summarize(make({500, 1800, 10, 10}, 2000))), kSignificance);
}

TEST_F(ListopsDistribution, AWrongEvaluatorOrOperatorIsSeen) {
  const SequenceDataset good = make(ListopsOptions::lra(), 2000);
  SequenceDataset labels = good;  // a median that rounds up
  for (int64_t i = 0; i < labels.size(); ++i) {
    if (labels.sequence(i)[0] == kListopsMed) labels.labels[i] = std::min<int64_t>(9, labels.labels[i] + 1);
  }
  EXPECT_LT(lowest(summarize(labels)), kSignificance);
  SequenceDataset operators = good;  // one [SM in ten is a [MAX
  for (size_t t = 0, seen = 0; t < operators.tokens.size(); ++t) {
    if (operators.tokens[t] == kListopsSum && ++seen % 10 == 0) operators.tokens[t] = kListopsMax;
  }
  EXPECT_LT(lowest(summarize(operators)), kSignificance);
}

}  // namespace
}  // namespace seqboat::data
