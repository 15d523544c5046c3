#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

/// Sound as the steps of a model: the one place that says how samples become numbers, for training over whole clips and for a program that is fed a
/// stream. A model's config.json has the three numbers of a FrameFormat, so that a stream can do as training did.
namespace seqboat::data {

/// Steps of sound. Step t holds the samples t * frame .. t * frame + frame - 1, each times `gain`:
///
///   samples   |0 1 2 ... 79|80 81 ... 159|160 161 ... 199 and nothing more
///   step      0             1             2: 40 samples, then 40 zeros
///
/// Nothing else is done to them: no mean, no level of the clip, nothing that a stream could not know when the step comes.
struct FrameFormat {
  int64_t sample_rate = 16000;  ///< samples a second
  int64_t frame = 1;            ///< samples a step, >= 1
  float gain = 1;               ///< what each sample in [-1, 1] is multiplied by
};

/// Steps of so many samples: the last one may be incomplete.
constexpr int64_t frame_count(int64_t samples, int64_t frame) {
  return (samples + frame - 1) / frame;
}

/// A sample of 16-bit PCM in [-1, 1): value / 32768, which no rounding touches. Sound files of 16 bits give the same numbers.
constexpr float sample_of_s16(int16_t value) {
  return static_cast<float>(value) / 32768.0f;
}

/// Decodes samples.size() samples of signed 16-bit PCM, little end first, on any machine. bytes.size() >= 2 * samples.size().
void decode_s16le(std::span<const uint8_t> bytes, std::span<float> samples) noexcept;

/// Cuts a stream of samples into steps:
///
///   while (framer.take(&samples)) feed(framer.frame());
///   ...                                                   // at the end of the sound:
///   if (framer.pad()) feed(framer.frame());
///
/// However the samples come in pieces, the steps are the same, bit for bit. Nothing is allocated after construction.
class Framer {
 public:
  explicit Framer(const FrameFormat& format);

  /// Takes samples from the front of *samples until a step is complete or they are used up; whether one is complete. The step stays until the next
  /// call.
  bool take(std::span<const float>* samples) noexcept;
  /// Fills an incomplete step with zeros; whether there was one. The next sample begins a new step.
  bool pad() noexcept;
  /// The step that was completed last.
  std::span<const float> frame() const noexcept { return frame_; }
  /// Samples that wait for the rest of their step: always fewer than a step has.
  int64_t pending() const noexcept { return used_; }

 private:
  std::vector<float> frame_;
  float gain_;
  int64_t used_ = 0;
};

/// The steps of a whole clip: writes frame_count(samples.size(), format.frame) * format.frame numbers.
void frame_clip(const FrameFormat& format, std::span<const float> samples, float* frames);

}  // namespace seqboat::data
