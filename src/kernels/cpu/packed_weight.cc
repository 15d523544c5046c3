// Product with a packed weight of float32, bf16 or int8.
//
//   for each block of kBlockRows rows                     x: second-level cache
//     for each panel of 64 columns, block of 256 products
//       for each few rows (tile)                            accumulators in registers; the panel comes from memory for the first tile alone
//
// What is not float32 is widened in registers, again for each tile: it hides behind the multiply-adds, and a tile reads less of the cache for it.
// The order of an element's sum is that of gemm.cc: it can be cut and tiled at will.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/packed_weight.cc"
#include "hwy/foreach_target.h"
// foreach_target.h comes first.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/cpu/simd_partial-inl.h"
#include "kernels/cpu/widen-inl.h"
#include "seqboat/kernels/packed_weight.h"

#ifndef SEQBOAT_KERNELS_CPU_PACKED_WEIGHT_ONCE_
#define SEQBOAT_KERNELS_CPU_PACKED_WEIGHT_ONCE_
namespace seqboat::kernels {
namespace {

constexpr int64_t kBlockDepth = 256;  // gemm.cc's: part of a result's bits
constexpr int64_t kBlockRows = 128;
constexpr int64_t kPadding = 16;  // columns of the last panel come in so many, whole vectors on every target
constexpr int kTileRows = 6;
constexpr int64_t kLineBytes = 64;
constexpr int64_t kAheadBytes = 8192;

struct MultiplyArgs {
  PackedWeightShape shape;
  int64_t col_begin, col_end, m;
  const float* x;
  int64_t ldx;
  const void* packed;
  const float* scales;  // of int8
  const float* bias;
  float* y;
  int64_t ldy;
};

inline int64_t ceil_div(int64_t value, int64_t by) {
  return (value + by - 1) / by;
}
inline int64_t round_up(int64_t value, int64_t multiple) {
  return ceil_div(value, multiple) * multiple;
}
inline int64_t element_bytes(WeightType type) {
  return type == WeightType::kFloat32 ? 4 : type == WeightType::kBf16 ? 2 : 1;
}
// Columns that the panel beginning at `col` has in memory.
inline int64_t panel_width(int64_t n, int64_t col) {
  return std::min(kWeightPanel, round_up(n - col, kPadding));
}
inline size_t scales_offset(const PackedWeightShape& shape) {
  return static_cast<size_t>(round_up(shape.k * round_up(shape.n, kPadding) * element_bytes(shape.type), 64));
}

}  // namespace
}  // namespace seqboat::kernels
#endif  // SEQBOAT_KERNELS_CPU_PACKED_WEIGHT_ONCE_

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

// At most 16 lanes, so that a panel is whole vectors.
using D = hn::CappedTag<float, kPadding>;
using V = hn::Vec<D>;

// Vectors of a tile, and of a tile of one row: that must be wide enough for its chains not to wait for themselves.
#if HWY_TARGET <= HWY_AVX3 || HWY_TARGET == HWY_NEON
constexpr int kTileVectors = 4;
constexpr int kRowVectors = 4;
#else
constexpr int kTileVectors = 2;
constexpr int kRowVectors = 8;
#endif

/// Where a tile's sums go: rows of `vectors` vectors, the last of which has last_cols valid columns.
struct Output {
  bool first, last;     // block of products
  const float* bias;    // of the tile's first column, or nullptr
  const float* scales;  // likewise
  float* y;
  int64_t ldy;
  int64_t last_cols;
};

template <class W>
struct Tile {
  int64_t depth;
  const float* x;
  int64_t ldx;
  const W* w;  // element (p, j) at w + p w_step + j
  int64_t w_step;
  const char* next;  // what comes from memory next, next_step bytes of it at each step
  int64_t next_step;
  bool shares_next;  // the tiles of a panel share that
  Output output;
};

