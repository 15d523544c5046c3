#include "seqboat/kernels/gated_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gated_rows.cc"
// clang-format off
#include "hwy/foreach_target.h"  // must come before highway.h
// clang-format on
#include "hwy/highway.h"
#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/vector_loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace {

// Rows that share a load of what belongs to the columns. Few, and side by side: a walk down all rows of one column would meet only a handful of the
// cache's sets where the stride is a power of two.
constexpr int64_t kRowsAtOnce = 4;

template <class T>
void qk_affine_fwd(int64_t rows, int64_t d_attn, const T* z, int64_t z_stride, const T* gamma, const T* beta, T* q, int64_t q_stride, T* k,
                   int64_t k_stride) {
  const hn::ScalableTag<T> d;
  for (int64_t begin = 0; begin < rows; begin += kRowsAtOnce) {
    const int64_t end = HWY_MIN(rows, begin + kRowsAtOnce);
    for_each_vector(d, d_attn, [&](int64_t j, auto io) HWY_ATTR {
      const auto g0 = io.load(d, gamma + j), g1 = io.load(d, gamma + d_attn + j);
      const auto b0 = io.load(d, beta + j), b1 = io.load(d, beta + d_attn + j);
      for (int64_t i = begin; i < end; ++i) {
        const auto v = io.load(d, z + i * z_stride + j);
        io.store(d, hn::Add(hn::Mul(v, g0), b0), q + i * q_stride + j);
        io.store(d, hn::Add(hn::Mul(v, g1), b1), k + i * k_stride + j);
      }
    });
  }
}

template <class T>
void qk_affine_bwd(int64_t rows, int64_t d_attn, const T* z, int64_t z_stride, const T* gamma, const T* dq, int64_t dq_stride, const T* dk,
                   int64_t dk_stride, T* dz, int64_t dz_stride, T* dgamma, T* dbeta) {
  const hn::ScalableTag<T> d;
  for (int64_t begin = 0; begin < rows; begin += kRowsAtOnce) {
    const int64_t end = HWY_MIN(rows, begin + kRowsAtOnce);
    for_each_vector(d, d_attn, [&](int64_t j, auto io) HWY_ATTR {
      const auto g0 = io.load(d, gamma + j), g1 = io.load(d, gamma + d_attn + j);
      auto dg0 = io.load(d, dgamma + j), dg1 = io.load(d, dgamma + d_attn + j);
      auto db0 = io.load(d, dbeta + j), db1 = io.load(d, dbeta + d_attn + j);
      for (int64_t i = begin; i < end; ++i) {
        const auto v = io.load(d, z + i * z_stride + j);
        const auto q = io.load(d, dq + i * dq_stride + j), k = io.load(d, dk + i * dk_stride + j);
        io.store(d, hn::Add(hn::Mul(q, g0), hn::Mul(k, g1)), dz + i * dz_stride + j);
        dg0 = hn::Add(dg0, hn::Mul(q, v));
        dg1 = hn::Add(dg1, hn::Mul(k, v));
        db0 = hn::Add(db0, q);
        db1 = hn::Add(db1, k);
      }
      io.store(d, dg0, dgamma + j);
      io.store(d, dg1, dgamma + d_attn + j);
      io.store(d, db0, dbeta + j);
      io.store(d, db1, dbeta + d_attn + j);
    });
  }
}

template <class T>
void gate_fwd(int64_t rows, int64_t d_hidden, const T* a, int64_t a_stride, const T* r, int64_t r_stride, T* out, int64_t out_stride) {
  const hn::ScalableTag<T> d;
  for (int64_t i = 0; i < rows; ++i) {
    for_each_vector(d, d_hidden, [&](int64_t j, auto io) HWY_ATTR {
      io.store(d, hn::Mul(io.load(d, a + i * a_stride + j), io.load(d, r + i * r_stride + j)), out + i * out_stride + j);
    });
  }
}

