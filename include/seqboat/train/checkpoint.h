#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "seqboat/config/model_config.h"
#include "seqboat/data/batching.h"
#include "seqboat/nn/model.h"
#include "seqboat/nn/model_state.h"
#include "seqboat/train/optimizer.h"

namespace seqboat::train {

/// Sums since the last line of metrics.jsonl: part of the state, so that a line is the same whether or not the run was interrupted before it.
struct MetricWindow {
  double loss_sum = 0;
  int64_t samples = 0;
  int64_t tokens = 0;
  std::vector<int64_t> active;  ///< activated tokens, by layer
  friend bool operator==(const MetricWindow&, const MetricWindow&) = default;
};

/// Everything that a run needs beside weights and moments to go on as if nothing had happened. Random numbers are functions of seed, update and
/// example, and so need no state of their own.
struct TrainerState {
  int64_t step = 0;            ///< updates done
  int64_t tokens = 0;          ///< tokens read
  data::BatchState data;       ///< where the order of the data stands
  int64_t validated_step = 0;  ///< updates at the last validation
  int64_t best_step = 0;       ///< 0 = none yet
  double best_value = 0;
  double last_loss = 0;    ///< of the last line of metrics.jsonl
  double last_metric = 0;  ///< of the last validation
  MetricWindow window;
  std::string simd;              ///< target that the weights were computed on
  std::string data_fingerprint;  ///< of the training data: TaskData::fingerprint() in hexadecimal; empty in checkpoints of before it was kept
  double seconds = 0;            ///< spent training, over all runs; not compared
  nn::ModelState stream;         ///< carried from update to update where the recipe says so; else fresh
};

/// RUN/checkpoints/step-NNNNNNNN. A checkpoint appears whole or not at all: it is written and fsynced under another name, then renamed.
///
///   config.json            the model's
///   model.safetensors      parameters and buffers
///   optimizer.safetensors  exp_avg.*, exp_avg_sq.*, step
///   stream.safetensors     TrainerState::stream, where a state is carried
///   trainer_state.json     the rest of TrainerState, and size and checksum of the other files: what was damaged later is found when it is read
class CheckpointStore {
 public:
  explicit CheckpointStore(std::filesystem::path run_dir) : run_dir_(std::move(run_dir)) {}

  static std::string name_of(int64_t step);  ///< "step-00000250"
  std::filesystem::path path_of(int64_t step) const { return run_dir_ / "checkpoints" / name_of(step); }

  /// Writes a checkpoint, then `latest`, and `best` where the state's best step is this one. What stood there stays until the new one is whole.
  /// Error (kResource, kFailed) naming the path.
  void save(const nn::Model& model, const Optimizer& optimizer, const TrainerState& state) const;

  /// Loads the newest checkpoint that is whole; each newer one that is not is named to `warn`, passed over, and renamed to damaged-step-NNNNNNNN.
  /// Nothing = there is no checkpoint.
  /// Afterwards `latest` and `best` say what they said when it was written. Error (kModel) if there are checkpoints and none can be read, or if the
  /// newest whole one is of another model.
  std::optional<TrainerState> load_newest(nn::Model& model, Optimizer& optimizer, const std::function<void(const std::string&)>& warn) const;

  /// Copies config.json and model.safetensors of a checkpoint to RUN/model, which is replaced as a whole.
  void export_model(int64_t step) const;

  /// Removes all but the newest `keep` checkpoints and the best one, and what an interrupted save left behind.
  void prune(int64_t keep, int64_t best_step) const;

  std::vector<int64_t> steps() const;  ///< of the checkpoints there, falling

 private:
  std::filesystem::path run_dir_;
};

}  // namespace seqboat::train
