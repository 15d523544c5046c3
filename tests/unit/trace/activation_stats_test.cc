#include "seqboat/trace/activation_stats.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "seqboat/base/error.h"
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

StatsOptions two_layers(int64_t window, bool causal) {
  StatsOptions options{.layers = 2};
  options.modules[0].reach = {.window = window, .causal = causal};
  return options;
}

TEST(ActivationStats, CollectsOverBatchesAndSequences) {
  ActivationStats stats(two_layers(1, true));
  EXPECT_EQ(stats.activation_rate(), (std::vector<double>{0, 0}));
  const std::vector<int64_t> offsets{0, 4, 6};
  const std::vector<uint8_t> active{1, 0, 0, 1, 1, 1};
  stats.add(0, 0, {.active = active.data(), .cu_seqlens = offsets});
  stats.add(1, 0, {.cu_seqlens = offsets});
  EXPECT_EQ(stats.activation_rate(), (std::vector<double>{4.0 / 6, 1}));
  // Layer 0: distances 3 in the first sequence, 1 in the second; its first tokens see only themselves. The sequences do not see each other.
  EXPECT_NEAR(stats.attention_span()[0], 2.0, 1e-5);
  EXPECT_NEAR(stats.attention_span()[1], 1.0, 1e-5);
  EXPECT_DOUBLE_EQ(stats.mean_activation_rate(), 10.0 / 12);
  stats.reset();
  EXPECT_EQ(stats.attention_span(), (std::vector<double>{0, 0}));

  StatsOptions options = two_layers(1, true);
  options.spans = false;
  ActivationStats rates(options);
  const std::vector<uint8_t> none(6, 0);
  rates.add(0, 0, {.active = active.data(), .cu_seqlens = offsets});
  rates.add(0, 0, {.active = none.data(), .cu_seqlens = offsets});
  EXPECT_DOUBLE_EQ(rates.activation_rate()[0], 4.0 / 12);
  EXPECT_EQ(rates.attention_span()[0], 0);
}

TEST(ActivationStats, PositionBinsAndLabels) {
  EXPECT_EQ(position_bin(0), 0);
  EXPECT_EQ(position_bin(1), 1);
  EXPECT_EQ(position_bin(2), 2);
  EXPECT_EQ(position_bin(3), 2);
  EXPECT_EQ(position_bin(4), 3);
  EXPECT_LT(position_bin(INT64_MAX), kPositionBins);
  EXPECT_EQ(position_bin_label(0), "0");
  EXPECT_EQ(position_bin_label(1), "1");
  EXPECT_EQ(position_bin_label(3), "4-7");
  EXPECT_EQ(tenth_label(9), "90-100 %");
  for (int bin = 1; bin < kPositionBins - 1; ++bin) {
    EXPECT_EQ(position_bin(int64_t{1} << (bin - 1)), bin);
    EXPECT_EQ(position_bin((int64_t{1} << bin) - 1), bin);
  }
}