template <class T>
void gate_bwd(int64_t rows, int64_t d_hidden, const T* dout, int64_t dout_stride, const T* a, int64_t a_stride, const T* r, int64_t r_stride, T* da,
              int64_t da_stride, T* dr, int64_t dr_stride) {
  const hn::ScalableTag<T> d;
  for (int64_t i = 0; i < rows; ++i) {
    for_each_vector(d, d_hidden, [&](int64_t j, auto io) HWY_ATTR {
      const auto g = io.load(d, dout + i * dout_stride + j);
      const auto av = io.load(d, a + i * a_stride + j), rv = io.load(d, r + i * r_stride + j);
      io.store(d, hn::Mul(g, rv), da + i * da_stride + j);
      io.store(d, hn::Mul(g, av), dr + i * dr_stride + j);
    });
  }
}

// One token's row of branch_sum_fwd. An inactive token adds its zero: that makes +0 of a -0, as the sum of whole tensors does.
enum class Branch { kNone, kWhole, kWeighted };

template <Branch kBranch, class T>
struct BranchSumRow {
  const T* h;
  T confidence;
  const T* skip;
  const T* x;
  T* pre;
  T* y;
  template <class Io>
  HWY_INLINE void operator()(int64_t j, Io io) const {
    const hn::ScalableTag<T> d;
    hn::Vec<decltype(d)> sum[Io::kCount], branch[Io::kCount], residual[Io::kCount];
    io.load(d, skip + j, sum);
    if constexpr (kBranch != Branch::kNone) io.load(d, h + j, branch);
    io.load(d, x + j, residual);
    for (int n = 0; n < Io::kCount; ++n) {
      if constexpr (kBranch == Branch::kNone) branch[n] = hn::Zero(d);
      if constexpr (kBranch == Branch::kWeighted) branch[n] = hn::Mul(branch[n], hn::Set(d, confidence));
      sum[n] = hn::Add(hn::Add(sum[n], branch[n]), residual[n]);
    }
    if (pre != nullptr) io.store(d, sum, pre + j);
    vector_silu(d, sum, branch);
    io.store(d, branch, y + j);
  }
};

template <class T>
void branch_sum_fwd(int64_t begin, int64_t end, int64_t dim, const uint8_t* active, int64_t first_active, const T* h, int64_t h_stride, const T* p,
                    const T* skip, int64_t skip_stride, const T* x, int64_t x_stride, T* pre, int64_t pre_stride, T* y, int64_t y_stride) {
  const hn::ScalableTag<T> d;
  const T* next = h + first_active * h_stride;
  for (int64_t t = begin; t < end; ++t) {
    const T* skip_row = skip + t * skip_stride;
    const T* x_row = x + t * x_stride;
    T* pre_row = pre == nullptr ? nullptr : pre + t * pre_stride;
    T* y_row = y + t * y_stride;
    if (active != nullptr && active[t] == 0) {
      for_each_vector_array(d, dim, BranchSumRow<Branch::kNone, T>{nullptr, T{0}, skip_row, x_row, pre_row, y_row});
      continue;
    }
    if (p != nullptr) {
      for_each_vector_array(d, dim, BranchSumRow<Branch::kWeighted, T>{next, p[t], skip_row, x_row, pre_row, y_row});
    } else {
      for_each_vector_array(d, dim, BranchSumRow<Branch::kWhole, T>{next, T{0}, skip_row, x_row, pre_row, y_row});
    }
    next += h_stride;
  }
}

