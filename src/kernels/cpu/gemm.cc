// Matrix product.
//
//   for each block of kBlockCols columns        (block)  some panels of B, each a few vectors wide
//     for each block of kBlockDepth products    (pc)     the block's B is packed, panel by panel, unless it was before: second-level cache
//       for each block of kBlockRows rows       (ic)     A lies as it lies: second-level cache
//         for each panel                                 first-level cache
//           for each few rows                   (tile)   micro-kernel: accumulators in registers, A and B stream by
//
// A is read an element at a time, so its strides hardly matter and packing it would be time lost; the micro-kernel asks for the next rows early,
// because rows of 60 to 500 elements are too short for the processor's own prefetching.
//
// Every element of C is one chain of fused multiply-adds over p in each block of kBlockDepth, the blocks added in increasing order.
// So neither the micro-kernel's shape nor the packing can change a bit, and both are chosen for speed alone.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gemm.cc"
#include "hwy/foreach_target.h"
// foreach_target.h comes first.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/cpu/simd_partial-inl.h"
#include "seqboat/kernels/gemm.h"

#ifndef SEQBOAT_KERNELS_CPU_GEMM_ONCE_
#define SEQBOAT_KERNELS_CPU_GEMM_ONCE_
namespace seqboat::kernels {
namespace {

constexpr int64_t kBlockDepth = 256;
constexpr int64_t kBlockCols = 384;  // kBlockDepth * kBlockCols floats take 384 KiB
constexpr int64_t kBlockRows = 128;
constexpr int64_t kMaxLanes = 16;
constexpr int64_t kMaxPanelVectors = 5;
constexpr int64_t kLineBytes = 64;
// A panel of B shares a first-level cache of 48 KiB (32 at the least) with the rows of A that pass by.
constexpr int64_t kPanelBytes = 36 * 1024;
// Below so many rows B is read where it lies: packing would cost a good part of the product.
constexpr int64_t kDirectRows = 16;
// And so is a B with rows this short, whose panels are almost as dense in memory as packed ones.
constexpr int64_t kDirectRowBytes = 384;
// So few columns would leave most of a vector empty: rows take the lanes instead.
constexpr int64_t kNarrowCols = 4;

template <class T>
struct GemmArgs {
  const GemmShape* shape;
  const T* a;
  const T* b;
  bool packed_b;  // by gemm_pack_b(); nothing is written to the workspace then
  const T* bias;
  T* c;
  T* workspace;
};

/// What the sum over a block of p is added to.
enum class Base { kZero, kBias, kC };

inline int64_t ceil_div(int64_t value, int64_t by) {
  return (value + by - 1) / by;
}
inline int64_t round_up(int64_t value, int64_t multiple) {
  return ceil_div(value, multiple) * multiple;
}

/// `total` cut into `parts` pieces that differ by at most one, the longer ones first.
struct EvenParts {
  int64_t total, parts;
  int64_t begin(int64_t part) const { return total / parts * part + std::min(part, total % parts); }
  int64_t size(int64_t part) const { return total / parts + (part < total % parts ? 1 : 0); }
};

}  // namespace
}  // namespace seqboat::kernels
#endif  // SEQBOAT_KERNELS_CPU_GEMM_ONCE_

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

// Rows of the micro-kernel by its width in vectors: as many accumulators as leave registers for a row of B and one element of A.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL || HWY_TARGET == HWY_NEON
constexpr int kRowsOfWidth[] = {16, 14, 9, 6, 5};
#elif HWY_TARGET == HWY_AVX2
constexpr int kRowsOfWidth[] = {12, 6, 4};
#else
constexpr int kRowsOfWidth[] = {8, 6};
#endif
constexpr int kWidths = static_cast<int>(std::size(kRowsOfWidth));
static_assert(kWidths <= kMaxPanelVectors);

template <class T>
struct Tile {
  int64_t depth;
  const T* a;  // element (i, p) at a + i a_row + p a_step
  int64_t a_row, a_step;
  bool prefetch_a;
  const T* b;  // element (p, j) at b + p b_step + j; readable in whole vectors
  int64_t b_step;
  Base base;
  const T* bias;  // of the tile's first column
  T* c;
  int64_t ldc;
  int64_t last_cols;  // valid columns of the last vector
};

