#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "event_stream.h"
#include "seqboat/data/frames.h"

namespace seqboat::app {

/// Turns the bytes of standard input into steps of a stream, in whatever pieces they come. Calls return false where EventStream::feed() does.
class StreamInput {
 public:
  virtual ~StreamInput() = default;
  virtual bool take(std::span<const uint8_t> bytes, EventStream* out) = 0;
  /// The end of the input. What is left of an incomplete step: filled up as training does it, or left out where the stream is to go on later.
  virtual bool finish(EventStream* out, bool goes_on) = 0;
  /// What finish() left out, in words; empty = nothing.
  virtual std::string left_out() const { return {}; }
};

/// Bytes as tokens (data/bytes.h).
std::unique_ptr<StreamInput> bytes_input();

/// Samples as frames: 16-bit integers or float32, little end first. Errors (kData): a number that is not finite (which sample), an end within one.
std::unique_ptr<StreamInput> pcm_input(const data::FrameFormat& format, bool is_float);

/// Lines of `channels` numbers with commas between. Errors (kData) naming the line: another number of fields, one that is no finite number, a line
/// without end.
std::unique_ptr<StreamInput> csv_input(int64_t channels);

}  // namespace seqboat::app
