#include "seqboat/kernels/norm.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/norm.cc"
// clang-format off
#include "hwy/foreach_target.h"  // must come before highway.h
// clang-format on
#include "hwy/highway.h"
#include "kernels/cpu/vector_loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace {

// sum_i term(i) over a row: four accumulators of whole vectors in turn, the tail's elements into the last one, then a fixed tree.
template <class D, class Term>
HWY_INLINE hn::TFromD<D> sum_row(D d, int64_t dim, const Term& term) {
  const int64_t width = static_cast<int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  int64_t i = 0;
  for (; i + 4 * width <= dim; i += 4 * width) {
    s0 = hn::Add(s0, term(i, WholeVector()));
    s1 = hn::Add(s1, term(i + width, WholeVector()));
    s2 = hn::Add(s2, term(i + 2 * width, WholeVector()));
    s3 = hn::Add(s3, term(i + 3 * width, WholeVector()));
  }
  if (i + width <= dim) s0 = hn::Add(s0, term(i, WholeVector())), i += width;
  if (i + width <= dim) s1 = hn::Add(s1, term(i, WholeVector())), i += width;
  if (i + width <= dim) s2 = hn::Add(s2, term(i, WholeVector())), i += width;
  if (i < dim) s3 = hn::Add(s3, term(i, PartialVector{static_cast<size_t>(dim - i)}));
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
}

// The weight of channel i: a vector of weights, one number for all, or none.
template <RowNorm kKind, class D, class Io>
HWY_INLINE hn::Vec<D> weight_at(D d, Io io, const hn::TFromD<D>* weight, int64_t i) {
  using T = hn::TFromD<D>;
  if (weight == nullptr) return hn::Set(d, T{1});
  if constexpr (kKind == RowNorm::kScaleNorm) return hn::Set(d, weight[0]);
  return io.load(d, weight + i);
}

// Two sums of the same order at once: sum_row of each term alone has these bits.
template <class D, class Terms>
HWY_INLINE void sum_row_twice(D d, int64_t dim, const Terms& terms, hn::TFromD<D>& first, hn::TFromD<D>& second) {
  const int64_t width = static_cast<int64_t>(hn::Lanes(d));
  auto a0 = hn::Zero(d), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
  int64_t i = 0;
  for (; i + 4 * width <= dim; i += 4 * width) {
    terms(i, WholeVector(), a0, b0);
    terms(i + width, WholeVector(), a1, b1);
    terms(i + 2 * width, WholeVector(), a2, b2);
    terms(i + 3 * width, WholeVector(), a3, b3);
  }
  if (i + width <= dim) terms(i, WholeVector(), a0, b0), i += width;
  if (i + width <= dim) terms(i, WholeVector(), a1, b1), i += width;
  if (i + width <= dim) terms(i, WholeVector(), a2, b2), i += width;
  if (i < dim) terms(i, PartialVector{static_cast<size_t>(dim - i)}, a3, b3);
  first = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(a0, a1), hn::Add(a2, a3))));
  second = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(b0, b1), hn::Add(b2, b3))));
}

// Rows go through each step together: a sum over a row, its square root and its division are long chains, and those of several rows overlap.
constexpr int64_t kRowsAStep = 16;

