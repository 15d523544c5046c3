#include "seqboat/kernels/simd.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <thread>
#include <vector>

#include "seqboat/base/error.h"
#include "seqboat/kernels/gemm.h"

namespace seqboat::kernels {
namespace {

class SimdTest : public ::testing::Test {
 protected:
  void TearDown() override { force_simd_target(""); }
};

TEST_F(SimdTest, BestTargetIsTheDefault) {
  const std::vector<std::string> targets = supported_simd_targets();
  ASSERT_FALSE(targets.empty());
  EXPECT_EQ(simd_target(), targets.front());
}

TEST_F(SimdTest, ForcingWorksInBothDirections) {
  std::vector<std::string> targets = supported_simd_targets();
  const std::string best = targets.front();
  for (const std::string& target : targets) {
    force_simd_target(target);
    EXPECT_EQ(simd_target(), target);
    EXPECT_EQ(supported_simd_targets(), targets) << "the list must not shrink while a target is forced";
  }
  std::reverse(targets.begin(), targets.end());
  for (const std::string& target : targets) {
    force_simd_target(target);
    EXPECT_EQ(simd_target(), target);
  }
  force_simd_target(targets.front());
  force_simd_target("");
  EXPECT_EQ(simd_target(), best);
}

// With fused multiply-adds (1+u)(1-u) - 1 is -u^2, without them it is 0: so the bits of a product tell which target computed it.
TEST_F(SimdTest, KernelsRunOnTheForcedTarget) {
  const std::vector<std::string> targets = supported_simd_targets();
  const auto has = [&](const char* name) { return std::find(targets.begin(), targets.end(), name) != targets.end(); };
  if (!has("avx2") || !has("sse4")) GTEST_SKIP() << "needs a machine with avx2 and sse4";
  const float u = std::numeric_limits<float>::epsilon();
  const float a[2] = {1.0f, 1.0f + u};
  const float b[2] = {-1.0f, 1.0f - u};
  GemmShape shape{1, 1, 2, 2, 1, 1};
  const auto product = [&](const char* target) {
    force_simd_target(target);
    std::vector<float> workspace(gemm_workspace_size<float>(shape) + 16);
    float* aligned = workspace.data();
    while (reinterpret_cast<uintptr_t>(aligned) % 64 != 0) ++aligned;
    float c = 7;
    gemm<float>(shape, a, b, nullptr, &c, aligned);
    return c;
  };
  EXPECT_EQ(product("sse4"), 0.0f);
  EXPECT_EQ(product("avx2"), -u * u);
  EXPECT_EQ(product("sse4"), 0.0f);
  EXPECT_EQ(product(""), -u * u);
}

TEST_F(SimdTest, UnknownTargetIsAUsageError) {
  const std::string before = simd_target();
  try {
    force_simd_target("abacus");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(error.what()).find("abacus"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find(before), std::string::npos) << "the message names what would be right: " << error.what();
  }
  EXPECT_EQ(simd_target(), before);
}

float halve(float value) {
  volatile float in = value;
  volatile float out = in * 0.5f;
  return out;
}

TEST(FlushDenormalsTest, FlushesAndPutsBackNested) {
  const float smallest_normal = std::numeric_limits<float>::min();
  EXPECT_GT(halve(smallest_normal), 0.0f);
  {
    const FlushDenormals outer;
    EXPECT_EQ(halve(smallest_normal), 0.0f);
    {
      const FlushDenormals inner;
      EXPECT_EQ(halve(smallest_normal), 0.0f);
    }
    EXPECT_EQ(halve(smallest_normal), 0.0f) << "the inner guard must not end the outer one";
  }
  EXPECT_GT(halve(smallest_normal), 0.0f);
}

TEST(FlushDenormalsTest, DenormalOperandsCountAsZero) {
  volatile float tiny = std::numeric_limits<float>::denorm_min();
  volatile float huge = std::numeric_limits<float>::max();
  volatile float product = tiny * huge;
  EXPECT_GT(product, 0.0f);
  const FlushDenormals guard;
  product = tiny * huge;
  EXPECT_EQ(product, 0.0f);
}

TEST(FlushDenormalsTest, OneThreadOnly) {
  const FlushDenormals guard;
  const float smallest_normal = std::numeric_limits<float>::min();
  float elsewhere = 0;
  std::thread([&] {
    // A thread inherits the mode of its maker on Linux; a guard that comes and goes there must leave ours alone.
    const FlushDenormals other;
    elsewhere = halve(smallest_normal);
  }).join();
  EXPECT_EQ(elsewhere, 0.0f);
  EXPECT_EQ(halve(smallest_normal), 0.0f);
}

}  // namespace
}  // namespace seqboat::kernels
