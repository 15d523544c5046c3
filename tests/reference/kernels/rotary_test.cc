#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "seqboat/kernels/window_attention.h"
#include "support/expect_close.h"
#include "support/guarded.h"

namespace seqboat::test {
namespace {

#ifdef __SIZEOF_FLOAT128__
__extension__ typedef __float128 Wide;
#else
using Wide = long double;  // 113 bits where there is no __float128
#endif

struct Angle {
  double sine, cosine;
};

// position * 10000^(-2i/Z) with the frequency rounded to double and all else in 113 bits: an angle of 10^9 keeps 80 bits after the point.
Angle angle_at(int64_t position, int64_t pair, int64_t d_attn) {
  const double theta = std::pow(10000.0, -2.0 * static_cast<double>(pair) / static_cast<double>(d_attn));
  const Wide two_pi = Wide(0x1.921fb54442d18p+2) + Wide(0x1.1a62633145c07p-52) + Wide(-0x1.f1976b7ed8fbcp-108);
  const Wide angle = Wide(theta) * Wide(position);
  const int64_t turns = static_cast<int64_t>(angle / two_pi);
  const long double rest = static_cast<long double>(angle - Wide(turns) * two_pi);
  return {static_cast<double>(std::sin(rest)), static_cast<double>(std::cos(rest))};
}

const std::vector<int64_t> kPositions = {0, 1, 2, 3, 10, 1000, 4095, 65536, 1000003, 123456789, 999999999, 1000000000, 4000000000, 1000000000000000};

template <class T>
class Rotary : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Rotary, Types);

TYPED_TEST(Rotary, IsTheRotationByTheExactAngle) {
  using T = TypeParam;
  for (const int64_t Z : {2, 4, 6, 10, 30, 32, 64, 96, 128, 130, 300}) {
    SCOPED_TRACE("Z " + std::to_string(Z));
    const int64_t rows = static_cast<int64_t>(kPositions.size()), x_stride = Z + 3, y_stride = Z + 5;
    const Guarded<T> x = random_numbers<T>(rows * x_stride, 7);
    for (const bool inverse : {false, true}) {
      std::vector<double> want(static_cast<size_t>(rows * Z));
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t i = 0; i < Z / 2; ++i) {
          const Angle a = angle_at(kPositions[static_cast<size_t>(r)], i, Z);
          const double s = inverse ? -a.sine : a.sine;
          const double x0 = static_cast<double>(x[r * x_stride + 2 * i]), x1 = static_cast<double>(x[r * x_stride + 2 * i + 1]);
          want[static_cast<size_t>(r * Z + 2 * i)] = x0 * a.cosine - x1 * s;
          want[static_cast<size_t>(r * Z + 2 * i + 1)] = x0 * s + x1 * a.cosine;
        }
      }
      on_every_target([&] {
        Guarded<T> y(rows * y_stride);
        kernels::rotary(rows, Z, x_stride, y_stride, kPositions.data(), inverse, x.data(), y.data());
        for (int64_t r = 0; r < rows; ++r) {
          // Two products of numbers up to 2 with sines rounded to T (half an ULP, and 1.5 of double before that), each rounded, and their sum.
          expect_close(y.data() + r * y_stride, want.data() + r * Z, Z, Tolerance::ulps<T>(4, 2));
          for (int64_t z = Z; z < y_stride; ++z) EXPECT_TRUE(std::isnan(y[r * y_stride + z]));
        }
        EXPECT_TRUE(y.intact());
      });
    }
  }
}

TYPED_TEST(Rotary, InverseRestoresInPlace) {
  using T = TypeParam;
  constexpr int64_t kZ = 66;
  const int64_t rows = static_cast<int64_t>(kPositions.size());
  on_every_target([&] {
    const Guarded<T> x = random_numbers<T>(rows * kZ, 9);
    Guarded<T> y = x;
    kernels::rotary(rows, kZ, kZ, kZ, kPositions.data(), false, y.data(), y.data());
    Guarded<T> apart(rows * kZ);
    kernels::rotary(rows, kZ, kZ, kZ, kPositions.data(), false, x.data(), apart.data());
    EXPECT_TRUE(same_bits(y.data(), apart.data(), rows * kZ));
    kernels::rotary(rows, kZ, kZ, kZ, kPositions.data(), true, y.data(), y.data());
    // sine^2 + cosine^2 is 1 up to two roundings of each; twice three roundings of numbers up to 2 sqrt 2.
    expect_close(y.data(), x.data(), rows * kZ, Tolerance::ulps<T>(8, 2.83));
    EXPECT_TRUE(y.intact());
  });
}

TYPED_TEST(Rotary, ProductsDependOnTheDistanceAlone) {
  using T = TypeParam;
  constexpr int64_t kZ = 64;
  const Guarded<T> q = random_numbers<T>(kZ, 1);
  const Guarded<T> k = random_numbers<T>(kZ, 2);
  double near = 0;
  for (const int64_t base : {int64_t{0}, int64_t{1000}, int64_t{1000000000}}) {
    const int64_t q_position = base + 17, k_position = base + 5;
    Guarded<T> rotated_q(kZ), rotated_k(kZ);
    kernels::rotary(1, kZ, kZ, kZ, &q_position, false, q.data(), rotated_q.data());
    kernels::rotary(1, kZ, kZ, kZ, &k_position, false, k.data(), rotated_k.data());
    double product = 0;
    for (int64_t z = 0; z < kZ; ++z) product += static_cast<double>(rotated_q[z]) * static_cast<double>(rotated_k[z]);
    if (base == 0) near = product;
    // Each side within 4 ULP of 2 (see above), against numbers up to 2 sqrt 2, Z times, twice.
    EXPECT_LE(std::abs(product - near), 2.0 * 2 * kZ * 2.83 * 8 * static_cast<double>(std::numeric_limits<T>::epsilon())) << base;
  }
}

TYPED_TEST(Rotary, PositionZeroAndNoRowsLeaveThingsAsTheyAre) {
  using T = TypeParam;
  on_every_target([&] {
    const int64_t zero = 0;
    const Guarded<T> x = random_numbers<T>(20, 3);
    Guarded<T> y(20);
    kernels::rotary(0, 20, 20, 20, &zero, false, x.data(), y.data());
    EXPECT_TRUE(std::isnan(y[0]));
    kernels::rotary(1, 20, 20, 20, &zero, false, x.data(), y.data());
    EXPECT_TRUE(same_bits(x.data(), y.data(), 20));
  });
}

}  // namespace
}  // namespace seqboat::test
