// Byte-level language models: what is scored, with a context or as a stream, and runs that carry the model's state from update to update.

#include <gtest/gtest.h>

#include <cmath>

#include "seqboat/base/error.h"
#include "seqboat/nn/model_state.h"
#include "seqboat/train/checkpoint.h"
#include "seqboat/train/evaluate.h"
#include "seqboat/train/model_io.h"
#include "seqboat/train/task.h"
#include "unit/base/temp_dir.h"
#include "unit/train/tiny_run.h"

namespace seqboat::train::test {
namespace {

using data::Split;
using seqboat::test::expect_error;
using seqboat::test::TempDir;
using torch::Tensor;

config::Recipe tiny_bytes(const std::filesystem::path& file) {
  config::Recipe recipe = tiny_recipe(file);
  recipe.model.task = "language-model";
  recipe.model.classes = 0;
  recipe.model.causal = true;
  recipe.model.position = "rotary";
  recipe.model.prenorm = true;
  recipe.data = {.name = "bytes", .path = file.string()};
  recipe.data.block_length = 24;
  recipe.data.valid_share = 0.1;
  recipe.data.test_share = 0.1;
  recipe.train.batch_size = 4;
  recipe.train.max_tokens = 0;
  return recipe;
}

class BytesTask : public ::testing::Test {
 protected:
  BytesTask() {
    std::string text;
    for (int i = 0; i < 400; ++i) text += "line " + std::to_string(i * i % 97) + "\n";
    write_file_atomically(dir_ / "text", text);
    for (int i = 0; i < 6000; ++i) text += "row " + std::to_string(i * i % 89) + "\n";
    write_file_atomically(dir_ / "long", text);
  }
  config::Recipe recipe() const { return tiny_bytes(dir_ / "text"); }

  Evaluation evaluate_with(config::Recipe recipe, nn::Model& model, Split split = Split::kTest) {
    const auto task = make_task(recipe, {});
    Listener listener;
    task->load({split}, listener);
    return evaluate(model, *task, task->split(split), {});
  }

