#pragma once

#include <cstddef>
#include <cstdint>

namespace seqboat::kernels {

/// What a weight's elements are. A product reads the weight once for all its rows, and for few rows reading it is all that the product costs.
enum class WeightType {
  kFloat32,
  kBf16,  ///< the upper half of a float32, as uint16_t
  kInt8,  ///< -127 .. 127 with one float32 scale a row of the weight (an output column)
};

/// Columns of a panel: where a product may be cut.
inline constexpr int64_t kWeightPanel = 64;

/// W (n, k) of a linear map.
struct PackedWeightShape {
  WeightType type;
  int64_t n, k;
};

/// Bytes that pack_weight() needs: those of n k elements with n rounded up to 16, and for int8 the scales.
size_t packed_weight_bytes(const PackedWeightShape& shape) noexcept;

/// W in the order in which multiply_packed() reads it: panels of 64 columns of y (the last one of 16, 32, 48 or 64), each (k, columns).
///
/// weight (n, k), row-major and dense, elements float, uint16_t (bf16) or int8_t by shape.type, aligned to their size; scales (n) for int8, else not
/// read. packed: packed_weight_bytes(shape) bytes, 64-byte aligned, no overlap; all of it is written. The layout is the same on every SIMD target,
/// and a copy of the buffer at an address of the same alignment is as good. Calling thread only; allocates nothing.
void pack_weight(const PackedWeightShape& shape, const void* weight, const float* scales, void* packed) noexcept;

/// y[i,j] = sum_p W[j,p] x[i,p] + bias[j]                 float32, bf16
/// y[i,j] = scale[j] sum_p W[j,p] x[i,p] + bias[j]        int8
///
/// for the m rows of x and y and columns [col_begin, col_end) of y, both multiples of kWeightPanel, or col_end = n. x (m, k), y (m, n) float32 with
/// row strides ldx and ldy in elements, any alignment; bias (n) or nullptr = 0; y and bias are those of column 0, whatever the range. y overlaps
/// nothing.
///
/// The bits of kernels::gemm() with the same weight, widened to float32 (which is exact): a chain of fused multiply-adds over each block of 256 p,
/// from zero; float32 and bf16 start from the bias and add the blocks in increasing order; int8 starts from zero, adds the blocks, and ends with one
/// fused multiply-add, total scale[j] + bias[j] (a bias of +0 where there is none). So nothing is rounded between the products and the end but the
/// sums. An element depends on its row of x and its row of W alone: the same bits however rows and columns are cut into calls. k == 0 gives bias or
/// zero. The weight is read once (for many rows: once for each 128 of them). Calling thread only; allocates nothing.
void multiply_packed(const PackedWeightShape& shape, int64_t col_begin, int64_t col_end, int64_t m, const float* x, int64_t ldx, const void* packed,
                     const float* bias, float* y, int64_t ldy) noexcept;

/// y = x rounded to bf16, ties to the even one: overflow to infinity, NaN stays NaN. x, y (count), no overlap.
void float_to_bf16(int64_t count, const float* x, uint16_t* y) noexcept;

/// y = x, exactly. x, y (count), no overlap.
void bf16_to_float(int64_t count, const uint16_t* x, float* y) noexcept;

/// Symmetric int8 of each row: scale = max |w| / 127, q = w / scale rounded to the nearest integer, ties to the even one, within -127 .. 127. So
/// |w - scale q| <= scale / 2, but for rounding. A row of zeros has scale 0 and q 0, and so has one whose scale would not be a normal number.
/// weight (rows, k) with row stride ldw, finite; q (rows, k) dense; scales (rows). No overlap.
void quantize_int8(int64_t rows, int64_t k, const float* weight, int64_t ldw, int8_t* q, float* scales) noexcept;

/// y = scale q, one rounding an element. q, y (count): a row of a table that is read where it lies.
void int8_to_float(int64_t count, const int8_t* q, float scale, float* y) noexcept;

}  // namespace seqboat::kernels
