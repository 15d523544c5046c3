#include "seqboat/data/listops_cache.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <stdexcept>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "unit/base/temp_dir.h"

namespace seqboat::data {
namespace {

using test::expect_error;
using test::TempDir;
using Names = std::vector<std::string>;
using Splits = std::vector<Split>;

ListopsMakeOptions few() {
  ListopsMakeOptions options;
  options.shape = ListopsOptions::small();
  options.seed = 5;
  options.train = 600;
  options.valid = 20;
  options.test = 10;
  return options;
}

TEST(EnsureListops, MakesAFolderThatTheReaderReads) {
  TempDir dir;
  const auto folder = dir / "a/b";
  std::vector<ListopsProgress> progress;
  EXPECT_EQ(ensure_listops(folder, few(), [&](const ListopsProgress& now) { progress.push_back(now); }),
            (Splits{Split::kTrain, Split::kValid, Split::kTest}));
  ASSERT_EQ(progress.size(), 5u);  // 256, 512, 600; 20; 10
  EXPECT_EQ(progress[0].done, 256);
  EXPECT_EQ(progress[0].total, 600);
  EXPECT_EQ(progress[2].done, 600);
  EXPECT_EQ(progress[4].split, Split::kTest);
  EXPECT_EQ(progress[4].file, folder / "basic_test.tsv");
  for (Split split : {Split::kTrain, Split::kValid, Split::kTest}) {
    const SequenceDataset read = read_listops(folder, split, {true});
    const SequenceDataset made = generate_listops(few().shape, 5, split, 0, few().count(split));
    EXPECT_EQ(read.tokens, made.tokens);
    EXPECT_EQ(read.labels, made.labels);
  }
  EXPECT_TRUE(ensure_listops(folder, few(), [](const ListopsProgress&) { FAIL(); }).empty());
}

TEST(EnsureListops, MakesOnlyWhatIsMissing) {
  TempDir dir;
  ensure_listops(dir.path(), few(), {}, {Split::kTest});
  EXPECT_EQ(dir.list(), (Names{"basic_test.tsv", "listops.json"}));
  const auto time = std::filesystem::last_write_time(dir / "basic_test.tsv");
  EXPECT_EQ(ensure_listops(dir.path(), few()), (Splits{Split::kTrain, Split::kValid}));
  EXPECT_EQ(std::filesystem::last_write_time(dir / "basic_test.tsv"), time);
  const std::string train = read_file(dir / "basic_train.tsv");
  std::filesystem::remove(dir / "basic_train.tsv");
  EXPECT_EQ(ensure_listops(dir.path(), few()), Splits{Split::kTrain});
  EXPECT_EQ(read_file(dir / "basic_train.tsv"), train);
}

TEST(EnsureListops, AnInterruptionLeavesWholeFilesOnly) {
  TempDir dir;
  EXPECT_THROW(ensure_listops(dir.path(), few(),
                              [](const ListopsProgress& now) {
                                if (now.split == Split::kValid) throw std::runtime_error("stop");
                              }),
               std::runtime_error);
  EXPECT_EQ(dir.list(), (Names{"basic_train.tsv", "listops.json"}));
  EXPECT_EQ(ensure_listops(dir.path(), few()), (Splits{Split::kValid, Split::kTest}));
}

TEST(EnsureListops, OtherOptionsAreRefusedAndNothingChanges) {
  TempDir dir;
  ensure_listops(dir.path(), few(), {}, {Split::kTest});
  const auto refuse = [&](auto change, const std::vector<std::string>& pieces) {
    ListopsMakeOptions other = few();
    change(&other);
    expect_error(ErrorKind::kData, pieces, [&] { ensure_listops(dir.path(), other); });
    expect_error(ErrorKind::kData, pieces, [&] { ensure_listops(dir.path(), other, {}, {Split::kTest}); });
  };
  refuse([](ListopsMakeOptions* o) { o->seed = 6; }, {dir.path().string(), "seed is 5 there, asked for is 6"});
  refuse([](ListopsMakeOptions* o) { o->shape = ListopsOptions::lra(); },
         {"min_length is 50 there, asked for is 500", "max_depth 5", "max_depth 10"});
  refuse([](ListopsMakeOptions* o) { o->shape.max_args = 4; }, {"max_args"});
  refuse([](ListopsMakeOptions* o) { o->train = 96000; }, {"train is 600 there, asked for is 96000"});
  EXPECT_EQ(dir.list(), (Names{"basic_test.tsv", "listops.json"}));
  ListopsMakeOptions parentheses = few();  // the same samples, written otherwise
  parentheses.parentheses = true;
  ensure_listops(dir.path(), parentheses);
  EXPECT_NE(read_file(dir / "basic_val.tsv").find('('), std::string::npos);
  EXPECT_EQ(read_listops(dir.path(), Split::kValid).tokens, generate_listops(few().shape, 5, Split::kValid, 0, 20).tokens);
}

TEST(EnsureListops, DamagedMetaIsRefused) {
  TempDir dir;
  ensure_listops(dir.path(), few());
  const std::string good = read_file(dir / "listops.json");
  std::string text_for_number = good;
  text_for_number.replace(text_for_number.find("\"seed\": 5"), 9, "\"seed\": \"5\"");
  for (const std::string& bad : {std::string(), std::string("{"), std::string("[]"), std::string("{}"), std::string(1 << 20, '['),
                                 std::string("\xff"), text_for_number, std::string("{\"format\": \"other\"}")}) {
    write_file_atomically(dir / "listops.json", bad);
    expect_error(ErrorKind::kData, {"listops.json", "something else"}, [&] { ensure_listops(dir.path(), few()); });
  }
  std::string version = good;
  version.replace(version.find("\"generator_version\": 1"), 22, "\"generator_version\": 9");
  write_file_atomically(dir / "listops.json", version);
  expect_error(ErrorKind::kData, {"generator_version is 9 there, asked for is 1"}, [&] { ensure_listops(dir.path(), few()); });
}

TEST(EnsureListops, FoldersOfUnknownOrigin) {
  TempDir dir;
  const SequenceDataset some = generate_listops(few().shape, 99, Split::kTrain, 0, 3);
  write_listops_tsv(dir / "basic_train.tsv", some);
  expect_error(ErrorKind::kData, {"basic_val.tsv is missing beside basic_train.tsv"}, [&] { ensure_listops(dir.path(), few()); });
  EXPECT_EQ(dir.list(), Names{"basic_train.tsv"});
  EXPECT_TRUE(ensure_listops(dir.path(), few(), {}, {Split::kTrain}).empty());
  write_listops_tsv(dir / "basic_val.tsv", some);
  write_listops_tsv(dir / "basic_test.tsv", some);
  EXPECT_TRUE(ensure_listops(dir.path(), few()).empty());
  EXPECT_EQ(dir.list(), (Names{"basic_test.tsv", "basic_train.tsv", "basic_val.tsv"}));
}

TEST(EnsureListops, WhereNothingCanBeMade) {
  TempDir dir;
  write_file_atomically(dir / "file", "x");
  expect_error(ErrorKind::kFailed, {"file/below"}, [&] { ensure_listops(dir / "file/below", few()); });
  expect_error(ErrorKind::kFailed, {"/proc/listops"}, [&] { ensure_listops("/proc/listops", few()); });
  ListopsMakeOptions none = few();
  none.test = 0;
  expect_error(ErrorKind::kConfig, {"test samples", "found 0"}, [&] { ensure_listops(dir / "new", none); });
  none = few();
  none.shape.max_depth = 1;
  expect_error(ErrorKind::kConfig, {"min_length"}, [&] { ensure_listops(dir / "new", none); });
  EXPECT_EQ(dir.list(), Names{"file"});
}

TEST(DefaultCacheDir, FollowsTheEnvironment) {
  const char* old_cache = ::getenv("XDG_CACHE_HOME");
  const char* old_home = ::getenv("HOME");
  const std::string cache = old_cache != nullptr ? old_cache : "";
  const std::string home = old_home != nullptr ? old_home : "";
  ::setenv("XDG_CACHE_HOME", "/x", 1);
  EXPECT_EQ(default_cache_dir(), "/x/seqboat");
  ::setenv("XDG_CACHE_HOME", "relative", 1);
  ::setenv("HOME", "/h", 1);
  EXPECT_EQ(default_cache_dir(), "/h/.cache/seqboat");
  ::unsetenv("XDG_CACHE_HOME");
  ::unsetenv("HOME");
  expect_error(ErrorKind::kFailed, {"HOME", "--data"}, [] { default_cache_dir(); });
  if (old_cache != nullptr) ::setenv("XDG_CACHE_HOME", cache.c_str(), 1);
  if (old_home != nullptr) ::setenv("HOME", home.c_str(), 1);
  EXPECT_EQ(listops_folder_name({}), "listops-500-2000-d10-a10-seed0-96000-2000-2000");
}

}  // namespace
}  // namespace seqboat::data
