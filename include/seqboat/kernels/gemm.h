#pragma once

#include <cstddef>
#include <cstdint>

namespace seqboat::kernels {

/// op(A) is (m, k), op(B) is (k, n), C is (m, n); row-major, leading dimensions in elements.
/// trans_a: A is stored (k, m) with row stride lda; trans_b: B is stored (n, k) with row stride ldb.
struct GemmShape {
  int64_t m, n, k;
  int64_t lda, ldb, ldc;
  bool trans_a = false;
  bool trans_b = false;
  bool accumulate = false;  ///< C += op(A) op(B) instead of C = op(A) op(B) (+ bias)
};

/// C[i,j] = (accumulate ? C[i,j] : bias ? bias[j] : 0) + sum_p op(A)[i,p] op(B)[p,j]
///
/// A, B, C float32 or float64, any alignment, C overlaps nothing. bias (n) or nullptr, ignored when accumulating.
/// The order of the sum over p depends on k alone: a row of C has the same bits whatever m, n, the row's number, or how the
/// caller cuts m and n into calls. One fused multiply-add a product, in blocks of p that are summed in increasing order.
/// k == 0 gives bias or zero. workspace: at least gemm_workspace_size<T>(shape) elements of T, 64-byte aligned.
/// Calling thread only; allocates nothing.
template <class T>
void gemm(const GemmShape& shape, const T* a, const T* b, const T* bias, T* c, T* workspace) noexcept;

/// Elements of T that gemm() needs as workspace for this shape.
template <class T>
size_t gemm_workspace_size(const GemmShape& shape) noexcept;

// A weight that many products share is packed once:
//
//   shape = {.n = out, .k = in, .ldb = in, .trans_b = true};        m, lda, ldc: not read yet
//   gemm_pack_b<float>(shape, weight, packed);                      gemm_packed_size<float>(shape) elements
//   for each block of rows:  gemm_packed<float>(shape with m, lda, ldc, ..., x, packed, bias, y);

/// op(B) in the order in which gemm_packed() reads it. Of the shape n, k, ldb and trans_b are read.
///
/// packed: gemm_packed_size<T>(shape) elements of T, 64-byte aligned, no overlap with b. The layout is nobody else's concern: it depends on n, k, T
/// and the SIMD target, so it is neither for files nor to be used after force_simd_target(), and it cannot be cut into columns. Not all of the
/// elements need be written. A copy of the buffer at an address of the same alignment is as good.
/// Calling thread only; allocates nothing. Costs about as much as reading and writing op(B) once.
template <class T>
void gemm_pack_b(const GemmShape& shape, const T* b, T* packed) noexcept;

/// Elements of T that gemm_pack_b() needs for this shape, the same on every SIMD target: k n, with n rounded up to 16.
template <class T>
size_t gemm_packed_size(const GemmShape& shape) noexcept;

/// gemm() with B packed before, and exactly its bits. n and k are those of the packing, ldb and trans_b are not read; everything else may change from
/// call to call. Needs no workspace. packed_b is not written: threads may share it.
/// Calling thread only; allocates nothing.
template <class T>
void gemm_packed(const GemmShape& shape, const T* a, const T* packed_b, const T* bias, T* c) noexcept;

}  // namespace seqboat::kernels
