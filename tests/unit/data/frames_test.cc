#include "seqboat/data/frames.h"

#include <gtest/gtest.h>

#include "seqboat/base/error.h"
#include "seqboat/base/philox.h"
#include "unit/base/temp_dir.h"

namespace seqboat::data {
namespace {

using test::expect_error;

std::vector<float> noise(int64_t count) {
  PhiloxStream random(7, 1);
  std::vector<float> out;
  for (int64_t i = 0; i < count; ++i) out.push_back(static_cast<float>(2 * random.next_uniform() - 1));
  return out;
}

TEST(Frames, TheLastOneIsFilledUpWithZeros) {
  const std::vector<float> samples{1, 2, 3, 4, 5};
  std::vector<float> frames(6, 99.0f);
  frame_clip({.frame = 3, .gain = 2}, samples, frames.data());
  EXPECT_EQ(frames, (std::vector<float>{2, 4, 6, 8, 10, 0}));
  EXPECT_EQ(frame_count(5, 3), 2);
  EXPECT_EQ(frame_count(6, 3), 2);
  EXPECT_EQ(frame_count(0, 3), 0);
  std::vector<float> one_by_one(5);
  frame_clip({.frame = 1}, samples, one_by_one.data());
  EXPECT_EQ(one_by_one, samples);
}

TEST(Frames, AnyPiecesGiveTheSameSteps) {
  for (const int64_t frame : {1, 2, 80, 160, 513}) {
    for (const int64_t count : {0, 1, 79, 80, 81, 1600, 4001}) {
      const FrameFormat format{.sample_rate = 8000, .frame = frame, .gain = 0.3f};
      const std::vector<float> samples = noise(count);
      std::vector<float> whole(static_cast<size_t>(frame_count(count, frame) * frame));
      frame_clip(format, samples, whole.data());
      PhiloxStream random(static_cast<uint64_t>(frame), static_cast<uint64_t>(count));
      Framer framer(format);
      std::vector<float> pieces;
      const auto keep = [&] { pieces.insert(pieces.end(), framer.frame().begin(), framer.frame().end()); };
      for (size_t at = 0; at < samples.size();) {
        const size_t size = std::min<size_t>(random.next_below(200), samples.size() - at);
        std::span<const float> piece(samples.data() + at, size);
        while (framer.take(&piece)) keep();
        EXPECT_TRUE(piece.empty());
        at += size;
        EXPECT_EQ(framer.pending(), static_cast<int64_t>(at) % frame);
      }
      if (framer.pad()) keep();
      EXPECT_EQ(pieces, whole) << "frame " << frame << ", samples " << count;
      EXPECT_FALSE(framer.pad());
    }
  }
}

TEST(Frames, PcmIsLittleEndian) {
  const uint8_t bytes[] = {0x00, 0x80, 0xff, 0x7f, 0x01, 0x00, 0xff, 0xff, 0x00, 0x40};
  std::vector<float> samples(5);
  decode_s16le(bytes, samples);
  EXPECT_EQ(samples, (std::vector<float>{-1.0f, 32767.0f / 32768, 1.0f / 32768, -1.0f / 32768, 0.5f}));
}

TEST(Frames, AStepNeedsASample) {
  expect_error(ErrorKind::kConfig, {"at least 1 sample", "found 0"}, [] { Framer framer({.frame = 0}); });
}

}  // namespace
}  // namespace seqboat::data
