#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/base/safetensors.h"
#include "seqboat/config/run_dir.h"
#include "seqboat/train/checkpoint.h"
#include "seqboat/train/commands.h"
#include "seqboat/train/model_io.h"
#include "seqboat/train/resume.h"
#include "unit/base/temp_dir.h"
#include "unit/train/tiny_run.h"

namespace seqboat::train::test {
namespace {

namespace fs = std::filesystem;
using seqboat::test::expect_error;
using seqboat::test::TempDir;

class RunTrain : public ::testing::Test {
 protected:
  fs::path run(const std::string& name) const { return dir_ / name; }
  config::Recipe recipe() const { return tiny_recipe(dir_ / "data"); }

  /// What a finished run is judged by.
  static void expect_same_run(const fs::path& got, const fs::path& want) {
    const std::string last = read_file(want / "latest");
    EXPECT_EQ(read_file(got / "latest"), last);
    EXPECT_EQ(read_file(got / "best"), read_file(want / "best"));
    const std::string name = last.substr(0, last.size() - 1);
    for (const char* file : {"config.json", "model.safetensors", "optimizer.safetensors"}) {
      EXPECT_TRUE(read_file(got / "checkpoints" / name / file) == read_file(want / "checkpoints" / name / file)) << file << " of " << name;
    }
    for (const char* file : {"config.json", "model.safetensors"}) {
      EXPECT_TRUE(read_file(got / "model" / file) == read_file(want / "model" / file)) << "exported " << file;
    }
    EXPECT_EQ(metrics_without_timing(got), metrics_without_timing(want));
  }

