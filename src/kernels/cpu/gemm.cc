// Packed matrix product.
//
//   for each block of kBlockCols columns        (jc)
//     for each block of kBlockDepth products    (pc)   B(pc, jc) is packed into panels of a few vectors' width: second-level cache
//       for each kPackRows rows                 (ic)   a transposed A(ic, pc) is packed; A as it lies needs no packing
//         for each few rows                     (ir)   their A stays in the first-level cache
//           for each panel                      (jr)   micro-kernel: accumulators in registers, B streams by
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
#include <type_traits>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/cpu/simd_partial-inl.h"
#include "seqboat/kernels/gemm.h"

#ifndef SEQBOAT_KERNELS_CPU_GEMM_ONCE_
#define SEQBOAT_KERNELS_CPU_GEMM_ONCE_
namespace seqboat::kernels {
namespace {

constexpr int64_t kBlockDepth = 256;
constexpr int64_t kBlockCols = 384;  // a multiple of every panel width; kBlockDepth * kBlockCols floats take 384 KiB
constexpr int64_t kPackRows = 48;    // a multiple of every micro-kernel's rows
constexpr int64_t kMaxLanes = 16;
// Below so many rows B is read where it lies: packing would cost a good part of the product.
constexpr int64_t kDirectRows = 16;

template <class T>
struct GemmArgs {
  const GemmShape* shape;
  const T* a;
  const T* b;
  const T* bias;
  T* c;
  T* workspace;
};

/// What the sum over a block of p is added to.
enum class Base { kZero, kBias, kC };

inline int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

inline int64_t packed_b_size(const GemmShape& shape) {
  return std::min(shape.k, kBlockDepth) * std::min(round_up(shape.n, kMaxLanes), kBlockCols);
}

}  // namespace
}  // namespace seqboat::kernels
#endif  // SEQBOAT_KERNELS_CPU_GEMM_ONCE_

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

// Rows by vectors of the micro-kernel: as many accumulators as leave registers for a row of B and one element of A.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL || HWY_TARGET == HWY_NEON
constexpr int kRows = 8;
constexpr int kVectors = 3;
#else
constexpr int kRows = 6;
constexpr int kVectors = 2;
#endif

template <class T>
struct Tile {
  int64_t depth;
  const T* a;
  int64_t a_row_stride;  // unpacked: element (i, p) at a + i a_row_stride + p; packed: at a + p kRows + i
  const T* b;
  int64_t b_stride;  // element (p, j) at b + p b_stride + j; readable in whole vectors
  Base base;
  const T* bias;  // of the tile's first column
  T* c;
  int64_t ldc;
  int64_t cols;  // valid columns, at most kVec vectors
};

template <int kRow, int kVec, bool kPackedA, class D, class T>
HWY_NOINLINE void micro_kernel(D d, const Tile<T>& tile) {
  using V = hn::Vec<D>;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  V acc[kRow][kVec];
#pragma GCC unroll 8
  for (int i = 0; i < kRow; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kVec; ++j) acc[i][j] = hn::Zero(d);
  }
  const T* HWY_RESTRICT a = tile.a;
  const T* HWY_RESTRICT b = tile.b;
  const int64_t a_row_stride = tile.a_row_stride;
  const int64_t b_stride = tile.b_stride;
  const int64_t depth = tile.depth;
  for (int64_t p = 0; p < depth; ++p) {
    V row[kVec];
#pragma GCC unroll 8
    for (int j = 0; j < kVec; ++j) row[j] = hn::LoadU(d, b + j * lanes);
#pragma GCC unroll 8
    for (int i = 0; i < kRow; ++i) {
      const V element = hn::Set(d, kPackedA ? a[i] : a[i * a_row_stride]);
#pragma GCC unroll 8
      for (int j = 0; j < kVec; ++j) acc[i][j] = hn::MulAdd(element, row[j], acc[i][j]);
    }
    a += kPackedA ? kRows : 1;
    b += b_stride;
  }
  T* c = tile.c;
