#include "seqboat/data/listops.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <thread>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "unit/base/temp_dir.h"

namespace seqboat::data {
namespace {

using test::expect_error;
using test::TempDir;

int64_t value_of(const std::string& text) {
  return evaluate_listops(tokenize_listops(text));
}

TEST(ListopsSteps, ArePrefixesAndWholeValues) {
  const auto values_of = [](std::string_view text) {
    std::vector<int64_t> out;
    for (const ListopsStep& step : listops_steps(tokenize_listops(text))) {
      EXPECT_EQ(step.position, static_cast<int64_t>(out.size()));
      out.push_back(step.value);
    }
    return out;
  };
  EXPECT_EQ(values_of("[MAX 2 [SM 9 8 3 ] 1 ]"), (std::vector<int64_t>{2, 2, 0, 9, 7, 0, 0, 2, 2}));
  EXPECT_EQ(values_of("[MIN 7 4 [MED 1 5 3 9 ] [SM 6 ] 8 ]"), (std::vector<int64_t>{4, 7, 4, 4, 1, 3, 3, 4, 4, 6, 6, 6, 4, 4}));
  EXPECT_EQ(values_of("7"), (std::vector<int64_t>{7}));
  std::vector<int32_t> with_cls = tokenize_listops("[MAX 2 3 ]");
  with_cls.insert(with_cls.begin(), kListopsCls);
  EXPECT_EQ(listops_steps(with_cls), (std::vector<ListopsStep>{{1, 3}, {2, 2}, {3, 3}, {4, 3}}));
  expect_error(ErrorKind::kData, {"token 2", "1 more ]"}, [] { listops_steps(tokenize_listops("[MAX 1")); });
  // The first and the last step of any expression are its label.
  for (int64_t i = 0; i < 50; ++i) {
    std::vector<int32_t> tokens;
    const int64_t label = generate_listops(ListopsOptions::small(), 3, Split::kTrain, i, &tokens);
    const auto steps = listops_steps(tokens);
    EXPECT_EQ(steps.front().value, label);
    EXPECT_EQ(steps.back().value, label);
    EXPECT_EQ(steps.size(), tokens.size());
  }
}

TEST(ListopsVocabulary, IdsAreWhereModelsExpectThem) {
  const auto& words = listops_vocabulary();
  EXPECT_EQ(words.size(), 20u);
  EXPECT_EQ(words[kBosToken], "<s>");
  EXPECT_EQ(words[kPadToken], "<pad>");
  EXPECT_EQ(words[kEosToken], "</s>");
  EXPECT_EQ(words[kUnkToken], "<unk>");
  EXPECT_EQ(words[kListopsMin], "[MIN");
  EXPECT_EQ(words[kListopsMax], "[MAX");
  EXPECT_EQ(words[kListopsMed], "[MED");
  EXPECT_EQ(words[kListopsSum], "[SM");
  EXPECT_EQ(words[kListopsClose], "]");
  for (int digit = 0; digit < 10; ++digit) EXPECT_EQ(words[kListopsDigit0 + digit], std::to_string(digit));
  EXPECT_EQ(words[kListopsCls], "<CLS>");
  EXPECT_EQ(kListopsCls, kListopsVocabSize - 1);
  EXPECT_EQ(std::set<std::string_view>(words.begin(), words.end()).size(), 20u);
}

TEST(ListopsText, BothFormsGiveTheSameTokens) {
  const std::vector<int32_t> tokens = tokenize_listops("[MAX 2 9 [MIN 4 7 ] 0 ]");
  EXPECT_EQ(tokens, (std::vector<int32_t>{5, 11, 18, 4, 13, 16, 8, 9, 8}));
  EXPECT_EQ(tokenize_listops("( ( ( ( ( [MAX 2 ) 9 ) ( ( ( [MIN 4 ) 7 ) ] ) ) 0 ) ] )"), tokens);
  EXPECT_EQ(tokenize_listops("  [MAX   2 9 [MIN 4 7 ] 0 ]  "), tokens);
  EXPECT_EQ(listops_text(tokens), "[MAX 2 9 [MIN 4 7 ] 0 ]");
  EXPECT_EQ(listops_text(tokens, true), "( ( ( ( ( [MAX 2 ) 9 ) ( ( ( [MIN 4 ) 7 ) ] ) ) 0 ) ] )");
  EXPECT_EQ(listops_text(tokenize_listops("[MAX 2 9 ]"), true), "( ( ( [MAX 2 ) 9 ) ] )");
  EXPECT_EQ(listops_text(tokenize_listops("7"), true), "7");
  EXPECT_TRUE(tokenize_listops("").empty());
  std::vector<int32_t> with_cls = tokens;
  with_cls.insert(with_cls.begin(), kListopsCls);
  EXPECT_EQ(listops_text(with_cls), listops_text(tokens));
  EXPECT_EQ(evaluate_listops(with_cls), 9);
}

TEST(ListopsText, UnknownWordsAreNamed) {
  for (const std::string word : {"[FIRST", "[MINX", "[min", "10", "-1", "]]", "<CLS>", "<unk>", "[", "a", "\x80", "(3"}) {
    SCOPED_TRACE(word);
    const std::string shown = word == "\x80" ? "\\x80" : word;
    expect_error(ErrorKind::kData, {"column 8", "expected one of", "found '" + shown + "'"}, [&] { tokenize_listops("[MAX 1 " + word + " ]"); });
  }
  expect_error(ErrorKind::kData, {"token 99"}, [] { listops_text(std::vector<int32_t>{99}); });
}

TEST(ListopsEvaluator, EveryOperator) {
  EXPECT_EQ(value_of("7"), 7);
  EXPECT_EQ(value_of("[MIN 3 1 2 ]"), 1);
  EXPECT_EQ(value_of("[MAX 3 1 2 ]"), 3);
  EXPECT_EQ(value_of("[MED 9 1 4 ]"), 4);
  EXPECT_EQ(value_of("[MED 1 2 ]"), 1);      // 1.5
  EXPECT_EQ(value_of("[MED 9 8 ]"), 8);      // 8.5
  EXPECT_EQ(value_of("[MED 1 9 3 5 ]"), 4);  // of 3 and 5
  EXPECT_EQ(value_of("[MED 5 5 5 0 0 9 ]"), 5);
  EXPECT_EQ(value_of("[SM 9 9 9 ]"), 7);
  EXPECT_EQ(value_of("[SM 5 5 ]"), 0);
  EXPECT_EQ(value_of("[MAX 4 ]"), 4);
  EXPECT_EQ(value_of("[MAX 2 9 [MIN 4 7 ] 0 ]"), 9);
  EXPECT_EQ(value_of("[SM [MED 9 8 [SM 5 5 ] ] [MIN [MAX 1 2 ] 3 ] 4 ]"), 4);
}

TEST(ListopsEvaluator, MalformedExpressionsAreNamed) {
  const auto refuse = [](const std::string& text, const std::vector<std::string>& pieces) {
    SCOPED_TRACE(text);
    expect_error(ErrorKind::kData, pieces, [&] { value_of(text); });
  };
  refuse("", {"token 0", "expected an expression", "the end"});
  refuse("[MAX ]", {"token 1", "an operator or a digit", "found ]"});
  refuse("]", {"token 0", "found ]"});
  refuse("[MAX 1 2", {"token 3", "1 more ]", "the end"});
  refuse("[MAX [MIN [SM 1 ]", {"2 more ]"});
  refuse("[MAX 1 2 ] ]", {"token 4", "the end of the expression", "found ]"});
  refuse("1 2", {"token 1", "the end of the expression", "found 2"});
  refuse("[MAX 1 ] [MAX 1 ]", {"token 3", "found [MAX"});
  expect_error(ErrorKind::kData, {"found <pad>"}, [] {
    evaluate_listops(std::vector<int32_t>{kListopsMax, kListopsDigit0, kPadToken, kListopsClose});
  });
  expect_error(ErrorKind::kData, {"found token -7"}, [] { evaluate_listops(std::vector<int32_t>{kListopsMax, -7}); });
  expect_error(ErrorKind::kData, {"<CLS>"}, [] { evaluate_listops(std::vector<int32_t>{kListopsCls, kListopsCls}); });
}

TEST(ListopsEvaluator, NestingCostsNoCalls) {
  const size_t deep = 1'000'000;
  std::vector<int32_t> tokens(deep, kListopsMax);
  expect_error(ErrorKind::kData, {"1000000 more ]"}, [&] { evaluate_listops(tokens); });
  tokens.push_back(kListopsDigit0 + 6);
  tokens.insert(tokens.end(), deep, kListopsClose);
  EXPECT_EQ(evaluate_listops(tokens), 6);
  tokens.insert(tokens.begin(), kListopsMax);
  tokens.push_back(kListopsClose);
  expect_error(ErrorKind::kData, {"token 1000000", "at most 1000000 operators within each other"}, [&] { evaluate_listops(tokens); });
}

TEST(ListopsOptions, ImpossibleOnesAreNamed) {
  const auto refuse = [](const ListopsOptions& options, const std::vector<std::string>& pieces) {
    expect_error(ErrorKind::kConfig, pieces, [&] { options.validate(); });
    std::vector<int32_t> tokens;
    expect_error(ErrorKind::kConfig, pieces, [&] { generate_listops(options, 0, Split::kTrain, 0, &tokens); });
  };
  refuse({-1, 10, 3, 3}, {"min_length"});
  refuse({10, 11, 3, 3}, {"max_length", "from 12", "found 11"});
  refuse({10, 100, 0, 3}, {"max_depth", "found 0"});
  refuse({10, 100, 3, 1}, {"max_args", "found 1"});
  refuse({500, 2000, 3, 3}, {"min_length", "at most 17 long", "found 500"});  // 2 + 3 (2 + 3 * 1)
  refuse({1000, 1002, 1, 10}, {"min_length", "at most 1 long"});
  EXPECT_NO_THROW(ListopsOptions::lra().validate());
  EXPECT_NO_THROW(ListopsOptions::small().validate());
  // Possible but hopeless, and given up: only the largest tree of depth 4, 2 + 10 (2 + 10 (2 + 10)) tokens long, would do.
  std::vector<int32_t> tokens;
  expect_error(ErrorKind::kConfig, {"wider range"}, [&] { generate_listops({1221, 1223, 4, 10}, 0, Split::kTrain, 0, &tokens); });
}

TEST(ListopsGenerator, SamplesKeepTheirOptions) {
  for (const ListopsOptions& options : {ListopsOptions::lra(), ListopsOptions::small(), ListopsOptions{0, 20, 3, 4}}) {
    const SequenceDataset dataset = generate_listops(options, 7, Split::kTrain, 0, 300);
    ASSERT_EQ(dataset.size(), 300);
    for (int64_t i = 0; i < dataset.size(); ++i) {
      const auto tokens = dataset.sequence(i);
      ASSERT_GT(dataset.length(i), options.min_length);
      ASSERT_LT(dataset.length(i), options.max_length);
      ASSERT_EQ(evaluate_listops(tokens), dataset.labels[i]);
      int64_t depth = 1;
      std::vector<int64_t> arguments;
      for (int32_t token : tokens) {
        if (token == kListopsClose) {
          ASSERT_GE(arguments.back(), 2);
          ASSERT_LE(arguments.back(), options.max_args);
          arguments.pop_back();
          --depth;
          continue;
        }
        ASSERT_LE(depth, options.max_depth);
        if (!arguments.empty()) ++arguments.back();
        if (token <= kListopsSum) {
          ASSERT_LT(depth, options.max_depth);
          arguments.push_back(0);
          ++depth;
        }
      }
    }
  }
}

TEST(ListopsGenerator, ASampleDependsOnSeedSplitAndIndexAlone) {
  const ListopsOptions options = ListopsOptions::small();
  const SequenceDataset whole = generate_listops(options, 3, Split::kTest, 0, 64);
  const SequenceDataset part = generate_listops(options, 3, Split::kTest, 40, 5);
  for (int64_t i = 0; i < part.size(); ++i) EXPECT_TRUE(std::ranges::equal(part.sequence(i), whole.sequence(40 + i)));
  std::vector<std::vector<int32_t>> made(64);
  std::vector<std::thread> threads;
  std::atomic<int> next{0};
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      for (int i; (i = next++) < 64;) generate_listops(options, 3, Split::kTest, 63 - i, &made[63 - i]);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int64_t i = 0; i < 64; ++i) EXPECT_TRUE(std::ranges::equal(made[i], whole.sequence(i)));