template <RowNorm kKind, class T>
void fwd(int64_t rows, int64_t dim, T eps, const T* x, const T* weight, const T* bias, T* y, T* mean, T* rstd) {
  const hn::ScalableTag<T> d;
  constexpr bool kCentred = kKind == RowNorm::kLayerNorm;
  const bool biased = kCentred && bias != nullptr;
  HWY_ALIGN T centres[kRowsAStep] = {};
  HWY_ALIGN T inverses[kRowsAStep] = {};
  for (int64_t begin = 0; begin < rows; begin += kRowsAStep) {
    const int64_t count = std::min(kRowsAStep, rows - begin);
    for (int64_t row = 0; row < count && kCentred; ++row) {
      const T* from = x + (begin + row) * dim;
      centres[row] = sum_row(d, dim, [&](int64_t i, auto io) HWY_ATTR { return io.load(d, from + i); }) / static_cast<T>(dim);
    }
    for (int64_t row = 0; row < count; ++row) {
      const T* from = x + (begin + row) * dim;
      const auto centre = hn::Set(d, centres[row]);
      inverses[row] = sum_row(d, dim, [&](int64_t i, auto io) HWY_ATTR {
        const auto v = kCentred ? io.keep(d, hn::Sub(io.load(d, from + i), centre)) : io.load(d, from + i);
        return hn::Mul(v, v);
      });
    }
    const hn::CappedTag<T, kRowsAStep> step;
    for (int64_t row = 0; row < count; row += static_cast<int64_t>(hn::Lanes(step))) {
      const auto variance = hn::Div(hn::Load(step, inverses + row), hn::Set(step, static_cast<T>(dim)));
      hn::Store(hn::Div(hn::Set(step, T{1}), hn::Sqrt(hn::Add(variance, hn::Set(step, eps)))), step, inverses + row);
    }
    for (int64_t row = 0; row < count; ++row) {
      const T* from = x + (begin + row) * dim;
      T* to = y + (begin + row) * dim;
      const auto centre = hn::Set(d, centres[row]), inverse = hn::Set(d, inverses[row]);
      for_each_vector(d, dim, [&](int64_t i, auto io) HWY_ATTR {
        const auto v = io.load(d, from + i);
        const auto normed = hn::Mul(kCentred ? hn::Sub(v, centre) : v, inverse);
        const auto w = weight_at<kKind>(d, io, weight, i);
        io.store(d, biased ? hn::MulAdd(normed, w, io.load(d, bias + i)) : hn::Mul(normed, w), to + i);
      });
    }
    if (kCentred && mean != nullptr) std::copy(centres, centres + count, mean + begin);
    if (rstd != nullptr) std::copy(inverses, inverses + count, rstd + begin);
  }
}

// With n = (x - mean) rstd and g = weight dy:  dx = rstd (g - mean(g) - n mean(g n)), where mean(g) is there for the layer norm only.
template <RowNorm kKind, class T>
void bwd(int64_t rows, int64_t dim, const T* x, const T* weight, const T* mean, const T* rstd, const T* dy, T* dx, T* dweight, T* dbias) {
  const hn::ScalableTag<T> d;
  constexpr bool kCentred = kKind == RowNorm::kLayerNorm;
  double dscale = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const T* from = x + row * dim;
    const T* grad = dy + row * dim;
    T* to = dx + row * dim;
    const auto centres = hn::Set(d, kCentred ? mean[row] : T{0});
    const auto inverses = hn::Set(d, rstd[row]);
    const auto normed = [&](int64_t i, auto io) HWY_ATTR {
      const auto v = io.load(d, from + i);
      return hn::Mul(kCentred ? io.keep(d, hn::Sub(v, centres)) : v, inverses);
    };
    const auto weighted = [&](int64_t i, auto io) HWY_ATTR {
      // The single weight of the scale norm is a factor of the whole row and comes in at the end.
      if constexpr (kKind == RowNorm::kScaleNorm) return io.load(d, grad + i);
      return hn::Mul(weight_at<kKind>(d, io, weight, i), io.load(d, grad + i));
    };

    T product;
    auto level = hn::Zero(d);
    if constexpr (kCentred) {
      T sum;
      sum_row_twice(
          d, dim,
          [&](int64_t i, auto io, auto& products, auto& sums) HWY_ATTR {
            const auto g = weighted(i, io);
            products = hn::Add(products, hn::Mul(g, normed(i, io)));
            sums = hn::Add(sums, g);
          },
          product, sum);
      level = hn::Set(d, sum / static_cast<T>(dim));
    } else {
      product = sum_row(d, dim, [&](int64_t i, auto io) HWY_ATTR { return hn::Mul(weighted(i, io), normed(i, io)); });
    }
    const auto slope = hn::Set(d, product / static_cast<T>(dim));
    const T scale = kKind == RowNorm::kScaleNorm && weight != nullptr ? weight[0] : T{1};
    const auto factor = hn::Mul(inverses, hn::Set(d, scale));
    dscale += static_cast<double>(product);
    const bool weights = kKind != RowNorm::kScaleNorm && dweight != nullptr;
    const bool biases = kCentred && dbias != nullptr;
    for_each_vector(d, dim, [&](int64_t i, auto io) HWY_ATTR {
      const auto n = normed(i, io);
      const auto g = weighted(i, io);
      const auto dy_i = io.load(d, grad + i);
      if (weights) io.store(d, hn::MulAdd(dy_i, n, io.load(d, dweight + i)), dweight + i);
      if (biases) io.store(d, hn::Add(dy_i, io.load(d, dbias + i)), dbias + i);
      const auto rest = kCentred ? hn::Sub(g, level) : g;
      io.store(d, hn::Mul(factor, hn::NegMulAdd(n, slope, rest)), to + i);
    });
  }
  if (kKind == RowNorm::kScaleNorm && dweight != nullptr) dweight[0] = static_cast<T>(static_cast<double>(dweight[0]) + dscale);
}