#pragma GCC unroll 8
  for (int i = 0; i < kRow; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kVec; ++j) {
      T* to = c + i * tile.ldc + j * lanes;
      const int64_t count = tile.cols - j * lanes;
      if (count >= lanes) {
        V base = hn::Zero(d);
        if (tile.base == Base::kBias) base = hn::LoadU(d, tile.bias + j * lanes);
        if (tile.base == Base::kC) base = hn::LoadU(d, to);
        hn::StoreU(hn::Add(base, acc[i][j]), d, to);
      } else {
        V base = hn::Zero(d);
        if (tile.base == Base::kBias) base = load_partial(d, tile.bias + j * lanes, static_cast<size_t>(count));
        if (tile.base == Base::kC) base = load_partial(d, to, static_cast<size_t>(count));
        store_partial(hn::Add(base, acc[i][j]), d, to, static_cast<size_t>(count));
      }
    }
  }
}

template <int kRow, bool kPackedA, class D, class T>
void run_tile_columns(D d, const Tile<T>& tile) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  if (tile.cols > 2 * lanes && kVectors > 2) return micro_kernel<kRow, kVectors, kPackedA>(d, tile);
  if (tile.cols > lanes) return micro_kernel<kRow, 2, kPackedA>(d, tile);
  micro_kernel<kRow, 1, kPackedA>(d, tile);
}

/// One tile of up to kRows rows and kVectors vectors.
template <bool kPackedA, class D, class T>
void run_tile(D d, int64_t rows, Tile<T> tile) {
  if (rows == kRows) return run_tile_columns<kRows, kPackedA>(d, tile);
  const auto advance = [&](int64_t by) {
    rows -= by;
    tile.a += kPackedA ? by : by * tile.a_row_stride;
    tile.c += by * tile.ldc;
  };
  if (rows >= 4) {
    run_tile_columns<4, kPackedA>(d, tile);
    advance(4);
  }
  if (rows >= 2) {
    run_tile_columns<2, kPackedA>(d, tile);
    advance(2);
  }
  if (rows >= 1) run_tile_columns<1, kPackedA>(d, tile);
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

/// A stored (k, m): panels of kRows rows, element (p, i) at p kRows + i. Rows beyond the last are never read.
template <class T>
void pack_a_transposed(const T* HWY_RESTRICT a, int64_t lda, int64_t depth, int64_t rows, T* HWY_RESTRICT to) {
  int64_t done = 0;
  for (; done + kRows <= rows; done += kRows) {
    T* HWY_RESTRICT panel = to + done * depth;
    const T* HWY_RESTRICT from = a + done;
    for (int64_t p = 0; p < depth; ++p) {
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) panel[p * kRows + i] = from[p * lda + i];
    }
  }
  T* HWY_RESTRICT panel = to + done * depth;
  for (int64_t p = 0; p < depth && done < rows; ++p) {
    for (int64_t i = 0; done + i < rows; ++i) panel[p * kRows + i] = a[p * lda + done + i];
  }
}

template <class T>
void prefetch_rows(int64_t rows, int64_t cols, const T* first, int64_t stride) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; j += kLine) hwy::Prefetch(first + i * stride + j);
  }
}