/// One function for the tiles of a width: unrolled in each of them it would be most of their code. sums (rows, kVec, lanes).
template <int kVec>
HWY_NOINLINE void finish(int64_t rows, const float* HWY_RESTRICT sums, const Output& output) {
  const D d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const size_t last_cols = static_cast<size_t>(output.last_cols);
  const bool whole = output.last_cols == lanes, scaled = output.scales != nullptr, scales_now = scaled && output.last;
  const auto load = [&](const float* from, int j)
                        HWY_ATTR { return j < kVec - 1 || whole ? hn::LoadU(d, from + j * lanes) : load_partial(d, from + j * lanes, last_cols); };
  V bias[kVec], start[kVec], scale[kVec];
#pragma GCC unroll 8
  for (int j = 0; j < kVec; ++j) {
    bias[j] = output.bias != nullptr ? load(output.bias, j) : hn::Zero(d);
    start[j] = scaled ? hn::Zero(d) : bias[j];
    scale[j] = scaled ? load(output.scales, j) : hn::Zero(d);
  }
  float* to = output.y;
  for (int64_t i = 0; i < rows; ++i, to += output.ldy, sums += kVec * lanes) {
    V sum[kVec];
#pragma GCC unroll 8
    for (int j = 0; j < kVec; ++j) sum[j] = hn::Add(output.first ? start[j] : load(to, j), hn::Load(d, sums + j * lanes));
    if (scales_now) {
#pragma GCC unroll 8
      for (int j = 0; j < kVec; ++j) sum[j] = hn::MulAdd(sum[j], scale[j], bias[j]);
    }
#pragma GCC unroll 8
    for (int j = 0; j < kVec - 1; ++j) hn::StoreU(sum[j], d, to + j * lanes);
    if (whole) {
      hn::StoreU(sum[kVec - 1], d, to + (kVec - 1) * lanes);
    } else {
      store_partial(sum[kVec - 1], d, to + (kVec - 1) * lanes, last_cols);
    }
  }
}

template <int kRow, int kVec, class W>
HWY_NOINLINE void tile_kernel(const Tile<W>& tile) {
  const D d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  V acc[kRow][kVec];
#pragma GCC unroll 16
  for (int i = 0; i < kRow; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kVec; ++j) acc[i][j] = hn::Zero(d);
  }
  constexpr int kPointers = (kRow + 3) / 4;
  const int64_t ldx = tile.ldx, w_step = tile.w_step;
  const float* HWY_RESTRICT x[kPointers];
#pragma GCC unroll 16
  for (int g = 0; g < kPointers; ++g) x[g] = tile.x + 4 * g * ldx;
  const W* HWY_RESTRICT w = tile.w;
  const char* next = tile.next;
  const int64_t next_step = tile.next_step;
  constexpr int64_t kStepBytes = kVec * static_cast<int64_t>(hn::MaxLanes(D()) * sizeof(W));
  for (int64_t p = 0; p < tile.depth; ++p) {
    for (int64_t byte = 0; byte < kStepBytes; byte += kLineBytes) hwy::Prefetch(next + byte);
    next += next_step;
    if constexpr (kRow == 1) {
      // One vector after the other: a row of them would not fit in 16 registers beside the sums.
      const V element = hn::Set(d, *x[0]);
#pragma GCC unroll 16
      for (int j = 0; j < kVec; ++j) acc[0][j] = hn::MulAdd(element, widened(d, w + j * lanes), acc[0][j]);
    } else {
      V row[kVec];
#pragma GCC unroll 16
      for (int j = 0; j < kVec; ++j) row[j] = widened(d, w + j * lanes);
#pragma GCC unroll 16
      for (int i = 0; i < kRow; ++i) {
        const V element = hn::Set(d, x[i / 4][(i % 4) * ldx]);
#pragma GCC unroll 16
        for (int j = 0; j < kVec; ++j) acc[i][j] = hn::MulAdd(element, row[j], acc[i][j]);
      }
    }
#pragma GCC unroll 16
    for (int g = 0; g < kPointers; ++g) ++x[g];
    w += w_step;
  }
  HWY_ALIGN float sums[kRow * kVec * hn::MaxLanes(D())];
#pragma GCC unroll 16
  for (int i = 0; i < kRow; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kVec; ++j) hn::Store(acc[i][j], d, sums + (i * kVec + j) * lanes);
  }
  finish<kVec>(kRow, sums, tile.output);
}

template <class W>
using Kernel = void (*)(const Tile<W>&);

template <int kVec, class W, int... kRow>
Kernel<W> kernel_of_rows(int64_t rows, std::integer_sequence<int, kRow...>) {
  static constexpr Kernel<W> kKernels[] = {tile_kernel<kRow + 1, kVec, W>...};
  return kKernels[rows - 1];
}

