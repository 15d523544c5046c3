#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "seqboat/runtime/model.h"
#include "seqboat/runtime/runner.h"
#include "seqboat/runtime/state.h"

namespace seqboat::app {

struct EventOptions {
  int64_t every = 1;           ///< steps between two events
  int64_t reset_every = 0;     ///< the state begins anew after so many steps; 0 = never
  int64_t window = 0;          ///< classifiers: answers are about the last window/2 to window steps; 0 = about all since the last reset
  int64_t frame = 0;           ///< of sound: samples of a step, and
  int64_t sample_rate = 0;     ///< samples a second; else 0: events have no time
  bool probabilities = false;  ///< classifiers: of every class
  int64_t threads = 1;
  const std::atomic<int>* stop = nullptr;  ///< what become_cooperative() gave
};

/// A model's stream as JSON lines on standard output, in constant memory.
///
/// A mean over a window that slides cannot be had from sums: what a causal model says of a step depends on everything before it, and not on the
/// window alone. So a window is two states, each of which begins anew every `window` steps, half of that apart, and the one that has seen more
/// answers:
///
///   steps    0       w/2      w       3w/2     2w
///   state 0  |----------------|----------------|---
///   state 1           |----------------|-----------      (nothing before w/2)
///   answers   0        0       1        0        1       about the last w/2 to w steps; the event's `since` says which
class EventStream {
 public:
  /// Goes on from this state; with a window that must be a fresh one.
  EventStream(runtime::State state, const EventOptions& options);

  /// Steps of the stream. False: nobody reads standard output any more, or the stop signal came; what has not been fed by then never is. Errors:
  /// kData for more steps than the state has room for, when those that fit have been fed; kDiverged where the model's answer is not finite.
  bool feed(std::span<const int64_t> tokens) { return feed(tokens, {}); }
  bool feed(std::span<const float> values) { return feed({}, values); }
  /// The event of the steps that no event has told of, if there are any.
  bool finish();

  const runtime::State& state() const { return lanes_[0].state; }
  int64_t steps() const { return step_; }  ///< since the beginning, those that the first state had seen among them
  int64_t fed() const { return fed_; }     ///< since construction
  bool reader_gone() const { return reader_gone_; }
  double seconds() const { return seconds_; }  ///< that the model took for them

 private:
  struct Lane {
    runtime::State state;
    int64_t begin = 0;   ///< step before which its state began anew, or begins for the first time
    int64_t resets = 0;  ///< the next reset is before this step
  };

  bool feed(std::span<const int64_t> tokens, std::span<const float> values);
  bool advance(std::span<const int64_t> tokens, std::span<const float> values, int64_t count);
  void start_text();
  void add_surprise(std::span<const int64_t> tokens);
  const Lane& answering() const;
  bool event();
  bool reset_where_due();

  EventOptions options_;
  std::shared_ptr<const runtime::Model> model_;
  bool language_model_;
  int64_t channels_, layers_;
  std::vector<Lane> lanes_;
  runtime::Runner runner_;
  std::vector<float> logits_;  ///< language models: of a piece's steps; classifiers: of the answering lane
  std::vector<float> ahead_;   ///< language models: what they say of the next byte
  std::vector<uint8_t> active_;
  std::vector<int64_t> activated_;  ///< by layer, since the last event
  double surprise_ = 0;             ///< bits since the last event
  int64_t step_ = 0, last_event_ = 0, fed_ = 0;
  double seconds_ = 0;
  bool reader_gone_ = false;
};

}  // namespace seqboat::app