template <int kRow, int kVec, class D, class T>
HWY_NOINLINE void micro_kernel(D d, const Tile<T>& tile) {
  using V = hn::Vec<D>;
  constexpr int64_t kLine = kLineBytes / sizeof(T);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  T* c = tile.c;
  const int64_t ldc = tile.ldc;
  V acc[kRow][kVec];
#pragma GCC unroll 16
  for (int i = 0; i < kRow; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kVec; ++j) {
      acc[i][j] = hn::Zero(d);
      hwy::Prefetch(c + i * ldc + j * lanes);
    }
  }
  // Four rows from one pointer: x86 addresses 0, 1, 2 and (kept in a register) 3 times the stride without further arithmetic.
  constexpr int kPointers = (kRow + 3) / 4;
  const int64_t a_row = tile.a_row, a_step = tile.a_step, b_step = tile.b_step;
  const T* HWY_RESTRICT a[kPointers];
#pragma GCC unroll 16
  for (int g = 0; g < kPointers; ++g) a[g] = tile.a + 4 * g * a_row;
  const T* HWY_RESTRICT b = tile.b;
  for (int64_t left = tile.depth; left > 0; left -= kLine) {
    const int64_t steps = std::min(left, kLine);
    if (tile.prefetch_a) {
      // The rows of the next tile: a line of each, or of transposed ones the line that is first needed there.
      if (a_step == 1) {
#pragma GCC unroll 16
        for (int i = 0; i < kRow; ++i) hwy::Prefetch(a[i / 4] + (i % 4 + kRow) * a_row);
      } else {
        for (int64_t p = 0; p < steps; ++p) hwy::Prefetch(a[0] + p * a_step + (2 * kRow - 1) * a_row);
      }
    }
    for (int64_t p = 0; p < steps; ++p) {
      V row[kVec];
#pragma GCC unroll 16
      for (int j = 0; j < kVec; ++j) {
        row[j] = hn::LoadU(d, b + j * lanes);
        // One or two rows do little more than read B.
        if constexpr (kRow <= 2) hwy::Prefetch(b + 16 * b_step + j * lanes);
      }
#pragma GCC unroll 16
      for (int i = 0; i < kRow; ++i) {
        const V element = hn::Set(d, a[i / 4][(i % 4) * a_row]);
#pragma GCC unroll 16
        for (int j = 0; j < kVec; ++j) acc[i][j] = hn::MulAdd(element, row[j], acc[i][j]);
      }
#pragma GCC unroll 16
      for (int g = 0; g < kPointers; ++g) a[g] += a_step;
      b += b_step;
    }
  }
  const size_t last_cols = static_cast<size_t>(tile.last_cols);
  const bool whole = tile.last_cols == lanes;
  V base[kVec];
#pragma GCC unroll 16
  for (int j = 0; j < kVec; ++j) {
    base[j] = hn::Zero(d);
    if (tile.base == Base::kBias) {
      const T* from = tile.bias + j * lanes;
      base[j] = j < kVec - 1 || whole ? hn::LoadU(d, from) : load_partial(d, from, last_cols);
    }
  }
  const bool from_c = tile.base == Base::kC;
#pragma GCC unroll 16
  for (int i = 0; i < kRow; ++i) {
    T* to = c + i * ldc;
#pragma GCC unroll 16
    for (int j = 0; j < kVec - 1; ++j, to += lanes) hn::StoreU(hn::Add(from_c ? hn::LoadU(d, to) : base[j], acc[i][j]), d, to);
    if (whole) {
      hn::StoreU(hn::Add(from_c ? hn::LoadU(d, to) : base[kVec - 1], acc[i][kVec - 1]), d, to);
    } else {
      store_partial(hn::Add(from_c ? load_partial(d, to, last_cols) : base[kVec - 1], acc[i][kVec - 1]), d, to, last_cols);
    }
  }
}

template <class D, class T>
using Kernel = void (*)(D, const Tile<T>&);

