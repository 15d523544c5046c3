#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "seqboat/config/model_config.h"

namespace seqboat::config {

/// [optim]. The formulas stand in docs/CONFIG.md and in the training library; the numbers are the official code's.
struct OptimConfig {
  std::string name = "adam";  ///< adam | radam
  double lr = 1e-3;           ///< the peak
  std::array<double, 2> betas{0.9, 0.98};
  double eps = 1e-8;
  double weight_decay = 0.0;              ///< decoupled, times lr, on every parameter
  double clip_norm = 1.0;                 ///< of the total gradient norm; 0 = off
  std::string schedule = "linear-decay";  ///< linear-decay | polynomial-decay | inverse-sqrt | constant
  int64_t warmup = 0;                     ///< updates
  double warmup_init_lr = 0.0;            ///< where the warm-up begins
  int64_t total_steps = 0;                ///< where the decay ends; 0 = train.steps
  double power = 1.0;
  double end_lr = 0.0;
};

/// [router], what training does to it: the penalty  weight * sum over layers of (activated share - rate)^2  (docs/CONFIG.md).
struct RouterPenaltyConfig {
  double target_rate = 0.5;      ///< share of tokens that each layer is drawn to activate
  double target_weight = 0.0;    ///< 0 = off
  bool memory_gradient = false;  ///< a token that others attend to trains its router by that, too
  int64_t anneal_begin = 0;      ///< until this update the target is 1, every token ...
  int64_t anneal_end = 0;        ///< ... and from there to this one it falls to target_rate, evenly; 0 = it is target_rate from the first

  /// The target of update `step` (from 0).
  double target_at(int64_t step) const {
    if (step >= anneal_end) return target_rate;
    if (step <= anneal_begin) return 1;
    return 1 - (1 - target_rate) * static_cast<double>(step - anneal_begin) / static_cast<double>(anneal_end - anneal_begin);
  }
};

/// [train]
struct TrainConfig {
  int64_t steps = 0;       ///< updates
  int64_t batch_size = 0;  ///< sequences a micro-batch at most; 0 = max_tokens alone decides
  int64_t max_tokens = 0;  ///< tokens a micro-batch at most; 0 = batch_size alone decides
  int64_t accumulate = 1;  ///< micro-batches an update
  int64_t seed = 1;        ///< of initialisation, order of the data, dropout
  int64_t eval_every = 0;  ///< updates between validations; 0 = at the end alone
  int64_t save_every = 0;  ///< updates between checkpoints; 0 = with every validation
  int64_t keep = 3;        ///< checkpoints kept beside the best one
  int64_t threads = 0;     ///< 0 = all cores
  int64_t log_every = 50;  ///< updates between lines of metrics.jsonl
  bool recompute = false;  ///< layers keep their inputs alone for the backward and compute the rest again: less memory, more time, the same bits
  /// ListOps: weight, beside the label's 1, of the summed losses of the calculation's steps (data::listops_steps), each read off at its token; 0 =
  /// the label alone
  double auxiliary_weight = 0.0;
  std::string init = {};      ///< a model folder or run whose tensors a new run begins with, those of equal name and shape; empty = none
  int64_t eval_examples = 0;  ///< validation looks at so many examples; 0 = all
};

/// [data]. Defaults are those of the ListOps of the Long Range Arena.
struct DataConfig {
  std::string name = "listops";  ///< the data set: `seqboat data list`
  std::string path;              ///< where its files are or are to be made; empty = the cache folder
  int64_t seed = 0;              ///< of generated data
  int64_t min_length = 500;      ///< exclusive bounds, as in the original generator: min_length < length < max_length
  int64_t max_length = 2000;     ///< imdb, pairs: bytes after which a text is cut
  int64_t max_depth = 10;
  int64_t max_args = 10;
  int64_t train_examples = 96000;
  int64_t valid_examples = 2000;
  int64_t test_examples = 2000;
  int64_t block_length = 512;   ///< bytes: length of a training sequence; evaluation scores block_length - context new bytes a block
  int64_t length = 0;           ///< synthetic: of every sequence; needle, mqar: of those to validate and test on, and of the longest to train on
  bool vary_length = false;     ///< needle, mqar: training sequences have from no filler to as much as makes `length`
  int64_t pairs = 16;           ///< needle, mqar: keys with a value each in a sequence
  bool carry_state = false;     ///< bytes: each sequence of a batch goes on where it was in the last update, with the model's state
  int64_t context = 0;          ///< bytes: bytes that evaluation shows before each block; -1 = one stream with carried state
  double valid_share = 0.05;    ///< bytes: the held-out tail is so much of the file ...
  double test_share = 0.05;     ///< ... and so much after it
  std::string valid = "tenth";  ///< imdb, fsdd, cifar10, mnist: tenth | test, what is validated on
  // Pictures: cifar10, mnist, pathfinder.
  int64_t image_size = 32;  ///< pathfinder: height and width, 32 or 128
  double pixel_mean = 0.5;  ///< a step is (v / 255 - pixel_mean) / pixel_std
  double pixel_std = 0.5;
  int64_t permutation_seed = 0;  ///< mnist: pixels in the order of a fixed permutation; 0 = as they lie
  // Sound: speech-commands, fsdd, asc10.
  int64_t sample_rate = 16000;     ///< samples a second; clips of another rate are resampled
  double frame_ms = 0;             ///< milliseconds of sound a step; 0 = a sample
  double gain = 1;                 ///< what samples are multiplied by
  std::string normalize = "none";  ///< none | time-index: to mean 0 and deviation 1 at each sample's place in the clip
  double seconds = 1;              ///< length of clips; 0 = all of each
  std::string fit = "cut";         ///< cut | pad | exact: what becomes of clips of another length
  std::string split = "official";  ///< official | speakers | stratified
  std::string words = {};          ///< speech-commands: comma-separated; empty = all
  std::string test_speakers = {};  ///< fsdd, by speakers: comma-separated
  double shift_ms = 0;             ///< training: so much is dropped at most from the beginning of a clip
  double gain_db = 0;              ///< training: so much louder or softer at most
  double speed = 0;                ///< training: this share faster or slower at most

