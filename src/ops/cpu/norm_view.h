#pragma once

// Private to src/ops/cpu: a norm as a part of a fused operator.

#include "ops/cpu/row_blocks.h"
#include "seqboat/kernels/gated_rows.h"
#include "seqboat/kernels/norm.h"
#include "seqboat/ops/phases.h"

namespace seqboat::ops {

/// A norm's parameters as plain pointers; absent ones are nullptr.
template <class T>
struct NormView {
  kernels::RowNorm kind;
  bool is_batch;     ///< batch norm, which comes first and whose statistics are known
  bool batch_stats;  ///< they are those of the rows themselves
  double eps;
  int64_t dim;
  const T *weight, *bias;
  const T* mean;  ///< batch norm
  const T* rstd;  ///< batch norm: 1 / sqrt(var + eps)

  /// Whether a row norm of this kind writes means.
  bool has_mean() const { return kind == kernels::RowNorm::kLayerNorm; }
  int64_t weight_size() const { return weight == nullptr ? 0 : kind == kernels::RowNorm::kScaleNorm && !is_batch ? 1 : dim; }
  int64_t bias_size() const { return bias == nullptr ? 0 : dim; }

  /// y = norm(x), rows contiguous; y may be x. Row norms write row_rstd (rows), layer norm row_mean (rows).
  void forward(int64_t rows, const T* x, T* y, T* row_mean, T* row_rstd) const {
    if (is_batch) {
      kernels::batch_norm_apply<T>(0, rows, dim, x, mean, rstd, weight, bias, y);
    } else {
      kernels::row_norm_fwd<T>(kind, rows, dim, static_cast<T>(eps), x, weight, bias, y, has_mean() ? row_mean : nullptr, row_rstd);
    }
  }
  /// Row norms alone. dx is written, dweight and dbias are added to, or nullptr.
  void backward(int64_t rows, const T* x, const T* row_mean, const T* row_rstd, const T* dy, T* dx, T* dweight, T* dbias) const {
    kernels::row_norm_bwd<T>(kind, rows, dim, x, weight, has_mean() ? row_mean : nullptr, row_rstd, dy, dx, dweight, dbias);
  }
};

/// y = norm(x) of all rows.
template <class T>
void norm_pass(const NormView<T>& norm, int64_t tokens, const T* x, T* y, T* row_mean, T* row_rstd) {
  const PhaseScope phase(Phase::kNorm);
  parallel_for(tokens, kBlockRows, [&](int64_t begin, int64_t end) {
    norm.forward(end - begin, x + begin * norm.dim, y + begin * norm.dim, row_mean + begin, row_rstd + begin);
  });
}

/// dx += gradient of norm(x) for all rows, from dy = gradient of its output. dweight and dbias are written, or nullptr.
template <class T>
void norm_backward(const NormView<T>& norm, int64_t tokens, const T* x, const T* row_mean, const T* row_rstd, const T* dy, T* dx, T* dweight,
                   T* dbias) {
  const PhaseScope phase(Phase::kNorm);
  Scratch& scratch = Scratch::mine();
  const Scratch::Frame frame(scratch);
  const int64_t d = norm.dim;
  if (norm.is_batch) {
    double* sum_xhat = scratch.take<double>(d);
    double* sum = scratch.take<double>(d);
    T* dnorm = scratch.take<T>(tokens * d);
    parallel_for(d, 16, [&](int64_t begin, int64_t end) {
      kernels::batch_norm_bwd_sums<T>(tokens, d, begin, end, x, norm.mean, norm.rstd, dy, sum_xhat, sum);
    });
    parallel_for(tokens, kBlockRows, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row += kBlockRows) {
        const int64_t stop = std::min(row + kBlockRows, end);
        kernels::batch_norm_bwd_input<T>(tokens, row, stop, d, norm.batch_stats, x, norm.mean, norm.rstd, norm.weight, sum_xhat, sum, dy, dnorm);
        kernels::add_rows<T>(stop - row, d, dnorm + row * d, d, dx + row * d, d);
      }
    });
    for (int64_t j = 0; j < d; ++j) {
      if (dweight != nullptr) dweight[j] = static_cast<T>(sum_xhat[j]);
      if (dbias != nullptr) dbias[j] = static_cast<T>(sum[j]);
    }
    return;
  }
  const int64_t chunks = chunks_of(tokens);
  PartialSums<T> sums(scratch, chunks, {{norm.weight_size(), dweight}, {norm.bias_size(), dbias}});
  parallel_tasks(chunks, [&](int64_t chunk) {
    T* partial = sums.begin_chunk(chunk);
    LocalBuffers<T> local(kBlockRows * d, 1);
    T* dnorm = local.take(kBlockRows * d);
    const int64_t chunk_end = std::min((chunk + 1) * kChunkRows, tokens);
    for (int64_t begin = chunk * kChunkRows; begin < chunk_end; begin += kBlockRows) {
      const int64_t rows = std::min(kBlockRows, chunk_end - begin);
      norm.backward(rows, x + begin * d, row_mean + begin, row_rstd + begin, dy + begin * d, dnorm, sums.part_or_null(partial, 0),
                    sums.part_or_null(partial, 1));
      kernels::add_rows<T>(rows, d, dnorm, d, dx + begin * d, d);
    }
  });
  sums.add_up();
}

}  // namespace seqboat::ops
