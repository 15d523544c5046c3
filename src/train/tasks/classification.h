#pragma once

// Private to src/train/tasks: labelled sequences of tokens, which several tasks share.

#include <fmt/format.h>

#include <utility>

#include "seqboat/base/file_io.h"
#include "seqboat/data/batching.h"
#include "seqboat/ops/ops.h"
#include "seqboat/train/task.h"

namespace seqboat::train {

/// A SequenceDataset as a split.
class SequenceData : public TaskData {
 public:
  explicit SequenceData(data::SequenceDataset dataset) : dataset_(std::move(dataset)) {}
  int64_t size() const override { return dataset_.size(); }
  std::span<const int64_t> offsets() const override { return dataset_.offsets; }
  const data::SequenceDataset& dataset() const { return dataset_; }
  uint64_t fingerprint() const override {
    uint64_t hash = checksum(dataset_.offsets.data(), dataset_.offsets.size() * sizeof(dataset_.offsets[0]));
    hash = checksum(dataset_.tokens.data(), dataset_.tokens.size() * sizeof(dataset_.tokens[0]), hash);
    return checksum(dataset_.labels.data(), dataset_.labels.size() * sizeof(dataset_.labels[0]), hash);
  }

  /// Targets of single tokens in a sequence: (position, target) each. Given, they join every batch.
  using TokenTargets = std::vector<std::pair<int64_t, int64_t>> (*)(std::span<const int32_t>);
  void set_token_targets(TokenTargets targets) { token_targets_ = targets; }

  TaskBatch batch(std::span<const int64_t> examples) const override {
    data::Batch gathered;
    data::gather(dataset_, examples, &gathered);
    TaskBatch out;
    out.src.tokens = torch::tensor(gathered.tokens, torch::kInt64);
    out.src.cu_seqlens = torch::tensor(gathered.cu_seqlens, torch::kInt64);
    out.targets = torch::tensor(gathered.labels, torch::kInt64);
    out.sequence_ids = torch::tensor(gathered.indices, torch::kInt64);
    out.tokens = static_cast<int64_t>(gathered.tokens.size());
    out.sample_size = static_cast<int64_t>(gathered.labels.size());
    if (token_targets_ != nullptr) {
      std::vector<int64_t> rows, targets;
      for (size_t b = 0; b < examples.size(); ++b) {
        for (const auto& [position, target] : token_targets_(dataset_.sequence(examples[b]))) {
          rows.push_back(gathered.cu_seqlens[b] + position);
          targets.push_back(target);
        }
      }
      out.token_rows = torch::tensor(rows, torch::kInt64);
      out.token_targets = torch::tensor(targets, torch::kInt64);
    }
    return out;
  }

 private:
  TokenTargets token_targets_ = nullptr;
  data::SequenceDataset dataset_;
};

/// Loss and metric of every classifier.
class ClassificationTask : public Task {
 public:
  const char* metric_name() const override { return "accuracy"; }
  bool higher_is_better() const override { return true; }
  std::string metric_text(double value) const override { return fmt::format("{:.2f} %", 100 * value); }
  const char* unit() const override { return "example"; }
  double expect_scale() const override { return 100; }
  torch::Tensor loss_sum(const torch::Tensor& logits, const TaskBatch& batch) const override { return ops::cross_entropy_sum(logits, batch.targets); }
  void score(const torch::Tensor& logits, const TaskBatch& batch, Score* score) const override { score_classification(logits, batch.targets, score); }
  Metric metric(const Score& score) const override { return accuracy_metric(score.correct, score.count); }
};

}  // namespace seqboat::train
