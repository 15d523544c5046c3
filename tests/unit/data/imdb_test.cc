#include "seqboat/data/imdb.h"

#include <gtest/gtest.h>

#include <string>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "unit/base/temp_dir.h"

namespace seqboat::data {
namespace {

using test::expect_error;
using test::TempDir;
using namespace std::string_literals;

std::vector<int32_t> tokens_of(std::string_view text) {
  std::vector<int32_t> out;
  for (const char byte : text) out.push_back(4 + static_cast<uint8_t>(byte));
  return out;
}

class Imdb : public ::testing::Test {
 protected:
  void write(const std::string& name, const std::string& content) const {
    std::filesystem::create_directories((dir_ / name).parent_path());
    write_file_atomically(dir_ / name, content);
  }
  /// The same 24 training and 4 test reviews in both forms: t/*.tsv and f/{train,test}/{neg,pos}/*.txt.
  void write_both() const {
    for (const bool test : {false, true}) {
      std::string rows;
      for (int label = 0; label < 2; ++label) {
        for (int id = 0; id < (test ? 2 : 12); ++id) {
          const int rating = label == 0 ? 1 + id % 4 : 7 + id % 4;
          const std::string text = "review\xe2\x80\x94" + std::to_string(id) + (label == 0 ? "\x00no"s : "<br />yes"s);
          write(std::string("f/") + (test ? "test" : "train") + (label == 0 ? "/neg/" : "/pos/") + std::to_string(id) + "_" + std::to_string(rating) +
                    ".txt",
                text + "\t\r\n");
          rows += std::to_string(label) + "\t" + std::to_string(id) + "\t" + std::to_string(rating) + "\t" + text + "   \n";
        }
      }
      write(test ? "t/imdb_test.tsv" : "t/imdb_train.tsv", rows);
    }
  }
  void expect_bad(const std::string& rows, std::vector<std::string> pieces, bool check = false) const {
    write("bad.tsv", rows);
    pieces.push_back((dir_ / "bad.tsv").string());
    expect_error(ErrorKind::kData, pieces, [&] { read_imdb_reviews(dir_ / "bad.tsv", ImdbPart::kAll, check); });
  }
  TempDir dir_;
};

TEST_F(Imdb, OrderAndBytes) {
  write("x.tsv", "0\t2\t1\tb\xff\n0\t10\t4\tc d\r\n1\t2\t10\ta");
  const auto reviews = read_imdb_reviews(dir_ / "x.tsv");
  ASSERT_EQ(reviews.size(), 3u);
  const SequenceDataset set = imdb_dataset(reviews, 2);
  EXPECT_EQ(set.labels, (std::vector<int64_t>{0, 1, 0}));
  EXPECT_EQ(set.offsets, (std::vector<int64_t>{0, 2, 3, 5}));
  std::vector<int32_t> tokens = tokens_of("b\xff");
  for (const int32_t token : tokens_of("ac ")) tokens.push_back(token);
  EXPECT_EQ(set.tokens, tokens);
  EXPECT_EQ(tokens[1], kImdbCls - 1);  // the last byte stands before <CLS>
  EXPECT_EQ(reviews[1].rating, 10);
  EXPECT_EQ(reviews[2].text, "c d");
  EXPECT_EQ(imdb_dataset(reviews, 3).length(2), 3);
  EXPECT_EQ(imdb_dataset(reviews, 4000).length(2), 3);
}

TEST_F(Imdb, BothFormsAreTheSame) {
  write_both();
  write("f/train/neg/.DS_Store", "x");
  write("f/train/unsup/0_0.txt", "x");
  std::filesystem::create_directories(dir_ / "outer");
  std::filesystem::rename(dir_ / "f", dir_ / "outer/aclImdb");
  for (const Split split : {Split::kTrain, Split::kValid, Split::kTest}) {
    for (const bool on_test : {false, true}) {
      const ImdbReadOptions options{.max_length = 11, .validate_on_test = on_test, .check = true};
      const SequenceDataset rows = read_imdb(dir_ / "t", split, options);
      for (const char* folder : {"outer", "outer/aclImdb"}) {
        const SequenceDataset files = read_imdb(dir_ / folder, split, options);
        EXPECT_EQ(rows.tokens, files.tokens);
        EXPECT_EQ(rows.offsets, files.offsets);
        EXPECT_EQ(rows.labels, files.labels);
      }
      const int64_t want = split == Split::kTest || (split == Split::kValid && on_test) ? 4 : on_test ? 24 : split == Split::kValid ? 2 : 22;
      EXPECT_EQ(rows.size(), want);
    }
  }
  EXPECT_EQ(read_imdb_reviews(dir_ / "outer/aclImdb/test")[0].text, "review\xe2\x80\x94"s + "0\x00no   "s);
  // The held-out ones are those whose id ends in 9, and training sees no other's.
  for (const auto& review : read_imdb_reviews(dir_ / "t/imdb_train.tsv", ImdbPart::kTenth)) EXPECT_EQ(review.id, 9);
  for (const auto& review : read_imdb_reviews(dir_ / "outer/aclImdb/train", ImdbPart::kNineTenths)) EXPECT_NE(review.id, 9);
  // A file by itself is taken whole.
  EXPECT_EQ(read_imdb(dir_ / "t/imdb_train.tsv", Split::kValid).size(), 24);
}

TEST_F(Imdb, BadRows) {
  const std::string good = "0\t0\t1\tx\n";
  expect_bad("", {"empty"});
  expect_bad(good + "\n", {":2:", "4 columns", "the line is empty"});
  expect_bad(good + "1\t0\t9\n", {":2:", "4 columns", "found 3"});
  expect_bad(good + "1\t0\t9\tx\ty\n", {":2:", "4 columns", "found 5"});
  expect_bad("2\t0\t9\tx\n", {":1:", "label: expected 0 or 1", "'2'"});
  expect_bad("pos\t0\t9\tx\n", {":1:", "label: expected 0 or 1", "'pos'"});
  expect_bad("1\t-1\t9\tx\n", {":1:", "id", "'-1'"});
  expect_bad("1\t01\t9\tx\n", {":1:", "id", "'01'"});
  expect_bad("1\t\t9\tx\n", {":1:", "id"});
  expect_bad("1\t99999999999999999999\t9\tx\n", {":1:", "id", "99999999999999999999"});
  expect_bad("1\t0\tnine\tx\n", {":1:", "rating", "'nine'"});
  expect_bad("1\t0\t11\tx\n", {":1:", "rating", "1 to 10", "11"});
  expect_bad("1\t0\t9\t\n", {":1:", "text", "at least one byte"});
  expect_bad(good + "1\t0\t9\tx\n" + good, {":3:", "another", ":1"});
  expect_bad(good + "1\t0\t4\tx\n", {":2:", "7 to 10 for label 1", "found 4"}, true);
  expect_bad("0\t0\t5\tx\n", {":1:", "1 to 4 for label 0", "found 5"}, true);
  write("unchecked.tsv", "0\t0\t5\tx\n");
  EXPECT_EQ(read_imdb_reviews(dir_ / "unchecked.tsv").size(), 1u);
}

TEST_F(Imdb, BadFolders) {
  write_both();
  const auto read = [&] { read_imdb(dir_ / "f", Split::kTest); };
  write("f/test/pos/7.txt", "x");
  expect_error(ErrorKind::kData, {"test/pos", "ID_RATING.txt", "'7.txt'"}, read);
  std::filesystem::remove(dir_ / "f/test/pos/7.txt");
  write("f/test/pos/0_10.txt", "x");
  expect_error(ErrorKind::kData, {"one review of id 0 and label 1", "0_10.txt", "0_7.txt"}, read);
  std::filesystem::remove(dir_ / "f/test/pos/0_10.txt");
  write("f/test/neg/5_1.txt", "");
  expect_error(ErrorKind::kData, {"5_1.txt", "empty"}, read);
  std::filesystem::remove_all(dir_ / "f/test/neg");
  expect_error(ErrorKind::kData, {"test/neg", "no such folder"}, read);
  std::filesystem::create_directories(dir_ / "f/test/neg");
  expect_error(ErrorKind::kData, {"test/neg", "found none"}, read);
}

TEST_F(Imdb, WhatIsMissingIsNamed) {
  const auto read = [&](const char* name, Split split = Split::kTrain) { read_imdb(dir_ / name, split); };
  expect_error(ErrorKind::kData, {"nowhere", "no such folder", "imdb_train.tsv", "aclImdb_v1.tar.gz", "--data"}, [&] { read("nowhere"); });
  write("packed/imdb_test.tsv.xz", "x");
  expect_error(ErrorKind::kData, {"packed", "imdb_train.tsv", "no film reviews"}, [&] { read("packed"); });
  expect_error(ErrorKind::kData, {"imdb_test.tsv: no such file", "xz -dk " + (dir_ / "packed/imdb_test.tsv.xz").string()},
               [&] { read("packed", Split::kTest); });
  expect_error(ErrorKind::kData, {"xz -dk"}, [&] { read("packed/imdb_test.tsv.xz"); });
  write("archive/aclImdb_v1.tar.gz", "x");
  expect_error(ErrorKind::kData, {"tar xzf"}, [&] { read("archive"); });
  expect_error(ErrorKind::kData, {"tar xzf"}, [&] { read("archive/aclImdb_v1.tar.gz"); });
  write("few/imdb_train.tsv", "0\t0\t1\tx\n");
  EXPECT_EQ(read_imdb(dir_ / "few", Split::kTrain).size(), 1);
  expect_error(ErrorKind::kData, {"imdb_train.tsv", "to validate on"}, [&] { read("few", Split::kValid); });
}

}  // namespace
}  // namespace seqboat::data
