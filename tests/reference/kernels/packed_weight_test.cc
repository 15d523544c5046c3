#include "seqboat/kernels/packed_weight.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "reference/kernels/window_attention_case.h"
#include "seqboat/kernels/gemm.h"
#include "support/guarded.h"

namespace seqboat::kernels {
namespace {

using test::Guarded;
using test::on_every_target;
using test::random_numbers;
using test::same_bits;
using test::Workspace;

constexpr WeightType kTypes[] = {WeightType::kFloat32, WeightType::kBf16, WeightType::kInt8};

/// A weight of one type, packed, and the same in float32.
struct Weight {
  PackedWeightShape shape;
  Guarded<float> widened, scales, bias;
  Workspace<unsigned char> packed;

  Weight(WeightType type, int64_t n, int64_t k)
      : shape{type, n, k},
        widened(random_numbers<float>(n * k, 1)),
        scales(random_numbers<float>(n, 2, 0.01, 0.02)),
        bias(random_numbers<float>(n, 3)),
        packed(packed_weight_bytes(shape)) {
    const size_t count = static_cast<size_t>(n * k);
    if (type == WeightType::kFloat32) {
      pack_weight(shape, widened.data(), nullptr, packed.data);
    } else if (type == WeightType::kBf16) {
      std::vector<uint16_t> half(count);
      float_to_bf16(n * k, widened.data(), half.data());
      pack_weight(shape, half.data(), nullptr, packed.data);
      bf16_to_float(n * k, half.data(), widened.data());
    } else {
      std::vector<int8_t> bytes(count);
      for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<int8_t>(std::lround(63.0f * widened[static_cast<int64_t>(i)]));
      pack_weight(shape, bytes.data(), scales.data(), packed.data);
      std::copy(bytes.begin(), bytes.end(), widened.begin());
    }
    EXPECT_TRUE(packed.intact());
  }
};

/// y by gemm() with the widened weight. int8: gemm's total without a bias, then the scale and the bias in one multiply-add.
Guarded<float> expected(const Weight& weight, int64_t m, const float* x, int64_t ldx, bool with_bias) {
  const auto [type, n, k] = weight.shape;
  const bool int8 = type == WeightType::kInt8;
  Guarded<float> y(m * n);
  GemmShape shape{m, n, k, ldx, k, n, false, true, false};
  const Workspace<float> workspace(std::max(gemm_workspace_size<float>(shape), size_t{4096}));
  gemm<float>(shape, x, weight.widened.data(), with_bias && !int8 ? weight.bias.data() : nullptr, y.data(), workspace.data);
  if (int8) {
    for (int64_t i = 0; i < m * n; ++i) {
      const float scale = weight.scales[i % n], bias = with_bias ? weight.bias[i % n] : 0.0f;
      const bool fused = simd_target().starts_with("avx") || simd_target().starts_with("neon");  // other targets round the product
      y[i] = fused ? std::fma(y[i], scale, bias) : y[i] * scale + bias;
    }
  }
  return y;
}

/// Rows [m0, m1) and columns [c0, c1) by one call, held to gemm's bits; nothing else is written.
void check(const Weight& weight, int64_t m, int64_t row_cut, int64_t col_cut, int64_t gap, bool with_bias) {
  const auto [type, n, k] = weight.shape;
  const int64_t ldx = k + gap, ldy = n + 2 * gap;
  const Guarded<float> x = random_numbers<float>(m * ldx, 7);
  const Guarded<float> want = expected(weight, m, x.data(), ldx, with_bias);
  Guarded<float> y(m * ldy);
  for (int64_t row = 0; row < m; row += row_cut) {
    for (int64_t col = 0; col < n; col += col_cut) {
      multiply_packed(weight.shape, col, std::min(n, col + col_cut), std::min(row_cut, m - row), x.data() + row * ldx, ldx, weight.packed.data,
                      with_bias ? weight.bias.data() : nullptr, y.data() + row * ldy, ldy);
    }
  }
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      ASSERT_TRUE(same_bits(&y[i * ldy + j], &want[i * n + j], 1))
          << "row " << i << " column " << j << ": " << y[i * ldy + j] << " not " << want[i * n + j];
    }
    for (int64_t j = n; j < ldy; ++j) ASSERT_TRUE(std::isnan(y[i * ldy + j])) << "written behind row " << i;
  }
  EXPECT_TRUE(y.intact() && weight.packed.intact());
}

TEST(PackedWeight, HasTheBitsOfGemm) {
  on_every_target([] {
    for (const WeightType type : kTypes) {
      for (const int64_t n : {1, 5, 16, 17, 48, 64, 65, 128, 150}) {
        for (const int64_t k : {0, 1, 3, 255, 256, 257, 520}) {
          const Weight weight(type, n, k);
          for (const int64_t m : {1, 2, 7, 18}) {
            SCOPED_TRACE("type " + std::to_string(static_cast<int>(type)) + " n " + std::to_string(n) + " k " + std::to_string(k) + " m " +
                         std::to_string(m));
            check(weight, m, m, n, m % 3, m % 2 == 1);
            if (::testing::Test::HasFatalFailure()) return;
          }
        }
      }
    }
  });
}

