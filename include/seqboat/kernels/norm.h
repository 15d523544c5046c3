#pragma once

#include <cstdint>

namespace seqboat::kernels {

enum class RowNorm {
  kLayerNorm,  ///< (x - mean) / sqrt(var + eps) * weight + bias     weight, bias (D) or nullptr
  kScaleNorm,  ///< x / sqrt(mean(x^2) + eps) * weight               weight (1) or nullptr
  kRmsNorm,    ///< x / sqrt(mean(x^2) + eps) * weight               weight (D) or nullptr
};

/// Norm of each row of x (rows, D), contiguous; y (rows, D) may be x. The spread is the biased one.
/// mean (rows) or nullptr (layer norm only) and rstd (rows) are written for the backward. Rows are independent, sums in a fixed order.
template <class T>
void row_norm_fwd(RowNorm kind, int64_t rows, int64_t dim, T eps, const T* x, const T* weight, const T* bias, T* y, T* mean, T* rstd) noexcept;

/// dx (rows, D) is written; dweight (D, or 1 for scale norm) and dbias (D), or nullptr, are added to: give each fixed block of rows its own
/// partial buffer and add those in order.
template <class T>
void row_norm_bwd(RowNorm kind, int64_t rows, int64_t dim, const T* x, const T* weight, const T* mean, const T* rstd, const T* dy, T* dx, T* dweight,
                  T* dbias) noexcept;

/// Batch norm over all rows (tokens) of a channel. Statistics in two passes over the columns [channel_begin, channel_end):
/// mean (D), var (D) biased. Rows are summed in double, in fixed blocks, so a call may take any range of channels.
template <class T>
void batch_norm_stats(int64_t rows, int64_t dim, int64_t channel_begin, int64_t channel_end, const T* x, T* mean, T* var) noexcept;

/// y = (x - mean) * rstd * weight + bias for rows [row_begin, row_end); weight, bias (D) or nullptr; rstd (D).
template <class T>
void batch_norm_apply(int64_t row_begin, int64_t row_end, int64_t dim, const T* x, const T* mean, const T* rstd, const T* weight, const T* bias,
                      T* y) noexcept;

/// Column sums for the backward, channels [channel_begin, channel_end): sum_dy (the bias's gradient) and sum_dy_xhat = sum dy (x - mean) rstd (the
/// weight's), both (D) and written. Double whatever T is: batch_norm_bwd_input takes them off every row, where an error would not average out.
template <class T>
void batch_norm_bwd_sums(int64_t rows, int64_t dim, int64_t channel_begin, int64_t channel_end, const T* x, const T* mean, const T* rstd, const T* dy,
                         double* sum_dy_xhat, double* sum_dy) noexcept;

/// Rows [row_begin, row_end) of dx. Training statistics (use_batch_stats): dx = weight rstd (dy - sum_dy/rows - xhat sum_dy_xhat/rows);
/// running statistics: dx = weight rstd dy. Computed in double and rounded once.
template <class T>
void batch_norm_bwd_input(int64_t rows, int64_t row_begin, int64_t row_end, int64_t dim, bool use_batch_stats, const T* x, const T* mean,
                          const T* rstd, const T* weight, const double* sum_dy_xhat, const double* sum_dy, const T* dy, T* dx) noexcept;

}  // namespace seqboat::kernels
