#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "seqboat/base/reporter.h"
#include "seqboat/config/recipe.h"
#include "seqboat/data/sound.h"

/// What the verbs `train`, `eval` and `bench` of the program ask of the training library. This header needs no LibTorch: the program parses its
/// command line into these structs, loads the module with LibTorch, and calls.
namespace seqboat::train {

/// `seqboat train`. The program has found the recipe, applied --set, --steps (train.steps) and --threads (train.threads), and validated it.
struct TrainRequest {
  config::Recipe recipe;                          ///< resolved: of the recipe file, or of run_dir/config.toml when resuming, overrides applied
  std::string recipe_name;                        ///< as the user named it ("lra/listops", a path); for the log and default names
  std::filesystem::path run_dir;                  ///< where to write, never empty (--out, or runs/<recipe name>)
  bool resume = false;                            ///< the user named the run directory itself: it must hold a run that goes on
  std::filesystem::path data_dir;                 ///< --data; empty = recipe.data.path, else the cache folder
  double minutes = 0;                             ///< --minutes: stop with a checkpoint after so long; 0 = no limit
  bool dry_run = false;                           ///< build model and data, run two updates, report sizes, write nothing
  std::vector<std::string> overrides;             ///< the --set arguments as given, for environment.json
  std::vector<std::string> command_line;          ///< argv, for environment.json
  std::string version;                            ///< the program's, for the log and environment.json; empty = unknown
  data::SoundTools sound = {};                    ///< how sound files are read: the module that holds the verbs fills it in
  const std::atomic<int>* stop_signal = nullptr;  ///< becomes SIGINT's or SIGTERM's number when the user interrupts; polled once a step
};

/// Trains, or goes on where run_dir stands (a run_dir with another recipe is Error kModel). Every failure is an exception (seqboat::Error with its
/// kind). Ends with reporter.result({"run_dir", "steps", "tokens", "seconds", "loss", "metric", "value", "checkpoint", ...}, text).
/// Returns 0, or 128 + the signal's number when it was interrupted (after a checkpoint).
int run_train(const TrainRequest& request, Reporter& reporter);

/// `seqboat eval`.
struct EvalRequest {
  std::filesystem::path model;              ///< a model folder or a run directory (its exported model, else the best, else the latest checkpoint)
  std::string split = "test";               ///< train | valid | test
  std::filesystem::path data_dir = {};      ///< --data: a folder of splits or one file; empty = what the model's recipe names, else the cache folder
  std::vector<std::string> overrides = {};  ///< --set on the run's recipe (data.*, train.batch_size, ...); a bare model folder has none
  /// --context: language models only, previous tokens that each scored block is shown; kStreamContext = one stream with carried state; kOwnContext =
  /// as the recipe says
  int64_t context = kOwnContext;
  static constexpr int64_t kStreamContext = -1;
  static constexpr int64_t kOwnContext = -2;
  int64_t threads = 0;               ///< --threads; 0 = all cores
  int64_t examples = 0;              ///< --examples: only so many of the split; 0 = all
  std::string force = {};            ///< --force none | all | random | inverted: decisions in the place of the model's own; empty = its own
  bool interventions = false;        ///< --interventions: the model's own decisions and each of those, in one table
  int64_t seed = 0;                  ///< --seed of random decisions
  bool activations = false;          ///< --activations: tables by class and position of tokens, and the weighted span
  bool weighted_span = false;        ///< --weighted-span: how far the attention's weights reach, which costs time
  int64_t window = 0;                ///< --window: attention looks so far instead of the model's window_size; 0 = as trained
  int64_t truncation = 0;            ///< --truncation: the EMA looks back so many steps instead of the model's truncation; 0 = as trained
  std::filesystem::path items = {};  ///< --items: a table of what came of each sequence; empty = none
  data::SoundTools sound = {};       ///< how sound files are read: the module that holds the verbs fills it in
  const std::atomic<int>* stop_signal = nullptr;
};

/// Evaluates and ends with reporter.result(): the JSON keys of docs/CLI.md (task, split, metric, value, ci95, examples, loss, activation_rate,
/// attention_span, activation, flops, intervention, interventions, and shortcut_ladder where the task has one). Decisions forced on a model in which
/// nobody decides are Error (kUsage). With `items` a table of tabs is written first, a row a sequence in the data's order: item, count, correct, loss
/// as in ItemScore. Returns 0, or 128 + the signal's number.
int run_eval(const EvalRequest& request, Reporter& reporter);

/// `seqboat bench`.
struct BenchRequest {
  config::Recipe recipe = {};           ///< resolved, overrides and --threads (train.threads) applied; not looked at where `model` is given
  std::string recipe_name = {};         ///< as the user named it
  std::filesystem::path model = {};     ///< --model: a trained model, timed on its own data beside itself with everything activated; empty = recipe
  std::filesystem::path data_dir = {};  ///< --data, with `model`: as EvalRequest has it
  std::vector<std::string> overrides = {};  ///< --set on the recipe of the model's run, with `model`
  int64_t threads = 0;                      ///< --threads, with `model`; 0 = the run's
  bool train = true;                        ///< --mode: train, else forward
  int64_t batch = 0;                        ///< --batch, sequences; 0 = the recipe's
  int64_t length = 0;                       ///< --length, tokens of each; 0 = the recipe's
  double activation_rate = -1;              ///< --activation-rate: decisions are forced at this rate; negative = the routers decide
  bool listops_batch = false;               ///< --batches listops: real lengths, beside a full batch of as many tokens
  bool phases = false;                      ///< --phases: also where the time goes
  int64_t steps = 0;                        ///< --steps to time; 0 = three seconds of them, and at least five
  std::string simd = {};                    ///< --simd: kernels run on this target; empty = the best
  data::SoundTools sound = {};              ///< how sound files are read: the module that holds the verbs fills it in
  const std::atomic<int>* stop_signal = nullptr;
};

/// Measures the machine, then steps of the model, on made-up data or a trained model's own, then its kernels alone, and ends with reporter.result():
/// the JSON keys of docs/CLI.md. Writes no file, but data that can be made and are missing. What cannot be asked of this recipe is Error (kUsage), a
/// batch without room kResource. Returns 0, or 128 + the signal's number.
int run_bench(const BenchRequest& request, Reporter& reporter);

}  // namespace seqboat::train
