// Sound as a task: what batches hold, what training draws anew in each epoch, and statistics of the place in the clip.

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <set>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/train/task.h"
#include "unit/base/temp_dir.h"
#include "unit/train/tiny_run.h"

namespace seqboat::train::test {
namespace {

namespace fs = std::filesystem;
using data::Split;
using seqboat::test::expect_error;
using seqboat::test::TempDir;
using torch::Tensor;

// A file of these tests is a text: its number of samples, which rise from 0 in steps of 1/1024.
data::Sound read_ramp(const fs::path& file) {
  data::Sound sound{.sample_rate = 8000, .samples = {}};
  for (int i = 0, n = std::stoi(read_file(file)); i < n; ++i) sound.samples.push_back(static_cast<float>(i) / 1024.0f);
  return sound;
}
// The same, each sample of a clip being the same power of two: clips differ.
data::Sound read_level(const fs::path& file) {
  data::Sound sound{.sample_rate = 8000, .samples = {}};
  const int n = std::stoi(read_file(file));
  for (int i = 0; i < 20; ++i) sound.samples.push_back(static_cast<float>(n * (i + 1)) / 4096.0f);
  return sound;
}

class SpeechTask : public ::testing::Test {
 protected:
  SpeechTask() {
    for (int digit = 0; digit < 10; ++digit) {
      for (int index = 0; index < 14; ++index) {
        std::ofstream(dir_ / (std::to_string(digit) + "_ann_" + std::to_string(index) + ".wav")) << 37 * (digit + 1) + index;
      }
    }
  }
  config::Recipe recipe() const {
    config::Recipe recipe = tiny_recipe(dir_.path());
    recipe.model.input = "real";
    recipe.model.vocab_size = 0;
    recipe.model.channels = 0;
    recipe.data = {.name = "fsdd", .path = dir_.path().string()};
    recipe.data.sample_rate = 8000;
    recipe.data.frame_ms = 2;  // 16 samples
    recipe.data.gain = 4;
    return recipe;
  }
  std::unique_ptr<Task> load(config::Recipe recipe, const std::vector<Split>& splits, const data::SoundTools& tools = {read_ramp, nullptr}) const {
    auto task = make_task(recipe, {}, tools);
    task->complete(&recipe.model);
    EXPECT_EQ(recipe.model.channels, 16);
    Listener listener;
    task->load(splits, listener);
    return task;
  }
  TempDir dir_;
};

TEST_F(SpeechTask, StepsOfAClip) {
  const auto task = load(recipe(), {Split::kTest});
  const TaskData& data = task->split(Split::kTest);
  ASSERT_EQ(data.size(), 50);
  // By index, speaker and digit: example 3 is digit 3 of 148 samples.
  const TaskBatch batch = data.batch(std::vector<int64_t>{3, 0});
  EXPECT_EQ(batch.src.values.sizes(), (std::vector<int64_t>{10 + 3, 16}));
  EXPECT_EQ(batch.tokens, 13);
  EXPECT_EQ(batch.sample_size, 2);
  EXPECT_TRUE(torch::equal(batch.targets, torch::tensor({3, 0}, torch::kInt64)));
  EXPECT_TRUE(torch::equal(batch.src.cu_seqlens, torch::tensor({0, 10, 13}, torch::kInt64)));
  EXPECT_EQ(data.offsets()[4] - data.offsets()[3], 10);
  Tensor expected = torch::zeros({160});
  expected.narrow(0, 0, 148).copy_(torch::arange(148, torch::kFloat32) / 256);  // 4 / 1024
  EXPECT_TRUE(torch::equal(batch.src.values.narrow(0, 0, 10).reshape({-1}), expected));
  const config::InputFormat format = task->input_format();
  EXPECT_EQ(format.frame, 16);
  EXPECT_EQ(format.gain, 4);
  EXPECT_EQ(format.labels.size(), 10u);
}

TEST_F(SpeechTask, TrainingDrawsByRunEpochAndExampleAlone) {
  config::Recipe shifted = recipe();
  shifted.data.shift_ms = 3;  // 24 samples
  shifted.data.gain_db = 6;
  const auto task = load(shifted, {Split::kTrain});
  const TaskData& data = task->split(Split::kTrain);
  const auto clip = [&](std::vector<int64_t> examples, size_t which, const ReadingKey& key) {
    const TaskBatch batch = data.training_batch(examples, key);
    EXPECT_LE(batch.tokens, [&] {
      int64_t most = 0;
      for (const int64_t i : examples) most += data.offsets()[i + 1] - data.offsets()[i];
      return most;
    }());
    const int64_t* offsets = batch.src.cu_seqlens.const_data_ptr<int64_t>();
    return batch.src.values.narrow(0, offsets[which], offsets[which + 1] - offsets[which]).clone();
  };
  const ReadingKey key{.seed = 5, .epoch = 2};
  EXPECT_TRUE(torch::equal(clip({7}, 0, key), clip({1, 7, 3}, 1, key)));
  EXPECT_FALSE(torch::equal(clip({7}, 0, key), clip({7}, 0, {.seed = 5, .epoch = 3})));
  EXPECT_FALSE(torch::equal(clip({7}, 0, key), clip({7}, 0, {.seed = 6, .epoch = 2})));
  // Over epochs every beginning comes, none lies beyond, loudness stays within 6 dB, and either sign comes.
  std::set<int64_t> beginnings;
  int negative = 0;
  for (int64_t epoch = 0; epoch < 400; ++epoch) {
    const Tensor x = clip({7}, 0, {.seed = 5, .epoch = epoch}).reshape({-1}).to(torch::kFloat64);
    const double step = (x[1] - x[0]).item<double>() * 256;  // 1 without a change of the level
    EXPECT_TRUE(std::abs(step) > 0.5 && std::abs(step) < 2.0) << step;
    negative += step < 0 ? 1 : 0;
    beginnings.insert(std::llround(x[0].item<double>() * 256 / step));
  }
  EXPECT_TRUE(negative > 140 && negative < 260) << negative;  // six deviations of 400 fair draws
  EXPECT_EQ(beginnings.size(), 25u);
  EXPECT_EQ(*beginnings.begin(), 0);
  EXPECT_EQ(*beginnings.rbegin(), 24);
  // What is evaluated is as it was.
  EXPECT_EQ(data.batch(std::vector<int64_t>{7}).src.values[0][1].item<float>(), 1.0f / 256);
}

TEST_F(SpeechTask, TrainingPlaysFasterAndSlower) {
  config::Recipe played = recipe();
  played.data.speed = 0.25;
  const auto task = load(played, {Split::kTrain});
  const TaskData& data = task->split(Split::kTrain);
  // The clip is a ramp of 1/256 a sample, which a cubic keeps: its slope is the speed, its steps are as many as its length at that speed makes, or as
  // it had.
  const Tensor original = data.batch(std::vector<int64_t>{7}).src.values.reshape({-1});
  const int64_t samples = original.nonzero().size(0) + 1;  // sample 0 is 0
  double slowest = 10, fastest = 0;
  for (int64_t epoch = 0; epoch < 200; ++epoch) {
    const TaskBatch batch = data.training_batch(std::vector<int64_t>{7}, {.seed = 5, .epoch = epoch});
    const Tensor x = batch.src.values.reshape({-1}).to(torch::kFloat64) * 256;
    const double speed = (x[10] - x[2]).item<double>() / 8;
    slowest = std::min(slowest, speed);
    fastest = std::max(fastest, speed);
    const int64_t heard = std::min(samples, static_cast<int64_t>(static_cast<double>(samples - 1) / speed + 1e-3) + 1);
    EXPECT_EQ(batch.src.values.size(0), (heard + 15) / 16) << speed;
    EXPECT_NEAR(x[heard - 3].item<double>(), speed * static_cast<double>(heard - 3), 1e-2);
    EXPECT_LE(batch.tokens, data.offsets()[8] - data.offsets()[7]);
  }
  EXPECT_TRUE(slowest > 0.75 - 1e-4 && slowest < 0.77) << slowest;
  EXPECT_TRUE(fastest < 1.25 + 1e-4 && fastest > 1.23) << fastest;
}

TEST_F(SpeechTask, PlacesInTheClipHaveMeanZeroAndDeviationOne) {
  config::Recipe normal = recipe();
  normal.data.normalize = "time-index";
  normal.data.fit = "pad";
  normal.data.seconds = 0.0025;  // 20 samples
  normal.data.gain = 1;
  const data::SoundTools tools{read_level, nullptr};
  const auto task = load(normal, {Split::kTrain, Split::kTest}, tools);
  const TaskData& train = task->split(Split::kTrain);
  std::vector<int64_t> all(static_cast<size_t>(train.size()));
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int64_t>(i);
  const Tensor x = train.batch(all).src.values.reshape({-1, 32}).narrow(1, 0, 20).to(torch::kFloat64);
  EXPECT_LT(x.mean(0).abs().max().item<double>(), 1e-6);
  // The deviation has 1e-5 added to it; at the first place it is the smallest, about 0.026.
  EXPECT_LT((x.std(0, /*unbiased=*/true) - 1).abs().max().item<double>(), 1e-5 / 0.02);
  // Alone, a split is brought to the statistics of the training clips, too.
  const auto alone = load(normal, {Split::kTest}, tools);
  const std::vector<int64_t> first{0, 1, 2};
  EXPECT_TRUE(torch::equal(alone->split(Split::kTest).batch(first).src.values, task->split(Split::kTest).batch(first).src.values));
}

TEST_F(SpeechTask, WhatDoesNotGoTogether) {
  const auto complete = [&](config::Recipe r) { make_task(r, {}, {read_ramp, nullptr})->complete(&r.model); };
  config::Recipe r = recipe();
  r.model.channels = 15;
  expect_error(ErrorKind::kConfig, {"model.channels must be 16", "found 15"}, [&] { complete(r); });
  r = recipe();
  r.model.input = "tokens";
  expect_error(ErrorKind::kConfig, {"model.input \"real\"", "tokens"}, [&] { complete(r); });
  r = recipe();
  r.model.pool = "first";
  expect_error(ErrorKind::kConfig, {"task.pool", "first"}, [&] { complete(r); });
  r = recipe();
  r.model.classes = 9;
  expect_error(ErrorKind::kConfig, {"task.classes must be 10", "found 9"}, [&] { load(r, {Split::kTrain}); });
  expect_error(ErrorKind::kFailed, {"can read sound files"}, [&] { load(recipe(), {Split::kTrain}, {}); });
}

}  // namespace
}  // namespace seqboat::train::test