TEST(PackedWeight, CutsChangeNoBit) {
  on_every_target([] {
    for (const WeightType type : kTypes) {
      const Weight weight(type, 330, 300);
      check(weight, 150, 150, 330, 1, true);
      check(weight, 150, 150, kWeightPanel, 0, true);
      check(weight, 150, 40, 2 * kWeightPanel, 2, false);
      check(weight, 20, 1, 3 * kWeightPanel, 0, true);
    }
  });
}

TEST(PackedWeight, TheLayoutIsThatOfEveryTarget) {
  for (const WeightType type : kTypes) {
    const Weight first(type, 75, 30);
    on_every_target([&] {
      const Weight again(type, 75, 30);
      EXPECT_TRUE(same_bits(first.packed.data, again.packed.data, static_cast<int64_t>(packed_weight_bytes(first.shape))));
    });
  }
}

TEST(PackedWeight, Bf16RoundsToTheNearestEven) {
  const auto round = [](uint32_t bits) {
    const float x = std::bit_cast<float>(bits);
    uint16_t y = 0;
    float_to_bf16(1, &x, &y);
    return y;
  };
  EXPECT_EQ(round(0x3f800000), 0x3f80);  // 1
  EXPECT_EQ(round(0x3f808000), 0x3f80);  // half way: down to the even one
  EXPECT_EQ(round(0x3f818000), 0x3f82);  // half way: up to the even one
  EXPECT_EQ(round(0x3f808001), 0x3f81);
  EXPECT_EQ(round(0x3f807fff), 0x3f80);
  EXPECT_EQ(round(0xbf818000), 0xbf82);
  EXPECT_EQ(round(0x7f7fffff), 0x7f80);  // overflow
  EXPECT_EQ(round(0xff800000), 0xff80);
  EXPECT_EQ(round(0x80000000), 0x8000);
  EXPECT_EQ(round(0x00008001), 0x0001);  // denormal
  for (const uint32_t nan : {0x7f800001u, 0xffffffffu, 0x7fc00000u}) {
    const uint32_t bits = static_cast<uint32_t>(round(nan)) << 16;
    EXPECT_TRUE(std::isnan(std::bit_cast<float>(bits))) << nan;
  }
  // Every bf16 number comes back from float32.
  for (uint32_t half = 0; half < 0x10000; ++half) {
    const uint16_t before = static_cast<uint16_t>(half);
    float wide = 0;
    bf16_to_float(1, &before, &wide);
    if (std::isnan(wide)) continue;
    ASSERT_EQ(round(std::bit_cast<uint32_t>(wide)), half);
  }
}

TEST(PackedWeight, Int8IsWithinHalfAStep) {
  constexpr int64_t kRows = 9, kColumns = 300, kStride = 307;
  Guarded<float> weight = random_numbers<float>(kRows * kStride, 5);
  for (int64_t p = 0; p < kColumns; ++p) {
    weight[3 * kStride + p] = 0;                        // a row of zeros
    weight[4 * kStride + p] = p == 0 ? -1e-40f : 0.0f;  // too small for a scale
    weight[5 * kStride + p] = std::ldexp(static_cast<float>(p - 150), 100);
    weight[6 * kStride + p] = static_cast<float>(p % 255 - 127) * 0.5f;  // exact
  }
  std::vector<int8_t> q(kRows * kColumns, -128);
  std::vector<float> scales(kRows, -1);
  quantize_int8(kRows, kColumns, weight.data(), kStride, q.data(), scales.data());
  for (int64_t row = 0; row < kRows; ++row) {
    const float scale = scales[static_cast<size_t>(row)];
    if (row == 3 || row == 4) {
      EXPECT_EQ(scale, 0.0f);
    }
    std::vector<float> back(kColumns);
    int8_to_float(kColumns, q.data() + row * kColumns, scale, back.data());
    float largest = 0;
    for (int64_t p = 0; p < kColumns; ++p) {
      const float w = weight[row * kStride + p], got = back[static_cast<size_t>(p)];
      largest = std::max(largest, std::abs(w));
      if (row == 6) {
        EXPECT_EQ(got, w);
      }
      // Half a step and the roundings of w / scale (|q| <= 127) and scale q.
      EXPECT_LE(std::abs(static_cast<double>(w) - got), static_cast<double>(scale) * (0.5 + 3 * 127 * 0x1p-24) + (scale == 0 ? 1e-40 : 0)) << row;
      EXPECT_GE(q[static_cast<size_t>(row * kColumns + p)], -127);
    }
    if (scale != 0) {
      EXPECT_EQ(scale, largest / 127.0f);
    }
  }
}

}  // namespace
}  // namespace seqboat::kernels
