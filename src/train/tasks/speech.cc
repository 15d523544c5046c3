// Spoken words, classified from their samples: Speech Commands, FSDD, asc10. Data are read where the user has put them.
#include "seqboat/data/speech.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>

#include "seqboat/base/error.h"
#include "seqboat/base/philox.h"
#include "seqboat/data/frames.h"
#include "seqboat/data/listops_cache.h"
#include "train/tasks/classification.h"
#include "train/tasks/tasks.h"

namespace seqboat::train {
namespace {

namespace fs = std::filesystem;
using data::Split;

std::vector<std::string> comma_separated(const std::string& text) {
  std::vector<std::string> out;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    std::string word = text.substr(begin, end - begin);
    word.erase(0, word.find_first_not_of(' '));
    word.erase(word.find_last_not_of(' ') + 1);
    if (!word.empty()) out.push_back(std::move(word));
    begin = end + 1;
  }
  return out;
}

/// What is done to each clip before it becomes steps, and what training alone does.
struct SoundSettings {
  data::FrameFormat format;
  int64_t shift = 0;   ///< samples
  double gain_db = 0;  ///< to either side
  double speed = 0;    ///< to either side, as a share
};

/// samples played `speed` times as fast, at most `most` of them: between four neighbours by a cubic (Catmull-Rom), so that no sample is lost at 1.
std::vector<float> played_at(double speed, std::span<const float> samples, int64_t most) {
  const auto last = static_cast<int64_t>(samples.size()) - 1;
  const int64_t count = std::min(most, static_cast<int64_t>(static_cast<double>(last) / speed) + 1);
  const auto at = [&](int64_t i) { return samples[static_cast<size_t>(std::clamp<int64_t>(i, 0, last))]; };
  std::vector<float> out(static_cast<size_t>(count));
  for (int64_t t = 0; t < count; ++t) {
    const double place = static_cast<double>(t) * speed;
    const auto i = static_cast<int64_t>(place);
    const auto f = static_cast<float>(place - static_cast<double>(i));
    const float a = at(i - 1), b = at(i), c = at(i + 1), d = at(i + 2);
    out[static_cast<size_t>(t)] = b + 0.5f * f * (c - a + f * (2 * a - 5 * b + 4 * c - d + f * (3 * (b - c) + d - a)));
  }
  return out;
}

/// A split of clips. The numbers of a batch are made when it is asked for.
class SoundData : public TaskData {
 public:
  SoundData(data::SoundDataset dataset, const SoundSettings& settings) : dataset_(std::move(dataset)), settings_(settings) {
    offsets_.reserve(dataset_.offsets.size());
    offsets_.push_back(0);
    for (int64_t i = 0; i < dataset_.size(); ++i) {
      offsets_.push_back(offsets_.back() + data::frame_count(dataset_.length(i), settings_.format.frame));
    }
  }

  int64_t size() const override { return dataset_.size(); }
  std::span<const int64_t> offsets() const override { return offsets_; }
  uint64_t fingerprint() const override {
    uint64_t hash = checksum(dataset_.offsets.data(), dataset_.offsets.size() * sizeof(dataset_.offsets[0]));
    hash = checksum(dataset_.samples.data(), dataset_.samples.size() * sizeof(dataset_.samples[0]), hash);
    return checksum(dataset_.labels.data(), dataset_.labels.size() * sizeof(dataset_.labels[0]), hash);
  }

  TaskBatch batch(std::span<const int64_t> examples) const override {
    std::vector<Reading> readings;
    for (const int64_t i : examples) readings.push_back({dataset_.clip(i), settings_.format.gain});
    return make_batch(examples, readings);
  }

  /// A clip that begins later has no more steps, and one that is played slower is cut, so that a batch stays within what the sampler counted.
  TaskBatch training_batch(std::span<const int64_t> examples, const ReadingKey& key) const override {
    std::vector<Reading> readings;
    std::deque<std::vector<float>> played;  // what readings point into
    for (const int64_t i : examples) {
      constexpr uint64_t kReadingStream = uint64_t{0x736f756e} << 32;  // of the generator: apart from what initial values and masks are drawn from
      PhiloxStream random(key.seed, kReadingStream + (static_cast<uint64_t>(key.epoch) << 40) + static_cast<uint64_t>(i));
      Reading reading{dataset_.clip(i), settings_.format.gain};
      const double later = random.next_uniform(), louder = 2 * random.next_uniform() - 1;
      const auto dropped = static_cast<int64_t>(later * static_cast<double>(settings_.shift + 1));
      reading.samples = reading.samples.subspan(static_cast<size_t>(std::min(dropped, dataset_.length(i) - 1)));
      if (settings_.gain_db > 0) {
        // The sign as well: nobody hears it, but the samples are others.
        reading.gain *= static_cast<float>(std::pow(10.0, louder * settings_.gain_db / 20));
        if (random.next_below(2) == 1) reading.gain = -reading.gain;
      }
      if (settings_.speed > 0) {
        const double faster = 2 * random.next_uniform() - 1;
        played.push_back(played_at(1 + faster * settings_.speed, reading.samples, dataset_.length(i)));
        reading.samples = played.back();
      }
      readings.push_back(reading);
    }
    return make_batch(examples, readings);
  }

