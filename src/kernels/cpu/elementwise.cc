#include "seqboat/kernels/elementwise.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/elementwise.cc"
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

// Each function gives f(x) and f'(x) for a vector.

struct Sigmoid {
  template <class D, class V>
  static HWY_INLINE V value(D d, V x) {
    return vector_sigmoid(d, x);
  }
  template <class D, class V>
  static HWY_INLINE V slope(D d, V x) {
    const V s = vector_sigmoid(d, x);
    return hn::Mul(s, hn::Sub(hn::Set(d, hn::TFromD<D>{1}), s));
  }
};

// (1 + erf(z)) / 2
template <class D, class V>
HWY_INLINE V half_one_plus_erf(D d, V z) {
  const V half = hn::Set(d, static_cast<hn::TFromD<D>>(0.5));
  return hn::MulAdd(half, vector_erf(d, z), half);
}

struct Gelu {
  template <class D, class V>
  static HWY_INLINE V distribution(D d, V x) {
    return half_one_plus_erf(d, hn::Mul(x, hn::Set(d, static_cast<hn::TFromD<D>>(0.70710678118654752440))));
  }
  template <class D, class V>
  static HWY_INLINE V value(D d, V x) {
    return hn::Mul(x, distribution(d, x));
  }
  template <class D, class V>
  static HWY_INLINE V slope(D d, V x) {  // Phi(x) + x exp(-x^2/2) / sqrt(2 pi)
    using T = hn::TFromD<D>;
    const V exponential = vector_exp(d, hn::Mul(hn::Mul(x, x), hn::Set(d, static_cast<T>(-0.5))));
    const V density = hn::Mul(exponential, hn::Set(d, static_cast<T>(0.39894228040143267794)));
    return hn::MulAdd(x, density, distribution(d, x));
  }
};

struct Relu2 {
  // max(x, 0), but a NaN stays one.
  template <class D, class V>
  static HWY_INLINE V relu(D d, V x) {
    return hn::IfThenZeroElse(hn::Lt(x, hn::Zero(d)), x);
  }
  template <class D, class V>
  static HWY_INLINE V value(D d, V x) {
    const V r = relu(d, x);
    return hn::Mul(r, r);
  }
  template <class D, class V>
  static HWY_INLINE V slope(D d, V x) {
    const V r = relu(d, x);
    return hn::Add(r, r);
  }
};

struct Laplace {
  static constexpr double kMean = 0.707107;
  static constexpr double kScale = 1 / (0.282095 * 1.4142135623730950488);  // 1 / (deviation sqrt 2)
  template <class D, class V>
  static HWY_INLINE V standardised(D d, V x) {
    using T = hn::TFromD<D>;
    return hn::Mul(hn::Sub(x, hn::Set(d, static_cast<T>(kMean))), hn::Set(d, static_cast<T>(kScale)));
  }
  template <class D, class V>
  static HWY_INLINE V value(D d, V x) {
    return half_one_plus_erf(d, standardised(d, x));
  }
  template <class D, class V>
  static HWY_INLINE V slope(D d, V x) {  // exp(-z^2) / sqrt(pi) dz/dx
    const V z = standardised(d, x);
    const V exponential = vector_exp(d, hn::Neg(hn::Mul(z, z)));
    return hn::Mul(exponential, hn::Set(d, static_cast<hn::TFromD<D>>(kScale * 0.56418958354775628695)));
  }
};

template <class F, class T>
void apply(int64_t count, const T* x, T* y) {
  const hn::ScalableTag<T> d;
  for_each_vector(d, count, [&](int64_t i, auto io) HWY_ATTR { io.store(d, F::value(d, io.load(d, x + i)), y + i); });
}

template <class F, class T>
void apply_slope(int64_t count, const T* x, const T* dy, T* dx) {
  const hn::ScalableTag<T> d;
  for_each_vector(d, count, [&](int64_t i, auto io) HWY_ATTR { io.store(d, hn::Mul(F::slope(d, io.load(d, x + i)), io.load(d, dy + i)), dx + i); });
}

template <class T>
struct SiluForward {
  const T* x;
  T* y;
  template <class Io>
  HWY_INLINE void operator()(int64_t i, Io io) const {
    const hn::ScalableTag<T> d;
    hn::Vec<decltype(d)> v[Io::kCount], value[Io::kCount];
    io.load(d, x + i, v);
    vector_silu(d, v, value);
    io.store(d, value, y + i);
  }
};

