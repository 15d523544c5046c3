// The Long Range Arena's text classification: film reviews by their bytes, for or against. Data are read where the user has put them.
#include "seqboat/data/imdb.h"

#include <map>

#include "seqboat/base/error.h"
#include "seqboat/data/listops_cache.h"
#include "seqboat/data/token_classes.h"
#include "train/tasks/classification.h"
#include "train/tasks/tasks.h"

namespace seqboat::train {
namespace {

namespace fs = std::filesystem;
using data::Split;

class ImdbTask : public ClassificationTask {
 public:
  ImdbTask(const config::Recipe& recipe, const fs::path& data_dir)
      : prepend_cls_(recipe.model.pool == "first"),
        options_{.max_length = recipe.data.max_length, .validate_on_test = recipe.data.valid == "test"},
        path_(!data_dir.empty()           ? data_dir
              : !recipe.data.path.empty() ? fs::path(recipe.data.path)
                                          : data::default_cache_dir() / "imdb") {}

  const char* name() const override { return "imdb"; }
  std::string where() const override { return path_.string(); }

  void complete(config::ModelConfig* model) const override {
    SEQBOAT_CHECK(model->task == "classification" && model->input == "tokens", ErrorKind::kConfig,
                  "imdb: expected task.kind \"classification\" with model.input \"tokens\", found \"{}\" with \"{}\"", model->task, model->input);
    SEQBOAT_CHECK(model->classes == data::kImdbClasses, ErrorKind::kConfig, "imdb: task.classes must be {}, found {}", data::kImdbClasses,
                  model->classes);
    if (model->vocab_size == 0) model->vocab_size = data::kImdbVocabSize;
    SEQBOAT_CHECK(model->vocab_size >= data::kImdbVocabSize, ErrorKind::kConfig, "imdb: model.vocab_size must be at least {}, found {}",
                  data::kImdbVocabSize, model->vocab_size);
  }

  void load(const std::vector<Split>& splits, Reporter&) override {
    if (splits.size() > 1) refuse_file();
    for (const Split split : splits) {
      if (splits_.count(split) == 0) add(split);
    }
  }

  void load_sample(int64_t) override {
    refuse_file();
    add(Split::kTrain);
  }

  const TaskData& split(Split split) const override { return splits_.at(split); }

  std::vector<trace::Grouping> token_groupings() const override { return {{"class", data::byte_class_labels()}}; }
  std::vector<std::vector<uint8_t>> group_tokens(const nn::PackedSequences& sequences) const override {
    return {labels_of(sequences.tokens, data::byte_class)};
  }

 private:
  /// One file cannot be two splits.
  void refuse_file() const {
    std::error_code error;
    SEQBOAT_CHECK(!fs::is_regular_file(path_, error), ErrorKind::kData,
                  "{}: expected a folder with imdb_train.tsv and imdb_test.tsv, or with aclImdb, found a file", path_.string());
  }

  void add(Split split) {
    data::SequenceDataset dataset = data::read_imdb(path_, split, options_);
    if (prepend_cls_) dataset.prepend(data::kImdbCls);
    splits_.insert_or_assign(split, SequenceData(std::move(dataset)));
  }

  bool prepend_cls_;
  data::ImdbReadOptions options_;
  fs::path path_;
  std::map<Split, SequenceData> splits_;
};

}  // namespace

std::unique_ptr<Task> make_imdb_task(const config::Recipe& recipe, const fs::path& data_dir) {
  return std::make_unique<ImdbTask>(recipe, data_dir);
}

}  // namespace seqboat::train