// Two modules: one that attends within chunks of three, one that does not attend. Everything by hand.
TEST(ActivationStats, DetailsOfAPatternMadeByHand) {
  StatsOptions options{.layers = 1};
  options.modules = {{.name = "attention", .attends = true, .reach = {.window = 0, .chunk = 3, .causal = false}},
                     {.name = "feed-forward", .attends = false, .reach = {}}};
  options.groupings = {{"class", {"a", "b", "never"}}};
  options.details = true;
  ActivationStats stats(options);
  const std::vector<int64_t> offsets{0, 6, 10};
  const std::vector<uint8_t> active{1, 0, 1, 1, 0, 1, /**/ 0, 0, 0, 1}, classes{0, 1, 0, 1, 0, 1, /**/ 0, 0, 0, 1};
  const std::vector<double> distances{1, 2, NAN, 4, 0};
  stats.add(0, 0, {.active = active.data(), .cu_seqlens = offsets, .groups = {classes}, .distances = distances});
  stats.add(0, 1, {.cu_seqlens = offsets, .groups = {classes}});

  const ModuleActivation& at = stats.at(0, 0);
  EXPECT_EQ(at.all.tokens, 10);
  EXPECT_EQ(at.all.active, 5);
  // Times 0 2 3 5 | 3 in blocks of three: 0 and 2 see each other, so do 3 and 5; the other sequence's token only itself.
  EXPECT_EQ(at.span.queries, 4);
  EXPECT_NEAR(at.span.mean(), 2.0, 1e-5);
  EXPECT_EQ(at.weighted_span.queries, 4);
  EXPECT_DOUBLE_EQ(at.weighted_span.mean(), 7.0 / 4);
  EXPECT_EQ(at.gaps.count(), 3);  // 2, 1, 2: none between sequences
  EXPECT_DOUBLE_EQ(at.gaps.mean(), 5.0 / 3);
  EXPECT_DOUBLE_EQ(at.gaps.median(), 2);
  EXPECT_EQ(at.gaps.max(), 2);
  EXPECT_EQ(at.by_group[0][0].tokens, 6);
  EXPECT_EQ(at.by_group[0][0].active, 2);
  EXPECT_EQ(at.by_group[0][1].tokens, 4);
  EXPECT_EQ(at.by_group[0][1].active, 3);
  EXPECT_EQ(at.by_group[0][2].tokens, 0);
  EXPECT_EQ(at.by_position[0].tokens, 2);  // time 0
  EXPECT_EQ(at.by_position[0].active, 1);
  EXPECT_EQ(at.by_position[2].tokens, 4);  // times 2 and 3
  EXPECT_EQ(at.by_position[2].active, 3);
  EXPECT_EQ(at.by_position[3].active, 1);  // time 5
  EXPECT_EQ(at.by_tenth[0].tokens, 2);
  EXPECT_EQ(at.by_tenth[3].tokens, 1);  // time 2 of 6
  EXPECT_EQ(at.by_tenth[7].active, 1);  // time 3 of 4
  EXPECT_EQ(at.by_tenth[8].active, 1);  // time 5 of 6
  // 4 of 6 and 1 of 4.
  const double a = 4.0 / 6, b = 1.0 / 4;
  EXPECT_EQ(at.sequences.count(), 2);
  EXPECT_DOUBLE_EQ(at.sequences.mean(), (a + b) / 2);
  EXPECT_NEAR(at.sequences.deviation(), std::abs(a - b) / std::sqrt(2.0), 1e-15);

  EXPECT_EQ(stats.at(0, 1).all.active, 10);
  EXPECT_EQ(stats.at(0, 1).span.queries, 0);
  EXPECT_DOUBLE_EQ(stats.activation_rate()[0], 15.0 / 20);
  EXPECT_NEAR(stats.attention_span()[0], 2.0, 1e-5);
  EXPECT_DOUBLE_EQ(stats.weighted_span()[0], 7.0 / 4);
}

TEST(ActivationStats, MedianOfAnEvenNumberIsTheMiddleOfTwo) {
  Histogram gaps;
  EXPECT_EQ(gaps.median(), 0);
  for (const int64_t gap : {9, 1, 4, 3}) gaps.add(gap);
  EXPECT_DOUBLE_EQ(gaps.median(), 3.5);
  EXPECT_DOUBLE_EQ(gaps.mean(), 17.0 / 4);
  EXPECT_EQ(gaps.max(), 9);
}

