#pragma once

// Private to src/train.

#include <cstdint>
#include <vector>

namespace seqboat::train {

/// Decisions that stand in for a router's: one a packed token, 1 = activated with probability `rate` in [0, 1], by a hash of (seed, layer, token)
/// alone: the same in every process and at any number of threads, independent from layer to layer. 0 activates nothing, 1 everything.
std::vector<uint8_t> forced_decisions(uint64_t seed, int64_t layer, int64_t tokens, double rate);

}  // namespace seqboat::train