template <class T>
void row_norm_fwd(RowNorm kind, int64_t rows, int64_t dim, T eps, const T* x, const T* weight, const T* bias, T* y, T* mean, T* rstd) {
  switch (kind) {
    case RowNorm::kLayerNorm:
      return fwd<RowNorm::kLayerNorm>(rows, dim, eps, x, weight, bias, y, mean, rstd);
    case RowNorm::kScaleNorm:
      return fwd<RowNorm::kScaleNorm>(rows, dim, eps, x, weight, bias, y, mean, rstd);
    case RowNorm::kRmsNorm:
      return fwd<RowNorm::kRmsNorm>(rows, dim, eps, x, weight, bias, y, mean, rstd);
  }
}

template <class T>
void row_norm_bwd(RowNorm kind, int64_t rows, int64_t dim, const T* x, const T* weight, const T* mean, const T* rstd, const T* dy, T* dx, T* dweight,
                  T* dbias) {
  switch (kind) {
    case RowNorm::kLayerNorm:
      return bwd<RowNorm::kLayerNorm>(rows, dim, x, weight, mean, rstd, dy, dx, dweight, dbias);
    case RowNorm::kScaleNorm:
      return bwd<RowNorm::kScaleNorm>(rows, dim, x, weight, mean, rstd, dy, dx, dweight, dbias);
    case RowNorm::kRmsNorm:
      return bwd<RowNorm::kRmsNorm>(rows, dim, x, weight, mean, rstd, dy, dx, dweight, dbias);
  }
}

// Sums over the rows of a batch norm are taken in double whatever T is. Mean, spread and the backward's two sums act on every row: an error in one of
// them would be the same in all rows, and later sums over the rows (of a bias before the norm, say) would count it so many times; rounding each row's
// result by itself is random and is not.
template <class T>
using WideTag = hn::ScalableTag<double>;
template <class T>
using NarrowTag = hn::Rebind<T, hn::ScalableTag<double>>;

template <class T>
HWY_INLINE hn::Vec<WideTag<T>> widen(hn::Vec<NarrowTag<T>> v) {
  if constexpr (sizeof(T) == sizeof(double)) {
    return v;
  } else {
    return hn::PromoteTo(WideTag<T>(), v);
  }
}

template <class T>
HWY_INLINE hn::Vec<NarrowTag<T>> narrow(hn::Vec<WideTag<T>> v) {
  if constexpr (sizeof(T) == sizeof(double)) {
    return v;
  } else {
    return hn::DemoteTo(NarrowTag<T>(), v);
  }
}

