#include "event_stream.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "runtime_model.h"
#include "seqboat/base/error.h"
#include "seqboat/data/dataset.h"
#include "ui.h"

namespace seqboat::app {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

// Steps that go through the model at once; every piece ends where something is due.
constexpr int64_t kPiece = 512;
constexpr int64_t kNever = INT64_MAX;

}  // namespace

EventStream::EventStream(runtime::State state, const EventOptions& options)
    : options_(options),
      model_(state.model()),
      language_model_(model_->config().task == "language-model"),
      channels_(model_->config().input == "real" ? model_->config().channels : 0),
      layers_(model_->config().n_layers),
      runner_(model_, runner_options(state, options.threads, 2)),
      activated_(static_cast<size_t>(layers_)) {
  const int64_t period = std::max(options.window, options.reset_every);
  // A text's state has also seen the </s> that stands before it.
  step_ = last_event_ = std::max<int64_t>(0, state.tokens() - (language_model_ ? 1 : 0));
  lanes_.push_back({std::move(state), 0, period > 0 ? (step_ / period + 1) * period : kNever});
  if (options.window > 0) {
    const int64_t half = options.window / 2;
    lanes_.push_back({lanes_[0].state.clone(), half, half});
  }
  const auto outputs = static_cast<size_t>(model_->outputs());
  logits_.resize(language_model_ ? static_cast<size_t>(kPiece) * outputs : outputs);
  if (language_model_) {
    ahead_.resize(outputs);
    start_text();
  }
  active_.resize(static_cast<size_t>(layers_ * kPiece));
}

// What a language model says before the first byte that it is fed.
void EventStream::start_text() {
  const int64_t begin = data::kEosToken;
  runtime::Feed feed;
  feed.state = &lanes_[0].state;
  if (feed.state->tokens() == 0) feed.tokens = {&begin, 1};
  feed.logits = ahead_;
  runner_.feed(feed);
}

// The state that has seen the longer part of the stream.
const EventStream::Lane& EventStream::answering() const {
  const auto age = [this](const Lane& lane) { return step_ - lane.begin; };
  return lanes_.size() > 1 && age(lanes_[1]) > age(lanes_[0]) ? lanes_[1] : lanes_[0];
}

bool EventStream::feed(std::span<const int64_t> tokens, std::span<const float> values) {
  int64_t left = channels_ > 0 ? static_cast<int64_t>(values.size()) / channels_ : static_cast<int64_t>(tokens.size());
  while (left > 0) {
    if (options_.stop != nullptr && options_.stop->load() != 0) return false;
    int64_t count = std::min({left, kPiece, last_event_ + options_.every - step_});
    for (const Lane& lane : lanes_) {
      const int64_t room = room_of(lane.state);
      SEQBOAT_CHECK(room > 0, ErrorKind::kData,
                    "step {}: the model attends without a window, and its state has room for {} tokens; --max-context N makes room for N", step_,
                    lane.state.max_context());
      count = std::min({count, lane.resets - step_, room});
    }
    if (!advance(tokens.first(static_cast<size_t>(channels_ > 0 ? 0 : count)), values.first(static_cast<size_t>(count * channels_)), count)) {
      return false;
    }
    (channels_ > 0 ? static_cast<void>(values = values.subspan(static_cast<size_t>(count * channels_)))
                   : static_cast<void>(tokens = tokens.subspan(static_cast<size_t>(count))));
    left -= count;
  }
  return true;
}