  TempDir dir_;
};

TEST_F(RunTrain, LeavesTheFilesOfARun) {
  Listener listener;
  EXPECT_EQ(train_tiny(recipe(), run("a"), &listener), 0);
  const fs::path dir = run("a");
  for (const char* file :
       {"config.toml", "environment.json", "metrics.jsonl", "train.log", "latest", "best", "model/config.json", "model/model.safetensors"}) {
    EXPECT_TRUE(fs::is_regular_file(dir / file)) << file;
  }
  EXPECT_EQ(read_file(dir / "latest"), "step-00000012\n");
  for (const char* file : {"config.json", "model.safetensors", "optimizer.safetensors", "trainer_state.json"}) {
    EXPECT_TRUE(fs::is_regular_file(dir / "checkpoints" / "step-00000012" / file)) << file;
  }
  EXPECT_LE(CheckpointStore(dir).steps().size(), 3u);  // two, and the best

  std::vector<nlohmann::json> lines;
  std::ifstream metrics(dir / "metrics.jsonl");
  for (std::string line; std::getline(metrics, line);) lines.push_back(nlohmann::json::parse(line));
  std::vector<int64_t> train, valid;
  for (const auto& line : lines) {
    (line.contains("split") ? valid : train).push_back(line["step"]);
    for (const char* key : {"step", "loss", "activation_rate"}) EXPECT_TRUE(line.contains(key)) << key << " in " << line;
    EXPECT_EQ(line["activation_rate"].size(), 2u);
    if (line.contains("split")) {
      for (const char* key : {"metric", "value"}) EXPECT_TRUE(line.contains(key)) << key << " in " << line;
    } else {
      for (const char* key : {"tokens", "lr", "grad_norm", "tokens_per_s"}) EXPECT_TRUE(line.contains(key)) << key << " in " << line;
    }
  }
  EXPECT_EQ(train, (std::vector<int64_t>{4, 8, 12}));
  EXPECT_EQ(valid, (std::vector<int64_t>{5, 10, 12}));
  EXPECT_GT(lines.front()["loss"].get<double>(), 1.5);  // ten classes: about ln 10
  EXPECT_LT(lines.front()["loss"].get<double>(), 3.5);

  // The resolved recipe reads back as the run's.
  const config::Recipe resolved = config::load_recipe(dir / "config.toml");
  EXPECT_EQ(resolved.model.vocab_size, 20);
  EXPECT_EQ(resolved.train.seed, 7);
  const auto environment = nlohmann::json::parse(read_file(dir / "environment.json"));
  for (const char* key : {"version", "seed", "threads", "simd", "torch", "compiler", "cpu", "command_line"})
    EXPECT_TRUE(environment.contains(key)) << key;
  EXPECT_NE(listener.logs.front().find("seqboat 0.0.0-test, cpu, "), std::string::npos) << listener.logs.front();
  EXPECT_NE(listener.logs.front().find("2 threads, seed 7"), std::string::npos) << listener.logs.front();
  EXPECT_NE(read_file(dir / "train.log").find(listener.logs.front()), std::string::npos);
  for (const char* key : {"run_dir", "steps", "tokens", "seconds", "loss", "metric", "value", "checkpoint"}) {
    EXPECT_TRUE(listener.result_json.contains(key)) << key;
  }
  EXPECT_EQ(listener.result_json["steps"], 12);
  EXPECT_EQ(load_model(config::find_model_dir(dir))->config().n_layers, 2);
}

TEST_F(RunTrain, SameSeedSameBytesAtAnyThreadCount) {
  Listener listener;
  config::Recipe one = recipe();
  one.train.threads = 1;
  config::Recipe two = recipe();
  two.train.threads = 2;
  config::Recipe three = recipe();
  three.train.threads = 3;
  EXPECT_EQ(train_tiny(one, run("one"), &listener), 0);
  EXPECT_EQ(train_tiny(two, run("two"), &listener), 0);
  EXPECT_EQ(train_tiny(three, run("three"), &listener), 0);
  expect_same_run(run("two"), run("one"));
  expect_same_run(run("three"), run("one"));

  config::Recipe other = recipe();
  other.train.seed = 8;
  EXPECT_EQ(train_tiny(other, run("other"), &listener), 0);
  EXPECT_FALSE(read_file(run("other") / "model/model.safetensors") == read_file(run("one") / "model/model.safetensors"));
}

TEST_F(RunTrain, InterruptedAndResumedIsUninterrupted) {
  Listener listener;
  ASSERT_EQ(train_tiny(recipe(), run("whole"), &listener), 0);
  for (const int64_t stop_at : {1, 4, 5, 7, 11}) {
    SCOPED_TRACE("interrupted after " + std::to_string(stop_at));
    const fs::path dir = run("stopped" + std::to_string(stop_at));
    Listener first, second;
    EXPECT_EQ(train_tiny(recipe(), dir, &first, stop_at), 128 + 15);
    EXPECT_TRUE(fs::is_directory(CheckpointStore(dir).path_of(stop_at)));
    EXPECT_EQ(train_tiny(recipe(), dir, &second), 0);
    EXPECT_TRUE(second.warnings.empty());
    expect_same_run(dir, run("whole"));
  }
}

TEST_F(RunTrain, InterruptedInTheMiddleOfAValidation) {
  config::Recipe recipe = this->recipe();
  recipe.data.valid_examples = 1500;  // several batches
  Listener listener;
  ASSERT_EQ(train_tiny(recipe, run("whole"), &listener), 0);
  std::atomic<int> signal{0};
  TrainRequest request;
  request.recipe = recipe;
  request.recipe_name = "tiny";
  request.run_dir = run("a");
  request.stop_signal = &signal;
  listener.on_progress = [&](const Progress& progress) {
    if (progress.done == 5 && progress.fields.back().name == "validating") signal = 2;
  };
  EXPECT_EQ(run_train(request, listener), 130);
  EXPECT_EQ(metrics_without_timing(run("a")).find("\"split\""), std::string::npos);
  EXPECT_EQ(read_file(run("a") / "latest"), "step-00000005\n");
  EXPECT_EQ(train_tiny(recipe, run("a"), &listener), 0);
  expect_same_run(run("a"), run("whole"));
}

TEST_F(RunTrain, LinesBeyondTheCheckpointAreCut) {
  Listener listener;
  ASSERT_EQ(train_tiny(recipe(), run("whole"), &listener), 0);
  ASSERT_EQ(train_tiny(recipe(), run("a"), &listener, 7), 143);
  // What a killed process may leave: lines of later updates, half a line, a temporary folder.
  std::ofstream(run("a") / "metrics.jsonl", std::ios::app) << R"({"step":8,"tokens":1,"loss":9.0,"activation_rate":[0,0]})"
                                                           << "\n"
                                                           << R"({"step":9,"tok)";
  fs::create_directories(run("a") / "checkpoints/.tmp-step-00000008");
  std::ofstream(run("a") / "checkpoints/.tmp-step-00000008/model.safetensors") << "half";
  ASSERT_EQ(train_tiny(recipe(), run("a"), &listener), 0);
  expect_same_run(run("a"), run("whole"));
  EXPECT_FALSE(fs::exists(run("a") / "checkpoints/.tmp-step-00000008"));
}

TEST_F(RunTrain, ADamagedNewestCheckpointIsPassedOver) {
  Listener listener;
  ASSERT_EQ(train_tiny(recipe(), run("whole"), &listener), 0);
  enum Damage { kTruncated, kFlipped, kMissing, kNoState, kBrokenState };
  for (const Damage damage : {kTruncated, kFlipped, kMissing, kNoState, kBrokenState}) {
    SCOPED_TRACE(static_cast<int>(damage));
    const fs::path dir = run("damaged" + std::to_string(damage));
    Listener first, second;
    ASSERT_EQ(train_tiny(recipe(), dir, &first, 5 + 2), 143);  // checkpoints 5 and 7
    const fs::path newest = CheckpointStore(dir).path_of(7);
    const fs::path weights = newest / "model.safetensors", state = newest / "trainer_state.json";
    if (damage == kTruncated) fs::resize_file(weights, fs::file_size(weights) / 2);
    if (damage == kFlipped) {
      std::string bytes = read_file(weights);
      bytes[bytes.size() - 100] ^= 0x10;
      write_file_atomically(weights, bytes);
    }
    if (damage == kMissing) fs::remove(newest / "optimizer.safetensors");
    if (damage == kNoState) fs::remove(state);
    if (damage == kBrokenState) write_file_atomically(state, read_file(state).substr(0, 40));
    EXPECT_EQ(train_tiny(recipe(), dir, &second), 0);
    ASSERT_EQ(second.warnings.size(), 1u);
    EXPECT_NE(second.warnings[0].find("step-00000007"), std::string::npos) << second.warnings[0];
    expect_same_run(dir, run("whole"));
  }
}

TEST_F(RunTrain, AnotherSimdTargetIsSaidAndGoesOn) {
  Listener listener;
  config::Recipe r = recipe();
  EXPECT_EQ(train_tiny(r, run("a"), &listener), 0);
  const fs::path state = run("a") / "checkpoints/step-00000012/trainer_state.json";
  auto json = nlohmann::ordered_json::parse(read_file(state));
  const std::string here = json["simd"];
  json["simd"] = "another";
  write_file_atomically(state, json.dump());
  r.train.steps = 14;
  EXPECT_EQ(train_tiny(r, run("a"), &listener), 0);
  ASSERT_EQ(listener.warnings.size(), 1u);
  EXPECT_NE(listener.warnings[0].find("SIMD target another so far and goes on with " + here), std::string::npos) << listener.warnings[0];
  // From here on it is a run of this target.
  r.train.steps = 16;
  EXPECT_EQ(train_tiny(r, run("a"), &listener), 0);
  EXPECT_EQ(listener.warnings.size(), 1u);
}

// The sum over micro-batches is that over one batch of all their sequences; only the order in which float32 numbers are added is another.
TEST_F(RunTrain, AccumulatingIsOneLargerBatch) {
  Listener listener;
  config::Recipe at_once = recipe();
  at_once.model.dropout = 0;  // its masks know the micro-batch
  at_once.train.batch_size = 16;
  at_once.train.max_tokens = 0;
  at_once.train.accumulate = 1;
  at_once.train.log_every = 1;
  at_once.train.steps = 3;  // 60 examples: the fourth update would be of twelve
  config::Recipe in_parts = at_once;
  in_parts.train.batch_size = 4;
  in_parts.train.accumulate = 4;
  EXPECT_EQ(train_tiny(at_once, run("whole"), &listener), 0);
  EXPECT_EQ(train_tiny(in_parts, run("parts"), &listener), 0);
  std::ifstream whole(run("whole") / "metrics.jsonl"), parts(run("parts") / "metrics.jsonl");
  int lines = 0;
  for (std::string a, b; std::getline(whole, a) && std::getline(parts, b);) {
    const auto want = nlohmann::json::parse(a), got = nlohmann::json::parse(b);
    if (want.contains("split")) continue;
    EXPECT_EQ(got["tokens"], want["tokens"]);
    EXPECT_EQ(got["activation_rate"], want["activation_rate"]);
    for (const char* key : {"loss", "grad_norm"}) {
      EXPECT_NEAR(got[key].get<double>(), want[key].get<double>(), 1e-4 * want[key].get<double>()) << key << " of step " << want["step"];
    }
    ++lines;
  }
  EXPECT_EQ(lines, 3);
}

// The steps of the calculation as targets of their own: another gradient, said in the metrics, and nothing of it in the exported model's shape.
TEST_F(RunTrain, StepsOfTheCalculationAreLearned) {
  Listener listener;
  config::Recipe plain = recipe();
  plain.model.pool = "first";
  plain.train.steps = 60;
  plain.optim.total_steps = 60;
  plain.train.log_every = 30;
  plain.train.eval_every = 0;
  config::Recipe with_steps = plain;
  with_steps.train.auxiliary_weight = 0.5;
  EXPECT_EQ(train_tiny(plain, run("plain"), &listener), 0);
  EXPECT_EQ(train_tiny(with_steps, run("steps"), &listener), 0);
  EXPECT_EQ(read_file(run("plain") / "metrics.jsonl").find("auxiliary_loss"), std::string::npos);
  std::vector<double> losses;
  std::ifstream metrics(run("steps") / "metrics.jsonl");
  for (std::string line; std::getline(metrics, line);) {
    const auto json = nlohmann::json::parse(line);
    if (!json.contains("split")) losses.push_back(json.at("auxiliary_loss"));
  }
  ASSERT_EQ(losses.size(), 2u);
  EXPECT_LT(losses[1], losses[0]);
  EXPECT_LT(losses[1], std::log(10.0));
  EXPECT_EQ(read_file(run("plain") / "model/config.json"), read_file(run("steps") / "model/config.json"));
  EXPECT_FALSE(read_file(run("plain") / "model/model.safetensors") == read_file(run("steps") / "model/model.safetensors"));
}

TEST_F(RunTrain, BeginsWithWhatFitsOfAnotherModel) {
  Listener listener;
  ASSERT_EQ(train_tiny(recipe(), run("a"), &listener), 0);
  // As good as no step: what it begins with is what it ends with.
  config::Recipe begun = recipe();
  begun.train.init = run("a").string();
  begun.train.steps = 1;
  begun.train.eval_every = 0;
  begun.optim = {.lr = 1e-12, .weight_decay = 0, .schedule = "constant", .total_steps = 5};
  begun.model.d_classifier = 12;  // another head
  ASSERT_EQ(train_tiny(begun, run("b"), &listener), 0);
  std::map<std::string, torch::Tensor> from;
  for (const NamedTensor& item : read_tensors(run("a") / "model/model.safetensors")) from.emplace(item.name, item.tensor);
  int taken = 0, anew = 0;
  for (const NamedTensor& item : read_tensors(run("b") / "model/model.safetensors")) {
    if (item.name.rfind("classifier.", 0) == 0) {
      ++anew;
      continue;
    }
    ASSERT_EQ(from.count(item.name), 1u) << item.name;
    EXPECT_TRUE(torch::allclose(item.tensor, from[item.name], 0, 1e-9)) << item.name;
    ++taken;
  }
  EXPECT_GT(taken, 10);
  EXPECT_EQ(anew, 3);
  const auto said = std::find_if(listener.logs.begin(), listener.logs.end(), [](const auto& line) { return line.find("drawn anew") != line.npos; });
  ASSERT_NE(said, listener.logs.end());
  EXPECT_NE(said->find(std::to_string(taken) + " of " + std::to_string(taken + anew) + " tensors"), std::string::npos) << *said;
  // Going on asks the other model for nothing.
  fs::remove_all(run("a"));
  begun.train.steps = 2;
  EXPECT_EQ(train_tiny(begun, run("b"), &listener), 0);
  expect_error(ErrorKind::kModel, {run("a").string()}, [&] { train_tiny(begun, run("c"), &listener); });
  config::Recipe other = recipe();
  other.train.init = run("b").string();
  other.model.layer = "attention";
  other.model.d_model = 20;
  other.model.d_classifier = 14;
  expect_error(ErrorKind::kModel, {"none of its", "has name and shape"}, [&] { train_tiny(other, run("d"), &listener); });
}

TEST_F(RunTrain, NoReadableCheckpointIsAnErrorThatHarmsNothing) {
  Listener listener;
  ASSERT_EQ(train_tiny(recipe(), run("a"), &listener, 2), 143);
  const fs::path weights = CheckpointStore(run("a")).path_of(2) / "model.safetensors";
  write_file_atomically(weights, "not a model");
  expect_error(ErrorKind::kModel, {"none of the 1 checkpoints can be read"}, [&] { train_tiny(recipe(), run("a"), &listener); });
  EXPECT_EQ(read_file(weights), "not a model");
}

TEST_F(RunTrain, AnotherConfigIsRefusedAndNamed) {
  Listener listener;
  ASSERT_EQ(train_tiny(recipe(), run("a"), &listener, 2), 143);
  const std::string config = read_file(run("a") / "config.toml");
  config::Recipe other = recipe();
  other.model.d_hidden = 48;
  other.optim.lr = 0.5;
  expect_error(ErrorKind::kModel, {"another config", "model.d_hidden = 32, here 48", "optim.lr = 0.01, here 0.5"},
               [&] { train_tiny(other, run("a"), &listener); });
  EXPECT_EQ(read_file(run("a") / "config.toml"), config);

  config::Recipe longer = recipe();  // these a run may change
  longer.train.steps = 14;
  longer.train.threads = 1;
  longer.train.keep = 5;
  EXPECT_EQ(train_tiny(longer, run("a"), &listener), 0);
  EXPECT_EQ(listener.result_json["steps"], 14);
}

TEST_F(RunTrain, AFolderThatIsNoRunIsRefused) {
  Listener listener;
  fs::create_directories(run("a") / "checkpoints");
  expect_error(ErrorKind::kModel, {"has a checkpoints but no config.toml"}, [&] { train_tiny(recipe(), run("a"), &listener); });
  TrainRequest request;
  request.recipe = recipe();
  request.run_dir = run("none");
  request.resume = true;
  expect_error(ErrorKind::kModel, {"no run directory"}, [&] { run_train(request, listener); });
}

TEST_F(RunTrain, ADivergedRunStopsAndKeepsItsCheckpoint) {
  Listener listener;
  config::Recipe wild = recipe();
  wild.optim.schedule = "constant";
  wild.optim.warmup = 0;
  wild.optim.lr = 1e35;
  wild.optim.weight_decay = 0;
  expect_error(ErrorKind::kDiverged, {"diverged at step 2", "training examples", "learning rate 1e+35"},
               [&] { train_tiny(wild, run("wild"), &listener); });

  // A run that was well until then.
  config::Recipe good = recipe();
  ASSERT_EQ(train_tiny(good, run("a"), &listener, 6), 143);
  const std::string before = read_file(CheckpointStore(run("a")).path_of(6) / "model.safetensors");
  std::string config = read_file(run("a") / "config.toml");
  const size_t at = config.find("lr = 0.01");
  ASSERT_NE(at, std::string::npos);
  write_file_atomically(run("a") / "config.toml", config.replace(at, 9, "lr = 1e35"));
  good.optim.lr = 1e35;
  expect_error(ErrorKind::kDiverged, {"diverged at step 8", "the checkpoint before it is step-00000006"},
               [&] { train_tiny(good, run("a"), &listener); });
  EXPECT_EQ(read_file(CheckpointStore(run("a")).path_of(6) / "model.safetensors"), before);
  EXPECT_EQ(read_file(run("a") / "latest"), "step-00000006\n");
}

TEST_F(RunTrain, ADryRunWritesNothing) {
  Listener listener;
  TrainRequest request;
  request.recipe = recipe();
  request.recipe_name = "tiny";
  request.run_dir = run("a");
  request.dry_run = true;
  EXPECT_EQ(run_train(request, listener), 0);
  EXPECT_TRUE(dir_.list().empty());
  for (const char* key : {"parameters", "tokens_per_update", "ms_per_update", "loss"}) EXPECT_TRUE(listener.result_json.contains(key)) << key;
}

TEST_F(RunTrain, TimeLimitStopsWithACheckpoint) {
  Listener listener;
  ASSERT_EQ(train_tiny(recipe(), run("whole"), &listener), 0);
  TrainRequest request;
  request.recipe = recipe();
  request.recipe_name = "tiny";
  request.run_dir = run("a");
  request.minutes = 1e-9;
  EXPECT_EQ(run_train(request, listener), 0);
  EXPECT_EQ(listener.result_json["steps"], 0);
  EXPECT_FALSE(listener.result_json["finished"]);
  EXPECT_EQ(train_tiny(recipe(), run("a"), &listener), 0);
  expect_same_run(run("a"), run("whole"));
}

TEST_F(RunTrain, TwoProcessesDoNotShareARun) {
  Listener listener, inner;
  bool tried = false;
  std::atomic<int> signal{0};
  TrainRequest request;
  request.recipe = recipe();
  request.recipe_name = "tiny";
  request.run_dir = run("a");
  request.stop_signal = &signal;
  listener.on_progress = [&](const Progress& progress) {
    if (progress.label != "train" || tried) return;
    tried = true;
    expect_error(ErrorKind::kFailed, {"another process trains"}, [&] { train_tiny(recipe(), run("a"), &inner); });
  };
  EXPECT_EQ(run_train(request, listener), 0);
  EXPECT_TRUE(tried);
}

TEST_F(RunTrain, AnUnwritableFolderIsNamed) {
  Listener listener;
  std::ofstream(run("file")) << "a file";
  expect_error(ErrorKind::kFailed, {"file/run"}, [&] { train_tiny(recipe(), run("file") / "run", &listener); });
  EXPECT_EQ(read_file(run("file")), "a file");
}

TEST_F(RunTrain, BadDataAreAnError) {
  Listener listener;
  fs::create_directories(dir_ / "data");
  std::ofstream(dir_ / "data/basic_train.tsv").flush();
  std::ofstream(dir_ / "data/basic_val.tsv").flush();
  expect_error(ErrorKind::kData, {"basic_train.tsv"}, [&] { train_tiny(recipe(), run("a"), &listener); });
  fs::remove_all(dir_ / "data");
  config::Recipe narrow = recipe();
  narrow.train.max_tokens = 10;
  expect_error(ErrorKind::kData, {"max_tokens is 10"}, [&] { train_tiny(narrow, run("b"), &listener); });
}

TEST(DifferingKeys, NamesWhatDiffersAndPassesOverTheRest) {
  config::Recipe a, b;
  EXPECT_TRUE(differing_keys(a, b).empty());
  b.train.steps = 99;
  b.train.threads = 3;
  b.data.path = "/elsewhere";
  b.expect.value = 12;
  EXPECT_TRUE(differing_keys(a, b).empty());
  b.train.seed = 2;
  b.optim.betas = {0.5, 0.98};
  EXPECT_EQ(differing_keys(a, b), (std::vector<std::string>{"optim.betas = [0.9,0.98], here [0.5,0.98]", "train.seed = 1, here 2"}));
}

}  // namespace
}  // namespace seqboat::train::test
