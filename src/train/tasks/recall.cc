// Recall over distance: a causal model says the value of each key that comes again. Sequences are made when they are asked for.
#include "seqboat/data/recall.h"

#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/ops/ops.h"
#include "train/tasks/tasks.h"

namespace seqboat::train {
namespace {

using data::Split;

class RecallData : public TaskData {
 public:
  RecallData(data::RecallGenerator generator, Split split, int64_t examples) : generator_(generator), split_(split) {
    for (int64_t i = 0; i < examples; ++i) offsets_.push_back(offsets_.back() + generator_.length(split, i));
  }

  int64_t size() const override { return static_cast<int64_t>(offsets_.size()) - 1; }
  std::span<const int64_t> offsets() const override { return offsets_; }
  uint64_t fingerprint() const override {
    const data::RecallOptions& of = generator_.options();
    const int64_t settings[] = {data::kRecallGeneratorVersion, static_cast<int64_t>(of.form), of.pairs, of.length, of.vary_length ? 1 : 0,
                                static_cast<int64_t>(of.seed), static_cast<int64_t>(split_),  size()};
    return checksum(settings, sizeof(settings));
  }

  TaskBatch batch(std::span<const int64_t> examples) const override {
    std::vector<int64_t> tokens, targets, cu_seqlens{0};
    TaskBatch out;
    for (const int64_t i : examples) {
      const data::RecallExample example = generator_.make(split_, i);
      const size_t begin = tokens.size();
      tokens.insert(tokens.end(), example.tokens.begin(), example.tokens.end());
      targets.resize(tokens.size(), -1);
      for (const data::RecallQuestion& question : example.questions) targets[begin + static_cast<size_t>(question.position)] = question.answer;
      cu_seqlens.push_back(static_cast<int64_t>(tokens.size()));
      out.sample_size += static_cast<int64_t>(example.questions.size());
    }
    out.tokens = static_cast<int64_t>(tokens.size());
    out.src.tokens = torch::tensor(tokens, torch::kInt64);
    out.src.cu_seqlens = torch::tensor(cu_seqlens, torch::kInt64);
    out.targets = torch::tensor(targets, torch::kInt64);
    out.sequence_ids = torch::tensor(std::vector<int64_t>(examples.begin(), examples.end()), torch::kInt64);
    return out;
  }

 private:
  data::RecallGenerator generator_;
  Split split_;
  std::vector<int64_t> offsets_{0};
};

class RecallTask : public Task {
 public:
  RecallTask(const config::Recipe& recipe, const std::filesystem::path& data_dir)
      : data_(recipe.data),
        generator_({.form = data::parse_recall_form(recipe.data.name),
                    .pairs = recipe.data.pairs,
                    .length = recipe.data.length,
                    .vary_length = recipe.data.vary_length,
                    .seed = static_cast<uint64_t>(recipe.data.seed)}) {
    SEQBOAT_CHECK(data_dir.empty() && recipe.data.path.empty(), ErrorKind::kUsage,
                  "--data: {} is made in memory and reads no files, found {}; --set data.length=N and the like say what is made", name(),
                  (data_dir.empty() ? std::filesystem::path(recipe.data.path) : data_dir).string());
  }

  const char* name() const override { return data::recall_form_name(generator_.options().form); }
  const char* metric_name() const override { return "accuracy"; }
  bool higher_is_better() const override { return true; }
  std::string metric_text(double value) const override { return fmt::format("{:.2f} %", 100 * value); }
  const char* unit() const override { return "question"; }
  double expect_scale() const override { return 100; }
  std::string where() const override { return "made in memory"; }

  void complete(config::ModelConfig* model) const override {
    SEQBOAT_CHECK(model->task == "language-model", ErrorKind::kConfig, "{}: expected task.kind \"language-model\", found \"{}\"", name(),
                  model->task);
    if (model->vocab_size == 0) model->vocab_size = data::kRecallVocabSize;
    SEQBOAT_CHECK(model->vocab_size >= data::kRecallVocabSize, ErrorKind::kConfig, "{}: model.vocab_size must be at least {}, found {}", name(),
                  data::kRecallVocabSize, model->vocab_size);
  }

  void load(const std::vector<Split>& splits, Reporter&) override {
    for (const Split split : splits) {
      const int64_t examples = split == Split::kTrain ? data_.train_examples : split == Split::kValid ? data_.valid_examples : data_.test_examples;
      if (splits_.count(split) == 0) splits_.emplace(split, RecallData(generator_, split, examples));
    }
  }
  void load_sample(int64_t examples) override {
    splits_.insert_or_assign(Split::kTrain, RecallData(generator_, Split::kTrain, std::min(examples, data_.train_examples)));
  }

  const TaskData& split(Split split) const override { return splits_.at(split); }

  torch::Tensor loss_sum(const torch::Tensor& logits, const TaskBatch& batch) const override {
    const torch::Tensor asked = torch::nonzero(batch.targets >= 0).squeeze(1);
    return ops::cross_entropy_sum(logits.index_select(0, asked), batch.targets.index_select(0, asked));
  }
  void score(const torch::Tensor& logits, const TaskBatch& batch, Score* score) const override {
    score_tokens(logits, batch.targets, batch.src.cu_seqlens, score);
  }
  Metric metric(const Score& score) const override { return accuracy_metric(score.correct, score.count); }

  std::vector<trace::Grouping> token_groupings() const override { return {{"class", data::recall_class_labels()}}; }
  std::vector<std::vector<uint8_t>> group_tokens(const nn::PackedSequences& sequences) const override {
    return {labels_of(sequences.tokens, data::recall_class)};
  }

  TaskReport report(Split, int64_t, const Score& score) override {
    const data::RecallOptions& of = generator_.options();
    const nlohmann::ordered_json json = {{"questions", score.count}, {"length", of.length}, {"pairs", of.pairs}};
    return {.json_text = json.dump(),
            .text = fmt::format("asked             {} questions in sequences of {} tokens, {} pairs in each\n", score.count, of.length, of.pairs)};
  }

 private:
  config::DataConfig data_;
  data::RecallGenerator generator_;
  std::map<Split, RecallData> splits_;
};

}  // namespace

std::unique_ptr<Task> make_recall_task(const config::Recipe& recipe, const std::filesystem::path& data_dir) {
  return std::make_unique<RecallTask>(recipe, data_dir);
}

}  // namespace seqboat::train
