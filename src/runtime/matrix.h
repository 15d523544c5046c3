#pragma once

#include <cstdint>
#include <vector>

#include "runtime/memory.h"
#include "seqboat/base/safetensors.h"
#include "seqboat/runtime/model.h"

namespace seqboat::runtime {

/// A linear map y = x W^T + bias, packed for the kernels. Outside of a range of columns nothing is written, so threads share one product.
class Matrix {
 public:
  Matrix() = default;
  /// weight (n, k) F32, BF16 or I8 with scale (n). It is packed into the arena, which must outlive it.
  Matrix(const TensorView& weight, const TensorView* scale, WeightArena* arena);
  /// What it takes of the arena.
  static int64_t packed_bytes(const TensorView& weight);

  bool exists() const { return n_ > 0; }
  int64_t outputs() const { return n_; }
  int64_t inputs() const { return k_; }
  Precision precision() const { return precision_; }
  int64_t bytes() const { return packed_bytes_ + bias_.size(); }
  void set_bias(const TensorView& bias);

  /// Columns a range begins at a multiple of this.
  static int64_t column_grain();
  /// y[i, j] for i < rows, j in [begin, end); strides in elements.
  void multiply(int64_t rows, int64_t column_begin, int64_t column_end, const float* x, int64_t x_stride, float* y, int64_t y_stride) const noexcept;

 private:
  int64_t n_ = 0, k_ = 0;
  Precision precision_ = Precision::kFloat32;
  const std::byte* packed_ = nullptr;
  int64_t packed_bytes_ = 0;
  Buffer bias_;
};

/// Rows of an embedding, read where they lie in the file.
struct RowTable {
  int64_t rows = 0, width = 0;
  Precision precision = Precision::kFloat32;
  const std::byte* data = nullptr;
  const std::byte* scale = nullptr;
  void read(int64_t row, float* out) const noexcept;
};

Precision precision_of(DType dtype);

}  // namespace seqboat::runtime
