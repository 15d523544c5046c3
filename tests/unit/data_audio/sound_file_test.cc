#include "seqboat/data_audio/sound_file.h"

#include <gtest/gtest.h>
#include <sndfile.h>

#include <cmath>
#include <numbers>
#include <string>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/data/frames.h"
#include "unit/base/temp_dir.h"

namespace seqboat::data_audio {
namespace {

using test::expect_error;
using test::TempDir;

std::vector<float> tone(double hertz, int64_t rate, int64_t count, double amplitude = 0.5) {
  std::vector<float> out;
  for (int64_t i = 0; i < count; ++i) {
    out.push_back(static_cast<float>(amplitude * std::sin(2 * std::numbers::pi * hertz * static_cast<double>(i) / static_cast<double>(rate))));
  }
  return out;
}

class SoundFile : public ::testing::Test {
 protected:
  /// Writes frames of interleaved channels.
  std::filesystem::path write(const std::string& name, int format, int rate, int channels, const std::vector<float>& samples) const {
    const auto path = dir_ / name;
    SF_INFO info{};
    info.samplerate = rate;
    info.channels = channels;
    info.format = format;
    SNDFILE* file = sf_open(path.c_str(), SFM_WRITE, &info);
    EXPECT_NE(file, nullptr) << sf_strerror(nullptr);
    if (file == nullptr) return path;
    const auto frames = static_cast<sf_count_t>(samples.size()) / channels;
    EXPECT_EQ(sf_writef_float(file, samples.data(), frames), frames);
    sf_close(file);
    return path;
  }
  std::filesystem::path write_bytes(const std::string& name, const std::string& bytes) const {
    write_file_atomically(dir_ / name, bytes);
    return dir_ / name;
  }
  TempDir dir_;
};

TEST_F(SoundFile, EveryFormatRateAndWidth) {
  struct Case {
    int format;
    double step;  // between neighbouring values of the file
  };
  const Case cases[] = {{SF_FORMAT_WAV | SF_FORMAT_PCM_U8, 1.0 / 128},
                        {SF_FORMAT_WAV | SF_FORMAT_PCM_16, 1.0 / 32768},
                        {SF_FORMAT_WAV | SF_FORMAT_PCM_24, 1.0 / 8388608},
                        {SF_FORMAT_WAV | SF_FORMAT_FLOAT, 0},
                        {SF_FORMAT_WAV | SF_FORMAT_DOUBLE, 0},
                        {SF_FORMAT_WAVEX | SF_FORMAT_PCM_16, 1.0 / 32768},
                        {SF_FORMAT_FLAC | SF_FORMAT_PCM_S8, 1.0 / 128},
                        {SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 1.0 / 32768},
                        {SF_FORMAT_FLAC | SF_FORMAT_PCM_24, 1.0 / 8388608}};
  int number = 0;
  for (const Case& c : cases) {
    for (const int rate : {8000, 11025, 16000, 44100}) {
      for (const int channels : {1, 2, 3}) {
        const std::vector<float> mono = tone(440, rate, 5001);
        std::vector<float> samples;
        // Channels that differ, with a mean that is the tone (two of three of the others cancel out).
        for (const float x : mono) {
          const float spread = 0.25f;
          for (int ch = 0; ch < channels; ++ch) {
            samples.push_back(channels == 1 ? x : ch == channels - 1 && ch % 2 == 0 ? x : x + (ch % 2 == 0 ? spread : -spread));
          }
        }
        const auto path = write("f" + std::to_string(number++), c.format, rate, channels, samples);
        const data::Sound sound = read_sound(path);
        ASSERT_EQ(sound.sample_rate, rate);
        ASSERT_EQ(sound.samples.size(), mono.size());
        // A writer may round down or to the nearest; the mean is of float32 numbers.
        const double bound = c.step + 4 * 6e-8;
        for (size_t i = 0; i < mono.size(); ++i) {
          ASSERT_NEAR(sound.samples[i], mono[i], bound)
              << "format " << c.format << ", rate " << rate << ", channels " << channels << ", sample " << i;
        }
      }
    }
  }
}

TEST_F(SoundFile, SixteenBitsAreWhatAStreamMakesOfThem) {
  std::vector<float> samples;
  std::string bytes;
  for (int value = -32768; value <= 32767; value += 255) {
    samples.push_back(static_cast<float>(value) / 32768.0f);
    bytes += static_cast<char>(value & 255);
    bytes += static_cast<char>(value >> 8 & 255);
  }
  // The file byte by byte: a writer that is given floats may scale them by 32767.
  std::string file = read_file(write("x.wav", SF_FORMAT_WAV | SF_FORMAT_PCM_16, 8000, 1, samples));
  file.replace(file.size() - bytes.size(), bytes.size(), bytes);
  const data::Sound sound = read_sound(write_bytes("y.wav", file));
  std::vector<float> streamed(samples.size());
  data::decode_s16le({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, streamed);
  EXPECT_EQ(sound.samples, streamed);
  EXPECT_EQ(sound.samples, samples);
}

TEST_F(SoundFile, FloatsAreCutAndMustBeNumbers) {
  const data::Sound loud = read_sound(write("loud.wav", SF_FORMAT_WAV | SF_FORMAT_FLOAT, 8000, 1, {0.5f, 3.0f, -1.5f, -1.0f}));
  EXPECT_EQ(loud.samples, (std::vector<float>{0.5f, 1.0f, -1.0f, -1.0f}));
  const auto bad = write("nan.wav", SF_FORMAT_WAV | SF_FORMAT_FLOAT, 8000, 1, {0.5f, 0.25f, std::nanf(""), 0.0f});
  expect_error(ErrorKind::kData, {"nan.wav", "sample 2", "nan", "expected a number"}, [&] { read_sound(bad); });
}

TEST_F(SoundFile, WhatIsNoSoundIsNamed) {
  expect_error(ErrorKind::kData, {"missing.wav"}, [&] { read_sound(dir_ / "missing.wav"); });
  expect_error(ErrorKind::kData, {dir_.path().string()}, [&] { read_sound(dir_.path()); });
  expect_error(ErrorKind::kData, {"empty.wav", "is empty"}, [&] { read_sound(write_bytes("empty.wav", "")); });
  expect_error(ErrorKind::kData, {"text.wav", "expected a sound file"},
               [&] { read_sound(write_bytes("text.wav", "no sound at all, but some text")); });
  expect_error(ErrorKind::kData, {"header.wav", "truncated"}, [&] { read_sound(write_bytes("header.wav", std::string("RIFF\0\0\0\0WAVE", 12))); });
  expect_error(ErrorKind::kData, {"none.wav", "at least one sample"},
               [&] { read_sound(write("none.wav", SF_FORMAT_WAV | SF_FORMAT_PCM_16, 8000, 1, {})); });
}

TEST_F(SoundFile, TruncatedFilesAreRefused) {
  for (const bool flac : {false, true}) {
    const auto path = write("whole", (flac ? SF_FORMAT_FLAC : SF_FORMAT_WAV) | SF_FORMAT_PCM_16, 8000, 1, tone(300, 8000, 20000));
    const std::string whole = read_file(path);
    for (const double share : {0.02, 0.3, 0.7, 0.999}) {
      const auto cut = write_bytes("cut", whole.substr(0, static_cast<size_t>(share * static_cast<double>(whole.size()))));
      expect_error(ErrorKind::kData, {"cut"}, [&] { read_sound(cut); });
    }
    EXPECT_EQ(read_sound(path).samples.size(), 20000u);
  }
  // 19,000 of 20,000 samples: found and expected are named.
  const auto path = write("w", SF_FORMAT_WAV | SF_FORMAT_PCM_16, 8000, 1, tone(300, 8000, 20000));
  const std::string whole = read_file(path);
  expect_error(ErrorKind::kData, {"truncated", "expected 40000 bytes", "found 38000"},
               [&] { read_sound(write_bytes("cut", whole.substr(0, whole.size() - 2000))); });
}

TEST_F(SoundFile, AStreamedWavHasNoSizes) {
  std::string bytes = read_file(write("w", SF_FORMAT_WAV | SF_FORMAT_PCM_16, 8000, 1, tone(300, 8000, 2000)));
  const size_t data = bytes.find("data");
  ASSERT_NE(data, std::string::npos);
  for (const size_t at : {size_t{4}, data + 4}) bytes.replace(at, 4, "\xff\xff\xff\xff", 4);
  EXPECT_EQ(read_sound(write_bytes("streamed.wav", bytes)).samples.size(), 2000u);
}

TEST(Resample, TonesKeepTheirShape) {
  for (const auto& [from, to] : {std::pair<int64_t, int64_t>{16000, 8000}, {8000, 16000}, {44100, 16000}, {48000, 8000}, {11025, 8000}}) {
    const auto smaller = static_cast<double>(std::min(from, to));
    for (const double share : {0.01, 0.2, 0.375}) {
      const double hertz = share * smaller;
      const std::vector<float> out = resample(tone(hertz, from, from), from, to), expected = tone(hertz, to, to);
      ASSERT_EQ(out.size(), expected.size());
      // Away from the ends, where the filter sees silence: what the header promises.
      double worst = 0;
      for (size_t i = out.size() / 20; i < out.size() - out.size() / 20; ++i)
        worst = std::max(worst, std::abs(static_cast<double>(out[i]) - expected[i]));
      EXPECT_LT(worst, 1.0 / 65536) << from << " to " << to << ", " << hertz << " Hz";
    }
  }
}

TEST(Resample, WhatCannotBeHeardIsGone) {
  // 6 kHz does not exist at 8 kHz; a reader that took every second sample would make 2 kHz of it.
  const std::vector<float> out = resample(tone(6000, 16000, 16000), 16000, 8000);
  double worst = 0;
  for (size_t i = 400; i < out.size() - 400; ++i) worst = std::max(worst, std::abs(static_cast<double>(out[i])));
  EXPECT_LT(worst, 1.0 / 65536);
}

TEST(Resample, LengthsRatesAndMisuse) {
  const std::vector<float> x = tone(100, 8000, 777);
  EXPECT_EQ(resample(x, 8000, 8000), x);
  for (const int64_t to : {4000, 7999, 8001, 11025, 16000, 44100}) {
    EXPECT_EQ(static_cast<int64_t>(resample(x, 8000, to).size()), std::llround(777.0 * static_cast<double>(to) / 8000)) << to;
  }
  EXPECT_EQ(resample(std::vector<float>{0.5f}, 48000, 8000).size(), 1u);
  EXPECT_TRUE(resample({}, 8000, 16000).empty());
  expect_error(ErrorKind::kData, {"sample rates", "found 0"}, [&] { resample(x, 0, 8000); });
  expect_error(ErrorKind::kData, {"192000", "1 Hz", "256"}, [&] { resample(x, 192000, 1); });
}

}  // namespace
}  // namespace seqboat::data_audio