bool EventStream::advance(std::span<const int64_t> tokens, std::span<const float> values, int64_t count) {
  const Clock::time_point before = Clock::now();
  const Lane& speaker = answering();
  const std::span<uint8_t> active = std::span(active_).first(static_cast<size_t>(layers_ * count));
  runtime::Feed feeds[2];
  size_t streams = 0;
  for (Lane& lane : lanes_) {
    if (step_ < lane.begin) continue;
    runtime::Feed& feed = feeds[streams++];
    feed.state = &lane.state;
    feed.tokens = tokens;
    feed.values = values;
    feed.want = language_model_ ? runtime::Want::kAll : runtime::Want::kNothing;
    if (language_model_) feed.logits = std::span(logits_).first(static_cast<size_t>(count * model_->outputs()));
    if (&lane == &speaker) feed.active = active;
  }
  runner_.feed({feeds, streams});
  if (language_model_) add_surprise(tokens);
  for (int64_t layer = 0; layer < layers_; ++layer) {
    const auto row = active.subspan(static_cast<size_t>(layer * count), static_cast<size_t>(count));
    activated_[static_cast<size_t>(layer)] += std::count(row.begin(), row.end(), uint8_t{1});
  }
  step_ += count;
  fed_ += count;
  seconds_ += std::chrono::duration<double>(Clock::now() - before).count();
  return reset_where_due();
}

void EventStream::add_surprise(std::span<const int64_t> tokens) {
  const size_t outputs = ahead_.size();
  for (size_t i = 0; i < tokens.size(); ++i) {
    surprise_ +=
        surprise_bits(i == 0 ? std::span<const float>(ahead_) : std::span<const float>(logits_).subspan((i - 1) * outputs, outputs), tokens[i]);
  }
  std::copy_n(logits_.begin() + static_cast<std::ptrdiff_t>((tokens.size() - 1) * outputs), outputs, ahead_.begin());
}

// Events first: the last word of a state that begins anew is about all that it has seen. With resets alone there is always one.
bool EventStream::reset_where_due() {
  const bool due = step_ == last_event_ + options_.every || (options_.window == 0 && step_ == lanes_[0].resets);
  if (due && !event()) return false;
  for (Lane& lane : lanes_) {
    if (step_ != lane.resets) continue;
    lane.state.reset();
    lane.begin = step_;
    lane.resets += std::max(options_.window, options_.reset_every);
    if (language_model_) start_text();
  }
  return true;
}

bool EventStream::finish() {
  return step_ == last_event_ || event();
}

bool EventStream::event() {
  const Lane& lane = answering();
  const auto steps = static_cast<double>(step_ - last_event_);
  Json json;
  json["step"] = step_;
  // One division, so that a tenth of a second reads as one.
  if (options_.sample_rate > 0) json["time_s"] = static_cast<double>(step_ * options_.frame) / static_cast<double>(options_.sample_rate);
  if (language_model_) {
    SEQBOAT_CHECK(std::isfinite(surprise_), ErrorKind::kDiverged, "step {}: the model's logits are not finite", step_);
    json["bits_per_byte"] = surprise_ / steps;
  } else {
    runtime::Feed ask;
    ask.state = const_cast<runtime::State*>(&lane.state);  // asked for its last answer, a state does not change
    ask.logits = logits_;
    runner_.feed(ask);
    const auto best = std::max_element(logits_.begin(), logits_.end());
    SEQBOAT_CHECK(std::all_of(logits_.begin(), logits_.end(), [](float x) { return std::isfinite(x); }), ErrorKind::kDiverged,
                  "step {}: the model's logits are not finite", step_);
    double sum = 0;
    for (const float logit : logits_) sum += std::exp(static_cast<double>(logit) - *best);
    const auto number = static_cast<size_t>(best - logits_.begin());
    const std::vector<std::string>& labels = model_->config().data.labels;
    json["label"] = number < labels.size() ? Json(labels[number]) : Json(nullptr);
    json["class"] = number;
    json["probability"] = 1 / sum;
    if (options_.probabilities) {
      json["probabilities"] = Json::array();
      for (const float logit : logits_) json["probabilities"].push_back(std::exp(static_cast<double>(logit) - *best) / sum);
    }
  }
  json["since"] = lane.begin;
  json["activation_rate"] = Json::array();
  for (int64_t& count : activated_) {
    json["activation_rate"].push_back(static_cast<double>(count) / steps);
    count = 0;
  }
  surprise_ = 0;
  last_event_ = step_;
  reader_gone_ = !write_stdout(json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
  return !reader_gone_;
}

}  // namespace seqboat::app
