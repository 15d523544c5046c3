#include "seqboat/data/bytes.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string>

#include "seqboat/base/error.h"
#include "unit/base/temp_dir.h"

namespace seqboat::data {
namespace {

using test::expect_error;
using test::TempDir;

std::string text_of(std::span<const uint8_t> bytes) {
  return {bytes.begin(), bytes.end()};
}

class Bytes : public ::testing::Test {
 protected:
  std::filesystem::path file(const std::string& content) const {
    write_file_atomically(dir_ / "file", content);
    return dir_ / "file";
  }
  TempDir dir_;
};

TEST_F(Bytes, TheTailIsHeldOut) {
  const ByteText whole = ByteText::open(file("abcdefghijklmnopqrstuvwxyz"), 0.2, 0.1);
  EXPECT_EQ(whole.size(), 26);
  EXPECT_EQ(text_of(whole.part(Split::kTrain)), "abcdefghijklmnopqrs");
  EXPECT_EQ(text_of(whole.part(Split::kValid)), "tuvwx");
  EXPECT_EQ(text_of(whole.part(Split::kTest)), "yz");
  EXPECT_EQ(text_of(ByteText::open(file("abcd"), 0, 1).part(Split::kTest)), "abcd");
  EXPECT_TRUE(ByteText::open(file("abcd"), 0, 1).part(Split::kTrain).empty());
  EXPECT_EQ(ByteText::open(file("abc"), 0.5, 0.5).part(Split::kTrain).size(), 1u);  // floors
  EXPECT_EQ(text_of(ByteText::open(file(std::string("\0\xff", 2)), 0, 0).part(Split::kTrain)), std::string("\0\xff", 2));
}

TEST_F(Bytes, WhatIsNoFileOfBytes) {
  expect_error(ErrorKind::kData, {"none", "no such file"}, [&] { ByteText::open(dir_ / "none", 0.1, 0.1); });
  expect_error(ErrorKind::kData, {"expected a file of bytes"}, [&] { ByteText::open("/dev/null", 0.1, 0.1); });
  expect_error(ErrorKind::kData, {"empty file"}, [&] { ByteText::open(file(""), 0.1, 0.1); });
  expect_error(ErrorKind::kConfig, {"0.6 and 0.5"}, [&] { ByteText::open(file("a"), 0.6, 0.5); });
}

TEST_F(Bytes, AFolderHasAFileForEachPart) {
  const auto put = [&](const char* name, const char* content) { write_file_atomically(dir_ / name, content); };
  const auto open = [&] { return ByteText::open(dir_.path(), 0.05, 0.05); };
  put("constrained.txt", "not this one");
  put("match_train.tsv", "nor this");
  put("wiki_train.txt.xz", "nor this");
  expect_error(ErrorKind::kData, {dir_.path().string(), "wiki_train.txt.xz", "packed", "xz -dk"}, open);
  put("wiki_train.txt", "aaaa");
  put("val.bin", "bb");
  expect_error(ErrorKind::kData, {"train, valid and test", "none for test"}, open);
  put("test", "c");
  const ByteText text = open();
  EXPECT_TRUE(text.is_folder());
  EXPECT_EQ(text_of(text.part(Split::kTrain)), "aaaa");
  EXPECT_EQ(text_of(text.part(Split::kValid)), "bb");
  EXPECT_EQ(text_of(text.part(Split::kTest)), "c");
  EXPECT_EQ(text.size(), 7);
  put("test2.txt", "d");
  expect_error(ErrorKind::kData, {"one file with \"test\"", "test", "test2.txt"}, open);
  put("test", "");
  std::filesystem::remove(dir_ / "test2.txt");
  expect_error(ErrorKind::kData, {"test", "empty file"}, open);
}

struct Block {
  std::vector<int64_t> source, target;
};
Block block_of(const ByteBlocks& blocks, int64_t i) {
  Block out;
  blocks.append(i, &out.source, &out.target);
  EXPECT_EQ(static_cast<int64_t>(out.source.size()), blocks.offsets()[static_cast<size_t>(i) + 1] - blocks.offsets()[static_cast<size_t>(i)]);
  EXPECT_EQ(out.source.size(), out.target.size());
  return out;
}

TEST_F(Bytes, BlocksReadTheByteBefore) {
  const std::string text = "abcdefghij";
  const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(text.data()), text.size());
  const auto t = [](char c) { return token_of_byte(static_cast<uint8_t>(c)); };
  const ByteBlocks plain(bytes, 4, 0);
  ASSERT_EQ(plain.size(), 3);
  EXPECT_EQ(block_of(plain, 0).source, (std::vector<int64_t>{kEosToken, t('a'), t('b'), t('c')}));
  EXPECT_EQ(block_of(plain, 0).target, (std::vector<int64_t>{t('a'), t('b'), t('c'), t('d')}));
  EXPECT_EQ(block_of(plain, 2).source, (std::vector<int64_t>{t('h'), t('i')}));
  EXPECT_EQ(block_of(plain, 2).target, (std::vector<int64_t>{t('i'), t('j')}));
  EXPECT_EQ(ByteBlocks(bytes, 4, 0, true).size(), 2);
  EXPECT_EQ(ByteBlocks(bytes, 11, 0, true).size(), 0);

  const ByteBlocks shown(bytes, 4, 2);
  EXPECT_EQ(block_of(shown, 0).target, block_of(plain, 0).target);  // nothing before it
  EXPECT_EQ(block_of(shown, 1).source, (std::vector<int64_t>{t('b'), t('c'), t('d'), t('e'), t('f'), t('g')}));
  EXPECT_EQ(block_of(shown, 1).target, (std::vector<int64_t>{-1, -1, t('e'), t('f'), t('g'), t('h')}));
  EXPECT_EQ(shown.context(1), 2);
  // A context that reaches to the beginning stands after the sentence's end, too.
  const ByteBlocks far(bytes, 4, 100);
  EXPECT_EQ(block_of(far, 2).source.front(), int64_t{kEosToken});
  EXPECT_EQ(block_of(far, 2).source.size(), 10u);
}

TEST_F(Bytes, EveryByteIsScoredOnceWhateverTheCut) {
  std::vector<uint8_t> bytes(997);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 31 % 256);
  for (int64_t block : {1, 3, 64, 997, 2000}) {
    for (int64_t context : {0, 1, 50, 5000}) {
      const ByteBlocks blocks(bytes, block, context);
      std::vector<uint8_t> scored;
      for (int64_t i = 0; i < blocks.size(); ++i) {
        const Block b = block_of(blocks, i);
        for (size_t t = 0; t < b.target.size(); ++t) {
          if (b.target[t] >= 0) scored.push_back(static_cast<uint8_t>(b.target[t] - kFirstFreeToken));
          // The model reads what it has just been asked for.
          if (t > 0 && b.target[t - 1] >= 0) {
            EXPECT_EQ(b.source[t], b.target[t - 1]);
          }
        }
      }
      EXPECT_EQ(scored, bytes) << block << " " << context;
    }
  }
}

}  // namespace
}  // namespace seqboat::data