template <int kVec, class D, class T, int... kRow>
Kernel<D, T> kernel_of_rows(int64_t rows, std::integer_sequence<int, kRow...>) {
  static constexpr Kernel<D, T> kKernels[] = {micro_kernel<kRow + 1, kVec, D, T>...};
  return kKernels[rows - 1];
}

template <class D, class T, int kVec = 1>
Kernel<D, T> kernel_of(int64_t rows, int64_t vectors) {
  if constexpr (kVec < kWidths) {
    if (vectors > kVec) return kernel_of<D, T, kVec + 1>(rows, vectors);
  }
  return kernel_of_rows<kVec, D, T>(rows, std::make_integer_sequence<int, kRowsOfWidth[kVec - 1]>());
}

/// to[p][j] = B(p, j) for one panel, zero up to a whole number of vectors.
template <class D, class T>
void pack_b(D d, const T* HWY_RESTRICT b, int64_t ldb, int64_t depth, int64_t cols, T* HWY_RESTRICT to) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t width = round_up(cols, lanes);
  for (int64_t p = 0; p < depth; ++p, b += ldb, to += width) {
    int64_t j = 0;
    for (; j + lanes <= cols; j += lanes) hn::StoreU(hn::LoadU(d, b + j), d, to + j);
    if (j < cols) hn::StoreU(load_partial(d, b + j, static_cast<size_t>(cols - j)), d, to + j);
  }
}

/// The same from B stored (n, k): squares of one 128-bit vector's lanes are transposed in registers.
template <class D, class T>
void pack_b_transposed(D d, const T* HWY_RESTRICT b, int64_t ldb, int64_t depth, int64_t cols, T* HWY_RESTRICT to) {
  const int64_t width = round_up(cols, static_cast<int64_t>(hn::Lanes(d)));
  int64_t j = 0;
#if HWY_TARGET != HWY_SCALAR
  constexpr int64_t kSquare = 16 / sizeof(T);
  const hn::FixedTag<T, kSquare> ds;
  using V = hn::Vec<decltype(ds)>;
  for (; j + kSquare <= cols; j += kSquare) {
    const T* HWY_RESTRICT from = b + j * ldb;
    T* HWY_RESTRICT panel = to + j;
    int64_t p = 0;
    for (; p + kSquare <= depth; p += kSquare) {
      const V r0 = hn::LoadU(ds, from + p);
      const V r1 = hn::LoadU(ds, from + ldb + p);
      if constexpr (kSquare == 2) {
        hn::StoreU(hn::InterleaveLower(ds, r0, r1), ds, panel + p * width);
        hn::StoreU(hn::InterleaveUpper(ds, r0, r1), ds, panel + (p + 1) * width);
      } else {
        const hn::Repartition<double, decltype(ds)> dw;
        const V r2 = hn::LoadU(ds, from + 2 * ldb + p);
        const V r3 = hn::LoadU(ds, from + 3 * ldb + p);
        const auto low01 = hn::BitCast(dw, hn::InterleaveLower(ds, r0, r1));   // 00 10 01 11
        const auto high01 = hn::BitCast(dw, hn::InterleaveUpper(ds, r0, r1));  // 02 12 03 13
        const auto low23 = hn::BitCast(dw, hn::InterleaveLower(ds, r2, r3));
        const auto high23 = hn::BitCast(dw, hn::InterleaveUpper(ds, r2, r3));
        hn::StoreU(hn::BitCast(ds, hn::InterleaveLower(dw, low01, low23)), ds, panel + p * width);
        hn::StoreU(hn::BitCast(ds, hn::InterleaveUpper(dw, low01, low23)), ds, panel + (p + 1) * width);
        hn::StoreU(hn::BitCast(ds, hn::InterleaveLower(dw, high01, high23)), ds, panel + (p + 2) * width);
        hn::StoreU(hn::BitCast(ds, hn::InterleaveUpper(dw, high01, high23)), ds, panel + (p + 3) * width);
      }
    }
    for (; p < depth; ++p) {
      for (int64_t i = 0; i < kSquare; ++i) panel[p * width + i] = from[i * ldb + p];
    }
  }
#endif
  for (; j < cols; ++j) {
    for (int64_t p = 0; p < depth; ++p) to[p * width + j] = b[j * ldb + p];
  }
  for (; j < width; ++j) {
    for (int64_t p = 0; p < depth; ++p) to[p * width + j] = T{0};
  }
}

