#include "seqboat/data/listops_stats.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "seqboat/base/error.h"
#include "seqboat/data/shortcut_ladder.h"
#include "unit/base/temp_dir.h"

namespace seqboat::data {
namespace {

using test::expect_error;

SequenceDataset dataset_of(const std::vector<std::string>& texts) {
  SequenceDataset dataset;
  for (const std::string& text : texts) {
    const std::vector<int32_t> tokens = tokenize_listops(text);
    dataset.append(tokens, evaluate_listops(tokens));
  }
  return dataset;
}

SequenceDataset malformed() {
  SequenceDataset dataset = dataset_of({"[MAX 1 2 ]"});
  dataset.append(tokenize_listops("[MAX 1 2"), 2);
  return dataset;
}

TEST(LengthStats, CountsByHand) {
  SequenceDataset dataset;
  for (int64_t length = 1; length <= 100; ++length) dataset.append(std::vector<int32_t>(static_cast<size_t>(101 - length)), 0);
  const LengthStats stats = length_stats(dataset);
  EXPECT_EQ(stats.sequences, 100);
  EXPECT_EQ(stats.tokens, 5050);
  EXPECT_EQ(stats.mean, 50.5);
  EXPECT_EQ(stats.min, 1);
  EXPECT_EQ(stats.max, 100);
  EXPECT_EQ(stats.percentiles, (std::map<int, int64_t>{{5, 5}, {25, 25}, {50, 50}, {75, 75}, {95, 95}}));
  EXPECT_EQ(stats.to_json()["p95"], 95);
  EXPECT_EQ(length_stats(SequenceDataset()).to_json()["sequences"], 0);
}

TEST(ListopsStats, CountsByHand) {
  const ListopsStats stats = listops_stats(dataset_of({"[MAX 2 9 [MIN 4 [SM 7 5 ] ] 0 ]", "[MED 1 1 ]", "3"}));
  EXPECT_EQ(stats.length.tokens, 17);
  EXPECT_EQ(stats.depth, (std::map<int64_t, int64_t>{{1, 1}, {2, 1}, {4, 1}}));
  EXPECT_EQ(stats.labels, (std::array<int64_t, 10>{0, 1, 0, 1, 0, 0, 0, 0, 0, 1}));
  EXPECT_EQ(stats.operators, (std::array<int64_t, 4>{1, 1, 1, 1}));
  EXPECT_EQ(stats.roots, (std::array<int64_t, 5>{0, 1, 1, 0, 1}));
  EXPECT_EQ(stats.arguments, (std::map<int64_t, int64_t>{{2, 3}, {4, 1}}));
  EXPECT_EQ(stats.digits, (std::array<int64_t, 10>{1, 2, 1, 1, 1, 1, 0, 1, 0, 1}));
  const nlohmann::ordered_json json = stats.to_json();
  EXPECT_EQ(json["roots"]["MAX"], 1);
  EXPECT_EQ(json["roots"]["digit"], 1);
  EXPECT_EQ(json["depth"]["4"], 1);
  EXPECT_EQ(json["length"]["max"], 12);
  expect_error(ErrorKind::kData, {"sample 1", "1 more ]"}, [] { listops_stats(malformed()); });
}

TEST(ListopsStats, LeadingClsChangesOnlyTheLength) {
  SequenceDataset dataset = generate_listops(ListopsOptions::small(), 1, Split::kTrain, 0, 20);
  const ListopsStats plain = listops_stats(dataset);
  dataset.prepend(kListopsCls);
  const ListopsStats with_cls = listops_stats(dataset);
  EXPECT_EQ(with_cls.depth, plain.depth);
  EXPECT_EQ(with_cls.roots, plain.roots);
  EXPECT_EQ(with_cls.length.tokens, plain.length.tokens + 20);
}

// Commonest values of sub-expressions here: MIN 1 (1, 1, 2), MAX 8, MED 3, SM none -> overall commonest.
class Ladder : public ::testing::Test {
 protected:
  SequenceDataset train_ = dataset_of({"[MAX [MIN 1 5 ] [MIN 1 6 ] 0 ]",         // 1
                                       "[MAX [MIN 2 3 ] [MAX 8 0 ] ]",           // 8
                                       "[MAX [MED 3 3 ] [MAX 8 [MIN 1 4 ] ] ]",  // 8
                                       "[MIN 0 7 ]",                             // 0
                                       "4"});
  ListopsShortcuts shortcuts_ = ListopsShortcuts::fit(train_, "train");
  int64_t predict(Shortcut shortcut, const std::string& text) { return shortcuts_.predict(shortcut, tokenize_listops(text)); }
};

TEST_F(Ladder, ConstantsAreTheCommonest) {
  EXPECT_EQ(shortcuts_.constant(), 8);
  EXPECT_EQ(shortcuts_.root_constant(1), 8);  // MAX
  EXPECT_EQ(shortcuts_.root_constant(0), 0);  // MIN
  EXPECT_EQ(shortcuts_.root_constant(3), 8);  // SM never was a root: the overall constant
  EXPECT_EQ(shortcuts_.root_constant(4), 4);  // a bare digit
  EXPECT_EQ(shortcuts_.commonest_value(0), 1);
  EXPECT_EQ(shortcuts_.commonest_value(1), 8);
  EXPECT_EQ(shortcuts_.commonest_value(2), 3);
  EXPECT_EQ(shortcuts_.commonest_value(3), 1);  // never seen: the commonest of all sub-expressions
}

TEST_F(Ladder, EachRungEvaluatesOneLevelMore) {
  const std::string text = "[SM 1 [MAX 2 [MIN 7 [MAX 5 [MED 6 6 ] ] ] ] ]";
  EXPECT_EQ(predict(Shortcut::kConstant, text), 8);
  EXPECT_EQ(predict(Shortcut::kRootOperator, text), 8);
  EXPECT_EQ(predict(Shortcut::kOneLevel, text), 9);     // 1 + MAX:8
  EXPECT_EQ(predict(Shortcut::kTwoLevels, text), 3);    // 1 + max(2, MIN:1)
  EXPECT_EQ(predict(Shortcut::kThreeLevels, text), 8);  // 1 + max(2, min(7, MAX:8))
  EXPECT_EQ(evaluate_listops(tokenize_listops(text)), 7);
  EXPECT_EQ(predict(Shortcut::kRootOperator, "5"), 4);
  EXPECT_EQ(predict(Shortcut::kOneLevel, "5"), 5);
  EXPECT_EQ(predict(Shortcut::kOneLevel, "[MAX 1 2 ]"), 2);
}

TEST_F(Ladder, AccuraciesAndTheHardSamples) {
  const SequenceDataset test = dataset_of({"[MAX 1 [MIN 1 1 ] ]", "[MAX 1 [MIN 5 6 ] ]", "[MIN 0 0 ]", "[SM 8 [MED 9 9 ] ]"});  // 1 5 0 7
  const ShortcutLadder ladder = evaluate_shortcuts(shortcuts_, test);
  EXPECT_EQ(ladder.samples, 4);
  EXPECT_EQ(ladder.correct[0], 0);
  EXPECT_EQ(ladder.correct[1], 1);  // MIN -> 0
  EXPECT_EQ(ladder.correct[2], 2);
  EXPECT_EQ(ladder.correct[3], 4);
  EXPECT_EQ(ladder.one_level_wrong, (std::vector<uint8_t>{0, 1, 0, 1}));
  EXPECT_EQ(ladder.hard_samples, 2);
  EXPECT_EQ(ladder.accuracy(Shortcut::kOneLevel), 0.5);
  EXPECT_EQ(ladder.to_json()["fitted_on"], "train");
  EXPECT_EQ(ladder.to_json()["one_level"], 0.5);
  const HardAccuracy hard = accuracy_on_hard(ladder, std::vector<int64_t>{0, 5, 0, 0}, test.labels);
  EXPECT_EQ(hard.samples, 2);
  EXPECT_EQ(hard.correct, 1);
  EXPECT_EQ(hard.accuracy(), 0.5);
  expect_error(ErrorKind::kData, {"expected 4", "found 1"}, [&] { accuracy_on_hard(ladder, std::vector<int64_t>{0}, test.labels); });
}

TEST_F(Ladder, BadData) {
  expect_error(ErrorKind::kData, {"found none"}, [] { ListopsShortcuts::fit({}, ""); });
  expect_error(ErrorKind::kData, {"sample 1", "1 more ]"}, [] { ListopsShortcuts::fit(malformed(), ""); });
  expect_error(ErrorKind::kData, {"1 more ]"}, [&] { evaluate_shortcuts(shortcuts_, malformed()); });
}

}  // namespace
}  // namespace seqboat::data
