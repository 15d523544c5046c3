// ListOps: the value, 0 to 9, of a nested list expression. Data are generated where they are missing.
#include "seqboat/data/listops.h"

#include <map>
#include <nlohmann/json.hpp>

#include "seqboat/base/error.h"
#include "seqboat/data/listops_cache.h"
#include "seqboat/data/shortcut_ladder.h"
#include "seqboat/data/token_classes.h"
#include "train/tasks/classification.h"
#include "train/tasks/tasks.h"

namespace seqboat::train {
namespace {

namespace fs = std::filesystem;
using data::Shortcut;
using data::Split;

std::string percent(double fraction) {
  return fmt::format("{:.2f} %", 100 * fraction);
}

class ListopsTask : public ClassificationTask {
 public:
  ListopsTask(const config::Recipe& recipe, const fs::path& data_dir)
      : prepend_cls_(recipe.model.pool == "first"), with_steps_(recipe.train.auxiliary_weight > 0), sizes_(make_options(recipe.data)) {
    if (!data_dir.empty()) {
      path_ = data_dir;
      as_it_is_ = true;
    } else if (!recipe.data.path.empty()) {
      path_ = recipe.data.path;
    } else {
      path_ = data::default_cache_dir() / data::listops_folder_name(sizes_);
    }
    std::error_code error;
    is_file_ = fs::is_regular_file(path_, error);
  }

  const char* name() const override { return "listops"; }
  std::string where() const override { return path_.string(); }

  void complete(config::ModelConfig* model) const override {
    SEQBOAT_CHECK(model->task == "classification" && model->input == "tokens", ErrorKind::kConfig,
                  "listops: expected task.kind \"classification\" with model.input \"tokens\", found \"{}\" with \"{}\"", model->task, model->input);
    SEQBOAT_CHECK(model->classes == data::kListopsClasses, ErrorKind::kConfig, "listops: task.classes must be {}, found {}", data::kListopsClasses,
                  model->classes);
    if (model->vocab_size == 0) model->vocab_size = data::kListopsVocabSize;
    SEQBOAT_CHECK(model->vocab_size >= data::kListopsVocabSize, ErrorKind::kConfig, "listops: model.vocab_size must be at least {}, found {}",
                  data::kListopsVocabSize, model->vocab_size);
  }

  void load(const std::vector<Split>& splits, Reporter& reporter) override {
    if (splits.size() > 1) refuse_file();
    std::error_code error;
    std::vector<Split> wanted;  // a folder given by hand may hold ListOps of any kind; only what it lacks is made
    for (const Split split : splits) {
      if (!is_file_ && !(as_it_is_ && fs::is_regular_file(data::listops_file(path_, split), error))) wanted.push_back(split);
    }
    if (!wanted.empty()) {
      const auto progress = [&](const data::ListopsProgress& at) {
        reporter.progress(
            {.label = fmt::format("listops {} data", split_word(at.split)), .unit = "sample", .done = at.done, .total = at.total, .fields = {}});
      };
      if (!data::ensure_listops(path_, sizes_, progress, wanted).empty()) reporter.finish_progress();
    }
    for (const Split split : splits) {
      if (splits_.count(split) == 0) add(split, data::read_listops(path_, split));
    }
  }

  void load_sample(int64_t examples) override {
    refuse_file();
    std::error_code error;
    const int64_t count = std::min(examples, sizes_.train);
    if (fs::is_regular_file(data::listops_file(path_, Split::kTrain), error)) {
      add(Split::kTrain, data::read_listops(path_, Split::kTrain));
    } else {
      add(Split::kTrain, data::generate_listops(sizes_.shape, sizes_.seed, Split::kTrain, 0, count));
    }
  }

  torch::Tensor token_loss_sum(const torch::Tensor& logits, const TaskBatch& batch) const override {
    return ops::cross_entropy_sum(logits, batch.token_targets);
  }

  const TaskData& split(Split split) const override { return splits_.at(split); }

  std::vector<trace::Grouping> token_groupings() const override {
    return {{"class", data::listops_class_labels()}, {"depth", data::listops_depth_labels()}};
  }
  std::vector<std::vector<uint8_t>> group_tokens(const nn::PackedSequences& sequences) const override {
    std::vector<uint8_t> depths(static_cast<size_t>(sequences.tokens.size(0)));
    const int64_t* tokens = sequences.tokens.const_data_ptr<int64_t>();
    const int64_t* offsets = sequences.cu_seqlens.const_data_ptr<int64_t>();
    for (int64_t b = 0; b < sequences.batch(); ++b)
      data::listops_depths({tokens + offsets[b], static_cast<size_t>(offsets[b + 1] - offsets[b])}, depths.data() + offsets[b]);
    return {labels_of(sequences.tokens, data::listops_class), std::move(depths)};
  }