 private:
  struct Reading {
    std::span<const float> samples;
    float gain;
  };

  TaskBatch make_batch(std::span<const int64_t> examples, const std::vector<Reading>& readings) const {
    const int64_t frame = settings_.format.frame;
    std::vector<int64_t> offsets{0}, labels;
    for (size_t b = 0; b < examples.size(); ++b) {
      offsets.push_back(offsets.back() + data::frame_count(static_cast<int64_t>(readings[b].samples.size()), frame));
      labels.push_back(dataset_.labels[static_cast<size_t>(examples[b])]);
    }
    TaskBatch out;
    out.tokens = offsets.back();
    out.sample_size = static_cast<int64_t>(labels.size());
    out.src.values = torch::empty({out.tokens, frame});
    float* values = out.src.values.mutable_data_ptr<float>();
    for (size_t b = 0; b < readings.size(); ++b) {
      data::FrameFormat format = settings_.format;
      format.gain = readings[b].gain;
      data::frame_clip(format, readings[b].samples, values + offsets[b] * frame);
    }
    out.src.cu_seqlens = torch::tensor(offsets, torch::kInt64);
    out.targets = torch::tensor(labels, torch::kInt64);
    out.sequence_ids = torch::tensor(std::vector<int64_t>(examples.begin(), examples.end()), torch::kInt64);
    return out;
  }

  data::SoundDataset dataset_;
  SoundSettings settings_;
  std::vector<int64_t> offsets_;
};

/// Mean and deviation (n - 1) of the samples at each place in clips of one length.
class TimeIndexNorm {
 public:
  explicit TimeIndexNorm(const data::SoundDataset& clips) : length_(clips.length(0)) {
    const auto places = static_cast<size_t>(length_);
    std::vector<double> squares(places, 0.0);
    mean_.assign(places, 0.0);
    const auto n = static_cast<double>(clips.size());
    for (int64_t i = 0; i < clips.size(); ++i) {
      for (size_t t = 0; t < places; ++t) mean_[t] += clips.clip(i)[t];
    }
    for (double& mean : mean_) mean /= n;
    for (int64_t i = 0; i < clips.size(); ++i) {
      for (size_t t = 0; t < places; ++t) squares[t] += (clips.clip(i)[t] - mean_[t]) * (clips.clip(i)[t] - mean_[t]);
    }
    constexpr double kLeast = 1e-5;
    for (const double square : squares) scale_.push_back(1 / (std::sqrt(square / std::max(1.0, n - 1)) + kLeast));
  }

  void apply(data::SoundDataset* clips) const {
    for (int64_t i = 0; i < clips->size(); ++i) {
      float* samples = clips->samples.data() + clips->offsets[static_cast<size_t>(i)];
      for (size_t t = 0; t < mean_.size(); ++t) samples[t] = static_cast<float>((samples[t] - mean_[t]) * scale_[t]);
    }
  }

 private:
  int64_t length_;
  std::vector<double> mean_, scale_;
};

class SpeechTask : public ClassificationTask {
 public:
  SpeechTask(const config::Recipe& recipe, const fs::path& data_dir, const data::SoundTools& tools)
      : form_(data::parse_speech_form(recipe.data.name)),
        data_(recipe.data),
        tools_(tools),
        path_(!data_dir.empty()           ? data_dir
              : !recipe.data.path.empty() ? fs::path(recipe.data.path)
                                          : data::default_cache_dir() / recipe.data.name) {
    list_.split = data::parse_speech_split(data_.split);
    list_.words = comma_separated(data_.words);
    list_.test_speakers = comma_separated(data_.test_speakers);
    list_.validate_on_test = data_.valid == "test";
    read_ = {.sample_rate = data_.sample_rate, .seconds = data_.seconds, .fit = data::parse_speech_fit(data_.fit)};
  }

  const char* name() const override { return data::speech_form_name(form_); }
  std::string where() const override { return path_.string(); }