template <class T>
struct SiluBackward {
  const T* x;
  const T* dy;
  T* dx;
  template <class Io>
  HWY_INLINE void operator()(int64_t i, Io io) const {
    const hn::ScalableTag<T> d;
    hn::Vec<decltype(d)> v[Io::kCount], slope[Io::kCount];
    io.load(d, x + i, v);
    vector_silu_slope(d, v, slope);
    io.load(d, dy + i, v);
    for (int n = 0; n < Io::kCount; ++n) v[n] = hn::Mul(slope[n], v[n]);
    io.store(d, v, dx + i);
  }
};

template <class T>
void activation_fwd(Activation f, int64_t count, const T* x, T* y) {
  switch (f) {
    case Activation::kSilu:
      return for_each_vector_array(hn::ScalableTag<T>(), count, SiluForward<T>{x, y});
    case Activation::kGelu:
      return apply<Gelu>(count, x, y);
    case Activation::kRelu2:
      return apply<Relu2>(count, x, y);
    case Activation::kLaplace:
      return apply<Laplace>(count, x, y);
    case Activation::kSigmoid:
      return apply<Sigmoid>(count, x, y);
  }
}

template <class T>
void activation_bwd(Activation f, int64_t count, const T* x, const T* dy, T* dx) {
  switch (f) {
    case Activation::kSilu:
      return for_each_vector_array(hn::ScalableTag<T>(), count, SiluBackward<T>{x, dy, dx});
    case Activation::kGelu:
      return apply_slope<Gelu>(count, x, dy, dx);
    case Activation::kRelu2:
      return apply_slope<Relu2>(count, x, dy, dx);
    case Activation::kLaplace:
      return apply_slope<Laplace>(count, x, dy, dx);
    case Activation::kSigmoid:
      return apply_slope<Sigmoid>(count, x, dy, dx);
  }
}

template <class T>
void activation_rows_fwd(Activation f, int64_t rows, int64_t dim, const T* x, int64_t x_stride, T* y, int64_t y_stride) {
  for (int64_t i = 0; i < rows; ++i) HWY_NAMESPACE::activation_fwd(f, dim, x + i * x_stride, y + i * y_stride);
}

template <class T>
void activation_rows_bwd(Activation f, int64_t rows, int64_t dim, const T* x, int64_t x_stride, const T* dy, int64_t dy_stride, T* dx,
                         int64_t dx_stride) {
  for (int64_t i = 0; i < rows; ++i) HWY_NAMESPACE::activation_bwd(f, dim, x + i * x_stride, dy + i * dy_stride, dx + i * dx_stride);
}

template <class T>
void column_sum(int64_t rows, int64_t dim, int64_t stride, int64_t column_begin, int64_t column_end, const T* x, T* out) {
  static_cast<void>(dim);
  const hn::ScalableTag<T> d;
  const int64_t width = static_cast<int64_t>(hn::Lanes(d));
  for_each_four_vectors(d, column_begin, column_end, [&](int64_t j0, auto io) HWY_ATTR {
    const int64_t j1 = j0 + width, j2 = j1 + width, j3 = j2 + width;
    sum_rows(
        d, rows,
        [&](int64_t row, auto& a0, auto& a1, auto& a2, auto& a3) HWY_ATTR {
          const T* from = x + row * stride;
          a0 = hn::Add(a0, io.template load<0>(d, from + j0));
          a1 = hn::Add(a1, io.template load<1>(d, from + j1));
          a2 = hn::Add(a2, io.template load<2>(d, from + j2));
          a3 = hn::Add(a3, io.template load<3>(d, from + j3));
        },
        [&](auto s0, auto s1, auto s2, auto s3) HWY_ATTR {
          io.template store<0>(d, s0, out + j0);
          io.template store<1>(d, s1, out + j1);
          io.template store<2>(d, s2, out + j2);
          io.template store<3>(d, s3, out + j3);
        });
  });
}

// A vector of doubles from elements of either type.
template <class DD, class DT, class Io>
HWY_INLINE hn::VFromD<DD> load_as_double(DD dd, DT dt, Io io, const float* p) {
  return hn::PromoteTo(dd, io.load(dt, p));
}
template <class DD, class DT, class Io>
HWY_INLINE hn::VFromD<DD> load_as_double(DD dd, DT, Io io, const double* p) {
  return io.load(dd, p);
}

