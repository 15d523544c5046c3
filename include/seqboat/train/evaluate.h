#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "seqboat/nn/model.h"
#include "seqboat/trace/activation_stats.h"
#include "seqboat/train/task.h"

namespace seqboat::train {

struct EvaluateOptions {
  int64_t batch_size = 0;  ///< examples in a batch at most; 0 = max_tokens alone decides
  int64_t max_tokens = 0;  ///< tokens in a batch at most; 0 = a size that fits the caches. The result does not depend on either
  int64_t examples = 0;    ///< only the first so many; 0 = all
  bool spans = true;       ///< also the attention spans
  /// Called after every batch with the number of examples done and of all; false stops.
  std::function<bool(int64_t, int64_t)> progress;
};

struct Evaluation {
  bool complete = false;  ///< false: stopped by `progress`
  Score score;
  Metric metric;
  std::vector<double> activation_rate;  ///< by layer
  std::vector<double> attention_span;   ///< by layer, in tokens
};

/// Runs the model in eval mode over a split, in the order of the data, and puts the mode back. Without gradients.
Evaluation evaluate(nn::Model& model, const Task& task, const TaskData& data, const EvaluateOptions& options);

/// Statistics for a model's layers; add_traces() adds those of one forward.
trace::ActivationStats make_stats(const config::ModelConfig& config);
void add_traces(const std::vector<nn::LayerTrace>& traces, const TaskBatch& batch, bool spans, trace::ActivationStats* stats);

}  // namespace seqboat::train
