#pragma once

// Private to src/ops: what the CPU kernels' glue shares.

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <optional>
#include <vector>

#include "seqboat/kernels/simd.h"
#include "seqboat/ops/phases.h"

#ifndef INTRA_OP_PARALLEL
#error "at::parallel_for is serial here: compile with -fopenmp"
#endif

namespace seqboat::ops {

#define SEQBOAT_DISPATCH(tensor, name, ...) AT_DISPATCH_FLOATING_TYPES((tensor).scalar_type(), name, __VA_ARGS__)

/// at::parallel_for with denormals flushed in every thread. Results must not depend on how [0, n) is cut.
template <class F>
void parallel_for(int64_t n, int64_t grain, const F& f) {
  if (n <= 0) return;
  at::parallel_for(0, n, grain, [&](int64_t begin, int64_t end) {
    kernels::FlushDenormals flush;
    f(begin, end);
  });
}

/// f(task) for each task of [0, n), whichever thread is free taking the next one: for tasks of unequal cost. Results must not depend on who runs
/// which.
template <class F>
void parallel_tasks(int64_t n, const F& f) {
  std::atomic<int64_t> next{0};
  parallel_for(std::min<int64_t>(n, at::get_num_threads()), 1, [&](int64_t, int64_t) {
    for (int64_t task = next.fetch_add(1); task < n; task = next.fetch_add(1)) f(task);
  });
}

/// A 64-byte aligned scratch buffer that each thread keeps and reuses.
template <class T>
T* thread_workspace(size_t count) {
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  thread_local std::unique_ptr<void, Free> buffer;
  thread_local size_t capacity = 0;
  const size_t bytes = (count * sizeof(T) + 63) / 64 * 64 + 64;
  if (bytes > capacity) {
    capacity = 0;  // of nothing, should there be no room
    buffer.reset(std::aligned_alloc(64, bytes));
    if (!buffer) throw std::bad_alloc();
    capacity = bytes;
  }
  return static_cast<T*>(buffer.get());
}

template <class T>
const T* data_or_null(const std::optional<at::Tensor>& t) {
  return t.has_value() && t->defined() ? t->const_data_ptr<T>() : nullptr;
}

inline bool present(const std::optional<at::Tensor>& t) {
  return t.has_value() && t->defined();
}

inline std::optional<at::Tensor> contiguous(const std::optional<at::Tensor>& t) {
  if (!present(t)) return std::nullopt;
  return t->contiguous();
}

/// Room for what a kernel makes of t or of its gradient: contiguous, whatever t is. Meta registrations must say what the kernels do.
inline at::Tensor contiguous_like(const at::Tensor& t) {
  return at::empty_like(t, t.options(), at::MemoryFormat::Contiguous);
}

inline void check_floating(const char* op, const char* name, const at::Tensor& t) {
  TORCH_CHECK(t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble, "seqboat::", op, ": ", name, " must be float32 or float64, got ",
              t.scalar_type());
}

inline void check_matrix(const char* op, const char* name, const at::Tensor& t) {
  TORCH_CHECK(t.dim() == 2, "seqboat::", op, ": ", name, " must be (tokens, width), got ", t.sizes());
}

inline void check_same_dtype(const char* op, const char* name, const at::Tensor& t, const at::Tensor& x) {
  TORCH_CHECK(t.scalar_type() == x.scalar_type(), "seqboat::", op, ": ", name, " must be ", x.scalar_type(), " like x, got ", t.scalar_type());
}

/// Offsets of packed sequences: (B+1) int64, from 0 to `tokens`, non-decreasing.
inline void check_offsets(const char* op, const at::Tensor& cu_seqlens, int64_t tokens) {
  TORCH_CHECK(cu_seqlens.dim() == 1 && cu_seqlens.scalar_type() == at::kLong && cu_seqlens.size(0) >= 1 && cu_seqlens.is_contiguous(),
              "seqboat::", op, ": cu_seqlens must be a contiguous (B+1) int64 tensor, got ", cu_seqlens.scalar_type(), " ", cu_seqlens.sizes());
  const int64_t* offsets = cu_seqlens.const_data_ptr<int64_t>();
  const int64_t batch = cu_seqlens.size(0) - 1;
  TORCH_CHECK(offsets[0] == 0 && offsets[batch] == tokens, "seqboat::", op, ": cu_seqlens must go from 0 to ", tokens, ", got ", offsets[0], " to ",
              offsets[batch]);
  for (int64_t b = 0; b < batch; ++b)
    TORCH_CHECK(offsets[b] <= offsets[b + 1], "seqboat::", op, ": cu_seqlens must not decrease, got ", offsets[b], " then ", offsets[b + 1], " at ",
                b);
}

/// Times within the sequences, (tokens) int64, contiguous. increasing: each sequence's must increase, for what looks distances up in a table.
inline void check_positions(const char* op, const at::Tensor& positions, const at::Tensor& cu_seqlens, bool increasing) {
  const int64_t batch = cu_seqlens.size(0) - 1;
  const int64_t* offsets = cu_seqlens.const_data_ptr<int64_t>();
  TORCH_CHECK(positions.dim() == 1 && positions.size(0) == offsets[batch] && positions.scalar_type() == at::kLong && positions.is_contiguous(),
              "seqboat::", op, ": positions must be a contiguous (", offsets[batch], ") int64 tensor, got ", positions.scalar_type(), " ",
              positions.sizes());
  if (!increasing) return;
  const int64_t* time = positions.const_data_ptr<int64_t>();
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t i = offsets[b] + 1; i < offsets[b + 1]; ++i)
      TORCH_CHECK(time[i - 1] < time[i], "seqboat::", op, ": positions must increase within a sequence, got ", time[i - 1], " then ", time[i],
                  " in sequence ", b, " at row ", i);
  }
}

}  // namespace seqboat::ops
