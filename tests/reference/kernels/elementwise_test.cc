#include "seqboat/kernels/elementwise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "support/expect_close.h"
#include "support/guarded.h"

namespace seqboat::kernels {
namespace {

using test::awkward_sizes;
using test::Guarded;
using test::on_every_target;
using test::random_numbers;
using test::same_bits;
using test::Tolerance;

constexpr Activation kActivations[] = {Activation::kSilu, Activation::kGelu, Activation::kRelu2, Activation::kLaplace, Activation::kSigmoid};
constexpr double kPi = 3.14159265358979323846;
constexpr int64_t kBlock = 256;  // rows that column sums add up one after the other

double value_ref(Activation f, double x) {
  switch (f) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGelu:
      return x * std::erfc(-x / std::sqrt(2.0)) / 2;
    case Activation::kRelu2:
      return x > 0 ? x * x : 0;
    case Activation::kLaplace:
      return std::erfc(-(x - 0.707107) / (0.282095 * std::sqrt(2.0))) / 2;
    case Activation::kSigmoid:
      return 1 / (1 + std::exp(-x));
  }
  return NAN;
}

double slope_ref(Activation f, double x) {
  const double s = 1 / (1 + std::exp(-x));
  const auto density = [](double z) { return std::exp(-z * z / 2) / std::sqrt(2 * kPi); };
  switch (f) {
    case Activation::kSilu:
      return s + x * s * (1 - s);
    case Activation::kGelu:
      return std::erfc(-x / std::sqrt(2.0)) / 2 + x * density(x);
    case Activation::kRelu2:
      return x > 0 ? 2 * x : 0;
    case Activation::kLaplace:
      return density((x - 0.707107) / 0.282095) / 0.282095;
    case Activation::kSigmoid:
      return s * (1 - s);
  }
  return NAN;
}

template <class T>
class Elementwise : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Elementwise, Types);

// Ten roundings of numbers no larger than 1 + |x| (values) and 4 (1 + |x|) |dy| (slopes; the laplace one reaches 1.4, the relu^2 one 2 x).
TYPED_TEST(Elementwise, ActivationsEqualTheirDefinition) {
  using T = TypeParam;
  const double range = 6;
  on_every_target([&] {
    for (Activation f : kActivations) {
      SCOPED_TRACE("activation " + std::to_string(static_cast<int>(f)));
      for (int64_t n : awkward_sizes()) {
        const Guarded<T> x = random_numbers<T>(n, static_cast<uint32_t>(n), -range, range), dy = random_numbers<T>(n, 7);
        Guarded<T> y(n), dx(n, 3);
        std::vector<double> want_y(n), want_dx(n);
        for (int64_t i = 0; i < n; ++i) {
          want_y[i] = value_ref(f, x[i]);
          want_dx[i] = slope_ref(f, x[i]) * dy[i];
        }
        activation_fwd(f, n, x.data(), y.data());
        activation_bwd(f, n, x.data(), dy.data(), dx.data());
        const double magnitude = f == Activation::kRelu2 ? range * range : 1 + range;
        test::expect_close(y.data(), want_y.data(), n, Tolerance::ulps<T>(10, magnitude));
        test::expect_close(dx.data(), want_dx.data(), n, Tolerance::ulps<T>(10, 8 * (1 + range)));
        EXPECT_TRUE(y.intact() && dx.intact());
      }
    }
  });
}

TYPED_TEST(Elementwise, ActivationsFarOutAndAtNan) {
  using T = TypeParam;
  const T infinity = std::numeric_limits<T>::infinity();
  const T x[] = {T(-1e4), T(1e4), 0, std::numeric_limits<T>::quiet_NaN(), T(-800), T(800), T(-90), T(90), infinity};
  const int64_t n = 9;
  on_every_target([&] {
    for (Activation f : kActivations) {
      SCOPED_TRACE("activation " + std::to_string(static_cast<int>(f)));
      T y[n], dx[n];
      const T dy[n] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
      activation_fwd(f, n, x, y);
      activation_bwd(f, n, x, dy, dx);
      for (int64_t i : {0, 1, 2, 4, 5, 6, 7}) {
        const double scale = std::numeric_limits<T>::epsilon() * 10;
        EXPECT_NEAR(y[i], value_ref(f, x[i]), scale * (1 + std::abs(value_ref(f, x[i])))) << x[i];
        EXPECT_NEAR(dx[i], slope_ref(f, x[i]), scale * (1 + std::abs(slope_ref(f, x[i])))) << x[i];
      }
      EXPECT_TRUE(std::isnan(y[3]) && std::isnan(dx[3]));
      const bool bounded = f == Activation::kLaplace || f == Activation::kSigmoid;
      EXPECT_EQ(y[8], bounded ? T{1} : infinity);
    }
  });
}

