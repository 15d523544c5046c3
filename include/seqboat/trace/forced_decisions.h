#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace seqboat::trace {

/// Decisions that stand in for a router's: one a token, 1 = activated with probability `rate` in [0, 1], by a hash of (seed, layer, token) alone: the
/// same in every process and at any number of threads, independent from layer to layer. 0 activates nothing, 1 everything. Token `first` comes first;
/// first >= 0. Allocates nothing.
void forced_decisions(uint64_t seed, int64_t layer, int64_t first, double rate, std::span<uint8_t> active) noexcept;

/// Those of the tokens 0 .. tokens - 1.
std::vector<uint8_t> forced_decisions(uint64_t seed, int64_t layer, int64_t tokens, double rate);

}  // namespace seqboat::trace
