#include "seqboat/kernels/gated_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "seqboat/kernels/elementwise.h"
#include "support/expect_close.h"
#include "support/guarded.h"

namespace seqboat::kernels {
namespace {

using test::awkward_sizes;
using test::Guarded;
using test::on_every_target;
using test::random_numbers;
using test::same_bits;

// Every formula of the header is a few operations rounded one by one: plain loops give its bits, and bits are compared.

constexpr int64_t kRows = 11;

/// rows x dim numbers, some of them zeros of either sign, in rows that lie `gap` elements apart; the gaps hold NaN and must keep their bits.
template <class T>
struct Rows {
  Rows(int64_t rows_in, int64_t dim_in, int64_t gap, uint32_t seed = 0)
      : rows(rows_in), dim(dim_in), stride(dim_in + gap), all(rows_in * (dim_in + gap), 1 + seed % 3) {
    if (seed == 0) return;
    const Guarded<T> numbers = random_numbers<T>(rows * dim, seed);
    for (int64_t i = 0; i < rows * dim; ++i) at(i / dim, i % dim) = i % 13 == 5 ? T{0} : i % 13 == 8 ? -T{0} : numbers[i];
  }
  T& at(int64_t i, int64_t j) { return all[i * stride + j]; }
  const T& at(int64_t i, int64_t j) const { return all[i * stride + j]; }
  T* data() { return all.data(); }
  const T* data() const { return all.data(); }
  bool equals(const Rows& other) const {
    for (int64_t i = 0; i < rows; ++i) {
      if (!same_bits(&at(i, 0), &other.at(i, 0), dim)) return false;
    }
    return true;
  }
  bool intact() const {
    const Guarded<T> fresh(stride - dim);
    for (int64_t i = 0; i < rows; ++i) {
      if (!same_bits(all.data() + i * stride + dim, fresh.data(), stride - dim)) return false;
    }
    return all.intact();
  }