// Whatever tokens are sorted by, the classes are all of them; and a batch is the sum of its sequences.
TEST(ActivationStats, ClassesAddUpAndBatchesDoNotMatter) {
  EXPECT_TRUE(rc::check([](const std::vector<std::vector<std::pair<bool, uint8_t>>>& sequences, bool causal) {
    StatsOptions options{.layers = 1};
    options.modules[0].reach = {.window = *rc::gen::inRange<int64_t>(0, 5), .chunk = *rc::gen::inRange<int64_t>(0, 5), .causal = causal};
    options.groupings = {{"class", std::vector<std::string>(256, "x")}, {"half", {"low", "high"}}};
    options.details = true;
    ActivationStats whole(options), one_by_one(options);
    std::vector<uint8_t> active, classes, halves;
    std::vector<int64_t> offsets{0};
    for (const auto& sequence : sequences) {
      const size_t begin = active.size();
      for (const auto& [is_active, label] : sequence) {
        active.push_back(is_active ? 1 : 0);
        classes.push_back(label);
        halves.push_back(label / 128);
      }
      offsets.push_back(static_cast<int64_t>(active.size()));
      const std::vector<int64_t> alone{0, static_cast<int64_t>(sequence.size())};
      one_by_one.add(
          0, 0,
          {.active = active.data() + begin, .cu_seqlens = alone, .groups = {std::span(classes).subspan(begin), std::span(halves).subspan(begin)}});
    }
    whole.add(0, 0, {.active = active.data(), .cu_seqlens = offsets, .groups = {classes, halves}});
    const ModuleActivation &at = whole.at(0, 0), &other = one_by_one.at(0, 0);
    const auto sum = [](const std::vector<Share>& shares) {
      Share total;
      for (const Share& share : shares) {
        total.tokens += share.tokens;
        total.active += share.active;
      }
      return std::pair(total.tokens, total.active);
    };
    const auto all = std::pair(at.all.tokens, at.all.active);
    RC_ASSERT(all.first == static_cast<int64_t>(active.size()));
    RC_ASSERT(sum(at.by_group[0]) == all);
    RC_ASSERT(sum(at.by_group[1]) == all);
    RC_ASSERT(sum(at.by_position) == all);
    RC_ASSERT(sum(at.by_tenth) == all);
    RC_ASSERT(all == std::pair(other.all.tokens, other.all.active));
    RC_ASSERT(at.span.total == other.span.total);
    RC_ASSERT(at.span.queries == other.span.queries);
    RC_ASSERT(at.sequences.deviation() == other.sequences.deviation());
    RC_ASSERT(at.gaps.mean() == other.gaps.mean());
  }));
}

// A stream in pieces is one sequence: spans, gaps and positions, whatever the pieces.
TEST(ActivationStats, PiecesOfAStreamAreOneSequence) {
  EXPECT_TRUE(rc::check([](const std::vector<bool>& flags) {
    StatsOptions options{.layers = 1};
    options.modules[0].reach = {.window = *rc::gen::inRange<int64_t>(0, 5), .chunk = *rc::gen::inRange<int64_t>(0, 5), .causal = true};
    options.details = true;
    ActivationStats whole(options), pieces(options);
    const std::vector<uint8_t> active(flags.begin(), flags.end());
    const std::vector<int64_t> offsets{0, static_cast<int64_t>(active.size())};
    whole.add(0, 0, {.active = active.data(), .cu_seqlens = offsets});
    for (size_t begin = 0; begin < active.size();) {
      const size_t end = std::min(active.size(), begin + *rc::gen::inRange<size_t>(1, 9));
      const std::vector<int64_t> piece{0, static_cast<int64_t>(end - begin)};
      pieces.add_piece(0, 0, {.active = active.data() + begin, .cu_seqlens = piece});
      begin = end;
    }
    const ModuleActivation &at = whole.at(0, 0), &other = pieces.at(0, 0);
    RC_ASSERT(at.all.active == other.all.active);
    RC_ASSERT(at.span.queries == other.span.queries);
    RC_ASSERT(std::abs(at.span.total - other.span.total) <= 1e-12 * (1 + at.span.total));
    RC_ASSERT(at.gaps.mean() == other.gaps.mean());
    RC_ASSERT(at.gaps.max() == other.gaps.max());
    for (int bin = 0; bin < kPositionBins; ++bin) RC_ASSERT(at.by_position[bin].active == other.by_position[bin].active);
  }));
}

TEST(ActivationStats, WhatDoesNotFitIsNamed) {
  StatsOptions options{.layers = 1};
  options.groupings = {{"class", {"a"}}};
  options.details = true;
  ActivationStats stats(options);
  const std::vector<int64_t> offsets{0, 2};
  const std::vector<uint8_t> labels{0, 1};
  EXPECT_THROW(stats.add(1, 0, {.cu_seqlens = offsets}), Error);
  EXPECT_THROW(stats.add(0, 1, {.cu_seqlens = offsets}), Error);
  EXPECT_THROW(stats.add(0, 0, {.cu_seqlens = offsets, .groups = {labels}}), Error);          // no label 1
  EXPECT_THROW(stats.add(0, 0, {.cu_seqlens = offsets, .groups = {labels, labels}}), Error);  // no second grouping
  EXPECT_THROW(stats.add_piece(0, 0, {.cu_seqlens = offsets}), Error);                        // not causal
}

}  // namespace
}  // namespace seqboat::trace