  TaskReport report(Split split, int64_t examples, const Score& score) override {
    const data::SequenceDataset first = first_of(splits_.at(split).dataset(), examples);
    const auto ladder = data::evaluate_shortcuts(fit_shortcuts(split, first), first);
    const auto hard = data::accuracy_on_hard(ladder, score.predictions, first.labels);

    nlohmann::ordered_json json = ladder.to_json();
    json["model_where_one_level_is_wrong"] = {{"samples", hard.samples}, {"correct", hard.correct}, {"accuracy", hard.accuracy()}};
    TaskReport out{.json_text = nlohmann::ordered_json{{"shortcut_ladder", json}}.dump(), .text = {}};
    out.text = fmt::format("Shortcuts (counted on {}):\n", ladder.fitted_on);
    const auto line = [&](const char* what, Shortcut shortcut) {
      out.text += fmt::format("  {:<40}{:>8}\n", what, percent(ladder.accuracy(shortcut)));
    };
    line("best constant", Shortcut::kConstant);
    line("root operator, a constant for each", Shortcut::kRootOperator);
    line("one level evaluated", Shortcut::kOneLevel);
    line("two levels", Shortcut::kTwoLevels);
    line("three levels", Shortcut::kThreeLevels);
    out.text += fmt::format("  {:<40}{:>8} of {} samples\n", "model where one level is wrong", percent(hard.accuracy()), hard.samples);
    return out;
  }

 private:
  /// One file cannot be two splits.
  void refuse_file() const {
    SEQBOAT_CHECK(!is_file_, ErrorKind::kData, "{}: expected a folder with {} and {}, found a file", path_.string(),
                  data::listops_file({}, Split::kTrain).string(), data::listops_file({}, Split::kValid).string());
  }

  static data::ListopsMakeOptions make_options(const config::DataConfig& d) {
    data::ListopsMakeOptions out;
    out.shape = {d.min_length, d.max_length, d.max_depth, d.max_args};
    out.seed = static_cast<uint64_t>(d.seed);
    out.train = d.train_examples;
    out.valid = d.valid_examples;
    out.test = d.test_examples;
    return out;
  }

  static data::SequenceDataset first_of(const data::SequenceDataset& all, int64_t examples) {
    if (examples >= all.size()) return all;
    data::SequenceDataset out;
    for (int64_t i = 0; i < examples; ++i) out.append(all.sequence(i), all.labels[i]);
    return out;
  }

  /// Counted on the training split where it lies beside, else on the evaluated samples themselves.
  data::ListopsShortcuts fit_shortcuts(Split split, const data::SequenceDataset& evaluated) {
    if (const auto train = splits_.find(Split::kTrain); train != splits_.end()) return data::ListopsShortcuts::fit(train->second.dataset(), "train");
    std::error_code error;
    if (!is_file_ && fs::is_regular_file(data::listops_file(path_, Split::kTrain), error)) {
      return data::ListopsShortcuts::fit(data::read_listops(path_, Split::kTrain), "train");
    }
    return data::ListopsShortcuts::fit(evaluated, fmt::format("{} itself", split_word(split)));
  }

  void add(Split split, data::SequenceDataset dataset) {
    if (prepend_cls_) dataset.prepend(data::kListopsCls);
    SequenceData data(std::move(dataset));
    if (split == Split::kTrain && with_steps_) {
      data.set_token_targets([](std::span<const int32_t> tokens) {
        std::vector<std::pair<int64_t, int64_t>> out;
        for (const auto& [position, value] : data::listops_steps(tokens)) out.emplace_back(position, value);
        return out;
      });
    }
    splits_.insert_or_assign(split, std::move(data));
  }

  bool prepend_cls_;
  bool with_steps_;  ///< the steps of the calculation are targets, too, each at its token
  data::ListopsMakeOptions sizes_;
  fs::path path_;
  bool is_file_ = false;
  bool as_it_is_ = false;
  std::map<Split, SequenceData> splits_;
};

}  // namespace

std::unique_ptr<Task> make_listops_task(const config::Recipe& recipe, const fs::path& data_dir) {
  return std::make_unique<ListopsTask>(recipe, data_dir);
}

}  // namespace seqboat::train