  void complete(config::ModelConfig* model) const override {
    SEQBOAT_CHECK(model->task == "classification" && model->input == "real", ErrorKind::kConfig,
                  "{}: expected task.kind \"classification\" with model.input \"real\", found \"{}\" with \"{}\"", name(), model->task, model->input);
    SEQBOAT_CHECK(model->pool == "mean", ErrorKind::kConfig, "{}: task.pool must be \"mean\", found \"{}\": sound has no <CLS>", name(), model->pool);
    const int64_t frame = data_.frame_samples();
    if (model->channels == 0) model->channels = frame;
    SEQBOAT_CHECK(model->channels == frame, ErrorKind::kConfig,
                  "{}: model.channels must be {}, the samples of a step (data.frame_ms = {} at data.sample_rate = {}), or 0, found {}", name(), frame,
                  data_.frame_ms, data_.sample_rate, model->channels);
    classes_ = model->classes;
  }

  void load(const std::vector<Split>& splits, Reporter& reporter) override {
    for (const Split split : splits) {
      if (splits_.count(split) == 0) add(split, reporter);
    }
  }

  void load_sample(int64_t examples) override {
    data::ClipList list = data::list_clips(form_, path_, Split::kTrain, list_);
    check_labels(list.labels);
    if (static_cast<int64_t>(list.clips.size()) > examples) list.clips.resize(static_cast<size_t>(examples));
    data::SoundDataset clips = data::read_clips(list, read_, tools_);
    normalize(&clips, clips);
    keep(Split::kTrain, std::move(clips));
  }

  const TaskData& split(Split split) const override { return splits_.at(split); }

  config::InputFormat input_format() const override {
    return {.name = name(),
            .sample_rate = data_.sample_rate,
            .frame = data_.frame_samples(),
            .gain = data_.gain,
            .normalize = data_.normalize,
            .labels = labels_};
  }

 private:
  void check_labels(const std::vector<std::string>& labels) {
    SEQBOAT_CHECK(classes_ == 0 || classes_ == static_cast<int64_t>(labels.size()), ErrorKind::kConfig,
                  "{}: task.classes must be {}, the words of {}, found {}", name(), labels.size(), path_.string(), classes_);
    labels_ = labels;
  }

  data::SoundDataset read(Split split, Reporter& reporter) {
    const data::ClipList list = data::list_clips(form_, path_, split, list_);
    check_labels(list.labels);
    const std::string label = fmt::format("reading {} {}", name(), split_word(split));
    data::SoundDataset clips = data::read_clips(list, read_, tools_, [&](int64_t done, int64_t total) {
      reporter.progress({.label = label, .unit = "clip", .done = done, .total = total, .fields = {}});
    });
    reporter.finish_progress();
    return clips;
  }

  void add(Split split, Reporter& reporter) {
    data::SoundDataset clips = read(split, reporter);
    // Whatever is evaluated, the numbers come from the clips that were trained on.
    if (data_.normalize == "time-index" && !norm_ && split != Split::kTrain) norm_.emplace(read(Split::kTrain, reporter));
    normalize(&clips, clips);
    keep(split, std::move(clips));
  }

  void normalize(data::SoundDataset* clips, const data::SoundDataset& training) {
    if (data_.normalize != "time-index") return;
    if (!norm_) norm_.emplace(training);
    norm_->apply(clips);
  }

  void keep(Split split, data::SoundDataset clips) {
    const SoundSettings settings{.format = {.sample_rate = data_.sample_rate, .frame = data_.frame_samples(), .gain = static_cast<float>(data_.gain)},
                                 .shift = static_cast<int64_t>(data_.shift_ms * static_cast<double>(data_.sample_rate) / 1000),
                                 .gain_db = data_.gain_db,
                                 .speed = data_.speed};
    splits_.insert_or_assign(split, SoundData(std::move(clips), settings));
  }

  data::SpeechForm form_;
  config::DataConfig data_;
  data::SoundTools tools_;
  fs::path path_;
  data::SpeechListOptions list_;
  data::SpeechReadOptions read_;
  mutable int64_t classes_ = 0;  ///< of the model that was completed; 0 = none was
  std::vector<std::string> labels_;
  std::optional<TimeIndexNorm> norm_;
  std::map<Split, SoundData> splits_;
};

}  // namespace

std::unique_ptr<Task> make_speech_task(const config::Recipe& recipe, const fs::path& data_dir, const data::SoundTools& tools) {
  return std::make_unique<SpeechTask>(recipe, data_dir, tools);
}

}  // namespace seqboat::train
