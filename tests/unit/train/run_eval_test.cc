#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>

#include "seqboat/base/error.h"
#include "seqboat/base/safetensors.h"
#include "seqboat/train/commands.h"
#include "seqboat/train/model_io.h"
#include "seqboat/train/task.h"
#include "unit/base/temp_dir.h"
#include "unit/train/tiny_run.h"

namespace seqboat::train::test {
namespace {

namespace fs = std::filesystem;
using seqboat::test::expect_error;
using seqboat::test::TempDir;

class RunEval : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    dir_ = new TempDir;
    Listener listener;
    config::Recipe recipe = tiny_recipe(*dir_ / "data");
    recipe.expect = {.metric = "accuracy", .value = 61.5, .source = "a paper"};
    train_tiny(recipe, *dir_ / "run", &listener);
  }
  static void TearDownTestSuite() {
    delete dir_;
    dir_ = nullptr;
  }
  static nlohmann::ordered_json eval(const EvalRequest& request) {
    Listener listener;
    EXPECT_EQ(run_eval(request, listener), 0);
    text_ = listener.result_text;
    return listener.result_json;
  }

  static TempDir* dir_;
  static std::string text_;
};
TempDir* RunEval::dir_ = nullptr;
std::string RunEval::text_;

TEST_F(RunEval, SaysWhatItPromises) {
  const auto json = eval({.model = *dir_ / "run", .split = "test", .threads = 2});
  for (const char* key :
       {"task", "split", "metric", "value", "ci95", "examples", "loss", "activation_rate", "attention_span", "shortcut_ladder", "expect"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_EQ(json["task"], "listops");
  EXPECT_EQ(json["split"], "test");
  EXPECT_EQ(json["metric"], "accuracy");
  EXPECT_EQ(json["examples"], 20);
  EXPECT_EQ(json["activation_rate"].size(), 2u);
  EXPECT_EQ(json["attention_span"].size(), 2u);
  EXPECT_LE(json["ci95"][0].get<double>(), json["value"].get<double>());
  EXPECT_GE(json["ci95"][1].get<double>(), json["value"].get<double>());
  EXPECT_EQ(json["shortcut_ladder"]["fitted_on"], "train");
  EXPECT_DOUBLE_EQ(json["expect"]["gap"].get<double>(), 100 * json["value"].get<double>() - 61.5);
  for (const char* word : {"accuracy", "95 % interval", "nats", "activation rate", "attention span", "root operator", "a paper"}) {
    EXPECT_NE(text_.find(word), std::string::npos) << word << " in:\n" << text_;
  }
}

TEST_F(RunEval, EqualsTheValidationOfTheRunAndDoesNotDependOnThreads) {
  const auto one = eval({.model = *dir_ / "run", .split = "valid", .threads = 1});
  auto two = eval({.model = *dir_ / "run", .split = "valid", .threads = 2});
  EXPECT_EQ(one.dump(), two.dump());
  const std::string best = read_file(*dir_ / "run" / "best");
  const int64_t step = std::stoll(best.substr(5));
  bool found = false;
  const std::string text = metrics_without_timing(*dir_ / "run");
  for (size_t begin = 0; begin < text.size(); begin = text.find('\n', begin) + 1) {
    const auto line = nlohmann::json::parse(text.substr(begin, text.find('\n', begin) - begin));
    if (!line.contains("split") || line["step"] != step) continue;
    found = true;
    EXPECT_EQ(line["value"].get<double>(), one["value"].get<double>());
    EXPECT_EQ(line["loss"].get<double>(), one["loss"].get<double>());
  }
  EXPECT_TRUE(found);
}

TEST_F(RunEval, TakesARunAModelFolderOrACheckpoint) {
  const auto run = eval({.model = *dir_ / "run"});
  const auto model = eval({.model = *dir_ / "run/model"});
  EXPECT_EQ(run["value"], model["value"]);
  fs::copy(*dir_ / "run/model", *dir_ / "bare", fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  const auto bare = eval({.model = *dir_ / "bare", .data_dir = *dir_ / "data"});
  EXPECT_EQ(bare["loss"], run["loss"]);
  EXPECT_FALSE(bare.contains("expect"));
  // One file: nothing to count shortcuts on but itself.
  const auto file = eval({.model = *dir_ / "bare", .data_dir = *dir_ / "data/basic_test.tsv"});
  EXPECT_EQ(file["loss"], run["loss"]);
  EXPECT_EQ(file["shortcut_ladder"]["fitted_on"], "test itself");
  Listener listener;
  expect_error(ErrorKind::kUsage, {"--data"}, [&] { run_eval({.model = *dir_ / "bare"}, listener); });
  expect_error(ErrorKind::kUsage, {"--set train.seed=1", "bare model folder", "[data]"},
               [&] { run_eval({.model = *dir_ / "bare", .overrides = {"train.seed=1"}}, listener); });
  expect_error(ErrorKind::kUsage, {"--set model.window_size=1", "decides"},
               [&] { run_eval({.model = *dir_ / "run", .overrides = {"model.window_size=1"}}, listener); });
}

TEST_F(RunEval, OnlyTheFirstExamples) {
  const auto json = eval({.model = *dir_ / "run", .examples = 7});
  EXPECT_EQ(json["examples"], 7);
  EXPECT_EQ(json["shortcut_ladder"]["samples"], 7);
}

/// A copy of the model whose tensors were changed.
class BadModel : public RunEval {
 protected:
  void SetUp() override {
    fs::create_directories(bad_ / "model");
    fs::copy_file(*dir_ / "run/model/config.json", bad_ / "model/config.json");
    file_ = std::make_unique<SafetensorsFile>(SafetensorsFile::open(*dir_ / "run/model/model.safetensors"));
    tensors_ = file_->tensors();
  }
  void expect_refusal(const std::vector<std::string>& pieces) {
    write_safetensors(bad_ / "model/model.safetensors", tensors_);
    Listener listener;
    expect_error(ErrorKind::kModel, pieces, [&] { run_eval({.model = bad_ / "model", .data_dir = *dir_ / "data"}, listener); });
  }

  TempDir bad_;
  std::unique_ptr<SafetensorsFile> file_;
  std::vector<TensorView> tensors_;
};

TEST_F(BadModel, AMissingTensorIsNamed) {
  const std::string name = tensors_[3].name;
  tensors_.erase(tensors_.begin() + 3);
  expect_refusal({"model.safetensors", name, "missing"});
}

TEST_F(BadModel, AnUnknownTensorIsNamed) {
  tensors_.push_back({"encoder.surprise", DType::kF32, {1}, tensors_[0].data, 4});
  expect_refusal({"'encoder.surprise'", "unknown"});
}

TEST_F(BadModel, AnotherShapeOrDtypeIsNamed) {
  const TensorView original = tensors_[0];
  tensors_[0].shape.push_back(1);
  expect_refusal({original.name, "expected the shape"});
  tensors_[0] = original;
  tensors_[0].dtype = DType::kI32;
  expect_refusal({original.name, "expected the dtype F32, found I32"});
}

TEST_F(BadModel, AConfigOfALargerModelIsRefusedBeforeItIsBuilt) {
  auto config = nlohmann::json::parse(read_file(bad_ / "model/config.json"));
  config["d_model"] = 65536;  // thousands of gigabytes: the test would not survive it
  config["n_layers"] = 1024;
  write_file_atomically(bad_ / "model/config.json", config.dump());
  int64_t numbers = 0;
  for (const TensorView& view : tensors_) numbers += view.count();
  expect_refusal({"model.safetensors", "parameters, as config.json beside it asks for, found " + std::to_string(numbers)});
}

TEST_F(BadModel, ABrokenFileIsAModelError) {
  write_file_atomically(bad_ / "model/model.safetensors", "12345");
  Listener listener;
  expect_error(ErrorKind::kModel, {"model.safetensors"}, [&] { run_eval({.model = bad_ / "model", .data_dir = *dir_ / "data"}, listener); });
  expect_error(ErrorKind::kModel, {"no such folder"}, [&] { run_eval({.model = bad_ / "nowhere"}, listener); });
}

TEST(AccuracyMetric, WilsonInterval) {
  // Reference values of the score interval: 15 of 20, 0 of 10, 10 of 10.
  const Metric m = accuracy_metric(15, 20);
  EXPECT_DOUBLE_EQ(m.value, 0.75);
  EXPECT_NEAR(m.low, 0.5312991, 1e-6);
  EXPECT_NEAR(m.high, 0.8881383, 1e-6);
  EXPECT_EQ(accuracy_metric(0, 10).low, 0.0);
  EXPECT_NEAR(accuracy_metric(0, 10).high, 0.2775328, 1e-6);
  EXPECT_EQ(accuracy_metric(10, 10).high, 1.0);
  EXPECT_NEAR(accuracy_metric(10, 10).low, 0.7224672, 1e-6);
}

TEST(ScoreClassification, IsTheDefinition) {
  const torch::Tensor logits = torch::tensor({{1.0, 2.0, 2.0}, {1000.0, 0.0, -1000.0}});
  Score score;
  score_classification(logits, torch::tensor({int64_t{2}, int64_t{0}}), &score);
  EXPECT_EQ(score.predictions, (std::vector<int64_t>{1, 0}));  // of equals, the first
  EXPECT_EQ(score.correct, 1);
  EXPECT_EQ(score.count, 2);
  EXPECT_NEAR(score.loss_sum, std::log(std::exp(1.0) + 2 * std::exp(2.0)) - 2.0, 1e-14);
  EXPECT_THROW(score_classification(logits, torch::tensor({int64_t{3}, int64_t{0}}), &score), Error);
}

}  // namespace
}  // namespace seqboat::train::test
