#include "seqboat/kernels/adam.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/guarded.h"

namespace seqboat::kernels {
namespace {

using test::awkward_sizes;
using test::Guarded;
using test::on_every_target;
using test::random_numbers;
using test::same_bits;

template <class T>
class AdamStep : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(AdamStep, Types);

// The header's lines as plain C++, operation by operation: bits are compared.
template <class T>
void step_ref(const AdamFactors<T>& f, int64_t count, const T* g, T* m, T* v, T* p) {
  for (int64_t i = 0; i < count; ++i) {
    m[i] = f.b1 * m[i];
    v[i] = f.b2 * v[i];
    if (g != nullptr) {
      const T scaled = g[i] * f.gradient;
      m[i] = m[i] + f.one_minus_b1 * scaled;
      v[i] = v[i] + f.one_minus_b2 * (scaled * scaled);
    }
    const T kept = p[i] - f.decay * p[i];
    p[i] = f.adaptive ? kept - f.rate * (m[i] / (std::sqrt(v[i]) + f.eps)) : kept - f.rate * m[i];
  }
}

TYPED_TEST(AdamStep, HasTheBitsOfItsDefinition) {
  using T = TypeParam;
  on_every_target([] {
    for (int64_t n : awkward_sizes()) {
      for (int variant = 0; variant < 8; ++variant) {
        const bool adaptive = variant & 1, gradient = variant & 2, clipped = variant & 4;
        SCOPED_TRACE(testing::Message() << n << ", variant " << variant);
        const AdamFactors<T> f{static_cast<T>(0.9),
                               static_cast<T>(0.1),
                               static_cast<T>(0.98),
                               static_cast<T>(0.02),
                               static_cast<T>(1e-8),
                               static_cast<T>(1e-3),
                               static_cast<T>(3e-2),
                               adaptive,
                               clipped ? static_cast<T>(0.37) : T{1}};
        const Guarded<T> g = random_numbers<T>(n, 1);
        Guarded<T> m = random_numbers<T>(n, 2), v = random_numbers<T>(n, 3, 0, 1), p = random_numbers<T>(n, 4);
        if (n > 3) m[3] = v[3] = 0;  // as in the first step
        Guarded<T> want_m = m, want_v = v, want_p = p;
        for (int step = 0; step < 2; ++step) {
          adam_step(f, n, gradient ? g.data() : nullptr, m.data(), v.data(), p.data());
          step_ref(f, n, gradient ? g.data() : nullptr, want_m.data(), want_v.data(), want_p.data());
          EXPECT_TRUE(same_bits(m.data(), want_m.data(), n));
          EXPECT_TRUE(same_bits(v.data(), want_v.data(), n));
          EXPECT_TRUE(same_bits(p.data(), want_p.data(), n));
        }
        EXPECT_TRUE(m.intact() && v.intact() && p.intact());
      }
    }
  });
}

}  // namespace
}  // namespace seqboat::kernels
