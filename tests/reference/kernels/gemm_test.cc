#include "seqboat/kernels/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
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

/// n elements, the first of them 64-byte aligned as a workspace must be, all not-a-number at first, between guards.
template <class T>
class Workspace {
 public:
  explicit Workspace(size_t n) : all_(n + 3 * kGuard), n_(n) {
    std::memset(all_.data(), 0xff, all_.size() * sizeof(T));
    begin_ = kGuard;
    while (reinterpret_cast<uintptr_t>(all_.data() + begin_) % 64 != 0) ++begin_;
  }
  Workspace(Workspace&&) = default;  // the elements stay where they are
  T* data() { return all_.data() + begin_; }
  size_t size() const { return n_; }
  bool intact() const {
    const auto* bytes = reinterpret_cast<const unsigned char*>(all_.data());
    for (size_t i = 0; i < all_.size() * sizeof(T); ++i) {
      if ((i < begin_ * sizeof(T) || i >= (begin_ + n_) * sizeof(T)) && bytes[i] != 0xff) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kGuard = 64 / sizeof(T);
  std::vector<T> all_;
  size_t begin_, n_;
};

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
    Workspace<T> workspace(gemm_workspace_size<T>(part));
    gemm<T>(part, a.data() + (shape.trans_a ? m0 : m0 * shape.lda), b.data() + (shape.trans_b ? n0 * shape.ldb : n0),
            has_bias ? bias.data() + n0 : nullptr, c.data() + m0 * shape.ldc + n0, workspace.data());
    ASSERT_TRUE(workspace.intact()) << "workspace overrun";
  }
  void run() { run(0, shape.m, 0, shape.n); }

  /// op(B) packed by a shape that says nothing of A and C.
  Workspace<T> pack() {
    GemmShape packing{};
    packing.n = shape.n;
    packing.k = shape.k;
    packing.ldb = shape.ldb;
    packing.trans_b = shape.trans_b;
    Workspace<T> packed(gemm_packed_size<T>(packing));
    gemm_pack_b<T>(packing, b.data(), packed.data());
    EXPECT_TRUE(packed.intact()) << "packing wrote outside its buffer";
    return packed;
  }
  /// Rows [m0, m1) from a packed B, by a shape that says nothing of B's storage.
  void run_packed(Workspace<T>& packed, int64_t m0, int64_t m1) {
    GemmShape part = shape;
    part.m = m1 - m0;
    part.ldb = -1;
    part.trans_b = !shape.trans_b;
    const std::vector<T> before(packed.data(), packed.data() + packed.size());
    gemm_packed<T>(part, a.data() + (shape.trans_a ? m0 : m0 * shape.lda), packed.data(), has_bias ? bias.data() : nullptr,
                   c.data() + m0 * shape.ldc);
    ASSERT_TRUE(packed.intact() && test::same_bits(packed.data(), before.data(), static_cast<int64_t>(before.size()))) << "packed B was written";
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

// Few columns take a way of their own when there are rows enough.
TYPED_TEST(GemmTest, FewColumnsMatchDefinitionOnEveryTarget) {
  on_every_target([&] {
    for (const int64_t n : {1, 2, 3, 4, 5}) {
      for (const int64_t m : {15, 16, 17, 31, 32, 33, 63, 64, 65, 100}) {
        const int64_t k = 1 + (m * n) % 13 + (m == 33 ? 256 : 0);
        for (int variant = 0; variant < 16; ++variant) {
          SCOPED_TRACE(testing::Message() << "m " << m << " n " << n << " k " << k << " variant " << variant);
          Problem<TypeParam> problem(m, n, k, variant & 1, variant & 2, variant & 4, variant & 8, (variant * 5) % 7);
          problem.run();
          problem.check();
          if (this->HasFailure()) return;
        }
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

// Packed before or not: the same bits, whatever rows a call has.
TYPED_TEST(GemmTest, PackedGivesTheBitsOfUnpacked) {
  const int64_t sizes[][3] = {{1, 1, 1},    {1, 2, 80},    {2, 7, 3},     {5, 16, 30},   {9, 17, 256},  {64, 2, 80},    {70, 3, 257}, {33, 80, 80},
                              {65, 82, 60}, {40, 150, 60}, {14, 31, 511}, {12, 811, 30}, {131, 40, 17}, {20, 400, 300}, {3, 48, 0},   {35, 2, 0}};
  on_every_target([&] {
    for (const auto& [m, n, k] : sizes) {
      for (int variant = 0; variant < 16; ++variant) {
        SCOPED_TRACE(testing::Message() << "m " << m << " n " << n << " k " << k << " variant " << variant);
        Problem<TypeParam> problem(m, n, k, variant & 1, variant & 2, variant & 4, variant & 8, (variant * 3) % 5);
        Workspace<TypeParam> packed = problem.pack();
        problem.run();
        const Guarded<TypeParam> unpacked = problem.c;
        const auto expect_unpacked = [&](const char* rows) {
          ASSERT_TRUE(problem.c.intact() && test::same_bits(problem.c.data(), unpacked.data(), unpacked.size())) << rows;
        };
        problem.fill_c();
        problem.run_packed(packed, 0, m);
        expect_unpacked("in one call");
        problem.fill_c();
        for (int64_t row = 0, step = 1; row < m; row += step, step = 2 * step + 1) problem.run_packed(packed, row, std::min(m, row + step));
        expect_unpacked("in pieces");
        EXPECT_TRUE(problem.a.intact() && problem.b.intact() && problem.bias.intact()) << "an input was written around";
        if (this->HasFailure()) return;
      }
    }
  });
}

TYPED_TEST(GemmTest, PackedSizeIsTheSameOnEveryTarget) {
  on_every_target([&] {
    for (const auto& [n, k, want] : {std::array<int64_t, 3>{1, 1, 16}, {16, 3, 48}, {17, 300, 9600}, {80, 0, 0}}) {
      GemmShape shape{};
      shape.n = n;
      shape.k = k;
      EXPECT_EQ(static_cast<int64_t>(gemm_packed_size<TypeParam>(shape)), want);
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
    for (const int64_t n : {35, 2}) {
      Problem<TypeParam> problem(71, n, 40, false, false, false, false, 0);
      for (int64_t p = 0; p < 40; ++p) problem.a[10 * 40 + p] = std::numeric_limits<TypeParam>::quiet_NaN();
      problem.run();
      for (int64_t i = 0; i < 71; ++i) {
        for (int64_t j = 0; j < n; ++j) ASSERT_EQ(std::isnan(problem.c[i * n + j]), i == 10) << "row " << i << " column " << j;
      }
    }
  });
}

}  // namespace
}  // namespace seqboat::kernels