/// One panel of op(B), `cols` columns from column `col` on and `depth` products from `pc` on.
template <class D, class T>
void pack_panel(D d, const GemmShape& shape, const T* b, int64_t pc, int64_t depth, int64_t col, int64_t cols, T* to) {
  if (shape.trans_b) {
    pack_b_transposed(d, b + col * shape.ldb + pc, shape.ldb, depth, cols, to);
  } else {
    pack_b(d, b + pc * shape.ldb + col, shape.ldb, depth, cols, to);
  }
}

/// Vectors of a row of op(B) by panels. It depends on n and k alone, so that whoever packs and whoever multiplies agree.
template <class T>
EvenParts panels_of(const GemmShape& shape, int64_t lanes) {
  // The widest panel that leaves room in the cache. Three vectors where none does: in nine rows they ask the second-level cache for the least.
  const int64_t depth = std::max<int64_t>(1, std::min(shape.k, kBlockDepth));
  const int64_t fitting = kPanelBytes / (depth * lanes * static_cast<int64_t>(sizeof(T)));
  const int64_t widest = std::min<int64_t>(std::max<int64_t>(fitting, 3), kWidths);
  const int64_t vectors = ceil_div(shape.n, lanes);
  return {vectors, ceil_div(vectors, widest)};
}

#if HWY_TARGET != HWY_SCALAR
/// Blocks of 128 bits from rows of A that are as many rows apart as such a block has elements.
template <class D, class T>
HWY_INLINE hn::Vec<D> load_blocks(D d, const T* HWY_RESTRICT a, int64_t lda) {
  constexpr int64_t kLanes = hn::MaxLanes(D());
  if constexpr (kLanes * sizeof(T) == 16) {
    return hn::LoadU(d, a);
  } else {
    const hn::Half<D> dh;
    return hn::Combine(d, load_blocks(dh, a + kLanes / 2 * lda, lda), load_blocks(dh, a, lda));
  }
}

/// columns[q] = A(0..lanes-1, q) for the elements q of one 128-bit vector; rows of A follow each other at lda.
template <class D, class T>
HWY_INLINE void load_columns(D d, const T* HWY_RESTRICT a, int64_t lda, hn::Vec<D>* HWY_RESTRICT columns) {
  using V = hn::Vec<D>;
  constexpr int kSquare = 16 / sizeof(T);
  V rows[kSquare];
#pragma GCC unroll 4
  for (int r = 0; r < kSquare; ++r) rows[r] = load_blocks(d, a + r * lda, lda);
  // The squares, side by side, are transposed.
  if constexpr (kSquare == 2) {
    columns[0] = hn::InterleaveLower(d, rows[0], rows[1]);
    columns[1] = hn::InterleaveUpper(d, rows[0], rows[1]);
  } else {
    const hn::Repartition<double, D> dw;
    const auto low01 = hn::BitCast(dw, hn::InterleaveLower(d, rows[0], rows[1]));
    const auto high01 = hn::BitCast(dw, hn::InterleaveUpper(d, rows[0], rows[1]));
    const auto low23 = hn::BitCast(dw, hn::InterleaveLower(d, rows[2], rows[3]));
    const auto high23 = hn::BitCast(dw, hn::InterleaveUpper(d, rows[2], rows[3]));
    columns[0] = hn::BitCast(d, hn::InterleaveLower(dw, low01, low23));
    columns[1] = hn::BitCast(d, hn::InterleaveUpper(dw, low01, low23));
    columns[2] = hn::BitCast(d, hn::InterleaveLower(dw, high01, high23));
    columns[3] = hn::BitCast(d, hn::InterleaveUpper(dw, high01, high23));
  }
}

// Two vectors of rows at a time: the chains of one would wait for themselves.
constexpr int kNarrowVectors = 2;

