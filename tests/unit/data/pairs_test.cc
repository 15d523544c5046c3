#include "seqboat/data/pairs.h"

#include <gtest/gtest.h>

#include <string>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "unit/base/temp_dir.h"

namespace seqboat::data {
namespace {

using test::expect_error;
using test::TempDir;

std::string text_of(std::span<const uint8_t> bytes) {
  return {bytes.begin(), bytes.end()};
}

class Pairs : public ::testing::Test {
 protected:
  std::filesystem::path put(const std::string& name, const std::string& content) const {
    std::filesystem::create_directories((dir_ / name).parent_path());
    write_file_atomically(dir_ / name, content);
    return dir_ / name;
  }
  void expect_bad(const std::string& rows, std::vector<std::string> pieces) const {
    const std::filesystem::path path = put("bad.tsv", rows);
    pieces.push_back(path.string());
    expect_error(ErrorKind::kData, pieces, [&] { read_pair_file(path, 100); });
  }
  TempDir dir_;
};

TEST_F(Pairs, TextsInATable) {
  put("tsv_data/new_aan_pairs.train.tsv", "1.0\tP1\tP2\tone\xc3\xa9\ttwo words\r\n0.0\tP3\tP4\ta\tb\n0\tP5\tP6\tc\td");
  const PairDataset pairs = read_pairs(dir_.path(), Split::kTrain, 5);
  ASSERT_EQ(pairs.size(), 3);
  EXPECT_EQ(text_of(pairs.pair(0).first), "one\xc3\xa9");
  EXPECT_EQ(text_of(pairs.pair(0).second), "two w");  // cut
  EXPECT_EQ((std::vector<int64_t>{pairs.pair(0).label, pairs.pair(1).label, pairs.pair(2).label}), (std::vector<int64_t>{1, 0, 0}));
  EXPECT_EQ(text_of(pairs.pair(2).second), "d");
  put("tsv_data/new_aan_pairs.eval.tsv", "1\t1\t2\tx\ty\n");
  EXPECT_EQ(read_pairs(dir_.path(), Split::kValid, 5).size(), 1);
  expect_error(ErrorKind::kData, {"new_aan_pairs.test.tsv", "match_test.tsv", "lra_release.gz"}, [&] { read_pairs(dir_.path(), Split::kTest, 5); });
}

TEST_F(Pairs, PlacesInAText) {
  std::string text;
  for (int i = 0; i < 9000; ++i) text += static_cast<char>('a' + i % 26);
  put("wiki_valid.txt", text);
  put("match_valid.tsv", "label\toff1\toff2\n1\t0\t5000\n0\t26\t1\n");
  const PairDataset pairs = read_pairs(dir_.path(), Split::kValid, 4000);
  ASSERT_EQ(pairs.size(), 2);
  EXPECT_EQ(pairs.pair(0).first.size(), 4000u);
  EXPECT_EQ(text_of(pairs.pair(0).second), text.substr(5000, 4000));
  EXPECT_EQ(text_of(read_pairs(dir_.path(), Split::kValid, 3).pair(1).second), "bcd");
  put("match_valid.tsv", "label\toff1\toff2\n1\t0\t5001\n");
  expect_error(ErrorKind::kData, {"match_valid.tsv:2", "off2", "0 to 5000", "5001"}, [&] { read_pairs(dir_.path(), Split::kValid, 4000); });
  put("match_valid.tsv", "label\toff1\toff2\n1\t-1\t0\n");
  expect_error(ErrorKind::kData, {"match_valid.tsv:2", "off1", "-1"}, [&] { read_pairs(dir_.path(), Split::kValid, 4000); });
  put("match_valid.tsv", "label\toff1\toff2\n");
  expect_error(ErrorKind::kData, {"match_valid.tsv", "after the first, found none"}, [&] { read_pairs(dir_.path(), Split::kValid, 4000); });
  std::filesystem::remove(dir_ / "wiki_valid.txt");
  put("match_valid.tsv", "label\toff1\toff2\n1\t0\t1\n");
  expect_error(ErrorKind::kData, {"train, valid and test", "none for valid"}, [&] { read_pairs(dir_.path(), Split::kValid, 4000); });
}

TEST_F(Pairs, WhatIsNoTableOfPairs) {
  expect_bad("", {"empty"});
  expect_bad("1\ta\tb\tc\td\n2\ta\tb\tc\td\n", {":2", "label", "0 or 1", "'2'"});
  expect_bad("1\ta\tb\tc\n", {":1", "5 columns", "found 4"});
  expect_bad("1\ta\tb\tc\td\te\n", {":1", "5 columns", "found 6"});
  expect_bad("1\ta\tb\tc\t\n", {":1", "second text", "at least one byte"});
  expect_error(ErrorKind::kData, {"none", "no such file or folder", "--data"}, [&] { read_pairs(dir_ / "none", Split::kTest, 5); });
  put("match_test.tsv.xz", "x");
  expect_error(ErrorKind::kData, {"match_test.tsv.xz", "xz -dk"}, [&] { read_pairs(dir_.path(), Split::kTest, 5); });
}

}  // namespace
}  // namespace seqboat::data
