#include "seqboat/data_audio/sound_file.h"

#include <samplerate.h>
#include <sndfile.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/base/text.h"

namespace seqboat::data_audio {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kLongest = int64_t{4} * 3600;  // seconds; what is longer is no clip, and would be held whole
constexpr sf_count_t kBlock = 4096;              // frames read at a time

uint32_t u32le(const char* bytes) {
  unsigned char b[4];
  std::memcpy(b, bytes, 4);
  return b[0] | b[1] << 8 | b[2] << 16 | static_cast<uint32_t>(b[3]) << 24;
}

/// libsndfile takes a WAV that was cut short for a shorter one. The header knows better: where its sizes are those of a finished file, the samples
/// must be there.
void check_wav_is_whole(const MappedFile& bytes, const std::string& where) {
  if (bytes.size() < 12 || std::memcmp(bytes.data(), "RIFF", 4) != 0 || std::memcmp(bytes.data() + 8, "WAVE", 4) != 0) return;
  // Who wrote to a pipe could not know the sizes, and put something near 2^31 or 2^32 there.
  constexpr uint32_t kUnknown = 0x7f000000;
  for (size_t at = 12; at + 8 <= bytes.size();) {
    const uint32_t size = u32le(bytes.data() + at + 4);
    const size_t left = bytes.size() - at - 8;
    if (std::memcmp(bytes.data() + at, "data", 4) == 0) {
      SEQBOAT_CHECK(size >= kUnknown || size <= left, ErrorKind::kData, "{}: truncated: expected {} bytes of samples, as its header says, found {}",
                    where, size, left);
      return;
    }
    if (size > left) break;
    at += 8 + size + (size & 1);
  }
  fail(ErrorKind::kData, "{}: truncated: a WAV file without its samples (no data chunk in {} bytes)", where, bytes.size());
}

struct Close {
  void operator()(SNDFILE* file) const { sf_close(file); }
};

}  // namespace

data::Sound read_sound(const fs::path& path) {
  const std::string where = path.string();
  {
    MappedFile bytes;
    try {
      bytes = MappedFile::open(path);
    } catch (const Error& error) {
      throw Error(ErrorKind::kData, error.what());
    }
    SEQBOAT_CHECK(bytes.size() > 0, ErrorKind::kData, "{}: the file is empty: expected a sound file (WAV, FLAC)", where);
    check_wav_is_whole(bytes, where);
  }
  SF_INFO info{};
  const std::unique_ptr<SNDFILE, Close> file(sf_open(where.c_str(), SFM_READ, &info));
  SEQBOAT_CHECK(file != nullptr, ErrorKind::kData, "{}: expected a sound file (WAV, FLAC), found something else: {}", where,
                in_quotes(sf_strerror(nullptr)));
  SEQBOAT_CHECK(info.channels >= 1 && info.samplerate >= 1, ErrorKind::kData, "{}: expected channels and a sample rate, found {} channels at {} Hz",
                where, info.channels, info.samplerate);
  data::Sound sound;
  sound.sample_rate = info.samplerate;
  const int64_t most = kLongest * sound.sample_rate;
  const auto channels = static_cast<sf_count_t>(info.channels);
  std::vector<float> block(static_cast<size_t>(kBlock * channels));
  // The frames of the header are a claim: memory is taken for what is there.
  while (const sf_count_t count = sf_readf_float(file.get(), block.data(), kBlock)) {
    SEQBOAT_CHECK(count > 0, ErrorKind::kData, "{}: cannot be decoded after {} samples: {}", where, sound.samples.size(),
                  in_quotes(sf_strerror(file.get())));
    for (sf_count_t i = 0; i < count; ++i) {
      float sum = 0;
      for (sf_count_t c = 0; c < channels; ++c) sum += block[static_cast<size_t>(i * channels + c)];
      const float mean = sum / static_cast<float>(channels);
      SEQBOAT_CHECK(std::isfinite(mean), ErrorKind::kData, "{}: sample {} is {}: expected a number", where, sound.samples.size(), mean);
      sound.samples.push_back(std::clamp(mean, -1.0f, 1.0f));
    }
    SEQBOAT_CHECK(static_cast<int64_t>(sound.samples.size()) <= most, ErrorKind::kData, "{}: expected at most {} hours of sound, found more", where,
                  kLongest / 3600);
  }
  SEQBOAT_CHECK(sf_error(file.get()) == SF_ERR_NO_ERROR, ErrorKind::kData, "{}: cannot be decoded after {} samples: {}", where, sound.samples.size(),
                in_quotes(sf_strerror(file.get())));
  SEQBOAT_CHECK(!sound.samples.empty(), ErrorKind::kData, "{}: expected at least one sample, found none", where);
  // A stream of unknown length has a huge number here, or none.
  const bool says_length = info.frames > 0 && info.frames <= most;
  SEQBOAT_CHECK(!says_length || static_cast<sf_count_t>(sound.samples.size()) >= info.frames, ErrorKind::kData,
                "{}: truncated: expected {} samples, as its header says, found {}", where, info.frames, sound.samples.size());
  return sound;
}

std::vector<float> resample(std::span<const float> samples, int64_t from_rate, int64_t to_rate) {
  constexpr int64_t kMostRate = 1'000'000;
  SEQBOAT_CHECK(from_rate >= 1 && from_rate <= kMostRate && to_rate >= 1 && to_rate <= kMostRate, ErrorKind::kData,
                "sample rates must be in [1, {}], found {} and {}", kMostRate, from_rate, to_rate);
  if (from_rate == to_rate || samples.empty()) return {samples.begin(), samples.end()};
  const double ratio = static_cast<double>(to_rate) / static_cast<double>(from_rate);
  SEQBOAT_CHECK(src_is_valid_ratio(ratio) != 0, ErrorKind::kData, "a sound of {} Hz cannot be brought to {} Hz: expected a ratio of at most 256",
                from_rate, to_rate);
  const auto wanted = std::max<int64_t>(1, std::llround(static_cast<double>(samples.size()) * ratio));
  std::vector<float> out(static_cast<size_t>(wanted));
  SRC_DATA data{};
  data.data_in = samples.data();
  data.input_frames = static_cast<long>(samples.size());
  data.data_out = out.data();
  data.output_frames = static_cast<long>(out.size());
  data.src_ratio = ratio;
  const int error = src_simple(&data, SRC_SINC_MEDIUM_QUALITY, 1);
  SEQBOAT_CHECK(error == 0, ErrorKind::kData, "{} samples cannot be brought from {} Hz to {} Hz: {}", samples.size(), from_rate, to_rate,
                src_strerror(error));
  for (float& sample : out) sample = std::clamp(sample, -1.0f, 1.0f);
  return out;
}

data::SoundTools sound_tools() {
  return {.read = read_sound, .resample = resample};
}

}  // namespace seqboat::data_audio
