// A causal language model over any file of bytes, part of which is held out at its end, or over a folder with a file for each part.
#include "seqboat/data/bytes.h"

#include <fmt/format.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "seqboat/base/error.h"
#include "seqboat/data/token_classes.h"
#include "seqboat/ops/ops.h"
#include "train/tasks/tasks.h"

namespace seqboat::train {
namespace {

namespace fs = std::filesystem;
using data::Split;

// A stream is evaluated in pieces of this many bytes, between which the interval of the metric takes its spread. The metric does not depend on it.
constexpr int64_t kStreamBlock = 1024;

class ByteData : public TaskData {
 public:
  ByteData(std::span<const uint8_t> part, int64_t block, int64_t context, bool whole_only, bool is_stream)
      : part_(part), blocks_(part, block, context, whole_only), is_stream_(is_stream) {}

  int64_t size() const override { return blocks_.size(); }
  std::span<const int64_t> offsets() const override { return blocks_.offsets(); }
  bool is_stream() const override { return is_stream_; }
  uint64_t fingerprint() const override { return checksum(part_.data(), part_.size()); }

  TaskBatch batch(std::span<const int64_t> examples) const override {
    std::vector<int64_t> source, target, offsets{0};
    TaskBatch out;
    for (const int64_t i : examples) {
      blocks_.append(i, &source, &target);
      offsets.push_back(static_cast<int64_t>(source.size()));
    }
    out.src.tokens = torch::tensor(source, torch::kInt64);
    out.src.cu_seqlens = torch::tensor(offsets, torch::kInt64);
    out.targets = torch::tensor(target, torch::kInt64);
    out.sequence_ids = torch::tensor(std::vector<int64_t>(examples.begin(), examples.end()), torch::kInt64);
    out.tokens = out.sample_size = static_cast<int64_t>(source.size());
    return out;
  }

 private:
  std::span<const uint8_t> part_;
  data::ByteBlocks blocks_;
  bool is_stream_;
};

class BytesTask : public Task {
 public:
  BytesTask(const config::Recipe& recipe, const fs::path& data_dir)
      : data_(recipe.data), lanes_(recipe.train.batch_size), path_(data_dir.empty() ? fs::path(recipe.data.path) : data_dir) {}

  const char* name() const override { return "bytes"; }
  const char* metric_name() const override { return "bits-per-byte"; }
  bool higher_is_better() const override { return false; }
  std::string metric_text(double value) const override { return fmt::format("{:.4f}", value); }
  const char* unit() const override { return "byte"; }
  std::string where() const override { return path_.string(); }

  void complete(config::ModelConfig* model) const override {
    SEQBOAT_CHECK(model->task == "language-model", ErrorKind::kConfig, "bytes: expected task.kind \"language-model\", found \"{}\"", model->task);
    if (model->vocab_size == 0) model->vocab_size = data::kByteVocabSize;
    SEQBOAT_CHECK(model->vocab_size >= data::kByteVocabSize, ErrorKind::kConfig, "bytes: model.vocab_size must be at least {}, found {}",
                  data::kByteVocabSize, model->vocab_size);
  }

  void load(const std::vector<Split>& splits, Reporter&) override {
    open();
    for (const Split split : splits) add(split, split == Split::kTrain && splits.size() > 1);
  }

  void load_sample(int64_t) override {
    open();
    add(Split::kTrain, true);
  }

  const TaskData& split(Split split) const override { return splits_.at(split); }

  torch::Tensor loss_sum(const torch::Tensor& logits, const TaskBatch& batch) const override { return ops::cross_entropy_sum(logits, batch.targets); }
  void score(const torch::Tensor& logits, const TaskBatch& batch, Score* score) const override {
    score_tokens(logits, batch.targets, batch.src.cu_seqlens, score);
  }
  Metric metric(const Score& score) const override { return bits_metric(metric_name(), score); }

  std::vector<trace::Grouping> token_groupings() const override { return {{"class", data::byte_class_labels()}}; }
  std::vector<std::vector<uint8_t>> group_tokens(const nn::PackedSequences& sequences) const override {
    return {labels_of(sequences.tokens, data::byte_class)};
  }

  TaskReport report(Split, int64_t, const Score& score) override {
    const double perplexity = std::exp(score.loss());
    const nlohmann::ordered_json json = {{"perplexity", perplexity},
                                         {"bytes", score.count},
                                         {"context", data_.context < 0 ? nlohmann::ordered_json("stream") : nlohmann::ordered_json(data_.context)}};
    TaskReport out{.json_text = json.dump(), .text = {}};
    const std::string shown = data_.context < 0
                                  ? "one stream with carried state"
                                  : fmt::format("blocks of {} bytes, each after {} it is shown", data_.block_length - data_.context, data_.context);
    out.text = fmt::format("perplexity        {:.4f} a byte\nread as           {}\n", perplexity, shown);
    return out;
  }

 private:
  void open() {
    SEQBOAT_CHECK(!path_.empty(), ErrorKind::kData,
                  "bytes: nothing to read: name it with --data FILE (or data.path): any file, or a folder with one each for train, valid and test");
    if (!file_) file_ = data::ByteText::open(path_, data_.valid_share, data_.test_share);
  }

  /// Training reads blocks without context, in lanes if the state is carried; everything else is evaluated.
  void add(Split split, bool to_train_on) {
    const std::span<const uint8_t> part = file_->part(split);
    const char* key = split == Split::kValid ? "valid_share" : "test_share";
    const std::string hint = split == Split::kTrain ? std::string("; the held-out shares leave nothing") : fmt::format("; data.{} decides", key);
    SEQBOAT_CHECK(!part.empty(), ErrorKind::kData, "{}: the {} part of its {} bytes is empty{}", path_.string(), split_word(split), file_->size(),
                  hint);
    if (to_train_on) {
      const int64_t blocks = static_cast<int64_t>(part.size()) / data_.block_length;
      SEQBOAT_CHECK(
          !data_.carry_state || blocks >= lanes_, ErrorKind::kData,
          "{}: its training part has {} bytes, {} blocks of data.block_length = {}: with data.carry_state expected at least train.batch_size = {}",
          path_.string(), part.size(), blocks, data_.block_length, lanes_);
      splits_.insert_or_assign(split, ByteData(part, data_.block_length, 0, data_.carry_state, false));
    } else if (data_.context < 0) {
      splits_.insert_or_assign(split, ByteData(part, kStreamBlock, 0, false, true));
    } else {
      splits_.insert_or_assign(split, ByteData(part, data_.block_length - data_.context, data_.context, false, false));
    }
  }

  config::DataConfig data_;
  int64_t lanes_;
  fs::path path_;
  std::optional<data::ByteText> file_;
  std::map<Split, ByteData> splits_;
};

}  // namespace

std::unique_ptr<Task> make_bytes_task(const config::Recipe& recipe, const fs::path& data_dir) {
  return std::make_unique<BytesTask>(recipe, data_dir);
}

}  // namespace seqboat::train
