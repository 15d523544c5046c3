#include "seqboat/trace/forced_decisions.h"

#include "seqboat/base/philox.h"

namespace seqboat::trace {

void forced_decisions(uint64_t seed, int64_t layer, int64_t first, double rate, std::span<uint8_t> active) noexcept {
  // Sets these numbers apart from others that the same seed is the key of.
  constexpr uint32_t kForcedDecisions = 0x66726364;
  const double bound = rate * 0x1p32;
  // Four tokens share a block of random words.
  std::array<uint32_t, 4> words{};
  for (size_t i = 0; i < active.size(); ++i) {
    const uint64_t token = static_cast<uint64_t>(first) + i, block = token / 4;
    if (i == 0 || token % 4 == 0) {
      words = philox4x32({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), static_cast<uint32_t>(layer), kForcedDecisions},
                         {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
    }
    active[i] = words[token % 4] < bound;
  }
}

std::vector<uint8_t> forced_decisions(uint64_t seed, int64_t layer, int64_t tokens, double rate) {
  std::vector<uint8_t> active(static_cast<size_t>(tokens));
  forced_decisions(seed, layer, 0, rate, active);
  return active;
}

}  // namespace seqboat::trace
