#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "seqboat/data/sound.h"

/// Sound files, by libsndfile and libsamplerate. For programs: no library depends on these.
namespace seqboat::data_audio {

/// A WAV or FLAC file (and what else libsndfile knows) as one channel, the mean of those that it has, at its own sample rate. Integer samples of any
/// width are divided by their full scale (16 bits: value / 32768); floating ones are cut to [-1, 1].
///
/// Error (kData) with the file and what was found: missing, no regular file, empty, no sound file, a WAV or FLAC that ends before its own header
/// says, a sample that is no number, no samples at all, more than four hours.
data::Sound read_sound(const std::filesystem::path& file);

/// The same sound at another rate, in llround(samples * to / from) samples, at least one. Band-limited (libsamplerate's medium sinc) and without
/// delay; cut to [-1, 1], which its ringing may leave. With f half the smaller rate, and away from the ends: tones up to 0.75 f come out with an
/// error below 2^-16 of full scale, and those from 1.5 f on are gone to the same bound. Rates from 1 to 1,000,000; a ratio beyond 256 either way is
/// Error (kData). Equal rates: the samples as they are.
std::vector<float> resample(std::span<const float> samples, int64_t from_rate, int64_t to_rate);

/// Both of them.
data::SoundTools sound_tools();

}  // namespace seqboat::data_audio
