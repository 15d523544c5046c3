#pragma once

// Private to src/ops/cpu: how fused operators walk over the tokens.
//
// A pass walks over blocks of kBlockRows rows; what it makes of a block it makes while the block lies in the cache, by the same kernels, in the same
// order, as the composite of single operators: so a forward has the composite's bits.

#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

#include "ops/common.h"
#include "ops/cpu/scratch.h"
#include "seqboat/kernels/elementwise.h"
#include "seqboat/kernels/gemm.h"

namespace seqboat::ops {

inline constexpr int64_t kBlockRows = 128;
// Sums over tokens are taken in chunks of this many, each by one thread in order, whatever their number; the chunks are added in order. A multiple of
// kBlockRows.
inline constexpr int64_t kChunkRows = 512;

/// The order in which a layer's dropouts are numbered (nn/dropout_sites.h gives the same to the composites).
inline constexpr uint32_t kStateSite = 0, kAttentionSite = 1, kOutputSite = 2;

inline int64_t blocks_of(int64_t rows) {
  return (rows + kBlockRows - 1) / kBlockRows;
}
inline int64_t chunks_of(int64_t rows) {
  return (rows + kChunkRows - 1) / kChunkRows;
}

// ---- products of blocks of rows ----

/// A weight W (out, in) in the order in which products read it, packed once for all blocks of a pass.
template <class T>
class PackedWeight {
 public:
  enum Use { kForward, kBackward };
  /// kForward: y (rows, out) = x (rows, in) W^T + bias. kBackward: dx (rows, in) = dy (rows, out) W. Memory is taken here; pack() fills it.
  PackedWeight(Scratch& scratch, const T* weight, int64_t out, int64_t in, Use use)
      : weight_(weight),
        shape_{.m = 0, .n = use == kForward ? out : in, .k = use == kForward ? in : out, .lda = 0, .ldb = in, .ldc = 0, .trans_b = use == kForward} {
    packed_ = scratch.take<T>(static_cast<int64_t>(kernels::gemm_packed_size<T>(shape_)));
  }
  void pack() { kernels::gemm_pack_b<T>(shape_, weight_, packed_); }

  /// Rows of x and y are contiguous.
  void multiply(int64_t rows, const T* x, const T* bias, T* y, bool accumulate = false) const {
    kernels::GemmShape shape = shape_;
    shape.m = rows;
    shape.lda = shape.k;
    shape.ldc = shape.n;
    shape.accumulate = accumulate;
    kernels::gemm_packed<T>(shape, x, packed_, bias, y);
  }

 private:
  const T* weight_;
  kernels::GemmShape shape_;
  T* packed_;
};

/// Packs all of them, a weight a task.
template <class T>
void pack_weights(std::initializer_list<PackedWeight<T>*> weights) {
  parallel_tasks(static_cast<int64_t>(weights.size()), [&](int64_t i) { weights.begin()[i]->pack(); });
}

/// dW (out, in) += dy (rows, out)^T x (rows, in), rows contiguous.
template <class T>
void add_weight_gradient(int64_t rows, int64_t out, int64_t in, const T* dy, const T* x, T* dw, T* workspace) {
  kernels::gemm<T>({.m = out, .n = in, .k = rows, .lda = out, .ldb = in, .ldc = in, .trans_a = true, .accumulate = true}, dy, x, nullptr, dw,
                   workspace);
}

/// Workspace of add_weight_gradient for any of the weights (out, in) and at most kBlockRows rows.
template <class T>
int64_t gradient_workspace_size(std::initializer_list<std::pair<int64_t, int64_t>> weights) {
  size_t size = 0;
  for (const auto& [out, in] : weights)
    size = std::max(size, kernels::gemm_workspace_size<T>(
                              {.m = out, .n = in, .k = kBlockRows, .lda = out, .ldb = in, .ldc = in, .trans_a = true, .accumulate = true}));
  return static_cast<int64_t>(size + 15) / 16 * 16;
}

/// Buffers of one worker, cut from its thread's workspace in multiples of a cache line.
template <class T>
class LocalBuffers {
 public:
  explicit LocalBuffers(int64_t elements, int buffers) : next_(thread_workspace<T>(static_cast<size_t>(elements + 16 * buffers))) {}
  T* take(int64_t count) {
    T* out = next_;
    next_ += (count + 15) / 16 * 16;
    return out;
  }

 private:
  T* next_;
};

// ---- sums over tokens ----

/// acc[j] += sum of column j of x (rows, dim).
template <class T>
void add_column_sums(int64_t rows, int64_t dim, int64_t stride, const T* x, T* acc, T* temporary) {
  kernels::column_sum<T>(rows, dim, stride, 0, dim, x, temporary);
  for (int64_t j = 0; j < dim; ++j) acc[j] += temporary[j];
}

/// Partial sums of several parameters, a row of them a chunk.
template <class T>
class PartialSums {
 public:
  /// parts: size of each parameter and where its gradient goes (nullptr: nowhere).
  PartialSums(Scratch& scratch, int64_t chunks, std::vector<std::pair<int64_t, T*>> parts) : chunks_(chunks), parts_(std::move(parts)) {
    for (const auto& [size, to] : parts_) {
      begins_.push_back(stride_);
      stride_ += (size + 15) / 16 * 16;
    }
    data_ = scratch.take<T>(chunks * stride_);
  }
  /// A chunk's sums, set to zero by the thread that is going to fill them.
  T* begin_chunk(int64_t chunk) {
    T* row = data_ + chunk * stride_;
    std::fill(row, row + stride_, T(0));
    return row;
  }
  T* part(T* row, size_t number) const { return row + begins_[number]; }
  /// part(), or nullptr where the gradient goes nowhere.
  T* part_or_null(T* row, size_t number) const { return parts_[number].second != nullptr ? part(row, number) : nullptr; }

  void add_up() const {
    for (size_t i = 0; i < parts_.size(); ++i) {
      const auto [size, to] = parts_[i];
      if (to == nullptr || size == 0) continue;
      const T* from = data_ + begins_[i];
      parallel_for(size, 4096, [&](int64_t begin, int64_t end) {
        if (chunks_ > 0) {
          kernels::column_sum<T>(chunks_, size, stride_, begin, end, from, to);
        } else {
          std::fill(to + begin, to + end, T(0));
        }
      });
    }
  }

 private:
  int64_t chunks_, stride_ = 0;
  std::vector<std::pair<int64_t, T*>> parts_;
  std::vector<int64_t> begins_;
  T* data_;
};

}  // namespace seqboat::ops
