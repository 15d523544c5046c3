#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "seqboat/base/reporter.h"
#include "seqboat/config/recipe.h"
#include "seqboat/data/dataset.h"
#include "seqboat/data/sound.h"
#include "seqboat/nn/packed.h"
#include "seqboat/trace/activation_stats.h"

namespace seqboat::train {

/// Examples as a model takes them.
struct TaskBatch {
  nn::PackedSequences src;
  std::optional<nn::PackedSequences> src1;  ///< the other document of a pair (retrieval)
  torch::Tensor targets;                    ///< int64; classification (B); language models (sum T), -1 = not scored
  torch::Tensor token_rows;                 ///< (R) int64: tokens that have a target of their own; undefined = none
  torch::Tensor token_targets;              ///< (R) int64
  torch::Tensor sequence_ids;               ///< (B) int64, for RandomKey: numbers of the examples in their split
  int64_t tokens = 0;                       ///< tokens that the model reads
  int64_t sample_size = 0;                  ///< what the summed loss is divided by: examples (a language model: tokens)
};

/// What came of one sequence.
struct ItemScore {
  int64_t count = 0;    ///< what its loss is a sum over: 1 (a language model: tokens)
  int64_t correct = 0;  ///< of these, at how many the largest logit was right
  double loss = 0;      ///< nats
};

/// Sums over examples, from which loss and metric are made. Sums of several batches add up.
struct Score {
  double loss_sum = 0;               ///< nats
  int64_t count = 0;                 ///< what the loss is a mean over: examples (a language model: tokens)
  int64_t examples = 0;              ///< sequences
  double loss_squares = 0;           ///< language models: over sequences, sum of the squared losses ...
  double loss_by_count = 0;          ///< ... of loss times tokens ...
  double count_squares = 0;          ///< ... and of the squared numbers of tokens
  int64_t correct = 0;               ///< at how many of `count` the largest logit was right
  std::vector<int64_t> predictions;  ///< classification: one an example, in the order given
  std::vector<ItemScore> items;      ///< one a sequence, in the order given
  double loss() const { return count > 0 ? loss_sum / static_cast<double>(count) : 0.0; }
};

/// A metric with its 95 % interval.
struct Metric {
  std::string name;  ///< "accuracy": a fraction, 0 .. 1; "bits-per-byte"
  double value = 0;
  double low = 0;
  double high = 0;
};

/// Accuracy with Wilson's score interval (z = 1.959964): with p = correct / count,
///   (p + z^2/2n +- z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n)
Metric accuracy_metric(int64_t correct, int64_t count);

/// Bits a token, loss_sum / (count ln 2), with an interval from the spread over sequences: the mean of n sequences of unequal length is a ratio,
/// whose variance is  n/(n-1) sum_b (l_b - r c_b)^2 / count^2  with l_b, c_b the loss and number of tokens of sequence b and r their ratio. Normal
/// quantile; one sequence has no spread, and then the interval is the whole line from 0 on (infinity above).
Metric bits_metric(const char* name, const Score& score);

/// score_classification for language models: logits (sum T, V), targets (sum T) with -1 = not scored, sequences by cu_seqlens.
void score_tokens(const torch::Tensor& logits, const torch::Tensor& targets, const torch::Tensor& cu_seqlens, Score* score);

/// Sum of -log softmax(logits)[target] over rows, in double and in the order of rows, so that the sum over a data set does not depend on how it was
/// cut into batches; predictions are the arg-max (of equals, the first).
void score_classification(const torch::Tensor& logits, const torch::Tensor& targets, Score* score);

/// Keys what is drawn each time an example is read to train on: the same for the same run, epoch and example, however batches are cut.
struct ReadingKey {
  uint64_t seed = 0;
  int64_t epoch = 0;
};

/// One split of a task's data.
class TaskData {
 public:
  virtual ~TaskData() = default;
  virtual int64_t size() const = 0;
  /// (size() + 1) offsets of the examples: their lengths are what batches are packed by.
  virtual std::span<const int64_t> offsets() const = 0;
  virtual TaskBatch batch(std::span<const int64_t> examples) const = 0;
  /// The same to train on, with what the task changes in each epoch; never more tokens than offsets() says.
  virtual TaskBatch training_batch(std::span<const int64_t> examples, const ReadingKey& /*key*/) const { return batch(examples); }
  /// Whether the examples are one stream: they are then evaluated one after the other with the model's state carried.
  virtual bool is_stream() const { return false; }
  /// A checksum of all that batches are made of: a run goes on with the data that it began with.
  virtual uint64_t fingerprint() const = 0;
};

/// What eval says beyond loss and metric.
struct TaskReport {
  std::string json_text = "{}";  ///< an object whose members join the result
  std::string text;              ///< lines for people
};

/// A task: its data, its loss, its metric. One file each in src/train/tasks. Knows no model and no optimizer.
class Task {
 public:
  virtual ~Task() = default;