// Element i joins lane i mod 32, and the lanes join in a fixed tree: the order does not know how wide the vectors are.
template <class T>
double sum_of_squares(int64_t count, const T* x) {
  constexpr int64_t kLanes = 32;
  const hn::CappedTag<double, 8> dd;
  const hn::Rebind<T, decltype(dd)> dt;
  const int64_t width = static_cast<int64_t>(hn::Lanes(dd));
  HWY_ALIGN double lanes[kLanes] = {};
  // Four accumulators go down all of x before the next four: with narrow vectors that is several passes over the cache lines at hand, so x is
  // taken in pieces that stay in the first-level cache.
  constexpr int64_t kPiece = 1024;
  for (int64_t begin = 0; begin < count; begin += kPiece) {
    const int64_t end = HWY_MIN(count, begin + kPiece);
    const int64_t whole = begin + (end - begin) / kLanes * kLanes;
    for (int64_t lane = 0; lane < kLanes; lane += 4 * width) {
      const auto load = [&](int64_t i) HWY_ATTR { return load_as_double(dd, dt, WholeVector(), x + i); };
      double* sums = lanes + lane;
      // kLanes is a multiple of 4 * width for every width up to 8.
      auto s0 = hn::LoadU(dd, sums), s1 = hn::LoadU(dd, sums + width), s2 = hn::LoadU(dd, sums + 2 * width), s3 = hn::LoadU(dd, sums + 3 * width);
      for (int64_t i = begin + lane; i < whole; i += kLanes) {
        const auto x0 = load(i), x1 = load(i + width), x2 = load(i + 2 * width), x3 = load(i + 3 * width);
        s0 = hn::MulAdd(x0, x0, s0);
        s1 = hn::MulAdd(x1, x1, s1);
        s2 = hn::MulAdd(x2, x2, s2);
        s3 = hn::MulAdd(x3, x3, s3);
      }
      hn::StoreU(s0, dd, sums);
      hn::StoreU(s1, dd, sums + width);
      hn::StoreU(s2, dd, sums + 2 * width);
      hn::StoreU(s3, dd, sums + 3 * width);
    }
    // Only the last piece has elements left over.
    for (int64_t i = whole; i < end; i += width) {
      double* sums = lanes + (i - whole);
      const auto xi = load_as_double(dd, dt, PartialVector{static_cast<size_t>(HWY_MIN(width, end - i))}, x + i);
      hn::StoreU(hn::MulAdd(xi, xi, hn::LoadU(dd, sums)), dd, sums);
    }
  }
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

template <class T>
void segment_sum(int64_t seq_begin, int64_t seq_end, const int64_t* cu_seqlens, int64_t dim, const T* scale, const T* x, T* y) {
  const hn::ScalableTag<T> d;
  const int64_t width = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t b = seq_begin; b < seq_end; ++b) {
    const auto factor = hn::Set(d, scale[b]);
    for_each_four_vectors(d, 0, dim, [&](int64_t j0, auto io) HWY_ATTR {
      const int64_t j1 = j0 + width, j2 = j1 + width, j3 = j2 + width;
      auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
      for (int64_t t = cu_seqlens[b]; t < cu_seqlens[b + 1]; ++t) {
        const T* from = x + t * dim;
        s0 = hn::Add(s0, io.template load<0>(d, from + j0));
        s1 = hn::Add(s1, io.template load<1>(d, from + j1));
        s2 = hn::Add(s2, io.template load<2>(d, from + j2));
        s3 = hn::Add(s3, io.template load<3>(d, from + j3));
      }
      T* to = y + b * dim;
      io.template store<0>(d, hn::Mul(factor, s0), to + j0);
      io.template store<1>(d, hn::Mul(factor, s1), to + j1);
      io.template store<2>(d, hn::Mul(factor, s2), to + j2);
      io.template store<3>(d, hn::Mul(factor, s3), to + j3);
    });
  }
}