// The first lane of a vector whose upper half joins its lower half until one lane is left.
template <class D, class V>
HWY_INLINE hn::TFromD<D> join_halves(D, V v) {
#if HWY_TARGET != HWY_SCALAR
  if constexpr (hn::MaxLanes(D()) > 1) {
    const hn::Half<D> half;
    return join_halves(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
#endif
  return hn::GetLane(v);
}

template <class T>
void row_dots(int64_t rows, int64_t dim, const T* a, int64_t a_stride, const T* b, int64_t b_stride, T* out) {
  constexpr int64_t kSums = 16;
  const hn::CappedTag<T, kSums> d;
  constexpr int64_t kWidth = static_cast<int64_t>(hn::MaxLanes(decltype(d)()));
  constexpr int64_t kVectors = kSums / kWidth;
  for (int64_t i = 0; i < rows; ++i) {
    const T* from_a = a + i * a_stride;
    const T* from_b = b + i * b_stride;
    hn::Vec<decltype(d)> sums[kVectors];
    for (auto& sum : sums) sum = hn::Zero(d);
    int64_t j = 0;
    for (; j + kSums <= dim; j += kSums) {
      for (int64_t n = 0; n < kVectors; ++n) {
        sums[n] = hn::Add(sums[n], hn::Mul(hn::LoadU(d, from_a + j + n * kWidth), hn::LoadU(d, from_b + j + n * kWidth)));
      }
    }
    for (int64_t n = 0; n < kVectors && j < dim; ++n, j += kWidth) {
      const PartialVector io{static_cast<size_t>(HWY_MIN(kWidth, dim - j))};
      sums[n] = hn::Add(sums[n], hn::Mul(io.load(d, from_a + j), io.load(d, from_b + j)));
    }
    for (int64_t half = kVectors / 2; half > 0; half /= 2) {
      for (int64_t n = 0; n < half; ++n) sums[n] = hn::Add(sums[n], sums[n + half]);
    }
    out[i] = join_halves(d, sums[0]);
  }
}

template <class T>
void scale_rows(int64_t rows, int64_t dim, const T* p, const T* x, int64_t x_stride, T* y, int64_t y_stride) {
  const hn::ScalableTag<T> d;
  for (int64_t i = 0; i < rows; ++i) {
    const auto factor = hn::Set(d, p[i]);
    for_each_vector(d, dim,
                    [&](int64_t j, auto io) HWY_ATTR { io.store(d, hn::Mul(factor, io.load(d, x + i * x_stride + j)), y + i * y_stride + j); });
  }
}

template <class T>
void scatter_add_rows(int64_t rows, int64_t dim, const int64_t* index, const T* h, int64_t h_stride, T* y, int64_t y_stride) {
  const hn::ScalableTag<T> d;
  for (int64_t i = 0; i < rows; ++i) {
    T* to = y + index[i] * y_stride;
    for_each_vector(d, dim, [&](int64_t j, auto io) HWY_ATTR { io.store(d, hn::Add(io.load(d, to + j), io.load(d, h + i * h_stride + j)), to + j); });
  }
}

template <class T>
void add_rows(int64_t rows, int64_t dim, const T* x, int64_t x_stride, T* y, int64_t y_stride) {
  const hn::ScalableTag<T> d;
  for (int64_t i = 0; i < rows; ++i) {
    const T* from = x + i * x_stride;
    T* to = y + i * y_stride;
    for_each_vector(d, dim, [&](int64_t j, auto io) HWY_ATTR { io.store(d, hn::Add(io.load(d, to + j), io.load(d, from + j)), to + j); });
  }
}

template <class T>
struct UpdateForwardRow {
  const T* u;
  const T* h;
  const T* x;
  T* y;
  template <class Io>
  HWY_INLINE void operator()(int64_t j, Io io) const {
    const hn::ScalableTag<T> d;
    hn::Vec<decltype(d)> gate[Io::kCount], proposed[Io::kCount], old[Io::kCount];
    io.load(d, u + j, old);
    vector_sigmoid(d, old, gate);
    io.load(d, h + j, proposed);
    io.load(d, x + j, old);
    for (int n = 0; n < Io::kCount; ++n) proposed[n] = hn::Add(old[n], hn::Mul(gate[n], hn::Sub(proposed[n], old[n])));
    io.store(d, proposed, y + j);
  }
};

template <class T>
void update_fwd(int64_t rows, int64_t dim, const T* u, int64_t u_stride, const T* h, int64_t h_stride, const T* x, int64_t x_stride, T* y,
                int64_t y_stride) {
  const hn::ScalableTag<T> d;
  for (int64_t i = 0; i < rows; ++i)
    for_each_vector_array(d, dim, UpdateForwardRow<T>{u + i * u_stride, h + i * h_stride, x + i * x_stride, y + i * y_stride});
}

template <class T>
struct UpdateBackwardRow {
  const T* u;
  const T* h;
  const T* x;
  const T* dy;
  T* du;
  T* dh;
  T* dx;
  template <class Io>
  HWY_INLINE void operator()(int64_t j, Io io) const {
    const hn::ScalableTag<T> d;
    const auto one = hn::Set(d, T{1});
    hn::Vec<decltype(d)> gate[Io::kCount], grad[Io::kCount], change[Io::kCount], old[Io::kCount];
    io.load(d, u + j, old);
    vector_sigmoid(d, old, gate);
    io.load(d, dy + j, grad);
    io.load(d, h + j, change);
    io.load(d, x + j, old);
    for (int n = 0; n < Io::kCount; ++n) {
      change[n] = hn::Mul(hn::Mul(grad[n], hn::Sub(change[n], old[n])), hn::Mul(gate[n], hn::Sub(one, gate[n])));
      gate[n] = hn::Mul(grad[n], gate[n]);
      grad[n] = hn::Sub(grad[n], gate[n]);
    }
    io.store(d, change, du + j);
    io.store(d, gate, dh + j);
    io.store(d, grad, dx + j);
  }
};

template <class T>
void update_bwd(int64_t rows, int64_t dim, const T* u, int64_t u_stride, const T* h, int64_t h_stride, const T* x, int64_t x_stride, const T* dy,
                int64_t dy_stride, T* du, int64_t du_stride, T* dh, int64_t dh_stride, T* dx, int64_t dx_stride) {
  const hn::ScalableTag<T> d;
  for (int64_t i = 0; i < rows; ++i) {
    for_each_vector_array(d, dim,
                          UpdateBackwardRow<T>{u + i * u_stride, h + i * h_stride, x + i * x_stride, dy + i * dy_stride, du + i * du_stride,
                                               dh + i * dh_stride, dx + i * dx_stride});
  }
}

// Dispatch tables hold functions, not templates: one name for each type.
constexpr auto& qk_affine_fwd_f32 = qk_affine_fwd<float>;
constexpr auto& qk_affine_fwd_f64 = qk_affine_fwd<double>;
constexpr auto& qk_affine_bwd_f32 = qk_affine_bwd<float>;
constexpr auto& qk_affine_bwd_f64 = qk_affine_bwd<double>;
constexpr auto& gate_fwd_f32 = gate_fwd<float>;
constexpr auto& gate_fwd_f64 = gate_fwd<double>;
constexpr auto& gate_bwd_f32 = gate_bwd<float>;
constexpr auto& gate_bwd_f64 = gate_bwd<double>;
constexpr auto& branch_sum_fwd_f32 = branch_sum_fwd<float>;
constexpr auto& branch_sum_fwd_f64 = branch_sum_fwd<double>;
constexpr auto& row_dots_f32 = row_dots<float>;
constexpr auto& row_dots_f64 = row_dots<double>;
constexpr auto& scale_rows_f32 = scale_rows<float>;
constexpr auto& scale_rows_f64 = scale_rows<double>;
constexpr auto& scatter_add_rows_f32 = scatter_add_rows<float>;
constexpr auto& scatter_add_rows_f64 = scatter_add_rows<double>;
constexpr auto& add_rows_f32 = add_rows<float>;
constexpr auto& add_rows_f64 = add_rows<double>;
constexpr auto& update_fwd_f32 = update_fwd<float>;
constexpr auto& update_fwd_f64 = update_fwd<double>;
constexpr auto& update_bwd_f32 = update_bwd<float>;
constexpr auto& update_bwd_f64 = update_bwd<double>;

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqboat::kernels {

HWY_EXPORT(qk_affine_fwd_f32);
HWY_EXPORT(qk_affine_fwd_f64);
HWY_EXPORT(qk_affine_bwd_f32);
HWY_EXPORT(qk_affine_bwd_f64);
HWY_EXPORT(gate_fwd_f32);
HWY_EXPORT(gate_fwd_f64);
HWY_EXPORT(gate_bwd_f32);
HWY_EXPORT(gate_bwd_f64);
HWY_EXPORT(branch_sum_fwd_f32);
HWY_EXPORT(branch_sum_fwd_f64);
HWY_EXPORT(row_dots_f32);
HWY_EXPORT(row_dots_f64);
HWY_EXPORT(scale_rows_f32);
HWY_EXPORT(scale_rows_f64);
HWY_EXPORT(scatter_add_rows_f32);
HWY_EXPORT(scatter_add_rows_f64);
HWY_EXPORT(add_rows_f32);
HWY_EXPORT(add_rows_f64);
HWY_EXPORT(update_fwd_f32);
HWY_EXPORT(update_fwd_f64);
HWY_EXPORT(update_bwd_f32);
HWY_EXPORT(update_bwd_f64);

template <>
void qk_affine_fwd<float>(int64_t rows, int64_t d_attn, const float* z, int64_t z_stride, const float* gamma, const float* beta, float* q,
                          int64_t q_stride, float* k, int64_t k_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(qk_affine_fwd_f32)(rows, d_attn, z, z_stride, gamma, beta, q, q_stride, k, k_stride);
}
template <>
void qk_affine_fwd<double>(int64_t rows, int64_t d_attn, const double* z, int64_t z_stride, const double* gamma, const double* beta, double* q,
                           int64_t q_stride, double* k, int64_t k_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(qk_affine_fwd_f64)(rows, d_attn, z, z_stride, gamma, beta, q, q_stride, k, k_stride);
}

template <>
void qk_affine_bwd<float>(int64_t rows, int64_t d_attn, const float* z, int64_t z_stride, const float* gamma, const float* dq, int64_t dq_stride,
                          const float* dk, int64_t dk_stride, float* dz, int64_t dz_stride, float* dgamma, float* dbeta) noexcept {
  HWY_DYNAMIC_DISPATCH(qk_affine_bwd_f32)(rows, d_attn, z, z_stride, gamma, dq, dq_stride, dk, dk_stride, dz, dz_stride, dgamma, dbeta);
}
template <>
void qk_affine_bwd<double>(int64_t rows, int64_t d_attn, const double* z, int64_t z_stride, const double* gamma, const double* dq, int64_t dq_stride,
                           const double* dk, int64_t dk_stride, double* dz, int64_t dz_stride, double* dgamma, double* dbeta) noexcept {
  HWY_DYNAMIC_DISPATCH(qk_affine_bwd_f64)(rows, d_attn, z, z_stride, gamma, dq, dq_stride, dk, dk_stride, dz, dz_stride, dgamma, dbeta);
}

template <>
void gate_fwd<float>(int64_t rows, int64_t d_hidden, const float* a, int64_t a_stride, const float* r, int64_t r_stride, float* out,
                     int64_t out_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(gate_fwd_f32)(rows, d_hidden, a, a_stride, r, r_stride, out, out_stride);
}
template <>
void gate_fwd<double>(int64_t rows, int64_t d_hidden, const double* a, int64_t a_stride, const double* r, int64_t r_stride, double* out,
                      int64_t out_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(gate_fwd_f64)(rows, d_hidden, a, a_stride, r, r_stride, out, out_stride);
}

template <>
void gate_bwd<float>(int64_t rows, int64_t d_hidden, const float* dout, int64_t dout_stride, const float* a, int64_t a_stride, const float* r,
                     int64_t r_stride, float* da, int64_t da_stride, float* dr, int64_t dr_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(gate_bwd_f32)(rows, d_hidden, dout, dout_stride, a, a_stride, r, r_stride, da, da_stride, dr, dr_stride);
}
template <>
void gate_bwd<double>(int64_t rows, int64_t d_hidden, const double* dout, int64_t dout_stride, const double* a, int64_t a_stride, const double* r,
                      int64_t r_stride, double* da, int64_t da_stride, double* dr, int64_t dr_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(gate_bwd_f64)(rows, d_hidden, dout, dout_stride, a, a_stride, r, r_stride, da, da_stride, dr, dr_stride);
}

template <>
void branch_sum_fwd<float>(int64_t begin, int64_t end, int64_t dim, const uint8_t* active, int64_t first_active, const float* h, int64_t h_stride,
                           const float* p, const float* skip, int64_t skip_stride, const float* x, int64_t x_stride, float* pre, int64_t pre_stride,
                           float* y, int64_t y_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(branch_sum_fwd_f32)
  (begin, end, dim, active, first_active, h, h_stride, p, skip, skip_stride, x, x_stride, pre, pre_stride, y, y_stride);
}
template <>
void branch_sum_fwd<double>(int64_t begin, int64_t end, int64_t dim, const uint8_t* active, int64_t first_active, const double* h, int64_t h_stride,
                            const double* p, const double* skip, int64_t skip_stride, const double* x, int64_t x_stride, double* pre,
                            int64_t pre_stride, double* y, int64_t y_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(branch_sum_fwd_f64)
  (begin, end, dim, active, first_active, h, h_stride, p, skip, skip_stride, x, x_stride, pre, pre_stride, y, y_stride);
}

template <>
void row_dots<float>(int64_t rows, int64_t dim, const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* out) noexcept {
  HWY_DYNAMIC_DISPATCH(row_dots_f32)(rows, dim, a, a_stride, b, b_stride, out);
}
template <>
void row_dots<double>(int64_t rows, int64_t dim, const double* a, int64_t a_stride, const double* b, int64_t b_stride, double* out) noexcept {
  HWY_DYNAMIC_DISPATCH(row_dots_f64)(rows, dim, a, a_stride, b, b_stride, out);
}

template <>
void scale_rows<float>(int64_t rows, int64_t dim, const float* p, const float* x, int64_t x_stride, float* y, int64_t y_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(scale_rows_f32)(rows, dim, p, x, x_stride, y, y_stride);
}
template <>
void scale_rows<double>(int64_t rows, int64_t dim, const double* p, const double* x, int64_t x_stride, double* y, int64_t y_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(scale_rows_f64)(rows, dim, p, x, x_stride, y, y_stride);
}

template <>
void scatter_add_rows<float>(int64_t rows, int64_t dim, const int64_t* index, const float* h, int64_t h_stride, float* y, int64_t y_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(scatter_add_rows_f32)(rows, dim, index, h, h_stride, y, y_stride);
}
template <>
void scatter_add_rows<double>(int64_t rows, int64_t dim, const int64_t* index, const double* h, int64_t h_stride, double* y,
                              int64_t y_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(scatter_add_rows_f64)(rows, dim, index, h, h_stride, y, y_stride);
}

template <>
void add_rows<float>(int64_t rows, int64_t dim, const float* x, int64_t x_stride, float* y, int64_t y_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(add_rows_f32)(rows, dim, x, x_stride, y, y_stride);
}
template <>
void add_rows<double>(int64_t rows, int64_t dim, const double* x, int64_t x_stride, double* y, int64_t y_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(add_rows_f64)(rows, dim, x, x_stride, y, y_stride);
}

template <>
void update_fwd<float>(int64_t rows, int64_t dim, const float* u, int64_t u_stride, const float* h, int64_t h_stride, const float* x,
                       int64_t x_stride, float* y, int64_t y_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(update_fwd_f32)(rows, dim, u, u_stride, h, h_stride, x, x_stride, y, y_stride);
}
template <>
void update_fwd<double>(int64_t rows, int64_t dim, const double* u, int64_t u_stride, const double* h, int64_t h_stride, const double* x,
                        int64_t x_stride, double* y, int64_t y_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(update_fwd_f64)(rows, dim, u, u_stride, h, h_stride, x, x_stride, y, y_stride);
}

template <>
void update_bwd<float>(int64_t rows, int64_t dim, const float* u, int64_t u_stride, const float* h, int64_t h_stride, const float* x,
                       int64_t x_stride, const float* dy, int64_t dy_stride, float* du, int64_t du_stride, float* dh, int64_t dh_stride, float* dx,
                       int64_t dx_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(update_bwd_f32)(rows, dim, u, u_stride, h, h_stride, x, x_stride, dy, dy_stride, du, du_stride, dh, dh_stride, dx, dx_stride);
}
template <>
void update_bwd<double>(int64_t rows, int64_t dim, const double* u, int64_t u_stride, const double* h, int64_t h_stride, const double* x,
                        int64_t x_stride, const double* dy, int64_t dy_stride, double* du, int64_t du_stride, double* dh, int64_t dh_stride,
                        double* dx, int64_t dx_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(update_bwd_f64)(rows, dim, u, u_stride, h, h_stride, x, x_stride, dy, dy_stride, du, du_stride, dh, dh_stride, dx, dx_stride);
}

}  // namespace seqboat::kernels
#endif  // HWY_ONCE
