// The vector functions of kernels/cpu/math-inl.h. They are internal to the kernels, so this file is itself compiled once per SIMD target.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reference/kernels/math_test.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "../../../src/kernels/cpu/math-inl.h"
#include "support/guarded.h"

#ifndef SEQBOAT_TESTS_MATH_ONCE_
#define SEQBOAT_TESTS_MATH_ONCE_
namespace seqboat::kernels {
enum class Function { kExp, kErf, kSigmoid };
}
#endif

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// y[i] = f(x[i]), n a multiple of the vector width.
template <class T>
void apply(Function f, int64_t n, const T* x, T* y) {
  const hn::ScalableTag<T> d;
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(d))) {
    const auto v = hn::LoadU(d, x + i);
    const auto result = f == Function::kExp ? vector_exp(d, v) : f == Function::kErf ? vector_erf(d, v) : vector_sigmoid(d, v);
    hn::StoreU(result, d, y + i);
  }
}
void apply_f32(Function f, int64_t n, const float* x, float* y) {
  apply(f, n, x, y);
}
void apply_f64(Function f, int64_t n, const double* x, double* y) {
  apply(f, n, x, y);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqboat::kernels {
namespace {

HWY_EXPORT(apply_f32);
HWY_EXPORT(apply_f64);

template <class T>
std::vector<T> apply_to(Function f, std::vector<T> x) {
  const size_t n = x.size();
  x.resize((n + 63) / 64 * 64, T{0});
  std::vector<T> y(x.size());
  if constexpr (sizeof(T) == 4) {
    HWY_DYNAMIC_DISPATCH(apply_f32)(f, static_cast<int64_t>(x.size()), x.data(), y.data());
  } else {
    HWY_DYNAMIC_DISPATCH(apply_f64)(f, static_cast<int64_t>(x.size()), x.data(), y.data());
  }
  y.resize(n);
  return y;
}

template <class T>
std::vector<T> points(double low, double high) {
  constexpr int kCount = 100003;
  std::vector<T> x;
  for (int i = 0; i <= kCount; ++i) x.push_back(static_cast<T>(low + (high - low) * i / kCount));
  return x;
}

long double exact(Function f, long double x) {
  return f == Function::kExp ? std::exp(x) : f == Function::kErf ? std::erf(x) : 1 / (1 + std::exp(-x));
}

// Largest |got - want| / |want| in units of epsilon, or |got - want| if absolute.
template <class T>
double worst_error(Function f, const std::vector<T>& x, bool absolute) {
  const std::vector<T> y = apply_to(f, x);
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const long double want = exact(f, static_cast<long double>(x[i]));
    const long double error = std::abs(static_cast<long double>(y[i]) - want);
    const long double scaled = absolute || want == 0 ? error : error / std::abs(want) / static_cast<long double>(std::numeric_limits<T>::epsilon());
    if (!(scaled <= static_cast<long double>(worst))) worst = std::isnan(static_cast<double>(scaled)) ? 1e300 : static_cast<double>(scaled);
  }
  return worst;
}

bool fused() {
  const std::string target = simd_target();
  return target.rfind("avx", 0) == 0 || target.rfind("neon", 0) == 0;
}

template <class T>
class VectorMath : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(VectorMath, Types);

TYPED_TEST(VectorMath, ExpStaysWithinItsBound) {
  using T = TypeParam;
  test::on_every_target([] {
    const double limit = sizeof(T) == 4 ? 87.3 : 708.3;
    const double bound = fused() ? 2 : 4;
    EXPECT_LE(worst_error(Function::kExp, points<T>(-limit, limit), false), bound);
    EXPECT_LE(worst_error(Function::kExp, points<T>(-1, 1), false), bound);
  });
}

TYPED_TEST(VectorMath, SigmoidStaysWithinItsBound) {
  using T = TypeParam;
  test::on_every_target([] {
    const double limit = sizeof(T) == 4 ? 87.3 : 708.3;
    EXPECT_LE(worst_error(Function::kSigmoid, points<T>(-limit, limit), false), 4);
    EXPECT_LE(worst_error(Function::kSigmoid, points<T>(-3, 3), false), 4);
  });
}

TYPED_TEST(VectorMath, ErfStaysWithinItsBound) {
  using T = TypeParam;
  test::on_every_target([] {
    const double bound = sizeof(T) == 8 ? 1e-13 : fused() ? 1.2e-7 : 2e-7;
    EXPECT_LE(worst_error(Function::kErf, points<T>(-7, 7), true), bound);
    EXPECT_LE(worst_error(Function::kErf, points<T>(0.9, 1.0), true), bound);
    EXPECT_LE(worst_error(Function::kErf, points<T>(-0.9, 0.9), false), 3);
  });
}

TYPED_TEST(VectorMath, ErfIsOdd) {
  using T = TypeParam;
  test::on_every_target([] {
    const std::vector<T> x = points<T>(-6, 6);
    std::vector<T> minus = x;
    for (T& v : minus) v = -v;
    const std::vector<T> a = apply_to(Function::kErf, x);
    const std::vector<T> b = apply_to(Function::kErf, minus);
    for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(a[i], -b[i]) << x[i];
  });
}

TYPED_TEST(VectorMath, EndsOfTheRange) {
  using T = TypeParam;
  constexpr T kInf = std::numeric_limits<T>::infinity();
  test::on_every_target([] {
    const std::vector<T> x = {-kInf, static_cast<T>(-1e30), -1000, 0, 1000, static_cast<T>(1e30), kInf};
    EXPECT_EQ(apply_to(Function::kExp, x), (std::vector<T>{0, 0, 0, 1, kInf, kInf, kInf}));
    EXPECT_EQ(apply_to(Function::kErf, x), (std::vector<T>{-1, -1, -1, 0, 1, 1, 1}));
    EXPECT_EQ(apply_to(Function::kSigmoid, x), (std::vector<T>{0, 0, 0, static_cast<T>(0.5), 1, 1, 1}));
    for (const Function f : {Function::kExp, Function::kErf, Function::kSigmoid}) {
      EXPECT_TRUE(std::isnan(apply_to(f, std::vector<T>{std::numeric_limits<T>::quiet_NaN()})[0]));
    }
  });
}

// Tiny results are subnormal, not zero, and the largest finite ones are finite.
TYPED_TEST(VectorMath, ExpNearTheEndsOfTheExponent) {
  using T = TypeParam;
  test::on_every_target([] {
    const std::vector<T> low = points<T>(sizeof(T) == 4 ? -103.9 : -745.1, sizeof(T) == 4 ? -87 : -708);
    const std::vector<T> y = apply_to(Function::kExp, low);
    for (size_t i = 0; i < low.size(); ++i) {
      const long double want = std::exp(static_cast<long double>(low[i]));
      const long double tolerance =
          static_cast<long double>(std::numeric_limits<T>::denorm_min()) + 4 * want * static_cast<long double>(std::numeric_limits<T>::epsilon());
      ASSERT_LE(std::abs(static_cast<long double>(y[i]) - want), tolerance) << low[i];
    }
    const T largest = std::log(std::numeric_limits<T>::max()) * (1 - std::numeric_limits<T>::epsilon());
    EXPECT_TRUE(std::isfinite(apply_to(Function::kExp, std::vector<T>{largest})[0]));
  });
}

TYPED_TEST(VectorMath, ALaneKnowsNothingOfItsNeighbours) {
  using T = TypeParam;
  test::on_every_target([] {
    const std::vector<T> x = points<T>(-20, 20);
    for (const Function f : {Function::kExp, Function::kErf, Function::kSigmoid}) {
      const std::vector<T> y = apply_to(f, x);
      for (const size_t shift : {1, 3, 7}) {
        const std::vector<T> shifted = apply_to(f, std::vector<T>(x.begin() + static_cast<int64_t>(shift), x.end()));
        ASSERT_TRUE(test::same_bits(shifted.data(), y.data() + shift, static_cast<int64_t>(shifted.size())));
      }
    }
  });
}

}  // namespace
}  // namespace seqboat::kernels
#endif  // HWY_ONCE
