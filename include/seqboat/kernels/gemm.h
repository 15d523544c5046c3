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

}  // namespace seqboat::kernels
