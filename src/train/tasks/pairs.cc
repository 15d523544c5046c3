// Retrieval of the Long Range Arena: whether two documents are related, each read by the same model. Data are read where the user has put them.
#include "seqboat/data/pairs.h"

#include <map>

#include "seqboat/base/error.h"
#include "seqboat/data/listops_cache.h"
#include "seqboat/data/token_classes.h"
#include "train/tasks/classification.h"
#include "train/tasks/tasks.h"

namespace seqboat::train {
namespace {

/// A split of pairs. What a pair counts for packing is both its documents.
class PairData : public TaskData {
 public:
  PairData(data::PairDataset pairs, bool prepend_cls) : pairs_(std::move(pairs)), prepend_cls_(prepend_cls) {
    for (int64_t i = 0; i < pairs_.size(); ++i) offsets_.push_back(offsets_.back() + length(pairs_.pair(i).first) + length(pairs_.pair(i).second));
  }

  int64_t size() const override { return pairs_.size(); }
  std::span<const int64_t> offsets() const override { return offsets_; }
  uint64_t fingerprint() const override {
    uint64_t hash = checksum(offsets_.data(), offsets_.size() * sizeof(offsets_[0]));
    for (int64_t i = 0; i < pairs_.size(); ++i) {
      const data::DocumentPair& pair = pairs_.pair(i);
      hash = checksum(pair.first.data(), pair.first.size(), hash + static_cast<uint64_t>(pair.label));
      hash = checksum(pair.second.data(), pair.second.size(), hash);
    }
    return hash;
  }

  TaskBatch batch(std::span<const int64_t> examples) const override {
    std::vector<int64_t> first, second, first_offsets{0}, second_offsets{0}, labels;
    for (const int64_t i : examples) {
      const data::DocumentPair& pair = pairs_.pair(i);
      append(pair.first, &first, &first_offsets);
      append(pair.second, &second, &second_offsets);
      labels.push_back(pair.label);
    }
    TaskBatch out;
    out.tokens = static_cast<int64_t>(first.size() + second.size());
    out.sample_size = static_cast<int64_t>(labels.size());
    out.src.tokens = torch::tensor(first, torch::kInt64);
    out.src.cu_seqlens = torch::tensor(first_offsets, torch::kInt64);
    out.src1.emplace();
    out.src1->tokens = torch::tensor(second, torch::kInt64);
    out.src1->cu_seqlens = torch::tensor(second_offsets, torch::kInt64);
    out.targets = torch::tensor(labels, torch::kInt64);
    out.sequence_ids = torch::tensor(std::vector<int64_t>(examples.begin(), examples.end()), torch::kInt64);
    return out;
  }

 private:
  int64_t length(std::span<const uint8_t> document) const { return static_cast<int64_t>(document.size()) + (prepend_cls_ ? 1 : 0); }
  void append(std::span<const uint8_t> document, std::vector<int64_t>* tokens, std::vector<int64_t>* offsets) const {
    if (prepend_cls_) tokens->push_back(data::kPairsCls);
    for (const uint8_t byte : document) tokens->push_back(data::token_of_byte(byte));
    offsets->push_back(static_cast<int64_t>(tokens->size()));
  }

  data::PairDataset pairs_;
  bool prepend_cls_;
  std::vector<int64_t> offsets_{0};
};

class PairTask : public ClassificationTask {
 public:
  PairTask(const config::Recipe& recipe, const std::filesystem::path& data_dir)
      : prepend_cls_(recipe.model.pool == "first"),
        max_length_(recipe.data.max_length),
        path_(!data_dir.empty()           ? data_dir
              : !recipe.data.path.empty() ? std::filesystem::path(recipe.data.path)
                                          : data::default_cache_dir() / "pairs") {}

  const char* name() const override { return "pairs"; }
  std::string where() const override { return path_.string(); }

  void complete(config::ModelConfig* model) const override {
    SEQBOAT_CHECK(model->task == "retrieval" && model->input == "tokens", ErrorKind::kConfig,
                  "pairs: expected task.kind \"retrieval\" with model.input \"tokens\", found \"{}\" with \"{}\"", model->task, model->input);
    SEQBOAT_CHECK(model->classes == data::kPairsClasses, ErrorKind::kConfig, "pairs: task.classes must be {}, found {}", data::kPairsClasses,
                  model->classes);
    if (model->vocab_size == 0) model->vocab_size = data::kPairsVocabSize;
    SEQBOAT_CHECK(model->vocab_size >= data::kPairsVocabSize, ErrorKind::kConfig, "pairs: model.vocab_size must be at least {}, found {}",
                  data::kPairsVocabSize, model->vocab_size);
  }

  void load(const std::vector<data::Split>& splits, Reporter&) override {
    std::error_code error;
    SEQBOAT_CHECK(splits.size() == 1 || !std::filesystem::is_regular_file(path_, error), ErrorKind::kData,
                  "{}: expected a folder with a table for each split, found a file", path_.string());
    for (const data::Split split : splits) {
      if (splits_.count(split) == 0) splits_.emplace(split, PairData(data::read_pairs(path_, split, max_length_), prepend_cls_));
    }
  }
  void load_sample(int64_t) override {
    splits_.emplace(data::Split::kTrain, PairData(data::read_pairs(path_, data::Split::kTrain, max_length_), prepend_cls_));
  }

  const TaskData& split(data::Split split) const override { return splits_.at(split); }

  std::vector<trace::Grouping> token_groupings() const override { return {{"class", data::byte_class_labels()}}; }
  std::vector<std::vector<uint8_t>> group_tokens(const nn::PackedSequences& sequences) const override {
    return {labels_of(sequences.tokens, data::byte_class)};
  }

 private:
  bool prepend_cls_;
  int64_t max_length_;
  std::filesystem::path path_;
  std::map<data::Split, PairData> splits_;
};

}  // namespace

std::unique_ptr<Task> make_pair_task(const config::Recipe& recipe, const std::filesystem::path& data_dir) {
  return std::make_unique<PairTask>(recipe, data_dir);
}

}  // namespace seqboat::train