template <class T>
void batch_norm_stats(int64_t rows, int64_t dim, int64_t channel_begin, int64_t channel_end, const T* x, T* mean, T* var) {
  const WideTag<T> d;
  const NarrowTag<T> n;
  const int64_t width = static_cast<int64_t>(hn::Lanes(d));
  const auto count = hn::Set(d, static_cast<double>(std::max<int64_t>(rows, 1)));
  for_each_four_vectors(d, channel_begin, channel_end, [&](int64_t c0, auto io) HWY_ATTR {
    const int64_t c1 = c0 + width, c2 = c1 + width, c3 = c2 + width;
    sum_rows(
        d, rows,
        [&](int64_t row, auto& a0, auto& a1, auto& a2, auto& a3) HWY_ATTR {
          const T* from = x + row * dim;
          a0 = hn::Add(a0, widen<T>(io.template load<0>(n, from + c0)));
          a1 = hn::Add(a1, widen<T>(io.template load<1>(n, from + c1)));
          a2 = hn::Add(a2, widen<T>(io.template load<2>(n, from + c2)));
          a3 = hn::Add(a3, widen<T>(io.template load<3>(n, from + c3)));
        },
        [&](auto s0, auto s1, auto s2, auto s3) HWY_ATTR {
          io.template store<0>(n, narrow<T>(hn::Div(s0, count)), mean + c0);
          io.template store<1>(n, narrow<T>(hn::Div(s1, count)), mean + c1);
          io.template store<2>(n, narrow<T>(hn::Div(s2, count)), mean + c2);
          io.template store<3>(n, narrow<T>(hn::Div(s3, count)), mean + c3);
        });
  });
  // Second pass: squares of the distances e from the mean, less what the mean's own rounding adds, (sum(e) / rows)^2. Never below zero; a NaN stays.
  const auto spread = [&](auto e, auto e2) HWY_ATTR {
    const auto offset = hn::Div(e, count);
    const auto v = hn::NegMulAdd(offset, offset, hn::Div(e2, count));
    return narrow<T>(hn::IfThenZeroElse(hn::Lt(v, hn::Zero(d)), v));
  };
  for_each_two_vectors(d, channel_begin, channel_end, [&](int64_t c0, auto io) HWY_ATTR {
    const int64_t c1 = c0 + width;
    const auto m0 = widen<T>(io.template load<0>(n, mean + c0)), m1 = widen<T>(io.template load<1>(n, mean + c1));
    sum_rows(
        d, rows,
        [&](int64_t row, auto& e0, auto& q0, auto& e1, auto& q1) HWY_ATTR {
          const T* from = x + row * dim;
          const auto x0 = hn::Sub(widen<T>(io.template load<0>(n, from + c0)), m0), x1 = hn::Sub(widen<T>(io.template load<1>(n, from + c1)), m1);
          e0 = hn::Add(e0, x0);
          q0 = hn::MulAdd(x0, x0, q0);
          e1 = hn::Add(e1, x1);
          q1 = hn::MulAdd(x1, x1, q1);
        },
        [&](auto e0, auto q0, auto e1, auto q1) HWY_ATTR {
          io.template store<0>(n, spread(e0, q0), var + c0);
          io.template store<1>(n, spread(e1, q1), var + c1);
        });
  });
}

template <class T>
void batch_norm_apply(int64_t row_begin, int64_t row_end, int64_t dim, const T* x, const T* mean, const T* rstd, const T* weight, const T* bias,
                      T* y) {
  const hn::ScalableTag<T> d;
  for (int64_t row = row_begin; row < row_end; ++row) {
    for_each_vector(d, dim, [&](int64_t c, auto io) HWY_ATTR {
      const auto normed = hn::Mul(hn::Sub(io.load(d, x + row * dim + c), io.load(d, mean + c)), io.load(d, rstd + c));
      const auto w = weight != nullptr ? io.load(d, weight + c) : hn::Set(d, T{1});
      const auto scaled = bias != nullptr ? hn::MulAdd(normed, w, io.load(d, bias + c)) : hn::Mul(normed, w);
      io.store(d, scaled, y + row * dim + c);
    });
  }
}

template <class T>
void batch_norm_bwd_sums(int64_t rows, int64_t dim, int64_t channel_begin, int64_t channel_end, const T* x, const T* mean, const T* rstd, const T* dy,
                         double* sum_dy_xhat, double* sum_dy) {
  const WideTag<T> d;
  const NarrowTag<T> n;
  const int64_t width = static_cast<int64_t>(hn::Lanes(d));
  for_each_two_vectors(d, channel_begin, channel_end, [&](int64_t c0, auto io) HWY_ATTR {
    const int64_t c1 = c0 + width;
    const auto m0 = widen<T>(io.template load<0>(n, mean + c0)), m1 = widen<T>(io.template load<1>(n, mean + c1));
    const auto r0 = widen<T>(io.template load<0>(n, rstd + c0)), r1 = widen<T>(io.template load<1>(n, rstd + c1));
    sum_rows(
        d, rows,
        [&](int64_t row, auto& w0, auto& b0, auto& w1, auto& b1) HWY_ATTR {
          const int64_t at = row * dim;
          const auto g0 = widen<T>(io.template load<0>(n, dy + at + c0)), g1 = widen<T>(io.template load<1>(n, dy + at + c1));
          const auto x0 = hn::Sub(widen<T>(io.template load<0>(n, x + at + c0)), m0), x1 = hn::Sub(widen<T>(io.template load<1>(n, x + at + c1)), m1);
          w0 = hn::MulAdd(g0, hn::Mul(x0, r0), w0);
          b0 = hn::Add(b0, g0);
          w1 = hn::MulAdd(g1, hn::Mul(x1, r1), w1);
          b1 = hn::Add(b1, g1);
        },
        [&](auto w0, auto b0, auto w1, auto b1) HWY_ATTR {
          io.template store<0>(d, w0, sum_dy_xhat + c0);
          io.template store<1>(d, w1, sum_dy_xhat + c1);
          io.template store<0>(d, b0, sum_dy + c0);
          io.template store<1>(d, b1, sum_dy + c1);
        });
  });
}