/// C of few columns, rows in the lanes. Element (p, j) of B at b + p b_step + j b_col. The first `skip` rows are computed and not stored.
template <int kCols, class D, class T>
HWY_NOINLINE void narrow_rows(D d, int64_t depth, const T* HWY_RESTRICT a, int64_t lda, const T* HWY_RESTRICT b, int64_t b_step, int64_t b_col,
                              Base base, const T* bias, T* c, int64_t ldc, int64_t skip) {
  using V = hn::Vec<D>;
  constexpr int kSquare = 16 / sizeof(T);
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(D()));
  constexpr int kRows = kNarrowVectors * kLanes;
  constexpr int64_t kLine = kLineBytes / sizeof(T);
  HWY_ALIGN T buffer[kCols][kRows];
  V acc[kNarrowVectors][kCols];
#pragma GCC unroll 4
  for (int g = 0; g < kNarrowVectors; ++g) {
#pragma GCC unroll 4
    for (int j = 0; j < kCols; ++j) acc[g][j] = hn::Zero(d);
  }
  const auto multiply = [&](const V* HWY_RESTRICT columns, int count, const T* HWY_RESTRICT from, V* HWY_RESTRICT sums) HWY_ATTR {
#pragma GCC unroll 4
    for (int q = 0; q < count; ++q) {
#pragma GCC unroll 4
      for (int j = 0; j < kCols; ++j) sums[j] = hn::MulAdd(columns[q], hn::Set(d, from[q * b_step + j * b_col]), sums[j]);
    }
  };
  int64_t p = 0;
  for (; p + kSquare <= depth; p += kSquare) {
    if (p % kLine == 0) {
      for (int i = 0; i < kRows; ++i) hwy::Prefetch(a + (kRows + i) * lda + p);
    }
#pragma GCC unroll 4
    for (int g = 0; g < kNarrowVectors; ++g) {
      V columns[kSquare];
      load_columns(d, a + g * kLanes * lda + p, lda, columns);
      multiply(columns, kSquare, b + p * b_step, acc[g]);
    }
  }
  for (; p < depth; ++p) {
    for (int i = 0; i < kRows; ++i) buffer[0][i] = a[i * lda + p];
#pragma GCC unroll 4
    for (int g = 0; g < kNarrowVectors; ++g) {
      const V column = hn::Load(d, buffer[0] + g * kLanes);
      multiply(&column, 1, b + p * b_step, acc[g]);
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < kCols; ++j) {
#pragma GCC unroll 4
    for (int g = 0; g < kNarrowVectors; ++g) hn::Store(acc[g][j], d, buffer[j] + g * kLanes);
  }
  for (int64_t i = skip; i < kRows; ++i) {
    for (int j = 0; j < kCols; ++j) {
      T* to = c + i * ldc + j;
      *to = (base == Base::kC ? *to : base == Base::kBias ? bias[j] : T{0}) + buffer[j][i];
    }
  }
}

template <int kCols, class D, class T>
void run_narrow(D d, const GemmArgs<T>& args, Base first_base) {
  const GemmShape& shape = *args.shape;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  if (shape.n > kCols) {
    if constexpr (kCols < kNarrowCols) run_narrow<kCols + 1>(d, args, first_base);
    return;
  }
  const bool packed = args.packed_b;  // one panel of one vector
  const int64_t b_step = packed ? lanes : shape.trans_b ? 1 : shape.ldb;
  const int64_t b_col = packed || !shape.trans_b ? 1 : shape.ldb;
  const int64_t group = kNarrowVectors * lanes;
  for (int64_t next = 0; next < shape.m; next += group) {
    // The last rows are computed together with some that are done already.
    const int64_t row = std::min(next, shape.m - group);
    for (int64_t pc = 0; pc == 0 || pc < shape.k; pc += kBlockDepth) {
      narrow_rows<kCols>(d, std::min(kBlockDepth, shape.k - pc), args.a + row * shape.lda + pc, shape.lda, args.b + pc * b_step, b_step, b_col,
                         pc == 0 ? first_base : Base::kC, args.bias, args.c + row * shape.ldc, shape.ldc, next - row);
    }
  }
}
#endif

