#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "seqboat/config/flops.h"
#include "seqboat/nn/model.h"
#include "seqboat/trace/activation_stats.h"
#include "seqboat/train/intervention.h"
#include "seqboat/train/task.h"

namespace seqboat::train {

struct EvaluateOptions {
  int64_t batch_size = 0;      ///< examples in a batch at most; 0 = max_tokens alone decides
  int64_t max_tokens = 0;      ///< tokens in a batch at most; 0 = a size that fits the caches. The result does not depend on either
  int64_t examples = 0;        ///< only the first so many; 0 = all
  bool spans = true;           ///< also the attention spans
  bool details = false;        ///< also activation by class and position, gaps, spread
  bool weighted_span = false;  ///< also how far the attention's weights reach: two more passes of attention a layer, in float64
  /// Each example is evaluated again with each of these. Of models in which somebody decides alone: Error (kUsage).
  std::vector<Intervention> interventions = {};
  uint64_t seed = 0;  ///< of random decisions
  /// Called after every batch with the number of examples done and of all; false stops.
  std::function<bool(int64_t, int64_t)> progress = {};
};

/// Floating-point operations (config/flops.h) of forwards, with the tokens that were activated, and of the same layers with every token
/// activated. A layer in which nobody decides costs the same in both.
class FlopsCount {
 public:
  explicit FlopsCount(const config::ModelConfig& config);

  /// One sequence in one layer: its tokens, and how many of them are activated.
  void add(int64_t layer, int64_t tokens, int64_t active);
  /// The next piece of a stream, which is one sequence.
  void add_piece(int64_t layer, int64_t tokens, int64_t active);

  struct Layer {
    double spent = 0;
    double dense = 0;
  };
  std::vector<Layer> layers() const;  ///< with their feed-forward blocks
  double outside() const;             ///< input projections and a language model's output
  double spent() const;               ///< of the whole model
  double dense() const;
  int64_t tokens() const;  ///< that the model read
  /// Spent of dense, 0 .. 1; 1 before any token.
  double share() const;

 private:
  struct Sums {
    int64_t tokens = 0;
    int64_t truncated_tokens = 0;  ///< of sequences longer than the truncation
    config::LayerWork work, dense;
    int64_t stream_tokens = 0;
    int64_t stream_active = 0;
  };
  /// With the stream up to here as a sequence.
  Sums whole(const Sums& sums) const;
  void add_to(Sums* sums, int64_t tokens, int64_t active) const;

  config::ModelConfig config_;
  std::vector<Sums> sums_;
};

struct Evaluation {
  Evaluation(const config::ModelConfig& config, const trace::StatsOptions& options) : stats(options), flops(config) {}

  bool complete = false;  ///< false: stopped by `progress`
  Score score;
  Metric metric;
  std::vector<double> activation_rate;  ///< by layer
  std::vector<double> attention_span;   ///< by layer, in tokens
  trace::ActivationStats stats;
  FlopsCount flops;
  std::vector<Evaluation> interventions;  ///< one for each that was asked for, in their order
};

/// Runs the model in eval mode over a split, in the order of the data, and puts the mode back. Without gradients.
Evaluation evaluate(nn::Model& model, const Task& task, const TaskData& data, const EvaluateOptions& options);

/// Statistics of a model's layers. What a query may attend to is the layer's own: its window, its chunk, or everything.
trace::StatsOptions stats_options(const config::ModelConfig& config);

}  // namespace seqboat::train