// Dispatch tables hold functions, not templates: one name for each type.
constexpr auto& activation_fwd_f32 = activation_fwd<float>;
constexpr auto& activation_fwd_f64 = activation_fwd<double>;
constexpr auto& activation_bwd_f32 = activation_bwd<float>;
constexpr auto& activation_bwd_f64 = activation_bwd<double>;
constexpr auto& activation_rows_fwd_f32 = activation_rows_fwd<float>;
constexpr auto& activation_rows_fwd_f64 = activation_rows_fwd<double>;
constexpr auto& activation_rows_bwd_f32 = activation_rows_bwd<float>;
constexpr auto& activation_rows_bwd_f64 = activation_rows_bwd<double>;
constexpr auto& column_sum_f32 = column_sum<float>;
constexpr auto& column_sum_f64 = column_sum<double>;
constexpr auto& sum_of_squares_f32 = sum_of_squares<float>;
constexpr auto& sum_of_squares_f64 = sum_of_squares<double>;
constexpr auto& segment_sum_f32 = segment_sum<float>;
constexpr auto& segment_sum_f64 = segment_sum<double>;

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqboat::kernels {

HWY_EXPORT(activation_fwd_f32);
HWY_EXPORT(activation_fwd_f64);
HWY_EXPORT(activation_bwd_f32);
HWY_EXPORT(activation_bwd_f64);
HWY_EXPORT(activation_rows_fwd_f32);
HWY_EXPORT(activation_rows_fwd_f64);
HWY_EXPORT(activation_rows_bwd_f32);
HWY_EXPORT(activation_rows_bwd_f64);
HWY_EXPORT(column_sum_f32);
HWY_EXPORT(column_sum_f64);
HWY_EXPORT(sum_of_squares_f32);
HWY_EXPORT(sum_of_squares_f64);
HWY_EXPORT(segment_sum_f32);
HWY_EXPORT(segment_sum_f64);

template <>
void activation_fwd<float>(Activation f, int64_t count, const float* x, float* y) noexcept {
  HWY_DYNAMIC_DISPATCH(activation_fwd_f32)(f, count, x, y);
}
template <>
void activation_fwd<double>(Activation f, int64_t count, const double* x, double* y) noexcept {
  HWY_DYNAMIC_DISPATCH(activation_fwd_f64)(f, count, x, y);
}

template <>
void activation_bwd<float>(Activation f, int64_t count, const float* x, const float* dy, float* dx) noexcept {
  HWY_DYNAMIC_DISPATCH(activation_bwd_f32)(f, count, x, dy, dx);
}
template <>
void activation_bwd<double>(Activation f, int64_t count, const double* x, const double* dy, double* dx) noexcept {
  HWY_DYNAMIC_DISPATCH(activation_bwd_f64)(f, count, x, dy, dx);
}

template <>
void activation_rows_fwd<float>(Activation f, int64_t rows, int64_t dim, const float* x, int64_t x_stride, float* y, int64_t y_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(activation_rows_fwd_f32)(f, rows, dim, x, x_stride, y, y_stride);
}
template <>
void activation_rows_fwd<double>(Activation f, int64_t rows, int64_t dim, const double* x, int64_t x_stride, double* y, int64_t y_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(activation_rows_fwd_f64)(f, rows, dim, x, x_stride, y, y_stride);
}

template <>
void activation_rows_bwd<float>(Activation f, int64_t rows, int64_t dim, const float* x, int64_t x_stride, const float* dy, int64_t dy_stride,
                                float* dx, int64_t dx_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(activation_rows_bwd_f32)(f, rows, dim, x, x_stride, dy, dy_stride, dx, dx_stride);
}
template <>
void activation_rows_bwd<double>(Activation f, int64_t rows, int64_t dim, const double* x, int64_t x_stride, const double* dy, int64_t dy_stride,
                                 double* dx, int64_t dx_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(activation_rows_bwd_f64)(f, rows, dim, x, x_stride, dy, dy_stride, dx, dx_stride);
}

template <>
void column_sum<float>(int64_t rows, int64_t dim, int64_t stride, int64_t column_begin, int64_t column_end, const float* x, float* out) noexcept {
  HWY_DYNAMIC_DISPATCH(column_sum_f32)(rows, dim, stride, column_begin, column_end, x, out);
}
template <>
void column_sum<double>(int64_t rows, int64_t dim, int64_t stride, int64_t column_begin, int64_t column_end, const double* x, double* out) noexcept {
  HWY_DYNAMIC_DISPATCH(column_sum_f64)(rows, dim, stride, column_begin, column_end, x, out);
}

template <>
double sum_of_squares<float>(int64_t count, const float* x) noexcept {
  return HWY_DYNAMIC_DISPATCH(sum_of_squares_f32)(count, x);
}
template <>
double sum_of_squares<double>(int64_t count, const double* x) noexcept {
  return HWY_DYNAMIC_DISPATCH(sum_of_squares_f64)(count, x);
}

template <>
void segment_sum<float>(int64_t seq_begin, int64_t seq_end, const int64_t* cu_seqlens, int64_t dim, const float* scale, const float* x,
                        float* y) noexcept {
  HWY_DYNAMIC_DISPATCH(segment_sum_f32)(seq_begin, seq_end, cu_seqlens, dim, scale, x, y);
}
template <>
void segment_sum<double>(int64_t seq_begin, int64_t seq_end, const int64_t* cu_seqlens, int64_t dim, const double* scale, const double* x,
                         double* y) noexcept {
  HWY_DYNAMIC_DISPATCH(segment_sum_f64)(seq_begin, seq_end, cu_seqlens, dim, scale, x, y);
}

}  // namespace seqboat::kernels
#endif  // HWY_ONCE
