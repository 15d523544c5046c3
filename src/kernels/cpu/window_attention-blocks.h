#pragma once

#include <algorithm>
#include <cstdint>

#include "seqboat/kernels/window_attention.h"

namespace seqboat::kernels {

/// The other side of the score block is cut at multiples of it, too.
constexpr int64_t kBlock = kAttentionBlock;

/// Row i of a sequence of n active tokens sees [i - before, i + after], cut at the ends. before, after <= n.
struct Visible {
  int64_t n, before, after;

  int64_t begin(int64_t i) const { return std::max<int64_t>(0, i - before); }
  int64_t end(int64_t i) const { return std::min(n, i + after + 1); }
  Visible inverse() const { return {n, after, before}; }  ///< seen from the other side
};

/// One block of own rows against one block of other rows; every method counts from the start of its block.
struct BlockPair {
  Visible sees;             ///< what an own row sees
  Visible seen_by;          ///< its inverse
  int64_t own, own_count;   ///< number of the first own row within the sequence, rows of the item
  int64_t other;            ///< number of the first row of the other block, a multiple of kBlock
  int64_t other_begin = 0;  ///< rows of the other block that some own row sees: [other_begin, other_end)
  int64_t other_end = 0;

  void move_to(int64_t other_block) {
    other = other_block * kBlock;
    other_begin = std::max<int64_t>(0, sees.begin(own) - other);
    other_end = std::min(kBlock, sees.end(own + own_count - 1) - other);
  }
  int64_t first_block() const { return sees.begin(own) / kBlock; }
  int64_t last_block() const { return (sees.end(own + own_count - 1) - 1) / kBlock; }

  /// Other rows that own row r sees.
  int64_t seen_begin(int64_t r) const { return std::clamp(sees.begin(own + r) - other, other_begin, other_end); }
  int64_t seen_end(int64_t r) const { return std::clamp(sees.end(own + r) - other, other_begin, other_end); }
  /// Own rows that see other row o.
  int64_t own_begin(int64_t o) const { return std::clamp<int64_t>(seen_by.begin(other + o) - own, 0, own_count); }
  int64_t own_end(int64_t o) const { return std::clamp<int64_t>(seen_by.end(other + o) - own, 0, own_count); }
};

}  // namespace seqboat::kernels
