#pragma once

#include <algorithm>
#include <cmath>
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
  int64_t other_count() const { return std::min(kBlock, sees.n - other); }
  int64_t first_block() const { return sees.begin(own) / kBlock; }
  int64_t last_block() const { return (sees.end(own + own_count - 1) - 1) / kBlock; }

  /// Other rows that own row r sees.
  int64_t seen_begin(int64_t r) const { return std::clamp(sees.begin(own + r) - other, other_begin, other_end); }
  int64_t seen_end(int64_t r) const { return std::clamp(sees.end(own + r) - other, other_begin, other_end); }
  /// Own rows that see other row o.
  int64_t own_begin(int64_t o) const { return std::clamp<int64_t>(seen_by.begin(other + o) - own, 0, own_count); }
  int64_t own_end(int64_t o) const { return std::clamp<int64_t>(seen_by.end(other + o) - own, 0, own_count); }
};

/// For each row of one side of a pair the rows of the other side that it sees: [begin, end), both not decreasing. Behind the last row it is
/// repeated, so that a tile of rows may read past it.
struct Ranges {
  static constexpr int64_t kRows = kBlock + 8;
  int64_t count = 0;
  int64_t begin[kRows];
  int64_t end[kRows];

  void repeat_last() {
    for (int64_t i = count; i < std::min(kRows, count + 8); ++i) begin[i] = begin[count - 1], end[i] = end[count - 1];
  }
  /// Own rows, ranges over the other block.
  void set_own(const BlockPair& pair) {
    count = pair.own_count;
    for (int64_t r = 0; r < count; ++r) begin[r] = pair.seen_begin(r), end[r] = pair.seen_end(r);
    repeat_last();
  }
  /// Other rows, ranges over the own ones; rows outside [other_begin, other_end) have empty ones.
  void set_other(const BlockPair& pair) {
    count = pair.other_count();
    for (int64_t o = 0; o < count; ++o) begin[o] = pair.own_begin(o), end[o] = std::max(begin[o], pair.own_end(o));
    repeat_last();
  }
};

/// Asks for rows that later blocks need, a few cache lines at a time: products of blocks read each row again and again, but its first touch comes in
/// an order (16 rows side by side) that the machine does not foresee. Without effect on results.
class Prefetcher {
 public:
  /// lines: asked for at a step. A pass with little to do between its first touches needs many, short items suffer from them.
  explicit Prefetcher(int lines) : lines_(lines) {}
  template <class T>
  void add(const T* first, int64_t rows, int64_t width, int64_t stride) {
    if (next_ == regions_) regions_ = next_ = 0;
    const int64_t width_bytes = width * static_cast<int64_t>(sizeof(T)), stride_bytes = stride * static_cast<int64_t>(sizeof(T));
    if (rows <= 0 || width_bytes >= kLongRow || regions_ == kRegions) return;
    Region& region = region_[regions_++];
    region = {reinterpret_cast<const char*>(first), rows, width_bytes, stride_bytes};
    if (width == stride) region = {region.row, 1, rows * stride_bytes, 0};
  }
  void step() {
#if defined(__GNUC__)
    for (int line = 0; line < lines_ && next_ < regions_; ++line) {
      Region& region = region_[next_];
      __builtin_prefetch(region.row + offset_, 0, 2);
      offset_ += 64;
      if (offset_ < region.bytes) continue;
      offset_ = 0;
      region.row += region.stride;
      if (--region.rows == 0) ++next_;
    }
#endif
  }

 private:
  static constexpr int kRegions = 16;
  static constexpr int64_t kLongRow = 2048;  // bytes; such rows the machine foresees, and asking for them costs
  struct Region {
    const char* row;
    int64_t rows, bytes, stride;
  };
  Region region_[kRegions];
  int64_t offset_ = 0;
  int lines_, regions_ = 0, next_ = 0;
};

namespace window_attention_impl {

// mu and sigma sqrt(2) of the laplace function, as published.
constexpr double kLaplaceMean = 0.707107;
constexpr double kLaplaceScale = 0.282095 * 1.4142135623730950488;

// Elements of a tile copied by accumulate(): kBlock rows of at most four vectors of 64 bytes.
template <class T>
constexpr int64_t kPanelSize = kBlock * 4 * static_cast<int64_t>(64 / sizeof(T));

// Block of scores, and one row more: tiles read (never use) a few weights past the last row.
constexpr int64_t kScoreSize = kBlock * kBlock + kBlock;

// What a query of this sequence sees among its keys.
inline Visible visible_keys(const WindowAttentionShape& shape, int64_t count) {
  const int64_t window = shape.window < 0 ? count : std::min(shape.window, count);
  return {count, window, shape.causal ? 0 : window};
}

// Hands out 64-byte aligned pieces of the caller's workspace.
template <class T>
class Arena {
 public:
  explicit Arena(T* memory) : memory_(memory) {}
  T* take(int64_t count) {
    T* piece = memory_;
    memory_ += rounded(count);
    return piece;
  }
  static int64_t rounded(int64_t count) {
    constexpr int64_t kLine = 64 / sizeof(T);
    return (count + kLine - 1) / kLine * kLine;
  }

 private:
  T* memory_;
};

inline int64_t table_size(const WindowAttentionShape& shape) {
  return shape.bias == PositionBias::kNone || shape.max_positions < 1 ? 0 : 2 * shape.max_positions - 1;
}

// The divisor of relu2 and laplace that all queries share, 0 where each has its own.
inline double common_scale(const WindowAttentionShape& shape, int64_t count) {
  if (shape.function == AttentionFunction::kSoftmax) return 1.0 / std::sqrt(static_cast<double>(shape.d_attn));
  if (shape.window >= 0) return 1.0 / (static_cast<double>(std::max<int64_t>(shape.window, 1)) * (shape.causal ? 1 : 2));
  return shape.causal ? 0.0 : 1.0 / static_cast<double>(count);
}

// scales[r] of the queries first, first + 1, ..., a whole block.
template <class T>
void query_scales(const WindowAttentionShape& shape, int64_t count, int64_t first, T* scales) {
  const double common = common_scale(shape, count);
  for (int64_t r = 0; r < kBlock; ++r) scales[r] = static_cast<T>(common != 0 ? common : 1.0 / static_cast<double>(first + r + 1));
}

}  // namespace window_attention_impl
}  // namespace seqboat::kernels