  int64_t rows, dim, stride;
  Guarded<T> all;
};

template <class T>
class GatedRows : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(GatedRows, Types);

template <class Body>
void on_all_shapes(const Body& body) {
  on_every_target([&] {
    for (int64_t dim : awkward_sizes()) {
      for (int64_t gap : {0, 3}) {
        SCOPED_TRACE(testing::Message() << "dim " << dim << ", gap " << gap);
        body(dim, gap);
      }
    }
  });
}

TYPED_TEST(GatedRows, QkAffine) {
  using T = TypeParam;
  on_all_shapes([&](int64_t dim, int64_t gap) {
    const Rows<T> z(kRows, dim, gap, 1), gamma(2, dim, 0, 2), beta(2, dim, 0, 3), dq(kRows, dim, gap + 1, 4), dk(kRows, dim, gap, 5);
    Rows<T> q(kRows, dim, gap), k(kRows, dim, gap + 2), want_q = q, want_k = k, dz(kRows, dim, gap), want_dz = dz;
    Rows<T> dgamma(2, dim, 0, 6), dbeta(2, dim, 0, 7), want_dgamma = dgamma, want_dbeta = dbeta;
    for (int64_t i = 0; i < kRows; ++i) {
      for (int64_t j = 0; j < dim; ++j) {
        want_q.at(i, j) = z.at(i, j) * gamma.at(0, j) + beta.at(0, j);
        want_k.at(i, j) = z.at(i, j) * gamma.at(1, j) + beta.at(1, j);
        want_dz.at(i, j) = dq.at(i, j) * gamma.at(0, j) + dk.at(i, j) * gamma.at(1, j);
        want_dgamma.at(0, j) += dq.at(i, j) * z.at(i, j);
        want_dgamma.at(1, j) += dk.at(i, j) * z.at(i, j);
        want_dbeta.at(0, j) += dq.at(i, j);
        want_dbeta.at(1, j) += dk.at(i, j);
      }
    }
    Rows<T> in_place = z, dgamma_cut = dgamma, dbeta_cut = dbeta;
    qk_affine_fwd(kRows, dim, z.data(), z.stride, gamma.data(), beta.data(), q.data(), q.stride, k.data(), k.stride);
    EXPECT_TRUE(q.equals(want_q) && k.equals(want_k));
    EXPECT_TRUE(q.intact() && k.intact());
    qk_affine_fwd(kRows, dim, in_place.data(), z.stride, gamma.data(), beta.data(), in_place.data(), z.stride, k.data(), k.stride);
    EXPECT_TRUE(in_place.equals(want_q) && k.equals(want_k));

    qk_affine_bwd(kRows, dim, z.data(), z.stride, gamma.data(), dq.data(), dq.stride, dk.data(), dk.stride, dz.data(), dz.stride, dgamma.data(),
                  dbeta.data());
    EXPECT_TRUE(dz.equals(want_dz) && dgamma.equals(want_dgamma) && dbeta.equals(want_dbeta));
    EXPECT_TRUE(dz.intact() && dgamma.intact() && dbeta.intact());
    // Another cut of the rows into the same buffers, and in place.
    Rows<T> dz_cut = dk;
    for (int64_t i = 0; i < kRows; ++i) {
      qk_affine_bwd(1, dim, &z.at(i, 0), z.stride, gamma.data(), &dq.at(i, 0), dq.stride, &dz_cut.at(i, 0), dz_cut.stride, &dz_cut.at(i, 0),
                    dz_cut.stride, dgamma_cut.data(), dbeta_cut.data());
    }
    EXPECT_TRUE(dz_cut.equals(want_dz) && dgamma_cut.equals(want_dgamma) && dbeta_cut.equals(want_dbeta));
  });
}

TYPED_TEST(GatedRows, Gate) {
  using T = TypeParam;
  on_all_shapes([&](int64_t dim, int64_t gap) {
    const Rows<T> a(kRows, dim, gap, 1), r(kRows, dim, gap + 2, 2), dout(kRows, dim, gap, 3);
    Rows<T> out(kRows, dim, gap + 1), da(kRows, dim, gap), dr(kRows, dim, gap + 1), want = out, want_da = da, want_dr = dr;
    for (int64_t i = 0; i < kRows; ++i) {
      for (int64_t j = 0; j < dim; ++j) {
        want.at(i, j) = a.at(i, j) * r.at(i, j);
        want_da.at(i, j) = dout.at(i, j) * r.at(i, j);
        want_dr.at(i, j) = dout.at(i, j) * a.at(i, j);
      }
    }
    gate_fwd(kRows, dim, a.data(), a.stride, r.data(), r.stride, out.data(), out.stride);
    EXPECT_TRUE(out.equals(want) && out.intact());
    gate_bwd(kRows, dim, dout.data(), dout.stride, a.data(), a.stride, r.data(), r.stride, da.data(), da.stride, dr.data(), dr.stride);
    EXPECT_TRUE(da.equals(want_da) && dr.equals(want_dr) && da.intact() && dr.intact());

    Rows<T> over_dout = dout, over_a = a, over_r = r;
    gate_bwd(kRows, dim, over_dout.data(), dout.stride, a.data(), a.stride, r.data(), r.stride, over_dout.data(), dout.stride, dr.data(), dr.stride);
    EXPECT_TRUE(over_dout.equals(want_da) && dr.equals(want_dr));
    over_dout = dout;
    gate_bwd(kRows, dim, over_dout.data(), dout.stride, a.data(), a.stride, r.data(), r.stride, da.data(), da.stride, over_dout.data(), dout.stride);
    EXPECT_TRUE(over_dout.equals(want_dr) && da.equals(want_da));
    gate_bwd(kRows, dim, dout.data(), dout.stride, over_a.data(), a.stride, over_r.data(), r.stride, over_a.data(), a.stride, over_r.data(),
             r.stride);
    EXPECT_TRUE(over_a.equals(want_da) && over_r.equals(want_dr));
    over_a = a;
    gate_fwd(kRows, dim, over_a.data(), a.stride, r.data(), r.stride, over_a.data(), a.stride);
    EXPECT_TRUE(over_a.equals(want));
  });
}

TYPED_TEST(GatedRows, BranchSum) {
  using T = TypeParam;
  const int64_t tokens = kRows;
  const Guarded<T> p = random_numbers<T>(tokens, 9, 0.5, 1);
  std::vector<uint8_t> some(tokens), none(tokens, 0);
  for (int64_t t = 0; t < tokens; ++t) some[t] = t % 3 != 1;
  on_all_shapes([&](int64_t dim, int64_t gap) {
    const Rows<T> skip(tokens, dim, gap, 1), x(tokens, dim, gap + 1, 2), h(tokens, dim, gap + 2, 3);
    for (const uint8_t* active :
         {static_cast<const uint8_t*>(nullptr), static_cast<const uint8_t*>(some.data()), static_cast<const uint8_t*>(none.data())}) {
      for (const T* confidence : {static_cast<const T*>(nullptr), p.data()}) {
        Rows<T> pre(tokens, dim, gap), y(tokens, dim, gap + 1), want_pre = pre, want_y = y;
        std::vector<int64_t> before = {0};
        for (int64_t t = 0; t < tokens; ++t) {
          const bool on = active == nullptr || active[t] != 0;
          for (int64_t j = 0; j < dim; ++j) {
            T branch = T{0};
            if (on) branch = confidence != nullptr ? h.at(before[t], j) * confidence[t] : h.at(before[t], j);
            want_pre.at(t, j) = (skip.at(t, j) + branch) + x.at(t, j);
          }
          activation_fwd(Activation::kSilu, dim, &want_pre.at(t, 0), &want_y.at(t, 0));
          before.push_back(before[t] + on);
        }
        branch_sum_fwd(0, tokens, dim, active, 0, h.data(), h.stride, confidence, skip.data(), skip.stride, x.data(), x.stride, pre.data(),
                       pre.stride, y.data(), y.stride);
        EXPECT_TRUE(pre.equals(want_pre) && y.equals(want_y));
        EXPECT_TRUE(pre.intact() && y.intact());
        // In blocks, without the argument, over its own input.
        Rows<T> over = x;
        for (int64_t begin = 0; begin < tokens; begin += 4) {
          const int64_t end = std::min(tokens, begin + 4);
          branch_sum_fwd<T>(begin, end, dim, active, before[begin], h.data(), h.stride, confidence, skip.data(), skip.stride, over.data(),
                            over.stride, nullptr, 0, over.data(), over.stride);
        }
        EXPECT_TRUE(over.equals(want_y));
      }
    }
  });
}

// Two negative zeros: an inactive token's zero makes the sum positive, which the sign of SiLU'(0) dy would not show but these bits do.
TYPED_TEST(GatedRows, AnInactiveTokenAddsItsZero) {
  using T = TypeParam;
  on_every_target([] {
    const T skip[] = {-T{0}}, x[] = {-T{0}}, zero[] = {T{0}};
    const uint8_t active[] = {0};
    T pre[1], y[1];
    branch_sum_fwd<T>(0, 1, 1, active, 0, nullptr, 1, nullptr, skip, 1, x, 1, pre, 1, y, 1);
    EXPECT_TRUE(same_bits(pre, zero, 1) && same_bits(y, zero, 1));
  });
}

TYPED_TEST(GatedRows, RowDots) {
  using T = TypeParam;
  on_all_shapes([&](int64_t dim, int64_t gap) {
    const Rows<T> a(kRows, dim, gap, 1), b(kRows, dim, gap + 1, 2);
    Guarded<T> out(kRows), one(kRows);
    std::vector<T> want(kRows);
    std::vector<double> exact(kRows);
    for (int64_t i = 0; i < kRows; ++i) {
      T sums[16] = {};
      for (int64_t j = 0; j < dim; ++j) {
        sums[j % 16] += a.at(i, j) * b.at(i, j);
        exact[i] += static_cast<double>(a.at(i, j)) * static_cast<double>(b.at(i, j));
      }
      for (int64_t half = 8; half > 0; half /= 2) {
        for (int64_t l = 0; l < half; ++l) sums[l] += sums[l + half];
      }
      want[i] = sums[0];
    }
    row_dots(kRows, dim, a.data(), a.stride, b.data(), b.stride, out.data());
    EXPECT_TRUE(same_bits(out.data(), want.data(), kRows) && out.intact());
    test::expect_close(out.data(), exact.data(), kRows, test::Tolerance::sum<T>(dim, 4.0 * static_cast<double>(dim)));
    for (int64_t i = 0; i < kRows; ++i) row_dots(1, dim, &a.at(i, 0), a.stride, &b.at(i, 0), b.stride, one.data() + i);
    EXPECT_TRUE(same_bits(one.data(), want.data(), kRows));
  });
}

TYPED_TEST(GatedRows, ScaleRows) {
  using T = TypeParam;
  const Guarded<T> p = random_numbers<T>(kRows, 9);
  on_all_shapes([&](int64_t dim, int64_t gap) {
    const Rows<T> x(kRows, dim, gap, 1);
    Rows<T> y(kRows, dim, gap + 1), want = y, in_place = x;
    for (int64_t i = 0; i < kRows; ++i) {
      for (int64_t j = 0; j < dim; ++j) want.at(i, j) = p[i] * x.at(i, j);
    }
    scale_rows(kRows, dim, p.data(), x.data(), x.stride, y.data(), y.stride);
    EXPECT_TRUE(y.equals(want) && y.intact());
    scale_rows(kRows, dim, p.data(), in_place.data(), x.stride, in_place.data(), x.stride);
    EXPECT_TRUE(in_place.equals(want));
  });
}

TYPED_TEST(GatedRows, ScatterAddRows) {
  using T = TypeParam;
  const int64_t index[] = {1, 2, 5, 9, 5};  // in order, also where a row comes twice
  on_all_shapes([&](int64_t dim, int64_t gap) {
    const Rows<T> h(5, dim, gap, 1);
    Rows<T> y(kRows, dim, gap + 1, 2), want = y;
    for (int64_t i = 0; i < 5; ++i) {
      for (int64_t j = 0; j < dim; ++j) want.at(index[i], j) += h.at(i, j);
    }
    scatter_add_rows(5, dim, index, h.data(), h.stride, y.data(), y.stride);
    EXPECT_TRUE(y.equals(want) && y.intact());
  });
}

TYPED_TEST(GatedRows, AddRows) {
  using T = TypeParam;
  on_all_shapes([&](int64_t dim, int64_t gap) {
    const Rows<T> x(kRows, dim, gap, 1);
    Rows<T> y(kRows, dim, gap + 1, 2), want = y;
    for (int64_t i = 0; i < kRows; ++i) {
      for (int64_t j = 0; j < dim; ++j) want.at(i, j) += x.at(i, j);
    }
    add_rows(kRows, dim, x.data(), x.stride, y.data(), y.stride);
    EXPECT_TRUE(y.equals(want) && y.intact());
  });
}

TYPED_TEST(GatedRows, Update) {
  using T = TypeParam;
  on_all_shapes([&](int64_t dim, int64_t gap) {
    const Rows<T> u(kRows, dim, gap, 1), h(kRows, dim, gap + 1, 2), x(kRows, dim, gap + 2, 3), dy(kRows, dim, gap, 4);
    Rows<T> y(kRows, dim, gap), du(kRows, dim, gap), dh(kRows, dim, gap + 1), dx(kRows, dim, gap);
    Rows<T> want_y = y, want_du = du, want_dh = dh, want_dx = dx;
    std::vector<T> gate(dim);
    for (int64_t i = 0; i < kRows; ++i) {
      activation_fwd(Activation::kSigmoid, dim, &u.at(i, 0), gate.data());
      for (int64_t j = 0; j < dim; ++j) {
        const T s = gate[j], g = dy.at(i, j), change = h.at(i, j) - x.at(i, j);
        want_y.at(i, j) = x.at(i, j) + s * change;
        want_dh.at(i, j) = g * s;
        want_dx.at(i, j) = g - g * s;
        want_du.at(i, j) = (g * change) * (s * (T{1} - s));
      }
    }
    update_fwd(kRows, dim, u.data(), u.stride, h.data(), h.stride, x.data(), x.stride, y.data(), y.stride);
    EXPECT_TRUE(y.equals(want_y) && y.intact());
    update_bwd(kRows, dim, u.data(), u.stride, h.data(), h.stride, x.data(), x.stride, dy.data(), dy.stride, du.data(), du.stride, dh.data(),
               dh.stride, dx.data(), dx.stride);
    EXPECT_TRUE(du.equals(want_du) && dh.equals(want_dh) && dx.equals(want_dx));
    EXPECT_TRUE(du.intact() && dh.intact() && dx.intact());

    Rows<T> over_u = u, over_h = h, over_x = x, over_dy = dy;
    update_fwd(kRows, dim, u.data(), u.stride, h.data(), h.stride, over_x.data(), x.stride, over_x.data(), x.stride);
    EXPECT_TRUE(over_x.equals(want_y));
    update_bwd(kRows, dim, over_u.data(), u.stride, over_h.data(), h.stride, x.data(), x.stride, over_dy.data(), dy.stride, over_u.data(), u.stride,
               over_h.data(), h.stride, over_dy.data(), dy.stride);
    EXPECT_TRUE(over_u.equals(want_du) && over_h.equals(want_dh) && over_dy.equals(want_dx));
  });
}

}  // namespace
}  // namespace seqboat::kernels
