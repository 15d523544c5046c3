#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

namespace seqboat::data {

/// One channel of sound.
struct Sound {
  int64_t sample_rate = 0;     ///< samples a second
  std::vector<float> samples;  ///< in [-1, 1]
};

/// How sound files are read and brought to another sample rate. Libraries that read sounds get these from the program, which links `data_audio` for
/// them (data_audio/sound_file.h): so no library depends on those that decode.
struct SoundTools {
  Sound (*read)(const std::filesystem::path& file) = nullptr;
  std::vector<float> (*resample)(std::span<const float> samples, int64_t from_rate, int64_t to_rate) = nullptr;
};

}  // namespace seqboat::data
