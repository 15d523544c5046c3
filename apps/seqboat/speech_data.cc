// seqboat data check | stats for spoken words
#include "speech_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "seqboat/base/error.h"
#include "seqboat/data/speech.h"
#include "seqboat/data_audio/sound_file.h"

namespace seqboat::app {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using data::Split;

constexpr Split kSplits[] = {Split::kTrain, Split::kValid, Split::kTest};

data::SpeechForm form_of(const fs::path& path) {
  data::SpeechForm form{};
  SEQBOAT_CHECK(data::guess_speech_form(path, &form), ErrorKind::kData, "{}: no spoken words", path.string());
  return form;
}

/// The official split; a folder of words without the lists is shared out by speakers.
data::SpeechListOptions options_of(data::SpeechForm form, const fs::path& path) {
  data::SpeechListOptions options;
  std::error_code error;
  const bool has_lists = fs::exists(path / "validation_list.txt", error) || fs::exists(path / "testing_list.txt", error);
  if (form == data::SpeechForm::kSpeechCommands && !has_lists) options.split = data::SpeechSplit::kSpeakers;
  return options;
}

/// Clips as they are in their files: nothing is cut or resampled.
struct Read {
  data::ClipList list;
  std::vector<int64_t> samples, rates;
  double seconds = 0;
  double squares = 0;  ///< of all samples
  double peak = 0;
};

Read read(const data::ClipList& list, Reporter& reporter, const std::string& what) {
  Read out{.list = list, .samples = {}, .rates = {}};
  for (const data::Clip& clip : list.clips) {
    data::Sound sound;
    if (clip.record >= 0) {
      data::ClipList one{list.labels, {clip}};
      data::SoundDataset set = data::read_clips(one, {.sample_rate = 16000, .seconds = 0}, {});
      sound = {set.sample_rate, std::move(set.samples)};
    } else {
      sound = data_audio::read_sound(clip.file);
    }
    out.samples.push_back(static_cast<int64_t>(sound.samples.size()));
    out.rates.push_back(sound.sample_rate);
    out.seconds += static_cast<double>(sound.samples.size()) / static_cast<double>(sound.sample_rate);
    for (const float sample : sound.samples) {
      out.squares += static_cast<double>(sample) * sample;
      out.peak = std::max(out.peak, std::abs(static_cast<double>(sample)));
    }
    reporter.progress({.label = what,
                       .unit = "clip",
                       .done = static_cast<int64_t>(out.samples.size()),
                       .total = static_cast<int64_t>(list.clips.size()),
                       .fields = {}});
  }
  reporter.finish_progress();
  return out;
}

Json counts_of(const data::ClipList& list) {
  std::vector<int64_t> counts(list.labels.size(), 0);
  for (const data::Clip& clip : list.clips) ++counts[static_cast<size_t>(clip.label)];
  Json json = Json::object();
  for (size_t i = 0; i < counts.size(); ++i) json[list.labels[i]] = counts[i];
  return json;
}

}  // namespace

bool is_speech(const fs::path& path) {
  data::SpeechForm form{};
  return data::guess_speech_form(path, &form);
}

int check_speech(const fs::path& path, Reporter& reporter) {
  const data::SpeechForm form = form_of(path);
  const data::SpeechListOptions options = options_of(form, path);
  Json json;
  json["ok"] = true;
  json["data"] = data::speech_form_name(form);
  json["files"] = Json::array();
  std::string text;
  for (const Split split : kSplits) {
    const data::ClipList list = data::list_clips(form, path, split, options);
    const Read clips = read(list, reporter, fmt::format("checking {}", data::split_name(split)));
    std::set<std::string> speakers;
    for (const data::Clip& clip : list.clips) speakers.insert(clip.speaker);
    const auto count = static_cast<int64_t>(list.clips.size());
    int64_t total = 0;
    for (const int64_t samples : clips.samples) total += samples;
    json["files"].push_back({{"path", path.string()},
                             {"split", data::split_name(split)},
                             {"samples", count},
                             {"tokens", total},
                             {"seconds", clips.seconds},
                             {"speakers", speakers.size()},
                             {"labels", list.labels.size()}});
    text += fmt::format("{}  {}: {} clips of {} words by {} speakers, {:.1f} s, every one can be decoded\n", path.string(), data::split_name(split),
                        count, list.labels.size(), speakers.size(), clips.seconds);
  }
  reporter.result(json, text);
  return 0;
}

int speech_stats(const fs::path& path, const std::string& split_name, Reporter& reporter) {
  const data::SpeechForm form = form_of(path);
  const Split split = split_name.empty() ? Split::kTest : data::parse_split(split_name);
  const data::ClipList list = data::list_clips(form, path, split, options_of(form, path));
  const Read clips = read(list, reporter, fmt::format("reading {}", data::split_name(split)));
  const Json labels = counts_of(list);
  std::map<std::string, int64_t> speakers;
  std::map<int64_t, int64_t> rates;
  std::vector<double> lengths;
  int64_t total = 0;
  for (size_t i = 0; i < list.clips.size(); ++i) {
    ++speakers[list.clips[i].speaker];
    ++rates[clips.rates[i]];
    lengths.push_back(static_cast<double>(clips.samples[i]) / static_cast<double>(clips.rates[i]));
    total += clips.samples[i];
  }
  std::sort(lengths.begin(), lengths.end());
  const double rms = std::sqrt(clips.squares / static_cast<double>(total));
  const auto at = [&](double share) { return lengths[static_cast<size_t>(share * static_cast<double>(lengths.size() - 1))]; };

  Json json = {{"path", path.string()},
               {"data", data::speech_form_name(form)},
               {"split", data::split_name(split)},
               {"clips", list.clips.size()},
               {"seconds", {{"total", clips.seconds}, {"min", lengths.front()}, {"median", at(0.5)}, {"max", lengths.back()}}},
               {"labels", labels},
               {"speakers", speakers.size()},
               {"sample_rates", Json::object()},
               {"rms", rms},
               {"peak", clips.peak}};
  for (const auto& [rate, count] : rates) json["sample_rates"][std::to_string(rate)] = count;

  std::string text = fmt::format("{}, {}, {} split\nclips      {}, {:.1f} s, by {} speakers\n", path.string(), data::speech_form_name(form),
                                 data::split_name(split), list.clips.size(), clips.seconds, speakers.size());
  text += fmt::format("seconds    {:.3f} to {:.3f}, median {:.3f}, 90% {:.3f}, 99% {:.3f}\n", lengths.front(), lengths.back(), at(0.5), at(0.9),
                      at(0.99));
  text += "rates     ";
  for (const auto& [rate, count] : rates) text += fmt::format(" {} Hz: {}", rate, count);
  text += fmt::format("\nlevel      root of the mean square {:.4f}, peak {:.4f}; data.gain = {:.3g} would bring the former to 1\n", rms, clips.peak,
                      rms > 0 ? 1 / rms : 1.0);
  text += "labels    ";
  for (const auto& [label, count] : labels.items()) text += fmt::format(" {}: {}", label, count.get<int64_t>());
  reporter.result(json, text + "\n");
  return 0;
}

}  // namespace seqboat::app