  std::set<std::vector<int32_t>> distinct;
  for (uint64_t seed : {3, 4}) {
    for (Split split : {Split::kTrain, Split::kValid, Split::kTest}) {
      const SequenceDataset dataset = generate_listops(options, seed, split, 0, 1000);
      for (int64_t i = 0; i < 1000; ++i) distinct.emplace(dataset.sequence(i).begin(), dataset.sequence(i).end());
    }
  }
  EXPECT_EQ(distinct.size(), 6000u);
}

TEST(ListopsGenerator, GivesTheSameSamplesForEver) {
  // Raise kListopsGeneratorVersion if this has to change: caches made before then no longer count as the same data.
  const SequenceDataset dataset = generate_listops({5, 30, 4, 5}, 42, Split::kTrain, 0, 3);
  EXPECT_EQ(listops_text(dataset.sequence(0)), "[MIN 4 4 [MED 2 [SM 8 1 9 3 ] [MAX 9 6 6 2 ] ] 1 ]");
  EXPECT_EQ(listops_text(dataset.sequence(1)), "[SM 1 6 5 [MIN [MED 1 5 ] [SM 7 7 1 ] 5 ] ]");
  EXPECT_EQ(listops_text(dataset.sequence(2)), "[SM [SM [MED 2 4 7 1 ] 8 5 [MAX 4 6 9 7 8 ] ] [MAX 7 [MIN 1 3 ] ] 2 ]");
}

class ListopsTsv : public ::testing::Test {
 protected:
  void refuse(const std::string& content, const std::vector<std::string>& pieces, bool check = false) {
    SCOPED_TRACE(content);
    write_file_atomically(dir_ / "bad.tsv", content);
    std::vector<std::string> all = pieces;
    all.push_back("bad.tsv:");
    expect_error(ErrorKind::kData, all, [&] { read_listops_tsv(dir_ / "bad.tsv", {check}); });
  }
  TempDir dir_;
};

TEST_F(ListopsTsv, RoundTripInBothForms) {
  const SequenceDataset dataset = generate_listops(ListopsOptions::small(), 1, Split::kTrain, 0, 50);
  for (bool parentheses : {false, true}) {
    write_listops_tsv(dir_ / "f.tsv", dataset, parentheses);
    EXPECT_EQ(read_file(dir_ / "f.tsv").find('(') != std::string::npos, parentheses);
    const SequenceDataset read = read_listops_tsv(dir_ / "f.tsv", {true});
    EXPECT_EQ(read.tokens, dataset.tokens);
    EXPECT_EQ(read.offsets, dataset.offsets);
    EXPECT_EQ(read.labels, dataset.labels);
  }
}

TEST_F(ListopsTsv, LineEndsOfBothKindsAndNoneAtTheEnd) {
  write_file_atomically(dir_ / "f.tsv", "Source\tTarget\r\n( ( ( [MAX 2 ) 9 ) ] )\t9\r\n[MIN 1 2 ]\t1");
  const SequenceDataset read = read_listops_tsv(dir_ / "f.tsv", {true});
  ASSERT_EQ(read.size(), 2);
  EXPECT_EQ(read.labels, (std::vector<int64_t>{9, 1}));
  EXPECT_EQ(listops_text(read.sequence(0)), "[MAX 2 9 ]");
}

TEST_F(ListopsTsv, AFolderOrAFile) {
  write_listops_tsv(dir_ / "basic_val.tsv", generate_listops(ListopsOptions::small(), 1, Split::kValid, 0, 3));
  EXPECT_EQ(read_listops(dir_.path(), Split::kValid).size(), 3);
  EXPECT_EQ(read_listops(dir_ / "basic_val.tsv", Split::kTest).size(), 3);  // a named file is what it is
  expect_error(ErrorKind::kData, {"basic_test.tsv", "No such file"}, [&] { read_listops(dir_.path(), Split::kTest); });
  expect_error(ErrorKind::kData, {"nowhere", "No such file"}, [&] { read_listops(dir_ / "nowhere", Split::kTest); });
}

TEST_F(ListopsTsv, BadFilesAreNamedByFileLineExpectedAndFound) {
  const std::string header = "Source\tTarget\n";
  refuse("", {"empty"});
  refuse("\n", {":1:", "header Source<TAB>Target", "found ''"});
  refuse("[MAX 1 2 ]\t2\n", {":1:", "header", "[MAX 1 2 ]"});
  refuse("Source,Target\n", {":1:", "Source,Target"});
  refuse(header, {"no samples"});
  refuse("Source\tTarget", {"no samples"});
  refuse(header + "[MAX 1 2 ]\t2\n[MAX 1 2 ]\n", {":3:", "2 columns", "found 1"});
  refuse(header + "[MAX 1 2 ]\t2\n\n", {":3:", "found 1", "empty"});
  refuse(header + "[MAX 1 2 ]\t2\t3\n", {":2:", "2 columns", "found 3"});
  refuse(header + "\t2\n", {":2:", "expected an expression", "found none"});
  refuse(header + "( )\t2\n", {":2:", "expected an expression"});
  refuse(header + "[MAX 1 2 ]\t2\n[MAX 1 [FOO 2 ]\t2\n", {":3:", "column 8", "[MIN [MAX [MED [SM", "'[FOO'"});
  refuse(header + "[MAX 1 2 ]\t\n", {":2:", "label", "0..9", "''"});
  refuse(header + "[MAX 1 2 ]\t10\n", {":2:", "label", "'10'"});
  refuse(header + "[MAX 1 2 ]\t-1\n", {":2:", "label", "'-1'"});
  refuse(header + "[MAX 1 2 ]\tx\n", {":2:", "label", "'x'"});
  refuse(header + "[MAX 1 2 ]\t 2\n", {":2:", "label", "' 2'"});
  refuse(header + "[MAX 1 2\t2\n", {":2:", "token 4", "1 more ]", "the end"});
  refuse(header + "[MAX 1 2 ] 3\t2\n", {":2:", "token 5", "found 3"});
  refuse(header + std::string("\0\0\0\0\t2\n", 7), {":2:", "\\x00"});
  refuse(header + std::string(1'000'000, 'x') + "\t2\n", {":2:", "(1000000 bytes)"});
  refuse(header + "[MAX 1 2 ]\t2\n[MAX 1 2 ]\t1\n", {":3:", "label", "value is 2", "found 1"}, /*check=*/true);
  write_file_atomically(dir_ / "lenient.tsv", header + "[MAX 1 2 ]\t1\n");
  EXPECT_EQ(read_listops_tsv(dir_ / "lenient.tsv").labels[0], 1);  // wrong labels are looked for only when asked
  expect_error(ErrorKind::kData, {"found a folder"}, [&] { read_listops_tsv(dir_.path()); });
}

TEST_F(ListopsTsv, WriterRefusesOtherLabels) {
  SequenceDataset dataset;
  dataset.append(tokenize_listops("[MAX 1 2 ]"), 10);
  expect_error(ErrorKind::kData, {"sample 0", "found 10"}, [&] { write_listops_tsv(dir_ / "f.tsv", dataset); });
  EXPECT_TRUE(dir_.list().empty());
}

}  // namespace
}  // namespace seqboat::data