/// `count` rows of one panel of which `cols` columns are valid: tiles of even height, each across all columns.
template <class W>
void run_panel(int64_t rows, int64_t cols, Tile<W> tile) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(D()));
  const int64_t vectors = ceil_div(cols, lanes), tiles = ceil_div(rows, kTileRows);
  const Tile<W> origin = tile;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t row = rows * t / tiles, count = rows * (t + 1) / tiles - row;
    for (int64_t v = 0; v < vectors;) {
      const int64_t left = vectors - v, at = v * lanes;
      tile.x = origin.x + row * origin.ldx;
      tile.w = origin.w + at;
      tile.output.bias = origin.output.bias == nullptr ? nullptr : origin.output.bias + at;
      tile.output.scales = origin.output.scales == nullptr ? nullptr : origin.output.scales + at;
      tile.output.y = origin.output.y + row * origin.output.ldy + at;
      tile.next_step = origin.shares_next ? origin.next_step / tiles : t == 0 ? origin.next_step : 0;
      tile.next = origin.next + (origin.shares_next ? t * tile.depth * tile.next_step : 0) + at * static_cast<int64_t>(sizeof(W));
      int64_t width = 1;
      Kernel<W> kernel = nullptr;
      constexpr std::make_integer_sequence<int, kTileRows> kRows;
      if (count == 1 && left >= kRowVectors) {
        width = kRowVectors;
        kernel = tile_kernel<1, kRowVectors, W>;
      } else if (kTileVectors > 2 && left >= kTileVectors) {
        width = kTileVectors;
        kernel = kernel_of_rows<kTileVectors, W>(count, kRows);
      } else if (left >= 2) {
        width = 2;
        kernel = kernel_of_rows<2, W>(count, kRows);
      } else {
        kernel = kernel_of_rows<1, W>(count, kRows);
      }
      tile.output.last_cols = std::min(lanes, cols - (v + width - 1) * lanes);
      kernel(tile);
      v += width;
    }
  }
}

/// What a tile needs of panel `col` and the block of products at pc.
template <class W>
Tile<W> tile_of(const MultiplyArgs& args, int64_t row, int64_t col, int64_t pc, const W* w) {
  Tile<W> tile{};
  tile.depth = std::min(kBlockDepth, args.shape.k - pc);
  tile.x = args.x + row * args.ldx + pc;
  tile.ldx = args.ldx;
  tile.w = w;
  tile.w_step = panel_width(args.shape.n, col);
  tile.next = reinterpret_cast<const char*>(w);
  tile.output.first = pc == 0;
  tile.output.last = pc + kBlockDepth >= args.shape.k;
  tile.output.bias = args.bias == nullptr ? nullptr : args.bias + col;
  tile.output.scales = args.scales == nullptr ? nullptr : args.scales + col;
  tile.output.y = args.y + row * args.ldy + col;
  tile.output.ldy = args.ldy;
  return tile;
}

template <class W>
void multiply(const MultiplyArgs& args) {
  const PackedWeightShape& shape = args.shape;
  const int64_t blocks = ceil_div(std::max<int64_t>(0, args.m), kBlockRows);
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t row = args.m * block / blocks, rows = args.m * (block + 1) / blocks - row;
    for (int64_t col = args.col_begin; col < args.col_end; col += kWeightPanel) {
      const int64_t width = panel_width(shape.n, col);
      for (int64_t pc = 0; pc == 0 || pc < shape.k; pc += kBlockDepth) {
        Tile<W> tile = tile_of(args, row, col, pc, static_cast<const W*>(args.packed) + col * shape.k + pc * width);
        // Memory is asked early for what follows: with little to compute a few pages ahead, else for the next block in shares of the tiles.
        if (!tile.output.last || col + kWeightPanel < args.col_end) {
          tile.next_step = width * static_cast<int64_t>(sizeof(W));
          tile.shares_next = rows > kTileRows * (sizeof(W) == sizeof(float) ? 2 : 1);
          tile.next += tile.shares_next ? tile.depth * tile.next_step : kAheadBytes;
        }
        run_panel(rows, std::min(kWeightPanel, args.col_end - col), tile);
      }
    }
  }
}

