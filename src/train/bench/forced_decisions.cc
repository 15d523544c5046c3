#include "train/bench/forced_decisions.h"

#include "seqboat/base/philox.h"

namespace seqboat::train {

std::vector<uint8_t> forced_decisions(uint64_t seed, int64_t layer, int64_t tokens, double rate) {
  // Sets these numbers apart from others that the same seed is the key of.
  constexpr uint32_t kForcedDecisions = 0x66726364;
  const double bound = rate * 0x1p32;
  std::vector<uint8_t> active(static_cast<size_t>(tokens));
  for (int64_t block = 0; block * 4 < tokens; ++block) {
    const std::array<uint32_t, 4> words = philox4x32(
        {static_cast<uint32_t>(block), static_cast<uint32_t>(static_cast<uint64_t>(block) >> 32), static_cast<uint32_t>(layer), kForcedDecisions},
        {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
    for (int64_t i = 0; i < 4 && block * 4 + i < tokens; ++i) active[static_cast<size_t>(block * 4 + i)] = words[static_cast<size_t>(i)] < bound;
  }
  return active;
}

}  // namespace seqboat::train