  virtual const char* name() const = 0;         ///< the recipe's data.name
  virtual const char* metric_name() const = 0;  ///< "accuracy"
  virtual bool higher_is_better() const = 0;
  /// The metric as people read it: "56.15 %", "2.1034 bits".
  virtual std::string metric_text(double value) const = 0;
  virtual const char* unit() const = 0;  ///< "example", "byte": what loss and metric are means over
  /// By how much metric and [expect] value differ in their writing: accuracies are fractions here and percent there.
  virtual double expect_scale() const { return 1; }

  /// Fills in what the data decide (vocab_size), and checks the rest against them: Error (kConfig).
  virtual void complete(config::ModelConfig* model) const = 0;

  /// Loads the splits and keeps them. Missing data that can be made are made, with progress on the reporter. Stopping in the middle is done by an
  /// exception out of the reporter. Error (kData) for data that are not as they should be.
  virtual void load(const std::vector<data::Split>& splits, Reporter& reporter) = 0;
  /// Enough of the training split for one step, without writing anything.
  virtual void load_sample(int64_t examples) = 0;
  /// A split that load() has loaded.
  virtual const TaskData& split(data::Split split) const = 0;
  /// After load(): how the model is to be fed and what its classes are called, for its config.json; empty if there is nothing to say.
  virtual config::InputFormat input_format() const { return {}; }
  /// Where the data are, for the log.
  virtual std::string where() const = 0;

  /// Sum of the losses of a batch, a differentiable scalar.
  virtual torch::Tensor loss_sum(const torch::Tensor& logits, const TaskBatch& batch) const = 0;
  /// The same of TokenQuery's logits at batch.token_rows.
  virtual torch::Tensor token_loss_sum(const torch::Tensor& /*logits*/, const TaskBatch& /*batch*/) const { return {}; }
  /// Adds a batch to the score.
  virtual void score(const torch::Tensor& logits, const TaskBatch& batch, Score* score) const = 0;
  virtual Metric metric(const Score& score) const = 0;

  /// Ways to sort the tokens that a model of this task reads into classes, for statistics of what is activated; each becomes a table of `eval`.
  virtual std::vector<trace::Grouping> token_groupings() const { return {}; }
  /// For each of them the numbers of the labels (sum T).
  virtual std::vector<std::vector<uint8_t>> group_tokens(const nn::PackedSequences& /*sequences*/) const { return {}; }

  /// What else eval should say about the first `examples` of a split, predicted as `score` says.
  virtual TaskReport report(data::Split, int64_t /*examples*/, const Score&) { return {}; }
};

/// The task that [data] names, with its data in data_dir, else data.path, else the cache folder. What lies in data_dir (a folder or one file) is
/// taken as it is; what lies in the others must be what [data] describes. Tasks of sound read their files by `sound`. Error (kConfig) for an unknown
/// name.
std::unique_ptr<Task> make_task(const config::Recipe& recipe, const std::filesystem::path& data_dir, const data::SoundTools& sound = {});

/// "train", "valid", "test": as the program says it.
const char* split_word(data::Split split);

}  // namespace seqboat::train
