// Pictures, classified pixel by pixel: grey CIFAR-10, MNIST, Pathfinder.
#include "seqboat/data/images.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>

#include "seqboat/base/error.h"
#include "seqboat/data/listops_cache.h"
#include "seqboat/data/pathfinder.h"
#include "train/tasks/classification.h"
#include "train/tasks/tasks.h"

namespace seqboat::train {
namespace {

/// A split of pictures. The numbers of a batch are made when it is asked for:  (v / 255 - mean) / std, in an order of pixels.
class ImageData : public TaskData {
 public:
  ImageData(data::ImageDataset images, const std::array<float, 256>& values, const std::vector<int64_t>& order)
      : images_(std::move(images)), values_(values), order_(order) {
    for (int64_t i = 0; i <= images_.size(); ++i) offsets_.push_back(i * images_.pixels());
  }

  int64_t size() const override { return images_.size(); }
  std::span<const int64_t> offsets() const override { return offsets_; }
  uint64_t fingerprint() const override {
    const uint64_t hash = checksum(images_.bytes().data(), images_.bytes().size());
    return checksum(order_.data(), order_.size() * sizeof(order_[0]), hash);
  }

  TaskBatch batch(std::span<const int64_t> examples) const override {
    const int64_t pixels = images_.pixels();
    TaskBatch out;
    out.sample_size = static_cast<int64_t>(examples.size());
    out.tokens = out.sample_size * pixels;
    out.src.values = torch::empty({out.tokens, 1});
    float* to = out.src.values.mutable_data_ptr<float>();
    std::vector<int64_t> offsets{0}, labels;
    for (const int64_t i : examples) {
      const auto image = images_.image(i);
      for (int64_t p = 0; p < pixels; ++p) *to++ = values_[image[static_cast<size_t>(order_.empty() ? p : order_[static_cast<size_t>(p)])]];
      offsets.push_back(offsets.back() + pixels);
      labels.push_back(images_.label(i));
    }
    out.src.cu_seqlens = torch::tensor(offsets, torch::kInt64);
    out.targets = torch::tensor(labels, torch::kInt64);
    out.sequence_ids = torch::tensor(std::vector<int64_t>(examples.begin(), examples.end()), torch::kInt64);
    return out;
  }

 private:
  data::ImageDataset images_;
  std::array<float, 256> values_;
  std::vector<int64_t> order_;  ///< empty = as they lie
  std::vector<int64_t> offsets_;
};

class ImageTask : public ClassificationTask {
 public:
  ImageTask(const config::Recipe& recipe, const std::filesystem::path& data_dir)
      : form_(data::parse_image_form(recipe.data.name)),
        data_(recipe.data),
        options_{.validate_on_test = recipe.data.valid == "test", .size = recipe.data.image_size},
        make_{.size = recipe.data.image_size,
              .seed = static_cast<uint64_t>(recipe.data.seed),
              .train = recipe.data.train_examples,
              .valid = recipe.data.valid_examples,
              .test = recipe.data.test_examples} {
    // What lies where the user says is taken as it is, and what it lacks is made if it can be; elsewhere it must be what [data] describes.
    as_it_is_ = !data_dir.empty();
    path_ = !data_dir.empty()                       ? data_dir
            : !recipe.data.path.empty()             ? std::filesystem::path(recipe.data.path)
            : form_ == data::ImageForm::kPathfinder ? data::default_cache_dir() / data::pathfinder_folder_name(make_)
                                                    : data::default_cache_dir() / recipe.data.name;
    std::error_code error;
    makes_ = form_ == data::ImageForm::kPathfinder && !std::filesystem::is_regular_file(path_, error);
    for (size_t v = 0; v < values_.size(); ++v) values_[v] = static_cast<float>((static_cast<double>(v) / 255 - data_.pixel_mean) / data_.pixel_std);
  }

  const char* name() const override { return data::image_form_name(form_); }
  std::string where() const override { return path_.string(); }

  void complete(config::ModelConfig* model) const override {
    SEQBOAT_CHECK(model->task == "classification" && model->input == "real", ErrorKind::kConfig,
                  "{}: expected task.kind \"classification\" with model.input \"real\", found \"{}\" with \"{}\"", name(), model->task, model->input);
    SEQBOAT_CHECK(model->pool == "mean", ErrorKind::kConfig, "{}: task.pool must be \"mean\", found \"{}\": pictures have no <CLS>", name(),
                  model->pool);
    if (model->channels == 0) model->channels = 1;
    SEQBOAT_CHECK(model->channels == 1, ErrorKind::kConfig, "{}: model.channels must be 1, the grey of a pixel, or 0, found {}", name(),
                  model->channels);
    const auto classes = static_cast<int64_t>(data::image_labels(form_).size());
    SEQBOAT_CHECK(model->classes == classes, ErrorKind::kConfig, "{}: task.classes must be {}, found {}", name(), classes, model->classes);
  }