/// The rows of one panel: tiles of even height.
template <class D, class T>
void run_panel(D d, const GemmShape& shape, const T* a, int64_t rows, int64_t vectors, bool prefetch_a, Tile<T> tile) {
  constexpr auto line = [](const T* address) { return reinterpret_cast<uintptr_t>(address) / kLineBytes; };
  const EvenParts tiles{rows, ceil_div(rows, kRowsOfWidth[vectors - 1])};
  tile.a_row = shape.trans_a ? 1 : shape.lda;
  tile.a_step = shape.trans_a ? shape.lda : 1;
  tile.a = a;
  Kernel<D, T> kernel = nullptr;
  for (int64_t t = 0, size = 0; t < tiles.parts; ++t) {
    if (tiles.size(t) != size) {
      size = tiles.size(t);
      kernel = kernel_of<D, T>(size, vectors);
    }
    // Of a transposed A several tiles share a line: it is asked for once.
    tile.prefetch_a = prefetch_a && (!shape.trans_a || line(tile.a + 2 * size - 1) != line(tile.a + size - 1));
    kernel(d, tile);
    tile.a += size * tile.a_row;
    tile.c += size * tile.ldc;
  }
}

template <class T>
void run(const GemmArgs<T>& args) {
  const hn::ScalableTag<T> d;
  const GemmShape& shape = *args.shape;
  if (shape.m <= 0 || shape.n <= 0) return;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const Base first_base = shape.accumulate ? Base::kC : args.bias != nullptr ? Base::kBias : Base::kZero;
#if HWY_TARGET != HWY_SCALAR
  if (shape.n <= std::min(kNarrowCols, lanes / 2) && shape.m >= kNarrowVectors * lanes && !shape.trans_a) return run_narrow<1>(d, args, first_base);
#endif
  const bool packed = args.packed_b;
  const bool few_rows = shape.m < kDirectRows;
  const bool short_rows = shape.ldb == shape.n && shape.n * static_cast<int64_t>(sizeof(T)) <= kDirectRowBytes;
  const bool direct = !packed && !shape.trans_b && (few_rows || short_rows);
  EvenParts panels = panels_of<T>(shape, lanes);
  if (direct && few_rows) {
    // B comes from memory once, if one tile takes all rows; narrower than three vectors it would not stream.
    int64_t widest = kWidths;
    while (widest > 3 && kRowsOfWidth[widest - 1] < shape.m) --widest;
    panels.parts = ceil_div(panels.total, widest);
  }
  // Blocks of as many panels, so that the last one is not a sliver.
  const EvenParts blocks{panels.parts, std::min(panels.parts, ceil_div(shape.n, kBlockCols))};
  const EvenParts row_blocks{shape.m, ceil_div(shape.m, kBlockRows)};
  for (int64_t block = 0; block < blocks.parts; ++block) {
    const int64_t first_panel = blocks.begin(block), end_panel = first_panel + blocks.size(block);
    const int64_t first_col = panels.begin(first_panel) * lanes;
    for (int64_t pc = 0; pc == 0 || pc < shape.k; pc += kBlockDepth) {
      const int64_t depth = std::min(kBlockDepth, shape.k - pc);
      const T* packed_b = packed ? args.b + pc * panels.total * lanes + first_col * depth : args.workspace;
      Tile<T> tile{};
      tile.depth = depth;
      tile.base = pc == 0 ? first_base : Base::kC;
      tile.ldc = shape.ldc;
      for (int64_t ic = 0; ic < row_blocks.parts; ++ic) {
        const int64_t row = row_blocks.begin(ic);
        const T* a = args.a + (shape.trans_a ? pc * shape.lda + row : row * shape.lda + pc);
        for (int64_t panel = first_panel; panel < end_panel; ++panel) {
          const int64_t vectors = panels.size(panel), col = panels.begin(panel) * lanes;
          const int64_t cols = std::min(vectors * lanes, shape.n - col);
          // Whole vectors may be read in place; a last panel that ends within one is packed all the same.
          const bool in_place = direct && cols == vectors * lanes;
          const int64_t offset = (col - first_col) * depth;
          if (!packed && !in_place && ic == 0) pack_panel(d, shape, args.b, pc, depth, col, cols, args.workspace + offset);
          tile.b = in_place ? args.b + pc * shape.ldb + col : packed_b + offset;
          tile.b_step = in_place ? shape.ldb : vectors * lanes;
          tile.last_cols = cols - (vectors - 1) * lanes;
          tile.bias = tile.base == Base::kBias ? args.bias + col : nullptr;
          tile.c = args.c + row * shape.ldc + col;
          run_panel(d, shape, a, row_blocks.size(ic), vectors, panel == first_panel, tile);
        }
      }
    }
  }
}

