#include "runtime/matrix.h"

#include <cstring>

#include "seqboat/base/error.h"
#include "seqboat/kernels/packed_weight.h"

namespace seqboat::runtime {
namespace {

kernels::WeightType type_of(Precision precision) {
  return precision == Precision::kFloat32 ? kernels::WeightType::kFloat32
         : precision == Precision::kBf16  ? kernels::WeightType::kBf16
                                          : kernels::WeightType::kInt8;
}

/// The view's data, or a copy where it is not aligned for its elements.
const void* aligned(const TensorView& view, Buffer* copy) {
  if (view.is_aligned()) return view.data;
  *copy = Buffer(static_cast<int64_t>(view.size_bytes), "weights");
  std::memcpy(copy->data(), view.data, view.size_bytes);
  return copy->data();
}

}  // namespace

Precision precision_of(DType dtype) {
  return dtype == DType::kBF16 ? Precision::kBf16 : dtype == DType::kI8 ? Precision::kInt8 : Precision::kFloat32;
}

int64_t Matrix::packed_bytes(const TensorView& weight) {
  return static_cast<int64_t>(kernels::packed_weight_bytes({type_of(precision_of(weight.dtype)), weight.shape[0], weight.shape[1]}));
}

Matrix::Matrix(const TensorView& weight, const TensorView* scale, WeightArena* arena)
    : n_(weight.shape[0]), k_(weight.shape[1]), precision_(precision_of(weight.dtype)), packed_bytes_(packed_bytes(weight)) {
  const kernels::PackedWeightShape shape{type_of(precision_), n_, k_};
  std::byte* packed = arena->take(packed_bytes_);
  packed_ = packed;
  Buffer weight_copy, scale_copy;
  const void* scales = scale != nullptr ? aligned(*scale, &scale_copy) : nullptr;
  kernels::pack_weight(shape, aligned(weight, &weight_copy), static_cast<const float*>(scales), packed);
}

void Matrix::set_bias(const TensorView& bias) {
  bias_ = Buffer(n_ * 4, "weights");
  std::memcpy(bias_.data(), bias.data, bias.size_bytes);
}

int64_t Matrix::column_grain() {
  return kernels::kWeightPanel;
}

void Matrix::multiply(int64_t rows, int64_t column_begin, int64_t column_end, const float* x, int64_t x_stride, float* y,
                      int64_t y_stride) const noexcept {
  if (rows == 0 || column_begin >= column_end) return;
  kernels::multiply_packed({type_of(precision_), n_, k_}, column_begin, column_end, rows, x, x_stride, packed_, bias_.as<float>(), y, y_stride);
}

void RowTable::read(int64_t row, float* out) const noexcept {
  if (precision == Precision::kFloat32) {
    std::memcpy(out, data + row * width * 4, static_cast<size_t>(width) * 4);
  } else if (precision == Precision::kBf16) {
    // A row may lie at an odd address in a file from elsewhere.
    for (int64_t i = 0; i < width; ++i) {
      uint16_t upper;
      std::memcpy(&upper, data + (row * width + i) * 2, 2);
      const uint32_t bits = static_cast<uint32_t>(upper) << 16;
      std::memcpy(out + i, &bits, 4);
    }
  } else {
    float factor;
    std::memcpy(&factor, scale + row * 4, 4);
    kernels::int8_to_float(width, reinterpret_cast<const int8_t*>(data) + row * width, factor, out);
  }
}

}  // namespace seqboat::runtime
