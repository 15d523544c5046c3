#pragma once

// Private to src/train: what `bench` times. A model, batches of made-up data, and one step of training or evaluation.

#include <torch/torch.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "seqboat/config/recipe.h"
#include "seqboat/data/dataset.h"
#include "seqboat/nn/model.h"
#include "seqboat/train/optimizer.h"
#include "seqboat/train/schedule.h"
#include "seqboat/train/task.h"
#include "train/bench/cost_model.h"

namespace seqboat::train {

struct BenchBatch {
  nn::PackedSequences src;
  std::optional<nn::PackedSequences> src1;   ///< retrieval: second documents, as long as the first
  torch::Tensor targets;                     ///< classes (B); language models: the next tokens (sum T)
  std::vector<torch::Tensor> forced_active;  ///< as nn::ForwardOptions has it; empty: the routers decide
  std::vector<int64_t> lengths;              ///< of src
  int64_t tokens = 0;                        ///< that a step reads: those of both documents of a pair
};

/// Random tokens, or numbers, and labels of the kind that the model takes, drawn from `seed`.
BenchBatch synthetic_batch(const config::ModelConfig& model, const std::vector<int64_t>& lengths, uint64_t seed);

/// Labelled sequences of tokens.
BenchBatch batch_of(const data::SequenceDataset& dataset);

/// A task's batch. Tokens that are not scored (-1) get some target or other: it makes no difference to time.
BenchBatch batch_of(const TaskBatch& batch);

/// Forces the decisions of every layer at this rate (trace/forced_decisions.h). Both documents of a pair get the same.
void force_decisions(const config::ModelConfig& model, uint64_t seed, double rate, BenchBatch* batch);

/// The model of a recipe, and its steps. A training step is one micro-batch: forward, loss, backward, the gradients' clipping, the optimizer's step
/// at the learning rate that the schedule has for it, zero_grad. An evaluating one is a forward without gradients.
class BenchModel {
 public:
  /// recipe.model is complete: its vocab_size is known.
  BenchModel(const config::Recipe& recipe, bool train);
  /// A trained model, recipe.model its config. The learning rate of its steps is 0: it stays as it was trained, and so do its routers.
  BenchModel(const config::Recipe& recipe, bool train, std::shared_ptr<nn::Model> trained);

  /// Gets the optimizer's state: apart from building the model, since memory is counted from between the two.
  void prepare();
  void step(const BenchBatch& batch);

  int64_t parameters() const { return parameter_count_; }
  nn::Model& model() { return *model_; }

  /// What each layer activated in the last step, which took this batch.
  std::vector<LayerWork> last_work(const BenchBatch& batch) const;
  /// One of a layer's decisions in the last step: (sum T) uint8 of the first documents; undefined without a router.
  torch::Tensor last_active(int64_t layer) const { return traces_.at(static_cast<size_t>(layer)).active; }

 private:
  torch::Tensor forward(const BenchBatch& batch, uint64_t update);
  void train_step(const BenchBatch& batch);

  config::Recipe recipe_;
  bool train_;
  bool trained_;
  std::shared_ptr<nn::Model> model_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Schedule> schedule_;
  std::vector<nn::LayerTrace> traces_;
  int64_t parameter_count_ = 0;
};

}  // namespace seqboat::train