  TempDir dir_;
};

TEST(ScoreTokens, IsTheDefinition) {
  torch::manual_seed(1);
  const Tensor logits = torch::randn({7, 5}), targets = torch::tensor({0, -1, 4, 2, 2, -1, 1}, torch::kInt64);
  const Tensor offsets = torch::tensor({0, 3, 3, 7}, torch::kInt64);
  Score score;
  score_tokens(logits, targets, offsets, &score);
  const Tensor chance = torch::log_softmax(logits.to(torch::kFloat64), 1);
  std::vector<double> losses(3, 0.0), counts(3, 0.0);
  for (int64_t i : {0, 2, 3, 4, 6}) {
    losses[i < 3 ? 0 : 2] -= chance[i][targets[i].item<int64_t>()].item<double>();
    counts[i < 3 ? 0 : 2] += 1;
  }
  EXPECT_NEAR(score.loss_sum, losses[0] + losses[2], 1e-12);
  EXPECT_EQ(score.count, 5);
  EXPECT_EQ(score.examples, 3);

  const Metric metric = bits_metric("bits-per-byte", score);
  const double nats = score.loss_sum / 5;
  EXPECT_NEAR(metric.value, nats / std::log(2), 1e-12);
  double spread = 0;
  for (int b = 0; b < 3; ++b) spread += std::pow(losses[b] - nats * counts[b], 2);
  const double error = 1.959963984540054 * std::sqrt(3.0 / 2 * spread) / 5 / std::log(2);
  EXPECT_NEAR(metric.high - metric.value, error, 1e-12);
  EXPECT_NEAR(metric.value - metric.low, std::min(error, metric.value), 1e-12);

  Score one;
  score_tokens(logits.narrow(0, 0, 1), targets.narrow(0, 0, 1), torch::tensor({0, 1}, torch::kInt64), &one);
  EXPECT_TRUE(std::isinf(bits_metric("bits-per-byte", one).high));
  Score bad;
  expect_error(ErrorKind::kData, {"[0, 5)", "5"}, [&] {
    score_tokens(logits, torch::full({7}, 5, torch::kInt64), torch::tensor({0, 7}, torch::kInt64), &bad);
  });
}

TEST_F(BytesTask, AStreamIsTheWholeTextAtOnce) {
  Listener listener;
  ASSERT_EQ(train_tiny(recipe(), dir_ / "run", &listener), 0);
  const auto model = load_model(dir_ / "run" / "model");
  // Several pieces: the state is carried from one to the next.
  config::Recipe stream = recipe();
  stream.data.path = (dir_ / "long").string();
  stream.data.context = -1;
  const Evaluation result = evaluate_with(stream, *model);
  ASSERT_GE(result.score.examples, 4);
  // One block that is as long as the part: the same text in one forward. Each byte's loss has the same bits; they are added up piece by piece.
  config::Recipe whole = stream;
  whole.data.context = 0;
  whole.data.block_length = 1 << 20;
  const Evaluation at_once = evaluate_with(whole, *model);
  EXPECT_EQ(at_once.score.examples, 1);
  EXPECT_EQ(result.score.count, at_once.score.count);
  EXPECT_NEAR(result.score.loss_sum, at_once.score.loss_sum, 1e-12 * at_once.score.loss_sum);
  EXPECT_EQ(result.activation_rate, at_once.activation_rate);
  for (size_t layer = 0; layer < 2; ++layer)
    EXPECT_NEAR(result.attention_span[layer], at_once.attention_span[layer], 1e-12 * at_once.attention_span[layer]);
  // And the state matters: the same pieces by themselves are something else.
  config::Recipe pieces = whole;
  pieces.data.block_length = 1024;
  const Evaluation alone = evaluate_with(pieces, *model);
  EXPECT_EQ(alone.score.examples, result.score.examples);
  EXPECT_GT(std::abs(alone.score.loss_sum - result.score.loss_sum), 1e-3);

  // A context that reaches to the beginning gives each byte all that was before it.
  config::Recipe small = recipe();
  small.data.context = -1;
  const Evaluation streamed = evaluate_with(small, *model);
  small.data.block_length = 1000;
  small.data.context = 999;
  const Evaluation shown = evaluate_with(small, *model);
  EXPECT_EQ(shown.score.count, streamed.score.count);
  EXPECT_EQ(shown.score.examples, shown.score.count);
  EXPECT_NEAR(shown.score.loss_sum, streamed.score.loss_sum, 1e-6 * streamed.score.loss_sum);
}

TEST_F(BytesTask, EveryByteCountsOnceWhateverTheContext) {
  const auto model = nn::make_model(
      [&] {
        config::Recipe r = recipe();
        make_task(r, {})->complete(&r.model);
        return r.model;
      }(),
      1);
  std::vector<double> losses;
  for (int64_t context : {0, 7, 23}) {
    config::Recipe r = recipe();
    r.data.context = context;
    const Evaluation result = evaluate_with(r, *model, Split::kValid);
    EXPECT_EQ(result.score.count, static_cast<int64_t>(std::floor(0.1 * static_cast<double>(read_file(dir_ / "text").size()))));
    losses.push_back(result.score.loss());
  }
  EXPECT_NE(losses[0], losses[1]);
}

TEST_F(BytesTask, ARunThatCarriesItsStateIsItselfWhereverItIsInterrupted) {
  for (const int64_t truncation : {0, 16}) {
    config::Recipe r = recipe();
    r.data.carry_state = true;
    r.data.context = -1;
    r.model.truncation = truncation;
    r.train.steps = 14;  // 26 blocks a lane: the second epoch begins after 13 updates of two
    r.train.save_every = 3;
    const std::string name = "carried" + std::to_string(truncation);
    Listener listener;
    ASSERT_EQ(train_tiny(r, dir_ / (name + "whole"), &listener), 0);
    for (const int64_t stop : {1, 4, 9, 13}) {
      const auto run = dir_ / (name + std::to_string(stop));
      EXPECT_EQ(train_tiny(r, run, &listener, stop), 143);
      EXPECT_EQ(train_tiny(r, run, &listener), 0);
      for (const char* file : {"model.safetensors", "optimizer.safetensors", "stream.safetensors"}) {
        EXPECT_TRUE(read_file(run / "checkpoints/step-00000014" / file) == read_file(dir_ / (name + "whole") / "checkpoints/step-00000014" / file))
            << file << ", stopped at " << stop;
      }
      EXPECT_EQ(metrics_without_timing(run), metrics_without_timing(dir_ / (name + "whole")));
    }
    config::Recipe fresh = r;
    fresh.data.carry_state = false;
    ASSERT_EQ(train_tiny(fresh, dir_ / (name + "fresh"), &listener), 0);
    EXPECT_FALSE(std::filesystem::exists(dir_ / (name + "fresh") / "checkpoints/step-00000014/stream.safetensors"));
    EXPECT_FALSE(read_file(dir_ / (name + "fresh") / "model/model.safetensors") == read_file(dir_ / (name + "whole") / "model/model.safetensors"));
  }
}

TEST_F(BytesTask, TheCarriedStateIsThatOfEveryLaneAndBeginsAnewWithTheEpoch) {
  config::Recipe r = recipe();
  r.data.carry_state = true;
  r.train.save_every = 1;
  r.train.keep = 100;
  r.train.steps = 15;
  Listener listener;
  ASSERT_EQ(train_tiny(r, dir_ / "run", &listener), 0);
  for (const int64_t step : {1, 5, 13, 14, 15}) {
    const auto tensors = read_tensors(dir_ / "run/checkpoints" / CheckpointStore::name_of(step) / "stream.safetensors");
    for (const NamedTensor& item : tensors) {
      if (item.name != "time") continue;
      const int64_t blocks = 2 * (step <= 13 ? step : step - 13);
      EXPECT_TRUE(torch::equal(item.tensor, torch::full({4}, 24 * blocks, torch::kInt64))) << "after step " << step << ": " << item.tensor;
    }
    EXPECT_FALSE(tensors.empty());
  }
}

TEST_F(BytesTask, ARunDoesNotGoOnWithOtherData) {
  Listener listener;
  config::Recipe r = recipe();
  ASSERT_EQ(train_tiny(r, dir_ / "run", &listener), 0);
  const std::string config = read_file(dir_ / "run/config.toml"), environment = read_file(dir_ / "run/environment.json");
  r.train.steps = 20;
  r.data.path = (dir_ / "long").string();
  expect_error(ErrorKind::kModel, {"other training data", "long"}, [&] { train_tiny(r, dir_ / "run", &listener); });
  EXPECT_EQ(read_file(dir_ / "run/config.toml"), config);
  EXPECT_EQ(read_file(dir_ / "run/environment.json"), environment);
  // A copy elsewhere is the same data.
  write_file_atomically(dir_ / "copy", read_file(dir_ / "text"));
  r.data.path = (dir_ / "copy").string();
  EXPECT_EQ(train_tiny(r, dir_ / "run", &listener), 0);
}

TEST_F(BytesTask, ADamagedStreamIsADamagedCheckpoint) {
  config::Recipe r = recipe();
  r.data.carry_state = true;
  r.train.save_every = 6;
  Listener listener;
  ASSERT_EQ(train_tiny(r, dir_ / "run", &listener), 0);
  const auto whole = read_file(dir_ / "run/checkpoints/step-00000012/model.safetensors");
  const auto file = dir_ / "run/checkpoints/step-00000012/stream.safetensors";
  std::string bytes = read_file(file);
  bytes[bytes.size() - 3] ^= 1;
  write_file_atomically(file, bytes);
  EXPECT_EQ(train_tiny(r, dir_ / "run", &listener), 0);
  ASSERT_FALSE(listener.warnings.empty());
  EXPECT_NE(listener.warnings.back().find("stream.safetensors: damaged"), std::string::npos) << listener.warnings.back();
  EXPECT_TRUE(read_file(dir_ / "run/checkpoints/step-00000012/model.safetensors") == whole);
}

TEST_F(BytesTask, WhatCannotBeTrainedOnSaysSo) {
  const auto load = [&](const config::Recipe& r, std::vector<Split> splits) {
    Listener listener;
    make_task(r, {})->load(splits, listener);
  };
  config::Recipe r = recipe();
  r.data.path.clear();
  expect_error(ErrorKind::kData, {"--data FILE"}, [&] { load(r, {Split::kTest}); });
  r = recipe();
  r.data.test_share = 0;
  expect_error(ErrorKind::kData, {"the test part", "is empty", "data.test_share"}, [&] { load(r, {Split::kTest}); });
  r = recipe();
  r.data.carry_state = true;
  r.data.block_length = 1 << 20;
  expect_error(ErrorKind::kData, {"0 blocks of data.block_length = 1048576", "train.batch_size = 4"}, [&] {
    load(r, {Split::kTrain, Split::kValid});
  });
  r = recipe();
  r.model.task = "classification";
  expect_error(ErrorKind::kConfig, {"language-model", "classification"}, [&] { make_task(r, {})->complete(&r.model); });
  r = recipe();
  r.model.vocab_size = 256;
  expect_error(ErrorKind::kConfig, {"at least 260", "256"}, [&] { make_task(r, {})->complete(&r.model); });
}

}  // namespace
}  // namespace seqboat::train::test
