#include "seqboat/kernels/norm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "support/expect_close.h"
#include "support/guarded.h"

namespace seqboat::kernels {
namespace {

using test::Guarded;
using test::on_every_target;
using test::random_numbers;
using test::same_bits;
using test::Tolerance;

constexpr RowNorm kKinds[] = {RowNorm::kLayerNorm, RowNorm::kScaleNorm, RowNorm::kRmsNorm};
constexpr int64_t kDims[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 60, 63, 64, 65, 80, 131, 257};
constexpr int64_t kBlock = 256;  // rows that column sums add up one after the other
constexpr double kEps = 1e-5;

template <class T>
std::vector<double> as_double(const Guarded<T>& x) {
  return std::vector<double>(x.data(), x.data() + x.size());
}

struct RowResult {
  std::vector<double> y, mean, rstd;
};

// The definitions of norm.h. An empty weight or bias is one or zero.
RowResult row_norm_ref(RowNorm kind, int64_t rows, int64_t dim, double eps, const std::vector<double>& x, const std::vector<double>& weight,
                       const std::vector<double>& bias) {
  RowResult out{std::vector<double>(rows * dim), std::vector<double>(rows), std::vector<double>(rows)};
  for (int64_t r = 0; r < rows; ++r) {
    const double* from = x.data() + r * dim;
    double mean = 0, spread = 0;
    if (kind == RowNorm::kLayerNorm) {
      for (int64_t i = 0; i < dim; ++i) mean += from[i] / dim;
    }
    for (int64_t i = 0; i < dim; ++i) spread += (from[i] - mean) * (from[i] - mean) / dim;
    out.mean[r] = mean;
    out.rstd[r] = 1 / std::sqrt(spread + eps);
    for (int64_t i = 0; i < dim; ++i) {
      const double w = weight.empty() ? 1 : weight[kind == RowNorm::kScaleNorm ? 0 : i];
      out.y[r * dim + i] = (from[i] - mean) * out.rstd[r] * w + (bias.empty() ? 0 : bias[i]);
    }
  }
  return out;
}

template <class T>
class Norm : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Norm, Types);

// With e the error of the mean, n = (x - mean) rstd: n is off by rstd e + |n| relative(rstd), and the spread by (dim + 8) eps of itself and 2
// sqrt(spread) e.
TYPED_TEST(Norm, RowForward) {
  using T = TypeParam;
  const double epsilon = std::numeric_limits<T>::epsilon();
  on_every_target([&] {
    for (RowNorm kind : kKinds) {
      for (int64_t dim : kDims) {
        for (int64_t rows : {0, 1, 3}) {
          for (bool affine : {false, true}) {
            SCOPED_TRACE(testing::Message() << "kind " << static_cast<int>(kind) << ", " << rows << " x " << dim << ", affine " << affine);
            const bool layer = kind == RowNorm::kLayerNorm;
            const Guarded<T> x = random_numbers<T>(rows * dim, static_cast<uint32_t>(dim), -1, 2);
            const Guarded<T> weight = random_numbers<T>(kind == RowNorm::kScaleNorm ? 1 : dim, 2), bias = random_numbers<T>(dim, 3);
            const bool biased = affine && layer;
            Guarded<T> y(rows * dim, 2), mean(rows), rstd(rows);
            row_norm_fwd<T>(kind, rows, dim, static_cast<T>(kEps), x.data(), affine ? weight.data() : nullptr, biased ? bias.data() : nullptr,
                            y.data(), layer ? mean.data() : nullptr, rstd.data());
            const RowResult want = row_norm_ref(kind, rows, dim, static_cast<T>(kEps), as_double(x),
                                                affine ? as_double(weight) : std::vector<double>(), biased ? as_double(bias) : std::vector<double>());
            for (int64_t r = 0; r < rows; ++r) {
              const double mean_error = layer ? Tolerance::sum<T>(dim, 2).absolute : 0;
              const double ratio = mean_error * want.rstd[r];
              const double relative = (dim + 16) * epsilon + ratio + ratio * ratio;
              const double largest = std::min(3 * want.rstd[r], std::sqrt(dim) * 1.0), factor = affine ? 2 : 1;
              const double error = factor * (ratio + want.rstd[r] * 2 * epsilon + largest * relative) + 4 * epsilon * (factor * largest + 2);
              test::expect_close(y.data() + r * dim, want.y.data() + r * dim, dim, {error});
              test::expect_close(rstd.data() + r, want.rstd.data() + r, 1, {relative * want.rstd[r]});
              if (layer) test::expect_close(mean.data() + r, want.mean.data() + r, 1, {mean_error});
            }
            EXPECT_TRUE(y.intact() && mean.intact() && rstd.intact());

            Guarded<T> in_place = x;
            row_norm_fwd<T>(kind, rows, dim, static_cast<T>(kEps), in_place.data(), affine ? weight.data() : nullptr, biased ? bias.data() : nullptr,
                            in_place.data(), static_cast<T*>(nullptr), rstd.data());
            EXPECT_TRUE(same_bits(in_place.data(), y.data(), rows * dim));
          }
        }
      }
    }
  });
}

// A row's bits do not depend on the rows beside it or on its address.
TYPED_TEST(Norm, RowsAreIndependent) {
  using T = TypeParam;
  const int64_t rows = 5, dim = 61;
  const Guarded<T> x = random_numbers<T>(rows * dim, 1), dy = random_numbers<T>(rows * dim, 2);
  on_every_target([&] {
    for (RowNorm kind : kKinds) {
      Guarded<T> y(rows * dim), mean(rows), rstd(rows), dx(rows * dim), alone(dim), alone_dx(dim), alone_mean(1), alone_rstd(1);
      std::fill(mean.begin(), mean.end(), T{0});
      row_norm_fwd<T>(kind, rows, dim, static_cast<T>(kEps), x.data(), nullptr, nullptr, y.data(), mean.data(), rstd.data());
      row_norm_bwd<T>(kind, rows, dim, x.data(), nullptr, mean.data(), rstd.data(), dy.data(), dx.data(), nullptr, nullptr);
      for (int64_t r = 0; r < rows; ++r) {
        alone_mean[0] = 0;
        row_norm_fwd<T>(kind, 1, dim, static_cast<T>(kEps), x.data() + r * dim, nullptr, nullptr, alone.data(), alone_mean.data(), alone_rstd.data());
        row_norm_bwd<T>(kind, 1, dim, x.data() + r * dim, nullptr, alone_mean.data(), alone_rstd.data(), dy.data() + r * dim, alone_dx.data(),
                        nullptr, nullptr);
        EXPECT_TRUE(same_bits(alone.data(), y.data() + r * dim, dim));
        EXPECT_TRUE(same_bits(alone_dx.data(), dx.data() + r * dim, dim));
      }
    }
  });
}

TYPED_TEST(Norm, NanStaysInItsRow) {
  using T = TypeParam;
  const int64_t dim = 21;
  on_every_target([&] {
    for (RowNorm kind : kKinds) {
      Guarded<T> x = random_numbers<T>(2 * dim, 1), y(2 * dim), rstd(2);
      x[3] = std::numeric_limits<T>::quiet_NaN();
      row_norm_fwd<T>(kind, 2, dim, static_cast<T>(kEps), x.data(), nullptr, nullptr, y.data(), static_cast<T*>(nullptr), rstd.data());
      EXPECT_TRUE(std::isnan(y[0]) && std::isnan(rstd[0]));
      for (int64_t i = 0; i < dim; ++i) EXPECT_TRUE(std::isfinite(y[dim + i]));
    }
  });
}

// The analytic gradient, from the mean and rstd that the kernel is given.
TYPED_TEST(Norm, RowBackward) {
  using T = TypeParam;
  const double epsilon = std::numeric_limits<T>::epsilon();
  on_every_target([&] {
    for (RowNorm kind : kKinds) {
      for (int64_t dim : kDims) {
        for (int64_t rows : {0, 1, 4}) {
          for (bool affine : {false, true}) {
            SCOPED_TRACE(testing::Message() << "kind " << static_cast<int>(kind) << ", " << rows << " x " << dim << ", affine " << affine);
            const bool layer = kind == RowNorm::kLayerNorm, scale = kind == RowNorm::kScaleNorm;
            const int64_t weights = scale ? 1 : dim;
            const Guarded<T> x = random_numbers<T>(rows * dim, static_cast<uint32_t>(dim)), dy = random_numbers<T>(rows * dim, 5);
            const Guarded<T> weight = random_numbers<T>(weights, 2);
            const RowResult stats = row_norm_ref(kind, rows, dim, 0.1, as_double(x), {}, {});
            Guarded<T> mean(rows), rstd(rows), dx(rows * dim, 2), dweight = random_numbers<T>(weights, 6), dbias = random_numbers<T>(dim, 7);
            std::copy(stats.mean.begin(), stats.mean.end(), mean.begin());
            std::copy(stats.rstd.begin(), stats.rstd.end(), rstd.begin());
            std::vector<double> want_dx(rows * dim), want_dweight = as_double(dweight), want_dbias = as_double(dbias);
            for (int64_t r = 0; r < rows; ++r) {
              double level = 0, slope = 0;
              const auto n = [&](int64_t i) { return (static_cast<double>(x[r * dim + i]) - (layer ? mean[r] : 0)) * rstd[r]; };
              const auto g = [&](int64_t i) { return static_cast<double>(dy[r * dim + i]) * (affine ? weight[scale ? 0 : i] : 1); };
              for (int64_t i = 0; i < dim; ++i) {
                if (layer) level += g(i) / dim;
                slope += g(i) * n(i) / dim;
                want_dweight[scale ? 0 : i] += dy[r * dim + i] * n(i);
                if (layer) want_dbias[i] += dy[r * dim + i];
              }
              for (int64_t i = 0; i < dim; ++i) want_dx[r * dim + i] = rstd[r] * (g(i) - level - n(i) * slope);
            }
            const Guarded<T> dweight_before = dweight, dbias_before = dbias;
            row_norm_bwd(kind, rows, dim, x.data(), affine ? weight.data() : nullptr, mean.data(), rstd.data(), dy.data(), dx.data(),
                         affine ? dweight.data() : nullptr, affine && layer ? dbias.data() : nullptr);
            // rstd <= 1 / sqrt(0.1) < 3.2; |n| <= 4 rstd and a row's root mean square of n is at most one; |g| <= 4.
            const double n_largest = std::min(13.0, std::sqrt(static_cast<double>(dim)) + 1), g_largest = 4;
            test::expect_close(dx.data(), want_dx.data(), rows * dim, {3.2 * (dim + 24) * epsilon * g_largest * (2 + n_largest + 13)});
            if (affine) {
              const int64_t terms = scale ? rows * dim : rows;
              test::expect_close(dweight.data(), want_dweight.data(), weights, Tolerance::sum<T>(terms, terms * 2 * (n_largest + 13) + 2));
              if (layer) test::expect_close(dbias.data(), want_dbias.data(), dim, Tolerance::sum<T>(rows, 2.0 * rows + 2));
            } else {
              EXPECT_TRUE(same_bits(dweight.data(), dweight_before.data(), weights));
            }
            EXPECT_TRUE(layer || same_bits(dbias.data(), dbias_before.data(), dim));
            EXPECT_TRUE(dx.intact() && dweight.intact() && dbias.intact());
          }
        }
      }
    }
  });
}

// d/dx of sum(c f(x)) by central differences: f's third derivative times h^2 is below 1e-7 here (rstd near one), rounding over h below 1e-8.
void expect_slope(std::vector<double>& x, const std::vector<double>& gradient, const std::function<double()>& loss) {
  const double h = 1e-5;
  for (size_t i = 0; i < x.size(); ++i) {
    const double kept = x[i];
    x[i] = kept + h;
    const double above = loss();
    x[i] = kept - h;
    const double below = loss();
    x[i] = kept;
    EXPECT_NEAR(gradient[i], (above - below) / (2 * h), 2e-7) << i;
  }
}

TEST(NormGradient, RowBackwardIsTheSlopeOfTheForward) {
  const int64_t rows = 2, dim = 11;
  for (RowNorm kind : kKinds) {
    SCOPED_TRACE(static_cast<int>(kind));
    const int64_t weights = kind == RowNorm::kScaleNorm ? 1 : dim;
    std::vector<double> x = as_double(random_numbers<double>(rows * dim, 1)), weight = as_double(random_numbers<double>(weights, 2)),
                        bias = as_double(random_numbers<double>(dim, 3));
    const Guarded<double> c = random_numbers<double>(rows * dim, 4);
    std::vector<double> y(rows * dim), mean(rows), rstd(rows), dx(rows * dim), dweight(weights), dbias(dim);
    const auto loss = [&] {
      row_norm_fwd(kind, rows, dim, kEps, x.data(), weight.data(), bias.data(), y.data(), mean.data(), rstd.data());
      double sum = 0;
      for (int64_t i = 0; i < rows * dim; ++i) sum += c[i] * y[i];
      return sum;
    };
    loss();
    row_norm_bwd(kind, rows, dim, x.data(), weight.data(), mean.data(), rstd.data(), c.data(), dx.data(), dweight.data(), dbias.data());
    expect_slope(x, dx, loss);
    expect_slope(weight, dweight, loss);
    expect_slope(bias, dbias, loss);  // zero where the kind has no bias
  }
}

TYPED_TEST(Norm, BatchStatistics) {
  using T = TypeParam;
  on_every_target([&] {
    for (int64_t rows : {1, 2, 255, 256, 257, 1000}) {
      for (int64_t dim : {1, 3, 8, 16, 17, 33, 80, 131}) {
        SCOPED_TRACE(testing::Message() << rows << " x " << dim);
        const Guarded<T> x = random_numbers<T>(rows * dim, 3, -1, 2);
        Guarded<T> mean(dim), var(dim), mean_pieces(dim), var_pieces(dim);
        batch_norm_stats(rows, dim, 0, dim, x.data(), mean.data(), var.data());
        std::vector<double> want_mean(dim), want_var(dim);
        for (int64_t c = 0; c < dim; ++c) {
          for (int64_t r = 0; r < rows; ++r) want_mean[c] += x[r * dim + c];
          want_mean[c] /= rows;
          for (int64_t r = 0; r < rows; ++r) want_var[c] += std::pow(x[r * dim + c] - want_mean[c], 2);
          want_var[c] /= rows;
        }
        const int64_t terms = std::min(rows, kBlock);
        test::expect_close(mean.data(), want_mean.data(), dim, Tolerance::sum<T>(terms, 2));
        test::expect_close(var.data(), want_var.data(), dim, Tolerance::sum<T>(terms, 9));
        for (int64_t c = 0; c < dim; ++c) EXPECT_GE(var[c], 0);
        EXPECT_TRUE(mean.intact() && var.intact());
        for (int64_t begin = 0; begin < dim;) {
          const int64_t end = std::min(dim, begin + 1 + begin % 5);
          batch_norm_stats(rows, dim, begin, end, x.data(), mean_pieces.data(), var_pieces.data());
          begin = end;
        }
        EXPECT_TRUE(same_bits(mean.data(), mean_pieces.data(), dim));
        EXPECT_TRUE(same_bits(var.data(), var_pieces.data(), dim));
      }
    }
  });
}

// Far from zero, over many rows: the error of the spread is that of a block of squares of the distances, although the mean in float is itself off by
// up to four thousandths.
TYPED_TEST(Norm, BatchStatisticsOfASmallSpreadOnALargeMean) {
  using T = TypeParam;
  const int64_t rows = 50000, dim = 3;
  const Guarded<T> x = random_numbers<T>(rows * dim, 3, 100000, 100001);
  std::vector<double> want_mean(dim), want_var(dim);
  for (int64_t i = 0; i < rows * dim; ++i) want_mean[i % dim] += x[i] / rows;
  for (int64_t i = 0; i < rows * dim; ++i) want_var[i % dim] += std::pow(x[i] - want_mean[i % dim], 2) / rows;
  on_every_target([&] {
    Guarded<T> mean(dim), var(dim);
    batch_norm_stats(rows, dim, 0, dim, x.data(), mean.data(), var.data());
    test::expect_close(mean.data(), want_mean.data(), dim, Tolerance::sum<T>(kBlock, 100001));
    test::expect_close(var.data(), want_var.data(), dim, Tolerance::sum<T>(kBlock, 1.0 / 12));
    // The double reference above adds fifty thousand numbers plainly, good to 1e-11 of their sum.
    if (sizeof(T) == 8) test::expect_close(mean.data(), want_mean.data(), dim, {1e-11 * 100001});
  });
}

TYPED_TEST(Norm, BatchApplyAndBackward) {
  using T = TypeParam;
  const double epsilon = std::numeric_limits<T>::epsilon();
  on_every_target([&] {
    for (int64_t rows : {1, 5, 300}) {
      for (int64_t dim : {1, 7, 16, 17, 80}) {
        for (bool affine : {false, true}) {
          SCOPED_TRACE(testing::Message() << rows << " x " << dim << ", affine " << affine);
          const int64_t n = rows * dim;
          const Guarded<T> x = random_numbers<T>(n, 1), dy = random_numbers<T>(n, 2), mean = random_numbers<T>(dim, 3);
          const Guarded<T> rstd = random_numbers<T>(dim, 4, 0.5, 1.5), weight = random_numbers<T>(dim, 5), bias = random_numbers<T>(dim, 6);
          const T* w = affine ? weight.data() : nullptr;
          const T* b = affine ? bias.data() : nullptr;
          Guarded<T> y(n, 2), dx(n), dx_running(n), pieces(n);
          Guarded<double> dweight(dim), dbias(dim), dweight_pieces(dim), dbias_pieces(dim);
          batch_norm_apply(0, rows, dim, x.data(), mean.data(), rstd.data(), w, b, y.data());
          batch_norm_bwd_sums(rows, dim, 0, dim, x.data(), mean.data(), rstd.data(), dy.data(), dweight.data(), dbias.data());
          batch_norm_bwd_input(rows, 0, rows, dim, true, x.data(), mean.data(), rstd.data(), w, dweight.data(), dbias.data(), dy.data(), dx.data());
          batch_norm_bwd_input(rows, 0, rows, dim, false, x.data(), mean.data(), rstd.data(), w, dweight.data(), dbias.data(), dy.data(),
                               dx_running.data());
          std::vector<double> want_y(n), want_dweight(dim), want_dbias(dim), want_dx(n), want_running(n);
          const auto xhat = [&](int64_t i) { return (static_cast<double>(x[i]) - mean[i % dim]) * rstd[i % dim]; };
          const auto factor = [&](int64_t i) { return affine ? static_cast<double>(weight[i % dim]) : 1.0; };
          for (int64_t i = 0; i < n; ++i) {
            want_y[i] = xhat(i) * factor(i) + (affine ? bias[i % dim] : 0);
            want_dweight[i % dim] += dy[i] * xhat(i);
            want_dbias[i % dim] += dy[i];
          }
          for (int64_t i = 0; i < n; ++i) {
            want_running[i] = factor(i) * rstd[i % dim] * dy[i];
            want_dx[i] = factor(i) * rstd[i % dim] * (dy[i] - static_cast<double>(dbias[i % dim]) / rows - xhat(i) * dweight[i % dim] / rows);
          }
          // |xhat| <= 6, |weight|, |dy| <= 2, and the two shares are at most 2 and 12.
          const int64_t terms = std::min(rows, kBlock);
          test::expect_close(y.data(), want_y.data(), n, {8 * epsilon * (12 + 2)});
          // The backward adds and subtracts in double: only dx itself is rounded, once.
          constexpr double kWide = std::numeric_limits<double>::epsilon();
          test::expect_close(dweight.data(), want_dweight.data(), dim, Tolerance::sum<double>(terms, 12.0 * rows));
          test::expect_close(dbias.data(), want_dbias.data(), dim, Tolerance::sum<double>(terms, 2.0 * rows));
          for (int64_t i = 0; i < n; ++i) {
            EXPECT_NEAR(dx[i], want_dx[i], epsilon / 2 * std::abs(want_dx[i]) + 10 * kWide * 3 * (2 + 2 + 72)) << i;
            EXPECT_NEAR(dx_running[i], want_running[i], epsilon / 2 * std::abs(want_running[i]) + 4 * kWide * 6) << i;
          }
          EXPECT_TRUE(y.intact() && dweight.intact() && dbias.intact() && dx.intact() && dx_running.intact());

          const int64_t middle = rows / 2;
          for (auto [begin, end] : {std::pair(int64_t{0}, middle), std::pair(middle, rows)}) {
            batch_norm_apply(begin, end, dim, x.data(), mean.data(), rstd.data(), w, b, pieces.data());
          }
          EXPECT_TRUE(same_bits(pieces.data(), y.data(), n));
          for (auto [begin, end] : {std::pair(int64_t{0}, middle), std::pair(middle, rows)}) {
            batch_norm_bwd_input(rows, begin, end, dim, true, x.data(), mean.data(), rstd.data(), w, dweight.data(), dbias.data(), dy.data(),
                                 pieces.data());
          }
          EXPECT_TRUE(same_bits(pieces.data(), dx.data(), n));
          for (int64_t begin = 0; begin < dim;) {
            const int64_t end = std::min(dim, begin + 1 + begin % 5);
            batch_norm_bwd_sums(rows, dim, begin, end, x.data(), mean.data(), rstd.data(), dy.data(), dweight_pieces.data(), dbias_pieces.data());
            begin = end;
          }
          EXPECT_TRUE(same_bits(dweight_pieces.data(), dweight.data(), dim));
          EXPECT_TRUE(same_bits(dbias_pieces.data(), dbias.data(), dim));
        }
      }
    }
  });
}

TEST(NormGradient, BatchBackwardIsTheSlopeOfTheForward) {
  const int64_t rows = 9, dim = 5;
  std::vector<double> x = as_double(random_numbers<double>(rows * dim, 1)), weight = as_double(random_numbers<double>(dim, 2)),
                      bias = as_double(random_numbers<double>(dim, 3));
  const Guarded<double> c = random_numbers<double>(rows * dim, 4);
  std::vector<double> y(rows * dim), mean(dim), var(dim), rstd(dim), dx(rows * dim), dweight(dim), dbias(dim);
  bool batch_stats = true;
  const auto loss = [&] {
    if (batch_stats) {
      batch_norm_stats(rows, dim, 0, dim, x.data(), mean.data(), var.data());
      for (int64_t i = 0; i < dim; ++i) rstd[i] = 1 / std::sqrt(var[i] + kEps);
    }
    batch_norm_apply(0, rows, dim, x.data(), mean.data(), rstd.data(), weight.data(), bias.data(), y.data());
    double sum = 0;
    for (int64_t i = 0; i < rows * dim; ++i) sum += c[i] * y[i];
    return sum;
  };
  for (bool training : {true, false}) {
    SCOPED_TRACE(training);
    batch_stats = true;
    loss();
    batch_stats = training;
    batch_norm_bwd_sums(rows, dim, 0, dim, x.data(), mean.data(), rstd.data(), c.data(), dweight.data(), dbias.data());
    batch_norm_bwd_input(rows, 0, rows, dim, training, x.data(), mean.data(), rstd.data(), weight.data(), dweight.data(), dbias.data(), c.data(),
                         dx.data());
    expect_slope(x, dx, loss);
    expect_slope(weight, dweight, loss);
    expect_slope(bias, dbias, loss);
  }
}

}  // namespace
}  // namespace seqboat::kernels
