#include "seqboat/kernels/peak.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/guarded.h"

namespace seqboat::kernels {
namespace {

using test::awkward_sizes;
using test::Guarded;
using test::on_every_target;
using test::random_numbers;

TEST(Peak, TriadIsOneFusedMultiplyAddAnElement) {
  on_every_target([] {
    for (const int64_t n : awkward_sizes()) {
      for (const int64_t offset : {0, 1, 3}) {
        const Guarded<float> b = random_numbers<float>(n, 1), c = random_numbers<float>(n, 2);
        Guarded<float> a(n, offset);
        triad(n, 0.75f, b.data(), c.data(), a.data());
        EXPECT_TRUE(a.intact());
        // The product with 0.75 is exact in double, and so is one rounding of the sum.
        for (int64_t i = 0; i < n; ++i)
          EXPECT_NEAR(a[i], 0.75 * static_cast<double>(c[i]) + static_cast<double>(b[i]), std::ldexp(1.0, -22)) << n << " " << i;
      }
    }
  });
}

// x <- 0.999 x + 0.999: each chain goes to 0.999 / 0.001 = 999, whatever it began with.
TEST(Peak, ChainsAreCountedAndComputed) {
  on_every_target([] {
    float result = 0;
    const double flops = fma_chains(20000, &result);
    EXPECT_NEAR(result, 12 * 999, 12);
    float other = 0;
    EXPECT_EQ(fma_chains(40000, &other), 2 * flops);
    EXPECT_EQ(std::fmod(flops, 24.0 * 20000), 0);
    float none = 0;
    EXPECT_EQ(fma_chains(0, &none), 0);
    EXPECT_EQ(none, 12 + 66);
  });
}

}  // namespace
}  // namespace seqboat::kernels