  void load(const std::vector<data::Split>& splits, Reporter& reporter) override {
    if (makes_) {
      std::vector<data::Split> wanted;
      for (const data::Split split : splits) {
        const bool is_there = splits_.count(split) > 0 || (as_it_is_ && !data::find_images(form_, path_, split, options_).empty());
        if (!is_there) wanted.push_back(split);
      }
      const auto progress = [&](const data::PathfinderProgress& at) {
        reporter.progress(
            {.label = fmt::format("pathfinder {} data", split_word(at.split)), .unit = "picture", .done = at.done, .total = at.total, .fields = {}});
      };
      if (!wanted.empty() && !data::ensure_pathfinder(path_, make_, progress, wanted).empty()) reporter.finish_progress();
    }
    refuse_file(splits.size() > 1);
    for (const data::Split split : splits) {
      if (splits_.count(split) == 0) keep(split, data::read_images(form_, path_, split, options_));
    }
  }

  void load_sample(int64_t examples) override {
    if (makes_ && data::find_images(form_, path_, data::Split::kTrain, options_).empty()) {
      data::PathfinderGenerator generator(data::PathfinderOptions::lra(make_.size), make_.seed);
      const int64_t count = std::min(examples, make_.train), record = make_.size * make_.size + 1;
      std::vector<uint8_t> records(static_cast<size_t>(count * record));
      for (int64_t i = 0; i < count; ++i) {
        uint8_t* at = records.data() + i * record;
        *at = static_cast<uint8_t>(generator.make(data::Split::kTrain, i, at + 1));
      }
      keep(data::Split::kTrain, data::ImageDataset(make_.size, make_.size, std::move(records)));
      return;
    }
    const data::ImageDataset all = data::read_images(form_, path_, data::Split::kTrain, options_);
    keep(data::Split::kTrain, all.part(0, std::min(examples, all.size())));
  }

  const TaskData& split(data::Split split) const override { return splits_.at(split); }

  config::InputFormat input_format() const override {
    const int64_t side = form_ == data::ImageForm::kMnist ? 28 : form_ == data::ImageForm::kCifar10 ? 32 : data_.image_size;
    config::InputFormat out{.name = name(), .labels = data::image_labels(form_)};
    out.image = config::ImageFormat{side, side, data_.pixel_mean, data_.pixel_std, data_.permutation_seed};
    return out;
  }

  /// Where a model looks: by brightness, the only thing that a pixel tells of itself.
  std::vector<trace::Grouping> token_groupings() const override { return {{"brightness", {"0-63", "64-127", "128-191", "192-255"}}}; }
  std::vector<std::vector<uint8_t>> group_tokens(const nn::PackedSequences& sequences) const override {
    const torch::Tensor values = sequences.values.to(torch::kFloat64).contiguous();
    const double* value = values.const_data_ptr<double>();
    std::vector<uint8_t> quarters(static_cast<size_t>(values.numel()));
    for (size_t i = 0; i < quarters.size(); ++i) {
      const double grey = std::round((value[i] * data_.pixel_std + data_.pixel_mean) * 255);
      quarters[i] = static_cast<uint8_t>(std::clamp(grey, 0.0, 255.0) / 64);
    }
    return {std::move(quarters)};
  }

 private:
  /// One file cannot be two splits.
  void refuse_file(bool several) const {
    std::error_code error;
    SEQBOAT_CHECK(!several || !std::filesystem::is_regular_file(path_, error), ErrorKind::kData,
                  "{}: expected a folder with a file for each split, found a file", path_.string());
  }

  void keep(data::Split split, data::ImageDataset images) {
    const std::vector<int64_t> order = data_.permutation_seed == 0
                                           ? std::vector<int64_t>()
                                           : data::pixel_permutation(images.pixels(), static_cast<uint64_t>(data_.permutation_seed));
    splits_.insert_or_assign(split, ImageData(std::move(images), values_, order));
  }

  data::ImageForm form_;
  config::DataConfig data_;
  data::ImageReadOptions options_;
  data::PathfinderMakeOptions make_;
  bool makes_ = false;
  bool as_it_is_ = false;
  std::filesystem::path path_;
  std::array<float, 256> values_;
  std::map<data::Split, ImageData> splits_;
};

}  // namespace

std::unique_ptr<Task> make_image_task(const config::Recipe& recipe, const std::filesystem::path& data_dir) {
  return std::make_unique<ImageTask>(recipe, data_dir);
}

}  // namespace seqboat::train
