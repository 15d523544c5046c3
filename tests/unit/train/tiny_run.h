#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "seqboat/base/file_io.h"
#include "seqboat/train/commands.h"

namespace seqboat::train::test {

/// A model and data so small that a run takes a second, with everything in it that a large one has: dropout, accumulation, several epochs.
inline config::Recipe tiny_recipe(const std::filesystem::path& data) {
  config::Recipe recipe;
  recipe.model.d_model = 16;
  recipe.model.d_hidden = 32;
  recipe.model.d_attn = 8;
  recipe.model.d_state = 4;
  recipe.model.n_layers = 2;
  recipe.model.window_size = 4;
  recipe.model.truncation = 16;
  recipe.model.max_positions = 64;
  recipe.model.classes = 10;
  recipe.model.dropout = 0.1;
  recipe.data.path = data.string();
  recipe.data.min_length = 5;
  recipe.data.max_length = 40;
  recipe.data.max_depth = 3;
  recipe.data.max_args = 4;
  recipe.data.train_examples = 60;
  recipe.data.valid_examples = 20;
  recipe.data.test_examples = 20;
  recipe.optim.lr = 0.01;
  recipe.optim.weight_decay = 0.01;
  recipe.optim.warmup = 3;
  recipe.optim.total_steps = 20;
  recipe.train.steps = 12;
  recipe.train.batch_size = 8;
  recipe.train.max_tokens = 200;
  recipe.train.accumulate = 2;
  recipe.train.seed = 7;
  recipe.train.eval_every = 5;
  recipe.train.keep = 2;
  recipe.train.threads = 2;
  recipe.train.log_every = 4;
  return recipe;
}

/// Keeps what is said, and can act on the progress of the run.
class Listener : public Reporter {
 public:
  void log(std::string_view line) override { logs.emplace_back(line); }
  void warn(std::string_view line) override { warnings.emplace_back(line); }
  void progress(const Progress& progress) override {
    if (on_progress) on_progress(progress);
  }
  bool progress_due() const override { return true; }
  void finish_progress() override {}
  void result(const nlohmann::ordered_json& json, std::string_view text) override {
    result_json = json;
    result_text = text;
  }

  std::vector<std::string> logs, warnings;
  std::function<void(const Progress&)> on_progress;
  nlohmann::ordered_json result_json;
  std::string result_text;
};

/// Runs `recipe` into `run_dir`; stop_at > 0: the user interrupts once so many updates are done.
inline int train_tiny(const config::Recipe& recipe, const std::filesystem::path& run_dir, Listener* listener, int64_t stop_at = 0) {
  std::atomic<int> signal{0};
  TrainRequest request;
  request.recipe = recipe;
  request.recipe_name = "tiny";
  request.run_dir = run_dir;
  request.version = "0.0.0-test";
  request.stop_signal = &signal;
  if (stop_at > 0) {
    listener->on_progress = [&signal, stop_at](const Progress& progress) {
      if (progress.label == "train" && progress.done >= stop_at) signal = 15;
    };
  } else {
    listener->on_progress = nullptr;
  }
  return run_train(request, *listener);
}

/// metrics.jsonl without what the clock decides.
inline std::string metrics_without_timing(const std::filesystem::path& run_dir) {
  const std::string text = read_file(run_dir / "metrics.jsonl");
  std::string out;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    auto line = nlohmann::ordered_json::parse(text.substr(begin, end - begin));
    line.erase("tokens_per_s");
    out += line.dump() + "\n";
    begin = end + 1;
  }
  return out;
}

}  // namespace seqboat::train::test
