// The generator of Pathfinder against what 1,000 pictures of the published one (github.com/drewlinsley/pathfinder with the arena's settings for 32 x
// 32) were measured to be.
#include "seqboat/data/pathfinder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "unit/base/temp_dir.h"

namespace seqboat::data {
namespace {

using test::expect_error;
using test::TempDir;

struct Picture {
  int64_t label = 0;
  std::vector<uint8_t> pixels;
};

Picture make(PathfinderGenerator* generator, int64_t size, Split split, int64_t index) {
  Picture out{.pixels = std::vector<uint8_t>(static_cast<size_t>(size * size))};
  out.label = generator->make(split, index, out.pixels.data());
  return out;
}

// A mean over pictures with its standard error.
struct Mean {
  double sum = 0, squares = 0, count = 0;
  void add(double value) {
    sum += value;
    squares += value * value;
    ++count;
  }
  double value() const { return sum / count; }
  double error() const { return std::sqrt((squares / count - value() * value()) / count); }
};

TEST(Pathfinder, PicturesAreThePublishedOnesInStatistics) {
  PathfinderGenerator generator(PathfinderOptions::lra(32), 11);
  Mean labels, grey, bright, black, white, eighths[8];
  for (int64_t index = 0; index < 800; ++index) {
    const Picture picture = make(&generator, 32, Split::kTest, index);
    double sum = 0, over64 = 0, zero = 0, full = 0, in[8] = {};
    for (const uint8_t v : picture.pixels) {
      sum += v;
      over64 += v > 64;
      zero += v == 0;
      full += v == 255;
      in[v / 32] += 1.0 / 1024;
    }
    labels.add(static_cast<double>(picture.label));
    grey.add(sum / 1024);
    bright.add(over64 / 1024);
    black.add(zero / 1024);
    white.add(full);
    for (int i = 0; i < 8; ++i) eighths[i].add(in[i]);
  }
  // value and standard error of the published generator's; four errors of the difference.
  const auto expect_near = [](const Mean& found, double value, double error, const char* what) {
    EXPECT_NEAR(found.value(), value, 4 * std::hypot(error, found.error())) << what;
  };
  expect_near(labels, 0.5, 0, "label");
  expect_near(grey, 20.065, 0.060, "mean grey");
  expect_near(bright, 0.1250, 0.0004, "share above 64");
  expect_near(black, 0.6605, 0.0012, "share of black");
  expect_near(white, 2.282, 0.044, "white pixels");
  const double published[8] = {0.8557, 0.0192, 0.0194, 0.0208, 0.0391, 0.0267, 0.0122, 0.0067};
  for (int i = 0; i < 8; ++i) expect_near(eighths[i], published[i], eighths[i].error(), "an eighth of the greys");
}

TEST(Pathfinder, PathXHasTheSameMake) {
  PathfinderGenerator generator(PathfinderOptions::lra(128), 0);
  for (int64_t index = 0; index < 4; ++index) {
    const Picture picture = make(&generator, 128, Split::kTest, index);
    const auto lit = std::count_if(picture.pixels.begin(), picture.pixels.end(), [](uint8_t v) { return v > 64; });
    EXPECT_GT(lit, 16384 / 100);
    EXPECT_LT(lit, 16384 / 5);
    EXPECT_EQ(*std::max_element(picture.pixels.begin(), picture.pixels.end()), 255);
  }
  expect_error(ErrorKind::kConfig, {"32", "128", "64"}, [] { PathfinderOptions::lra(64); });
}

TEST(Pathfinder, APictureFollowsFromSeedSplitAndNumber) {
  PathfinderGenerator one(PathfinderOptions::lra(32), 5), again(PathfinderOptions::lra(32), 5), other(PathfinderOptions::lra(32), 6);
  const Picture third = make(&one, 32, Split::kTrain, 3);
  make(&again, 32, Split::kTest, 9);  // whatever was made before
  EXPECT_EQ(make(&again, 32, Split::kTrain, 3).pixels, third.pixels);
  std::set<std::vector<uint8_t>> all{make(&other, 32, Split::kTrain, 3).pixels};
  for (const Split split : {Split::kTrain, Split::kValid, Split::kTest}) {
    for (int64_t index = 0; index < 10; ++index) all.insert(make(&one, 32, split, index).pixels);
  }
  EXPECT_EQ(all.size(), 31u);
}

TEST(Pathfinder, FilesHoldWhatTheGeneratorMakes) {
  TempDir dir;
  const PathfinderMakeOptions options{.seed = 2, .train = 9, .valid = 3, .test = 2};
  EXPECT_EQ(ensure_pathfinder(dir.path(), options), (std::vector<Split>{Split::kTrain, Split::kValid, Split::kTest}));
  EXPECT_TRUE(ensure_pathfinder(dir.path(), options).empty());
  const ImageDataset train = read_images(ImageForm::kPathfinder, dir.path(), Split::kTrain);
  ASSERT_EQ(train.size(), 9);
  PathfinderGenerator generator(PathfinderOptions::lra(32), 2);
  const Picture last = make(&generator, 32, Split::kTrain, 8);
  EXPECT_EQ(train.label(8), last.label);
  EXPECT_TRUE(std::equal(last.pixels.begin(), last.pixels.end(), train.image(8).begin(), train.image(8).end()));
  // What is missing alone is made, and a folder of other settings is left as it is.
  const std::string valid = read_file(pathfinder_file(dir.path(), 32, Split::kValid));
  std::filesystem::remove(pathfinder_file(dir.path(), 32, Split::kValid));
  EXPECT_EQ(ensure_pathfinder(dir.path(), options), std::vector<Split>{Split::kValid});
  EXPECT_EQ(read_file(pathfinder_file(dir.path(), 32, Split::kValid)), valid);
  PathfinderMakeOptions other = options;
  other.seed = 3;
  expect_error(ErrorKind::kData, {"seed", "2", "3"}, [&] { ensure_pathfinder(dir.path(), other); });
}

}  // namespace
}  // namespace seqboat::data
