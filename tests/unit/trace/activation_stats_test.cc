#include "seqboat/trace/activation_stats.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "seqboat/base/file_io.h"
#include "seqboat/base/safetensors.h"

namespace seqboat::trace {
namespace {

/// The definition, pair by pair.
AttentionSpan span_by_definition(const std::vector<int64_t>& times, int64_t window, bool causal) {
  AttentionSpan out;
  const int64_t count = static_cast<int64_t>(times.size());
  for (int64_t i = 0; i < count; ++i) {
    double sum = 0, keys = 0;
    for (int64_t j = 0; j < (causal ? i + 1 : count); ++j) {
      if (window > 0 && std::abs(i - j) > window) continue;
      const auto distance = static_cast<double>(std::abs(times[i] - times[j]));
      sum += distance;
      keys += distance > 0;
    }
    const double mean = sum / (keys + 1e-8);
    out.total += mean;
    out.queries += mean != 0;
  }
  return out;
}

std::vector<int64_t> times_of(const std::vector<uint8_t>& active) {
  std::vector<int64_t> times;
  for (size_t t = 0; t < active.size(); ++t) {
    if (active[t]) times.push_back(static_cast<int64_t>(t));
  }
  return times;
}

TEST(AttentionSpan, IsTheDefinition) {
  EXPECT_TRUE(rc::check([](std::vector<bool> flags, bool causal) {
    const std::vector<uint8_t> active(flags.begin(), flags.end());
    const int64_t window = *rc::gen::inRange<int64_t>(0, 12);
    const AttentionSpan got = attention_span(active, window, causal), want = span_by_definition(times_of(active), window, causal);
    RC_ASSERT(got.queries == want.queries);
    RC_ASSERT(std::abs(got.total - want.total) <= 1e-12 * (1 + want.total));
  }));
}

TEST(AttentionSpan, AgreesWithTheOfficialValues) {
  const std::string path = std::string(SEQBOAT_SOURCE_DIR) + "/tests/golden/official/op_avg_attn_span";
  const auto json = nlohmann::json::parse(read_file(path + ".json"));
  const SafetensorsFile file = SafetensorsFile::open(path + ".safetensors");
  const size_t cases = json["wins"].size();
  ASSERT_GE(cases, 4u);
  for (size_t c = 0; c < cases; ++c) {
    SCOPED_TRACE("case " + std::to_string(c));
    const TensorView& ticks = file.at(std::to_string(c) + ".ticks");  // (B, 1, C): times counted from 1, then zeros
    ASSERT_TRUE(ticks.is_aligned());
    const auto* values = static_cast<const int64_t*>(ticks.data);
    AttentionSpan sum;
    for (int64_t b = 0; b < ticks.shape[0]; ++b) {
      std::vector<int64_t> times;
      for (int64_t i = 0; i < ticks.shape[2]; ++i) {
        if (values[b * ticks.shape[2] + i] > 0) times.push_back(values[b * ticks.shape[2] + i]);
      }
      sum += attention_span_of_times(times, json["wins"][c], json["causal"][c]);
    }
    float printed;
    std::memcpy(&printed, file.at(std::to_string(c) + ".printed").data, sizeof printed);
    EXPECT_NEAR(sum.mean(), printed, 2e-6 * printed);  // their sums are float32
  }
}

TEST(ActivationStats, CollectsOverBatchesAndSequences) {
  ActivationStats stats(2, 1, true);
  EXPECT_EQ(stats.activation_rate(), (std::vector<double>{0, 0}));
  const std::vector<int64_t> offsets{0, 4, 6};
  const std::vector<uint8_t> active{1, 0, 0, 1, 1, 1};
  stats.add(0, active.data(), offsets);
  stats.add(1, nullptr, offsets);
  EXPECT_EQ(stats.activation_rate(), (std::vector<double>{4.0 / 6, 1}));
  // Layer 0: distances 3 in the first sequence, 1 in the second; its first tokens see only themselves. The sequences do not see each other.
  EXPECT_NEAR(stats.attention_span()[0], 2.0, 1e-5);
  EXPECT_NEAR(stats.attention_span()[1], 1.0, 1e-5);
  EXPECT_DOUBLE_EQ(stats.mean_activation_rate(), 10.0 / 12);
  const std::vector<uint8_t> none(6, 0);
  stats.add(0, none.data(), offsets, false);
  EXPECT_DOUBLE_EQ(stats.activation_rate()[0], 4.0 / 12);
  EXPECT_NEAR(stats.attention_span()[0], 2.0, 1e-5);
  stats.reset();
  EXPECT_EQ(stats.attention_span(), (std::vector<double>{0, 0}));
}

}  // namespace
}  // namespace seqboat::trace