  bool is_recall() const { return name == "needle" || name == "mqar"; }
  bool is_image() const { return name == "cifar10" || name == "mnist" || name == "pathfinder"; }
  bool is_sound() const { return name == "speech-commands" || name == "fsdd" || name == "asc10"; }
  /// Samples of a step.
  int64_t frame_samples() const { return frame_ms == 0 ? 1 : static_cast<int64_t>(frame_ms * static_cast<double>(sample_rate) / 1000 + 0.5); }
  /// Steps of the longest clip; of one second where clips have no bound.
  int64_t steps() const {
    const auto samples = static_cast<int64_t>((seconds > 0 ? seconds : 1) * static_cast<double>(sample_rate) + 0.5);
    return (samples + frame_samples() - 1) / frame_samples();
  }
  /// Tokens or steps of the longest sequence to train on, as far as these keys tell.
  int64_t longest() const {
    if (name == "synthetic" || is_recall()) return length;
    if (name == "bytes") return block_length;
    if (name == "imdb" || name == "pairs") return max_length;
    if (name == "mnist") return 28 * 28;
    if (name == "cifar10") return 32 * 32;
    if (name == "pathfinder") return image_size * image_size;
    return is_sound() ? steps() : max_length - 1;
  }
};

/// [expect]: the number to reach and where it is from. Without a metric nothing is expected.
struct ExpectConfig {
  std::string metric;  ///< accuracy | bits-per-byte | perplexity, or empty
  double value = 0.0;  ///< in percent for accuracy
  std::string source;
};

/// A recipe: everything that fixes a run. docs/CONFIG.md lists the keys.
struct Recipe {
  ModelConfig model;  ///< [model], [router] and [task]
  RouterPenaltyConfig router;
  DataConfig data;
  OptimConfig optim;
  TrainConfig train;
  ExpectConfig expect;

  int64_t schedule_steps() const { return optim.total_steps > 0 ? optim.total_steps : train.steps; }

  /// Throws Error (kConfig) that names the key for anything that cannot be run. `where` begins the message.
  void validate(const std::string& where) const;
};

/// Reads TOML text, applies the overrides ("section.key=value", in order) and validates. Every fault is Error (kConfig): `where` and the line (or the
/// override), the key, what was expected, what was found, and for an unknown section or key the nearest known one.
Recipe recipe_from_toml(std::string_view text, const std::string& where, const std::vector<std::string>& overrides = {});

/// The same from a file. A missing file is Error (kUsage).
Recipe load_recipe(const std::filesystem::path& path, const std::vector<std::string>& overrides = {});

/// The resolved recipe: every key, sections in their order; recipe_from_toml() gives the same recipe back, bit for bit.
std::string to_toml(const Recipe& recipe);

/// {"model": {...}, "router": {...}, ...} with the recipe's key names.
nlohmann::ordered_json to_json(const Recipe& recipe);

}  // namespace seqboat::config