TYPED_TEST(Elementwise, ActivationsHaveTheSameBitsEverywhereAndInPlace) {
  using T = TypeParam;
  const int64_t n = 79;
  on_every_target([&] {
    for (Activation f : kActivations) {
      SCOPED_TRACE("activation " + std::to_string(static_cast<int>(f)));
      for (T value : {T(-3.7), T(-0.3), T(0.1), T(0.9), T(1.3), T(2.9)}) {
        const std::vector<T> x(n, value), dy(n, T(0.7));
        std::vector<T> y(n), dx(n);
        activation_fwd(f, n, x.data(), y.data());
        activation_bwd(f, n, x.data(), dy.data(), dx.data());
        for (int64_t i = 1; i < n; ++i) {
          ASSERT_TRUE(same_bits(&y[i], &y[0], 1)) << i;
          ASSERT_TRUE(same_bits(&dx[i], &dx[0], 1)) << i;
        }
      }
      const Guarded<T> x = random_numbers<T>(n, 5), dy = random_numbers<T>(n, 6);
      Guarded<T> y(n), dx(n), in_place = x, in_place_dx = dy;
      activation_fwd(f, n, x.data(), y.data());
      activation_fwd(f, n, in_place.data(), in_place.data());
      EXPECT_TRUE(same_bits(y.data(), in_place.data(), n));
      activation_bwd(f, n, x.data(), dy.data(), dx.data());
      activation_bwd(f, n, x.data(), in_place_dx.data(), in_place_dx.data());
      EXPECT_TRUE(same_bits(dx.data(), in_place_dx.data(), n));
    }
  });
}

TYPED_TEST(Elementwise, ActivationsOfRowsThatLieApart) {
  using T = TypeParam;
  const int64_t rows = 3, gap = 2;
  on_every_target([&] {
    for (Activation f : kActivations) {
      SCOPED_TRACE("activation " + std::to_string(static_cast<int>(f)));
      for (int64_t n : awkward_sizes()) {
        const int64_t stride = n + gap;
        const Guarded<T> x = random_numbers<T>(rows * stride, 5), dy = random_numbers<T>(rows * n, 6);
        Guarded<T> y(rows * n), dx = x, want_y(rows * n), want_dx = x;
        for (int64_t i = 0; i < rows; ++i) {
          activation_fwd(f, n, x.data() + i * stride, want_y.data() + i * n);
          activation_bwd(f, n, x.data() + i * stride, dy.data() + i * n, want_dx.data() + i * stride);
        }
        activation_rows_fwd(f, rows, n, x.data(), stride, y.data(), n);
        activation_rows_bwd(f, rows, n, x.data(), stride, dy.data(), n, dx.data(), stride);
        EXPECT_TRUE(same_bits(y.data(), want_y.data(), rows * n) && y.intact());
        EXPECT_TRUE(same_bits(dx.data(), want_dx.data(), rows * stride) && dx.intact());
      }
    }
  });
}

// (f(x + h) - f(x - h)) / 2h: off by h^2 f'''/6 (f''' of the laplace one below 50) and by rounding of f over h.
TEST(ElementwiseGradient, IsTheSlopeOfTheForward) {
  const double h = 1e-5;
  on_every_target([&] {
    for (Activation f : kActivations) {
      for (double x = -3.0137; x < 3; x += 0.0613) {
        const double points[] = {x - h, x + h}, one = 1;
        double values[2], slope;
        activation_fwd(f, 2, points, values);
        activation_bwd(f, 1, &x, &one, &slope);
        EXPECT_NEAR(slope, (values[1] - values[0]) / (points[1] - points[0]), 50.0 / 6 * h * h + 64 * std::numeric_limits<double>::epsilon() / h)
            << "activation " << static_cast<int>(f) << " at " << x;
      }
    }
  });
}