template <class T>
void run(const GemmArgs<T>& args) {
  const hn::ScalableTag<T> d;
  const GemmShape& shape = *args.shape;
  if (shape.m <= 0 || shape.n <= 0) return;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t panel_cols = kVectors * lanes;
  const Base first_base = shape.accumulate ? Base::kC : args.bias != nullptr ? Base::kBias : Base::kZero;
  T* packed_b = args.workspace;
  T* packed_a = args.workspace + round_up(packed_b_size(shape), kMaxLanes);
  // Products of short rows wait for memory: the next rows of A and C are asked for while these are computed. Small ones lie in the cache.
  const bool prefetches = shape.m >= 256;
  const bool direct_b = !shape.trans_b && shape.m < kDirectRows;

  // Column blocks of equal size, so that the last one is not a sliver.
  const int64_t col_blocks = (shape.n + kBlockCols - 1) / kBlockCols;
  const int64_t block_cols = std::min(kBlockCols, round_up((shape.n + col_blocks - 1) / col_blocks, panel_cols));
  for (int64_t jc = 0; jc < shape.n; jc += block_cols) {
    const int64_t cols = std::min(block_cols, shape.n - jc);
    for (int64_t pc = 0; pc == 0 || pc < shape.k; pc += kBlockDepth) {
      const int64_t depth = std::min(kBlockDepth, shape.k - pc);
      const T* b = shape.trans_b ? args.b + jc * shape.ldb + pc : args.b + pc * shape.ldb + jc;
      // Whole vectors may be read in place; a last panel that ends within one is packed all the same.
      const int64_t direct_cols = direct_b ? (cols % lanes == 0 ? cols : cols / panel_cols * panel_cols) : 0;
      for (int64_t jr = direct_cols; jr < cols; jr += panel_cols) {
        const int64_t width = std::min(panel_cols, cols - jr);
        if (shape.trans_b) {
          pack_b_transposed(d, b + jr * shape.ldb, shape.ldb, depth, width, packed_b + jr * depth);
        } else {
          pack_b(d, b + jr, shape.ldb, depth, width, packed_b + jr * depth);
        }
      }
      Tile<T> tile{};
      tile.depth = depth;
      tile.a_row_stride = shape.lda;
      tile.base = pc == 0 ? first_base : Base::kC;
      tile.ldc = shape.ldc;
      for (int64_t ic = 0; ic < shape.m; ic += kPackRows) {
        const int64_t block_rows = std::min(kPackRows, shape.m - ic);
        if (shape.trans_a) pack_a_transposed(args.a + pc * shape.lda + ic, shape.lda, depth, block_rows, packed_a);
        for (int64_t ir = 0; ir < block_rows; ir += kRows) {
          const int64_t rows = std::min<int64_t>(kRows, block_rows - ir);
          tile.a = shape.trans_a ? packed_a + ir * depth : args.a + (ic + ir) * shape.lda + pc;
          if (prefetches && ic + ir + 2 * kRows <= shape.m) {
            if (!shape.trans_a) prefetch_rows(kRows, depth, args.a + (ic + ir + kRows) * shape.lda + pc, shape.lda);
            prefetch_rows(kRows, cols, args.c + (ic + ir + kRows) * shape.ldc + jc, shape.ldc);
          }
          for (int64_t jr = 0; jr < cols;) {
            const bool direct = jr < direct_cols;
            tile.cols = std::min(panel_cols, cols - jr);
            tile.b = direct ? b + jr : packed_b + jr * depth;
            tile.b_stride = direct ? shape.ldb : round_up(tile.cols, lanes);
            tile.bias = tile.base == Base::kBias ? args.bias + jc + jr : nullptr;
            tile.c = args.c + (ic + ir) * shape.ldc + jc + jr;
            if (shape.trans_a) {
              run_tile<true>(d, rows, tile);
            } else {
              run_tile<false>(d, rows, tile);
            }
            jr += tile.cols;
          }
        }
      }
    }
  }
}

void gemm_f32(const GemmArgs<float>& args) {
  run(args);
}
void gemm_f64(const GemmArgs<double>& args) {
  run(args);
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
}  // namespace

template <>
void gemm<float>(const GemmShape& shape, const float* a, const float* b, const float* bias, float* c, float* workspace) noexcept {
  HWY_DYNAMIC_DISPATCH(gemm_f32)(GemmArgs<float>{&shape, a, b, bias, c, workspace});
}

template <>
void gemm<double>(const GemmShape& shape, const double* a, const double* b, const double* bias, double* c, double* workspace) noexcept {
  HWY_DYNAMIC_DISPATCH(gemm_f64)(GemmArgs<double>{&shape, a, b, bias, c, workspace});
}

template <class T>
size_t gemm_workspace_size(const GemmShape& shape) noexcept {
  // The same for every SIMD target, so that a buffer stays valid when another one is chosen.
  const int64_t packed_a = shape.trans_a ? std::min(shape.k, kBlockDepth) * kPackRows : 0;
  return static_cast<size_t>(round_up(packed_b_size(shape), kMaxLanes) + packed_a);
}
template size_t gemm_workspace_size<float>(const GemmShape& shape) noexcept;
template size_t gemm_workspace_size<double>(const GemmShape& shape) noexcept;

}  // namespace seqboat::kernels
#endif  // HWY_ONCE