template <class T>
void batch_norm_bwd_input(int64_t rows, int64_t row_begin, int64_t row_end, int64_t dim, bool use_batch_stats, const T* x, const T* mean,
                          const T* rstd, const T* weight, const double* sum_dy_xhat, const double* sum_dy, const T* dy, T* dx) {
  const WideTag<T> d;
  const NarrowTag<T> n;
  const auto share = hn::Set(d, 1.0 / static_cast<double>(rows));
  for (int64_t row = row_begin; row < row_end; ++row) {
    const int64_t at = row * dim;
    for_each_vector(d, dim, [&](int64_t c, auto io) HWY_ATTR {
      const auto r = widen<T>(io.load(n, rstd + c));
      const auto factor = weight != nullptr ? hn::Mul(widen<T>(io.load(n, weight + c)), r) : r;
      auto g = widen<T>(io.load(n, dy + at + c));
      if (use_batch_stats) {
        const auto normed = hn::Mul(hn::Sub(widen<T>(io.load(n, x + at + c)), widen<T>(io.load(n, mean + c))), r);
        g = hn::NegMulAdd(io.load(d, sum_dy + c), share, g);
        g = hn::NegMulAdd(hn::Mul(io.load(d, sum_dy_xhat + c), share), normed, g);
      }
      io.store(n, narrow<T>(hn::Mul(factor, g)), dx + at + c);
    });
  }
}

