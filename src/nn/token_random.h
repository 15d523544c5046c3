#pragma once

// Private to src/nn: random numbers of single tokens.

#include <array>
#include <cstdint>

#include "seqboat/base/philox.h"
#include "seqboat/nn/packed.h"

namespace seqboat::nn {

/// Four random words of token `time` of a sequence: a function of seed, update, stream, layer, sequence and time, whatever stands beside it. Streams
/// leave their lowest 32 bits to the layer.
inline std::array<uint32_t, 4> token_words(const RandomKey& random, uint64_t stream, int64_t layer, int64_t sequence, int64_t time) {
  // The update is part of the key, so that the counter holds what lies within one.
  const uint64_t seed = random.seed + 0x9E3779B97F4A7C15ULL * (random.update + 1);
  const auto low = [](uint64_t v) { return static_cast<uint32_t>(v); };
  const auto high = [](uint64_t v) { return static_cast<uint32_t>(v >> 32); };
  const uint64_t where = stream + static_cast<uint64_t>(layer), when = static_cast<uint64_t>(time), who = static_cast<uint64_t>(sequence);
  return philox4x32({low(when), high(when) ^ high(where), low(who), high(who) ^ low(where)}, {low(seed), high(seed)});
}

}  // namespace seqboat::nn