template <class T>
void pack(const GemmShape& shape, const T* b, T* packed) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const EvenParts panels = panels_of<T>(shape, lanes);
  for (int64_t pc = 0; pc < shape.k; pc += kBlockDepth) {
    const int64_t depth = std::min(kBlockDepth, shape.k - pc);
    for (int64_t panel = 0; panel < panels.parts; ++panel) {
      const int64_t col = panels.begin(panel) * lanes, width = panels.size(panel) * lanes;
      pack_panel(d, shape, b, pc, depth, col, std::min(width, shape.n - col), packed);
      packed += width * depth;
    }
  }
}

void gemm_f32(const GemmArgs<float>& args) {
  run(args);
}
void gemm_f64(const GemmArgs<double>& args) {
  run(args);
}
void pack_f32(const GemmShape& shape, const float* b, float* packed) {
  pack(shape, b, packed);
}
void pack_f64(const GemmShape& shape, const double* b, double* packed) {
  pack(shape, b, packed);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqboat::kernels {
namespace {
HWY_EXPORT(gemm_f32);
HWY_EXPORT(gemm_f64);
HWY_EXPORT(pack_f32);
HWY_EXPORT(pack_f64);
}  // namespace

template <>
void gemm<float>(const GemmShape& shape, const float* a, const float* b, const float* bias, float* c, float* workspace) noexcept {
  HWY_DYNAMIC_DISPATCH(gemm_f32)(GemmArgs<float>{&shape, a, b, false, bias, c, workspace});
}
template <>
void gemm<double>(const GemmShape& shape, const double* a, const double* b, const double* bias, double* c, double* workspace) noexcept {
  HWY_DYNAMIC_DISPATCH(gemm_f64)(GemmArgs<double>{&shape, a, b, false, bias, c, workspace});
}

template <>
void gemm_packed<float>(const GemmShape& shape, const float* a, const float* packed_b, const float* bias, float* c) noexcept {
  HWY_DYNAMIC_DISPATCH(gemm_f32)(GemmArgs<float>{&shape, a, packed_b, true, bias, c, nullptr});
}
template <>
void gemm_packed<double>(const GemmShape& shape, const double* a, const double* packed_b, const double* bias, double* c) noexcept {
  HWY_DYNAMIC_DISPATCH(gemm_f64)(GemmArgs<double>{&shape, a, packed_b, true, bias, c, nullptr});
}

template <>
void gemm_pack_b<float>(const GemmShape& shape, const float* b, float* packed) noexcept {
  HWY_DYNAMIC_DISPATCH(pack_f32)(shape, b, packed);
}
template <>
void gemm_pack_b<double>(const GemmShape& shape, const double* b, double* packed) noexcept {
  HWY_DYNAMIC_DISPATCH(pack_f64)(shape, b, packed);
}

// Sizes are the same for every SIMD target, so that a buffer stays large enough when another one is chosen.

template <class T>
size_t gemm_workspace_size(const GemmShape& shape) noexcept {
  // A block of columns ends with the panel in which kBlockCols lie.
  const int64_t cols = std::min(round_up(shape.n, kMaxLanes), kBlockCols + kMaxPanelVectors * kMaxLanes);
  return static_cast<size_t>(std::min(shape.k, kBlockDepth) * cols);
}
template size_t gemm_workspace_size<float>(const GemmShape& shape) noexcept;
template size_t gemm_workspace_size<double>(const GemmShape& shape) noexcept;

template <class T>
size_t gemm_packed_size(const GemmShape& shape) noexcept {
  return static_cast<size_t>(shape.k * round_up(shape.n, kMaxLanes));
}
template size_t gemm_packed_size<float>(const GemmShape& shape) noexcept;
template size_t gemm_packed_size<double>(const GemmShape& shape) noexcept;

}  // namespace seqboat::kernels
#endif  // HWY_ONCE
