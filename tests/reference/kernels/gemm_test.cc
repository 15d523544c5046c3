#include "seqboat/kernels/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "seqboat/kernels/simd.h"
#include "support/expect_close.h"
#include "support/guarded.h"

namespace seqboat::kernels {
namespace {

using test::Guarded;
using test::on_every_target;
using test::Tolerance;

double noise(uint64_t index, uint64_t seed) {
  uint64_t z = (index + 1) * 0x9E3779B97F4A7C15ull + seed * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-52 - 1.0;
}

/// One product with padded rows, misaligned tensors and not-a-number wherever nothing may be read (a new Guarded holds nothing else).
template <class T>
struct Problem {
  Problem(int64_t m, int64_t n, int64_t k, bool trans_a, bool trans_b, bool accumulate, bool with_bias, int64_t padding)
      : shape{m, n, k, 0, 0, n + padding, trans_a, trans_b, accumulate},
        a(0),
        b(0),
        bias(n, 1),
        c(std::max<int64_t>(0, (m - 1) * (n + padding) + n), 3),
        has_bias(with_bias) {
    shape.lda = (trans_a ? m : k) + padding;
    shape.ldb = (trans_b ? k : n) + padding;
    const auto fill = [&](int64_t rows, int64_t cols, int64_t stride, uint64_t seed, int64_t misalign) {
      Guarded<T> tensor(std::max<int64_t>(0, (rows - 1) * stride + cols), misalign);
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < cols; ++j) tensor[i * stride + j] = static_cast<T>(noise(static_cast<uint64_t>(i * cols + j), seed));
      }
      return tensor;
    };
    a = trans_a ? fill(k, m, shape.lda, 1, 1) : fill(m, k, shape.lda, 1, 1);
    b = trans_b ? fill(n, k, shape.ldb, 2, 3) : fill(k, n, shape.ldb, 2, 3);
    for (int64_t j = 0; j < n; ++j) bias[j] = static_cast<T>(noise(static_cast<uint64_t>(j), 3));
    fill_c();
  }
  void fill_c() {
    std::fill_n(c.data(), c.size(), kPadding);
    for (int64_t i = 0; i < shape.m; ++i) {
      // Without accumulation the old content must not be read.
      for (int64_t j = 0; j < shape.n; ++j) c[i * shape.ldc + j] = shape.accumulate ? old_c(i, j) : std::numeric_limits<T>::quiet_NaN();
    }
  }
  T old_c(int64_t i, int64_t j) const { return static_cast<T>(noise(static_cast<uint64_t>(i * shape.n + j), 4)); }
  T a_at(int64_t i, int64_t p) { return shape.trans_a ? a[p * shape.lda + i] : a[i * shape.lda + p]; }
  T b_at(int64_t p, int64_t j) { return shape.trans_b ? b[j * shape.ldb + p] : b[p * shape.ldb + j]; }

  /// Rows [m0, m1) and columns [n0, n1) by one call.
  void run(int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
    GemmShape part = shape;
    part.m = m1 - m0;
    part.n = n1 - n0;
    // 64-byte aligned, with a guard at its very end.
    const int64_t size = static_cast<int64_t>(gemm_workspace_size<T>(part));
    std::vector<T> storage(static_cast<size_t>(size) + 64 / sizeof(T) + 64, kPadding);
    T* workspace = storage.data();
    while (reinterpret_cast<uintptr_t>(workspace) % 64 != 0) ++workspace;
    gemm<T>(part, a.data() + (shape.trans_a ? m0 : m0 * shape.lda), b.data() + (shape.trans_b ? n0 * shape.ldb : n0),
            has_bias ? bias.data() + n0 : nullptr, c.data() + m0 * shape.ldc + n0, workspace);
    for (T* past = workspace + size; past != storage.data() + storage.size(); ++past) ASSERT_EQ(*past, kPadding) << "workspace overrun";
  }

  void check() {
    std::vector<T> got;
    std::vector<double> want;
    double magnitude = 0;
    for (int64_t i = 0; i < shape.m; ++i) {
      for (int64_t j = 0; j < shape.n; ++j) {
        double sum = shape.accumulate ? static_cast<double>(old_c(i, j)) : has_bias ? static_cast<double>(bias[j]) : 0.0;
        double size = std::abs(sum);
        for (int64_t p = 0; p < shape.k; ++p) {
          const double product = static_cast<double>(a_at(i, p)) * static_cast<double>(b_at(p, j));
          sum += product;
          size += std::abs(product);
        }
        got.push_back(c[i * shape.ldc + j]);
        want.push_back(sum);
        magnitude = std::max(magnitude, size);
      }
    }
    test::expect_close(got.data(), want.data(), static_cast<int64_t>(got.size()), Tolerance::sum<T>(shape.k, magnitude));
    for (int64_t i = 0; i + 1 < shape.m; ++i) {
      for (int64_t j = shape.n; j < shape.ldc; ++j) {
        ASSERT_EQ(c[i * shape.ldc + j], kPadding) << "padding of row " << i << " was written at column " << j;
      }
    }
    EXPECT_TRUE(a.intact() && b.intact() && bias.intact()) << "an input was written around";
    EXPECT_TRUE(c.intact()) << "C was written around";
  }

  static constexpr T kPadding = T(-12345.5);
  GemmShape shape;
  Guarded<T> a, b, bias, c;
  bool has_bias;
};

template <class T>
class GemmTest : public ::testing::Test {
 protected:
  void TearDown() override { force_simd_target(""); }
};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(GemmTest, Types);