// Dispatch tables hold functions, not templates: one name for each type.
constexpr auto& row_norm_fwd_f32 = row_norm_fwd<float>;
constexpr auto& row_norm_fwd_f64 = row_norm_fwd<double>;
constexpr auto& row_norm_bwd_f32 = row_norm_bwd<float>;
constexpr auto& row_norm_bwd_f64 = row_norm_bwd<double>;
constexpr auto& batch_norm_stats_f32 = batch_norm_stats<float>;
constexpr auto& batch_norm_stats_f64 = batch_norm_stats<double>;
constexpr auto& batch_norm_apply_f32 = batch_norm_apply<float>;
constexpr auto& batch_norm_apply_f64 = batch_norm_apply<double>;
constexpr auto& batch_norm_bwd_sums_f32 = batch_norm_bwd_sums<float>;
constexpr auto& batch_norm_bwd_sums_f64 = batch_norm_bwd_sums<double>;
constexpr auto& batch_norm_bwd_input_f32 = batch_norm_bwd_input<float>;
constexpr auto& batch_norm_bwd_input_f64 = batch_norm_bwd_input<double>;

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqboat::kernels {

HWY_EXPORT(row_norm_fwd_f32);
HWY_EXPORT(row_norm_fwd_f64);
HWY_EXPORT(row_norm_bwd_f32);
HWY_EXPORT(row_norm_bwd_f64);
HWY_EXPORT(batch_norm_stats_f32);
HWY_EXPORT(batch_norm_stats_f64);
HWY_EXPORT(batch_norm_apply_f32);
HWY_EXPORT(batch_norm_apply_f64);
HWY_EXPORT(batch_norm_bwd_sums_f32);
HWY_EXPORT(batch_norm_bwd_sums_f64);
HWY_EXPORT(batch_norm_bwd_input_f32);
HWY_EXPORT(batch_norm_bwd_input_f64);

template <>
void row_norm_fwd<float>(RowNorm kind, int64_t rows, int64_t dim, float eps, const float* x, const float* weight, const float* bias, float* y,
                         float* mean, float* rstd) noexcept {
  HWY_DYNAMIC_DISPATCH(row_norm_fwd_f32)(kind, rows, dim, eps, x, weight, bias, y, mean, rstd);
}
template <>
void row_norm_fwd<double>(RowNorm kind, int64_t rows, int64_t dim, double eps, const double* x, const double* weight, const double* bias, double* y,
                          double* mean, double* rstd) noexcept {
  HWY_DYNAMIC_DISPATCH(row_norm_fwd_f64)(kind, rows, dim, eps, x, weight, bias, y, mean, rstd);
}

template <>
void row_norm_bwd<float>(RowNorm kind, int64_t rows, int64_t dim, const float* x, const float* weight, const float* mean, const float* rstd,
                         const float* dy, float* dx, float* dweight, float* dbias) noexcept {
  HWY_DYNAMIC_DISPATCH(row_norm_bwd_f32)(kind, rows, dim, x, weight, mean, rstd, dy, dx, dweight, dbias);
}
template <>
void row_norm_bwd<double>(RowNorm kind, int64_t rows, int64_t dim, const double* x, const double* weight, const double* mean, const double* rstd,
                          const double* dy, double* dx, double* dweight, double* dbias) noexcept {
  HWY_DYNAMIC_DISPATCH(row_norm_bwd_f64)(kind, rows, dim, x, weight, mean, rstd, dy, dx, dweight, dbias);
}

template <>
void batch_norm_stats<float>(int64_t rows, int64_t dim, int64_t channel_begin, int64_t channel_end, const float* x, float* mean,
                             float* var) noexcept {
  HWY_DYNAMIC_DISPATCH(batch_norm_stats_f32)(rows, dim, channel_begin, channel_end, x, mean, var);
}
template <>
void batch_norm_stats<double>(int64_t rows, int64_t dim, int64_t channel_begin, int64_t channel_end, const double* x, double* mean,
                              double* var) noexcept {
  HWY_DYNAMIC_DISPATCH(batch_norm_stats_f64)(rows, dim, channel_begin, channel_end, x, mean, var);
}

template <>
void batch_norm_apply<float>(int64_t row_begin, int64_t row_end, int64_t dim, const float* x, const float* mean, const float* rstd,
                             const float* weight, const float* bias, float* y) noexcept {
  HWY_DYNAMIC_DISPATCH(batch_norm_apply_f32)(row_begin, row_end, dim, x, mean, rstd, weight, bias, y);
}
template <>
void batch_norm_apply<double>(int64_t row_begin, int64_t row_end, int64_t dim, const double* x, const double* mean, const double* rstd,
                              const double* weight, const double* bias, double* y) noexcept {
  HWY_DYNAMIC_DISPATCH(batch_norm_apply_f64)(row_begin, row_end, dim, x, mean, rstd, weight, bias, y);
}

template <>
void batch_norm_bwd_sums<float>(int64_t rows, int64_t dim, int64_t channel_begin, int64_t channel_end, const float* x, const float* mean,
                                const float* rstd, const float* dy, double* sum_dy_xhat, double* sum_dy) noexcept {
  HWY_DYNAMIC_DISPATCH(batch_norm_bwd_sums_f32)(rows, dim, channel_begin, channel_end, x, mean, rstd, dy, sum_dy_xhat, sum_dy);
}
template <>
void batch_norm_bwd_sums<double>(int64_t rows, int64_t dim, int64_t channel_begin, int64_t channel_end, const double* x, const double* mean,
                                 const double* rstd, const double* dy, double* sum_dy_xhat, double* sum_dy) noexcept {
  HWY_DYNAMIC_DISPATCH(batch_norm_bwd_sums_f64)(rows, dim, channel_begin, channel_end, x, mean, rstd, dy, sum_dy_xhat, sum_dy);
}

template <>
void batch_norm_bwd_input<float>(int64_t rows, int64_t row_begin, int64_t row_end, int64_t dim, bool use_batch_stats, const float* x,
                                 const float* mean, const float* rstd, const float* weight, const double* sum_dy_xhat, const double* sum_dy,
                                 const float* dy, float* dx) noexcept {
  HWY_DYNAMIC_DISPATCH(batch_norm_bwd_input_f32)(rows, row_begin, row_end, dim, use_batch_stats, x, mean, rstd, weight, sum_dy_xhat, sum_dy, dy, dx);
}
template <>
void batch_norm_bwd_input<double>(int64_t rows, int64_t row_begin, int64_t row_end, int64_t dim, bool use_batch_stats, const double* x,
                                  const double* mean, const double* rstd, const double* weight, const double* sum_dy_xhat, const double* sum_dy,
                                  const double* dy, double* dx) noexcept {
  HWY_DYNAMIC_DISPATCH(batch_norm_bwd_input_f64)(rows, row_begin, row_end, dim, use_batch_stats, x, mean, rstd, weight, sum_dy_xhat, sum_dy, dy, dx);
}

}  // namespace seqboat::kernels
#endif  // HWY_ONCE
