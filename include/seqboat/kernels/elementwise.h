#pragma once

#include <cstdint>

namespace seqboat::kernels {

enum class Activation {
  kSilu,     ///< x sigma(x)
  kGelu,     ///< x (1 + erf(x / sqrt 2)) / 2, the exact one
  kRelu2,    ///< max(x, 0)^2
  kLaplace,  ///< (1 + erf((x - 0.707107) / (0.282095 sqrt 2))) / 2
  kSigmoid,
};

/// y[i] = f(x[i]); y may be x. Every element has the same bits wherever it lies (vector body and tail use the same instructions).
template <class T>
void activation_fwd(Activation f, int64_t count, const T* x, T* y) noexcept;

/// dx[i] = f'(x[i]) dy[i]; dx may be dy.
template <class T>
void activation_bwd(Activation f, int64_t count, const T* x, const T* dy, T* dx) noexcept;

/// The same for a matrix (rows, dim) whose rows lie apart, strides in elements. In place as above, then with the same stride.
template <class T>
void activation_rows_fwd(Activation f, int64_t rows, int64_t dim, const T* x, int64_t x_stride, T* y, int64_t y_stride) noexcept;
template <class T>
void activation_rows_bwd(Activation f, int64_t rows, int64_t dim, const T* x, int64_t x_stride, const T* dy, int64_t dy_stride, T* dx,
                         int64_t dx_stride) noexcept;

/// out[j] = sum_i x[i,j] over rows, for columns [column_begin, column_end): fixed blocks of rows summed in order, accumulated in T.
template <class T>
void column_sum(int64_t rows, int64_t dim, int64_t stride, int64_t column_begin, int64_t column_end, const T* x, T* out) noexcept;

/// sum_i x[i]^2 in double, in a fixed order that depends on count alone.
template <class T>
double sum_of_squares(int64_t count, const T* x) noexcept;

/// y[b] = scale[b] * sum of the rows of sequence b. x (sum T, D), y (B, D). Sums in increasing t. For sequences [seq_begin, seq_end).
template <class T>
void segment_sum(int64_t seq_begin, int64_t seq_end, const int64_t* cu_seqlens, int64_t dim, const T* scale, const T* x, T* y) noexcept;

}  // namespace seqboat::kernels
