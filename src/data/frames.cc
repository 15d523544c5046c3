#include "seqboat/data/frames.h"

#include <algorithm>

#include "seqboat/base/error.h"

namespace seqboat::data {

void decode_s16le(std::span<const uint8_t> bytes, std::span<float> samples) noexcept {
  for (size_t i = 0; i < samples.size(); ++i) {
    samples[i] = sample_of_s16(static_cast<int16_t>(bytes[2 * i] | bytes[2 * i + 1] << 8));
  }
}

Framer::Framer(const FrameFormat& format) : frame_(static_cast<size_t>(std::max<int64_t>(format.frame, 1))), gain_(format.gain) {
  SEQBOAT_CHECK(format.frame >= 1, ErrorKind::kConfig, "a step of sound must have at least 1 sample, found {}", format.frame);
}

bool Framer::take(std::span<const float>* samples) noexcept {
  const auto size = static_cast<int64_t>(frame_.size());
  const int64_t count = std::min<int64_t>(size - used_, static_cast<int64_t>(samples->size()));
  for (int64_t i = 0; i < count; ++i) frame_[static_cast<size_t>(used_ + i)] = gain_ * (*samples)[static_cast<size_t>(i)];
  *samples = samples->subspan(static_cast<size_t>(count));
  used_ += count;
  if (used_ < size) return false;
  used_ = 0;
  return true;
}

bool Framer::pad() noexcept {
  if (used_ == 0) return false;
  std::fill(frame_.begin() + used_, frame_.end(), 0.0f);
  used_ = 0;
  return true;
}

void frame_clip(const FrameFormat& format, std::span<const float> samples, float* frames) {
  Framer framer(format);
  while (framer.take(&samples)) frames = std::copy(framer.frame().begin(), framer.frame().end(), frames);
  if (framer.pad()) std::copy(framer.frame().begin(), framer.frame().end(), frames);
}

}  // namespace seqboat::data
