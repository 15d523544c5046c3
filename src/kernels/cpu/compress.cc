#include "seqboat/kernels/compress.h"

#include <algorithm>
#include <bit>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/compress.cc"
// clang-format off
#include "hwy/foreach_target.h"  // must come before highway.h
// clang-format on
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// Copies of at least one vector end with a vector that may overlap the one before: equal bytes written twice cost less than a tail.
template <class T>
HWY_INLINE void copy_row(int64_t dim, const T* from, T* to) {
  const hn::ScalableTag<T> d;
  const int64_t width = static_cast<int64_t>(hn::Lanes(d));
  if (dim < width) {
    for (int64_t i = 0; i < dim; ++i) to[i] = from[i];
    return;
  }
  for (int64_t i = 0; i < dim - width; i += width) hn::StoreU(hn::LoadU(d, from + i), d, to + i);
  hn::StoreU(hn::LoadU(d, from + dim - width), d, to + dim - width);
}

template <class T>
HWY_INLINE void zero_row(int64_t dim, T* to) {
  const hn::ScalableTag<T> d;
  const int64_t width = static_cast<int64_t>(hn::Lanes(d));
  if (dim < width) {
    for (int64_t i = 0; i < dim; ++i) to[i] = 0;
    return;
  }
  for (int64_t i = 0; i < dim - width; i += width) hn::StoreU(hn::Zero(d), d, to + i);
  hn::StoreU(hn::Zero(d), d, to + dim - width);
}

template <class T>
void compress_rows(int64_t begin, int64_t end, int64_t dim, const int64_t* active_index, const T* x, int64_t x_stride, T* out, int64_t out_stride) {
  for (int64_t i = begin; i < end; ++i) copy_row(dim, x + active_index[i] * x_stride, out + i * out_stride);
}

template <class T>
void extract_rows(int64_t begin, int64_t end, int64_t dim, const uint8_t* active, int64_t first_active, const T* h, int64_t h_stride, T* out,
                  int64_t out_stride) {
  const T* next = h + first_active * h_stride;
  for (int64_t t = begin; t < end; ++t) {
    if (active[t] != 0) {
      copy_row(dim, next, out + t * out_stride);
      next += h_stride;
    } else {
      zero_row(dim, out + t * out_stride);
    }
  }
}

// Dispatch tables hold functions, not templates: one name for each type.
constexpr auto& compress_rows_f32 = compress_rows<float>;
constexpr auto& compress_rows_f64 = compress_rows<double>;
constexpr auto& extract_rows_f32 = extract_rows<float>;
constexpr auto& extract_rows_f64 = extract_rows<double>;

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqboat::kernels {
static_assert(std::endian::native == std::endian::little, "active flags are read eight at a time, the first in the lowest byte");

// Eight flags of 0 or 1 at a time: the product's highest byte is the sum of the eight bytes.
int64_t count_active(int64_t batch, const int64_t* cu_seqlens, const uint8_t* active, int64_t* active_cu_seqlens) noexcept {
  int64_t count = 0;
  active_cu_seqlens[0] = 0;
  for (int64_t b = 0; b < batch; ++b) {
    int64_t t = cu_seqlens[b];
    const int64_t end = cu_seqlens[b + 1];
    for (; t + 8 <= end; t += 8) {
      uint64_t flags;
      std::memcpy(&flags, active + t, 8);
      count += static_cast<int64_t>((flags * 0x0101010101010101u) >> 56);
    }
    for (; t < end; ++t) count += active[t];
    active_cu_seqlens[b + 1] = count;
  }
  return count;
}

// Walks from active token to active token, so a sparse sequence costs little and no branch depends on a single flag.
void fill_active_index(int64_t batch, const int64_t* cu_seqlens, const uint8_t* active, int64_t* active_index, int64_t* positions) noexcept {
  int64_t count = 0;
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t begin = cu_seqlens[b], end = cu_seqlens[b + 1];
    for (int64_t t = begin; t < end; t += 8) {
      uint64_t flags = 0;
      std::memcpy(&flags, active + t, static_cast<size_t>(std::min<int64_t>(8, end - t)));
      for (; flags != 0; flags &= flags - 1) {
        const int64_t found = t + std::countr_zero(flags) / 8;
        if (active_index != nullptr) active_index[count] = found;
        if (positions != nullptr) positions[count] = found - begin;
        ++count;
      }
    }
  }
}

HWY_EXPORT(compress_rows_f32);
HWY_EXPORT(compress_rows_f64);
HWY_EXPORT(extract_rows_f32);
HWY_EXPORT(extract_rows_f64);

template <>
void compress_rows<float>(int64_t begin, int64_t end, int64_t dim, const int64_t* active_index, const float* x, int64_t x_stride, float* out,
                          int64_t out_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(compress_rows_f32)(begin, end, dim, active_index, x, x_stride, out, out_stride);
}
template <>
void compress_rows<double>(int64_t begin, int64_t end, int64_t dim, const int64_t* active_index, const double* x, int64_t x_stride, double* out,
                           int64_t out_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(compress_rows_f64)(begin, end, dim, active_index, x, x_stride, out, out_stride);
}

template <>
void extract_rows<float>(int64_t begin, int64_t end, int64_t dim, const uint8_t* active, int64_t first_active, const float* h, int64_t h_stride,
                         float* out, int64_t out_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(extract_rows_f32)(begin, end, dim, active, first_active, h, h_stride, out, out_stride);
}
template <>
void extract_rows<double>(int64_t begin, int64_t end, int64_t dim, const uint8_t* active, int64_t first_active, const double* h, int64_t h_stride,
                          double* out, int64_t out_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(extract_rows_f64)(begin, end, dim, active, first_active, h, h_stride, out, out_stride);
}

}  // namespace seqboat::kernels
#endif  // HWY_ONCE
