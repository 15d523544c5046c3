#include "seqboat/data/recall.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "seqboat/base/error.h"
#include "unit/base/temp_dir.h"

namespace seqboat::data {
namespace {

using test::expect_error;

constexpr RecallForm kForms[] = {RecallForm::kNeedle, RecallForm::kMqar};

bool is_filler(int32_t token) {
  return token >= kFirstFreeToken && token < kRecallFirstKey;
}
bool is_key(int32_t token) {
  return token >= kRecallFirstKey && token < kRecallFirstValue;
}
bool is_value(int32_t token) {
  return token >= kRecallFirstValue && token < kRecallVocabSize;
}

// Reads a sequence as whoever answers would: a key that a value follows is a pair, any other key is a question.
TEST(Recall, EachQuestionIsAKeyWhoseValueStandsBefore) {
  for (const RecallForm form : kForms) {
    for (const int64_t pairs : {1, 2, 7, 64}) {
      for (const int64_t length : {3 * pairs, 3 * pairs + 1, int64_t{500}}) {
        const RecallGenerator generator({.form = form, .pairs = pairs, .length = length, .seed = 3});
        for (int64_t index = 0; index < 40; ++index) {
          const RecallExample example = generator.make(Split::kTest, index);
          ASSERT_EQ(static_cast<int64_t>(example.tokens.size()), length);
          std::map<int32_t, int32_t> value_of;
          std::vector<RecallQuestion> questions;
          size_t last_pair = 0;
          for (size_t t = 0; t < example.tokens.size(); ++t) {
            const int32_t token = example.tokens[t];
            if (is_filler(token)) continue;
            ASSERT_TRUE(is_key(token)) << token << " at " << t;
            if (t + 1 < example.tokens.size() && is_value(example.tokens[t + 1])) {
              EXPECT_TRUE(value_of.emplace(token, example.tokens[t + 1]).second) << "a key has one value";
              last_pair = ++t;
            } else {
              ASSERT_TRUE(value_of.contains(token)) << "asked for before it is there";
              questions.push_back({static_cast<int64_t>(t), value_of[token]});
            }
          }
          EXPECT_EQ(static_cast<int64_t>(value_of.size()), pairs);
          EXPECT_EQ(static_cast<int64_t>(questions.size()), pairs);
          EXPECT_EQ(questions, example.questions);
          if (form == RecallForm::kMqar) {
            EXPECT_EQ(static_cast<int64_t>(last_pair), 2 * pairs - 1);
          } else {
            EXPECT_EQ(questions.front().position, length - pairs);
          }
        }
      }
    }
  }
}

TEST(Recall, EveryPlaceKeyAndValueOccurs) {
  for (const RecallForm form : kForms) {
    const RecallGenerator generator({.form = form, .pairs = 4, .length = 20});
    std::set<int64_t> asked, first_pair;
    std::set<int32_t> keys, values, fillers;
    for (int64_t index = 0; index < 2000; ++index) {
      const RecallExample example = generator.make(Split::kTrain, index);
      for (const RecallQuestion& question : example.questions) {
        asked.insert(question.position);
        keys.insert(example.tokens[static_cast<size_t>(question.position)]);
        values.insert(question.answer);
      }
      for (size_t t = 0; t < example.tokens.size(); ++t) {
        if (is_filler(example.tokens[t])) fillers.insert(example.tokens[t]);
        if (is_key(example.tokens[t])) {
          first_pair.insert(static_cast<int64_t>(t));
          break;
        }
      }
    }
    EXPECT_EQ(asked.size(), form == RecallForm::kMqar ? 12u : 4u);
    EXPECT_EQ(first_pair.size(), form == RecallForm::kMqar ? 1u : 9u);  // four pairs end before the questions at 16
    EXPECT_EQ(keys.size(), static_cast<size_t>(kRecallKeys));
    EXPECT_EQ(values.size(), static_cast<size_t>(kRecallValues));
    EXPECT_EQ(fillers.size(), form == RecallForm::kMqar ? 0u : static_cast<size_t>(kRecallFillers));
  }
}

TEST(Recall, AnExampleFollowsFromSeedSplitAndNumber) {
  const RecallOptions options{.pairs = 4, .length = 60};
  const RecallGenerator one(options), again(options);
  EXPECT_EQ(one.make(Split::kTrain, 7).tokens, again.make(Split::kTrain, 7).tokens);
  std::set<std::vector<int32_t>> all;
  for (const Split split : {Split::kTrain, Split::kValid, Split::kTest}) {
    for (int64_t index = 0; index < 100; ++index) all.insert(one.make(split, index).tokens);
  }
  RecallOptions other = options;
  other.seed = 1;
  for (int64_t index = 0; index < 100; ++index) all.insert(RecallGenerator(other).make(Split::kTrain, index).tokens);
  EXPECT_EQ(all.size(), 400u);
}

TEST(Recall, FillerOfTrainingSequencesIsEvenOverOctaves) {
  const RecallGenerator generator({.pairs = 4, .length = 12 + 62, .vary_length = true});
  std::map<int, int> octaves;  // of 1 + filler: 1, 2-3, 4-7, ..., 32-63
  constexpr int64_t kCount = 6000;
  for (int64_t index = 0; index < kCount; ++index) {
    const int64_t length = generator.length(Split::kTrain, index);
    ASSERT_GE(length, 12);
    ASSERT_LE(length, 74);
    EXPECT_EQ(static_cast<int64_t>(generator.make(Split::kTrain, index).tokens.size()), length);
    ++octaves[static_cast<int>(std::log2(static_cast<double>(length - 12 + 1)))];
    EXPECT_EQ(generator.length(Split::kTest, index), 74);
  }
  ASSERT_EQ(octaves.size(), 6u);
  for (const auto& [octave, count] : octaves) EXPECT_NEAR(count, kCount / 6.0, 5 * std::sqrt(kCount / 6.0)) << octave;
}

TEST(Recall, OptionsThatMakeNoSequence) {
  expect_error(ErrorKind::kConfig, {"pairs", "1 to 64", "65"}, [] { RecallGenerator({.pairs = 65}); });
  expect_error(ErrorKind::kConfig, {"48 tokens", "47"}, [] { RecallGenerator({.pairs = 16, .length = 47}); });
  expect_error(ErrorKind::kConfig, {"needle or mqar", "mqa"}, [] { parse_recall_form("mqa"); });
}

TEST(Recall, ClassesOfTokens) {
  EXPECT_EQ(recall_class(kFirstFreeToken), 0);
  EXPECT_EQ(recall_class(kRecallFirstKey - 1), 0);
  EXPECT_EQ(recall_class(kRecallFirstKey), 1);
  EXPECT_EQ(recall_class(kRecallFirstValue - 1), 1);
  EXPECT_EQ(recall_class(kRecallFirstValue), 2);
  EXPECT_EQ(recall_class_labels().size(), 3u);
}

}  // namespace
}  // namespace seqboat::data