TYPED_TEST(GemmTest, MatchesDefinitionOnEveryTarget) {
  const int64_t sizes[][3] = {{1, 1, 1},    {1, 16, 3},   {2, 15, 7},   {3, 17, 33},    {4, 8, 5},     {5, 31, 16},
                              {6, 33, 2},   {7, 47, 64},  {8, 48, 9},   {9, 49, 31},    {12, 64, 30},  {13, 80, 80},
                              {16, 82, 80}, {17, 97, 65}, {49, 30, 12}, {50, 100, 257}, {1, 113, 256}, {31, 5, 513}};
  on_every_target([&] {
    for (const auto& size : sizes) {
      for (int variant = 0; variant < 16; ++variant) {
        SCOPED_TRACE(testing::Message() << "m " << size[0] << " n " << size[1] << " k " << size[2] << " variant " << variant);
        Problem<TypeParam> problem(size[0], size[1], size[2], variant & 1, variant & 2, variant & 4, variant & 8, (variant * 5) % 7);
        problem.run(0, size[0], 0, size[1]);
        problem.check();
        if (this->HasFailure()) return;
      }
    }
  });
}

TYPED_TEST(GemmTest, ManyBlocksInEveryDirection) {
  for (int variant = 0; variant < 4; ++variant) {
    SCOPED_TRACE(variant);
    Problem<TypeParam> problem(101, 811, 530, variant & 1, variant & 2, false, true, 1);
    problem.run(0, 101, 0, 811);
    problem.check();
  }
}

TYPED_TEST(GemmTest, EmptySumGivesTheBase) {
  on_every_target([&] {
    for (int variant = 0; variant < 4; ++variant) {
      Problem<TypeParam> problem(9, 21, 0, false, false, variant & 1, variant & 2, 2);
      problem.run(0, 9, 0, 21);
      for (int64_t i = 0; i < 9; ++i) {
        for (int64_t j = 0; j < 21; ++j) {
          const TypeParam want = variant & 1 ? problem.old_c(i, j) : variant & 2 ? problem.bias[j] : TypeParam{0};
          ASSERT_EQ(problem.c[i * problem.shape.ldc + j], want) << "row " << i << " column " << j;
        }
      }
      EXPECT_TRUE(problem.c.intact());
    }
  });
}

TYPED_TEST(GemmTest, NothingToWriteTouchesNothing) {
  for (const auto& [m, n] : {std::pair<int64_t, int64_t>{0, 5}, {5, 0}, {0, 0}}) {
    Problem<TypeParam> problem(m, n, 4, false, false, false, true, 0);
    problem.run(0, m, 0, n);
    EXPECT_TRUE(problem.c.intact());
  }
}

// Every element one by one, and in ragged pieces: the bits must be those of the whole.
TYPED_TEST(GemmTest, BitsDoNotDependOnTheCut) {
  const int64_t m = 37, n = 101, k = 300;
  on_every_target([&] {
    for (int variant = 0; variant < 8; ++variant) {
      Problem<TypeParam> problem(m, n, k, variant & 1, variant & 2, variant & 4, true, 3);
      problem.run(0, m, 0, n);
      Guarded<TypeParam> whole = problem.c;
      const auto expect_whole = [&](const char* cut) {
        ASSERT_EQ(std::memcmp(problem.c.data(), whole.data(), sizeof(TypeParam) * static_cast<size_t>(whole.size())), 0)
            << "variant " << variant << ": cut into " << cut;
      };
      problem.fill_c();
      for (int64_t i = 0; i < m; ++i) problem.run(i, i + 1, 0, n);
      expect_whole("rows");
      problem.fill_c();
      for (int64_t j = 0; j < n; ++j) problem.run(0, m, j, j + 1);
      expect_whole("columns");
      problem.fill_c();
      for (int64_t i = 0; i < m; i += 10) {
        for (int64_t j = 0; j < n; j += 23) problem.run(i, std::min(m, i + 10), j, std::min(n, j + 23));
      }
      expect_whole("pieces");
    }
  });
}

// Transposed storage is another way to hand over the same numbers.
TYPED_TEST(GemmTest, BitsDoNotDependOnTheStorage) {
  const int64_t m = 19, n = 50, k = 270;
  std::vector<TypeParam> first;
  for (int variant = 0; variant < 4; ++variant) {
    Problem<TypeParam> problem(m, n, k, variant & 1, variant & 2, false, false, 0);
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t p = 0; p < k; ++p) {
        problem.a[variant & 1 ? p * m + i : i * k + p] = static_cast<TypeParam>(noise(static_cast<uint64_t>(i * k + p), 7));
      }
    }
    for (int64_t p = 0; p < k; ++p) {
      for (int64_t j = 0; j < n; ++j) {
        problem.b[variant & 2 ? j * k + p : p * n + j] = static_cast<TypeParam>(noise(static_cast<uint64_t>(p * n + j), 8));
      }
    }
    problem.run(0, m, 0, n);
    const std::vector<TypeParam> got(problem.c.data(), problem.c.data() + m * n);
    if (variant == 0) first = got;
    EXPECT_EQ(got, first) << "variant " << variant;
  }
}

// A row of A that holds an infinity or a not-a-number spoils that row of C alone.
TYPED_TEST(GemmTest, NonFiniteValuesStayInTheirRow) {
  on_every_target([&] {
    Problem<TypeParam> problem(21, 35, 40, false, false, false, false, 0);
    for (int64_t p = 0; p < 40; ++p) problem.a[10 * 40 + p] = std::numeric_limits<TypeParam>::quiet_NaN();
    problem.run(0, 21, 0, 35);
    for (int64_t i = 0; i < 21; ++i) {
      for (int64_t j = 0; j < 35; ++j) ASSERT_EQ(std::isnan(problem.c[i * 35 + j]), i == 10) << "row " << i << " column " << j;
    }
  });
}

}  // namespace
}  // namespace seqboat::kernels