TYPED_TEST(Elementwise, ColumnSum) {
  using T = TypeParam;
  on_every_target([&] {
    for (int64_t rows : {0, 1, 255, 256, 257, 700}) {
      for (int64_t dim : {1, 3, 8, 17, 64, 80, 131}) {
        SCOPED_TRACE(testing::Message() << rows << " x " << dim);
        const int64_t stride = dim + 2;
        const Guarded<T> x = random_numbers<T>(rows * stride, 3);
        Guarded<T> out(dim), pieces(dim);
        column_sum(rows, dim, stride, 0, dim, x.data(), out.data());
        std::vector<double> want(dim);
        for (int64_t i = 0; i < rows; ++i) {
          for (int64_t j = 0; j < dim; ++j) want[j] += x[i * stride + j];
        }
        test::expect_close(out.data(), want.data(), dim, Tolerance::sum<T>(kBlock, 2.0 * rows));
        EXPECT_TRUE(out.intact());
        for (int64_t begin = 0; begin < dim;) {
          const int64_t end = std::min(dim, begin + 1 + begin % 7);
          column_sum(rows, dim, stride, begin, end, x.data(), pieces.data());
          begin = end;
        }
        EXPECT_TRUE(same_bits(out.data(), pieces.data(), dim));
        EXPECT_TRUE(pieces.intact());
      }
    }
  });
}

// Adding 0.1 to a float a hundred thousand times drifts by more than one in ten thousand.
TEST(ColumnSum, DoesNotDriftOverManyRows) {
  const int64_t rows = 100000;
  const std::vector<float> x(rows, 0.1f);
  const double want = rows * static_cast<double>(0.1f);
  on_every_target([&] {
    float sum;
    column_sum<float>(rows, 1, 1, 0, 1, x.data(), &sum);
    test::expect_close(&sum, &want, 1, Tolerance::sum<float>(kBlock, want));
  });
}

TYPED_TEST(Elementwise, SumOfSquares) {
  using T = TypeParam;
  for (int64_t n : {0, 1, 2, 7, 8, 31, 32, 33, 100, 1023, 1024, 1025, 5000}) {
    const Guarded<T> x = random_numbers<T>(n, 9);
    long double want = 0;
    for (int64_t i = 0; i < n; ++i) want += static_cast<long double>(x[i]) * x[i];
    std::vector<double> results;
    on_every_target([&] {
      const double got = sum_of_squares(n, x.data()), reference = static_cast<double>(want);
      test::expect_close(&got, &reference, 1, Tolerance::sum<double>(n / 32 + 8, reference));
      results.push_back(got);
    });
    // Squares of floats are exact in double, so there fused and separate multiply-adds agree and so do all targets.
    if (sizeof(T) == 4) {
      for (double result : results) EXPECT_EQ(result, results[0]) << n;
    }
  }
}

TYPED_TEST(Elementwise, SegmentSum) {
  using T = TypeParam;
  const std::vector<int64_t> cu_seqlens = {0, 5, 5, 6, 40};
  const int64_t batch = 4;
  const Guarded<T> scale = random_numbers<T>(batch, 4);
  on_every_target([&] {
    for (int64_t dim : awkward_sizes()) {
      SCOPED_TRACE(dim);
      const Guarded<T> x = random_numbers<T>(cu_seqlens[batch] * dim, 8);
      Guarded<T> y(batch * dim), pieces(batch * dim);
      segment_sum(0, batch, cu_seqlens.data(), dim, scale.data(), x.data(), y.data());
      std::vector<double> want(batch * dim);
      for (int64_t b = 0; b < batch; ++b) {
        for (int64_t t = cu_seqlens[b]; t < cu_seqlens[b + 1]; ++t) {
          for (int64_t j = 0; j < dim; ++j) want[b * dim + j] += static_cast<double>(scale[b]) * x[t * dim + j];
        }
      }
      test::expect_close(y.data(), want.data(), batch * dim, Tolerance::sum<T>(34, 4.0 * 34));
      EXPECT_TRUE(y.intact());
      for (int64_t b = 0; b < batch; ++b) segment_sum(b, b + 1, cu_seqlens.data(), dim, scale.data(), x.data(), pieces.data());
      EXPECT_TRUE(same_bits(y.data(), pieces.data(), batch * dim));
    }
  });
}

}  // namespace
}  // namespace seqboat::kernels