void multiply_f32(const MultiplyArgs& args) {
  multiply<float>(args);
}
void multiply_bf16(const MultiplyArgs& args) {
  multiply<uint16_t>(args);
}
void multiply_int8(const MultiplyArgs& args) {
  multiply<int8_t>(args);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqboat::kernels {
namespace {

HWY_EXPORT(multiply_f32);
HWY_EXPORT(multiply_bf16);
HWY_EXPORT(multiply_int8);

template <class W>
void pack(const PackedWeightShape& shape, const W* weight, W* packed) {
  for (int64_t col = 0; col < shape.n; col += kWeightPanel) {
    const int64_t width = panel_width(shape.n, col), cols = std::min(width, shape.n - col);
    // A few p at a time: the lines of `cols` rows that are open meanwhile stay in the cache.
    constexpr int64_t kSteps = 16;
    for (int64_t p_begin = 0; p_begin < shape.k; p_begin += kSteps) {
      const int64_t p_end = std::min(shape.k, p_begin + kSteps);
      for (int64_t p = p_begin; p < p_end; ++p) {
        W* to = packed + col * shape.k + p * width;
        for (int64_t j = 0; j < cols; ++j) to[j] = weight[(col + j) * shape.k + p];
        for (int64_t j = cols; j < width; ++j) to[j] = W{0};
      }
    }
  }
}

inline uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

}  // namespace

size_t packed_weight_bytes(const PackedWeightShape& shape) noexcept {
  return scales_offset(shape) + (shape.type == WeightType::kInt8 ? static_cast<size_t>(round_up(shape.n, kPadding)) * sizeof(float) : 0);
}

void pack_weight(const PackedWeightShape& shape, const void* weight, const float* scales, void* packed) noexcept {
  switch (shape.type) {
    case WeightType::kFloat32:
      pack(shape, static_cast<const float*>(weight), static_cast<float*>(packed));
      break;
    case WeightType::kBf16:
      pack(shape, static_cast<const uint16_t*>(weight), static_cast<uint16_t*>(packed));
      break;
    case WeightType::kInt8:
      pack(shape, static_cast<const int8_t*>(weight), static_cast<int8_t*>(packed));
      break;
  }
  // Behind the elements: nothing up to a whole line, then the scales.
  char* bytes = static_cast<char*>(packed);
  const size_t elements = static_cast<size_t>(shape.k * round_up(shape.n, kPadding) * element_bytes(shape.type));
  std::fill(bytes + elements, bytes + packed_weight_bytes(shape), char{0});
  if (shape.type == WeightType::kInt8) std::memcpy(bytes + scales_offset(shape), scales, static_cast<size_t>(shape.n) * sizeof(float));
}

void multiply_packed(const PackedWeightShape& shape, int64_t col_begin, int64_t col_end, int64_t m, const float* x, int64_t ldx, const void* packed,
                     const float* bias, float* y, int64_t ldy) noexcept {
  MultiplyArgs args{shape, col_begin, col_end, m, x, ldx, packed, nullptr, bias, y, ldy};
  switch (shape.type) {
    case WeightType::kFloat32:
      return HWY_DYNAMIC_DISPATCH(multiply_f32)(args);
    case WeightType::kBf16:
      return HWY_DYNAMIC_DISPATCH(multiply_bf16)(args);
    case WeightType::kInt8:
      args.scales = reinterpret_cast<const float*>(static_cast<const char*>(packed) + scales_offset(shape));
      return HWY_DYNAMIC_DISPATCH(multiply_int8)(args);
  }
}

// Integer arithmetic: the compiler makes vectors of it.
void float_to_bf16(int64_t count, const float* x, uint16_t* y) noexcept {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = bits_of(x[i]);
    const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    y[i] = static_cast<uint16_t>(is_nan ? bits >> 16 | 0x40u : rounded);
  }
}

void bf16_to_float(int64_t count, const uint16_t* x, float* y) noexcept {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = static_cast<uint32_t>(x[i]) << 16;
    std::memcpy(y + i, &bits, sizeof bits);
  }
}

void quantize_int8(int64_t rows, int64_t k, const float* weight, int64_t ldw, int8_t* q, float* scales) noexcept {
  for (int64_t row = 0; row < rows; ++row) {
    const float* from = weight + row * ldw;
    int8_t* to = q + row * k;
    float largest = 0;
    for (int64_t p = 0; p < k; ++p) largest = std::max(largest, std::abs(from[p]));
    float scale = largest / 127.0f;
    if (!(scale >= std::numeric_limits<float>::min())) scale = 0;
    scales[row] = scale;
    for (int64_t p = 0; p < k; ++p) {
      to[p] = scale == 0 ? int8_t{0} : static_cast<int8_t>(std::clamp(std::nearbyint(from[p] / scale), -127.0f, 127.0f));
    }
  }
}

void int8_to_float(int64_t count, const int8_t* q, float scale, float* y) noexcept {
  for (int64_t i = 0; i < count; ++i) y[i] = scale * static_cast<float>(q[i]);
}

}  // namespace seqboat::kernels
#endif  // HWY_ONCE
