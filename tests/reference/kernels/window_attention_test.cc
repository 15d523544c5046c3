#include "seqboat/kernels/window_attention.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "reference/kernels/window_attention_case.h"
#include "support/expect_close.h"
#include "support/guarded.h"

namespace seqboat::test {
namespace {

using kernels::AttentionFunction;
using kernels::PositionBias;

// Rows of a tensor with gaps against rows without, each row with its own tolerance; what lies between the rows must still be the filler.
template <class T>
void expect_rows(const char* what, const Guarded<T>& got, int64_t stride, const std::vector<double>& want, int64_t width,
                 const std::vector<double>& errors) {
  // First-order bounds know nothing of underflow: up to 1000 terms of a sum may each have lost a subnormal.
  const double underflow = 1000 * static_cast<double>(std::numeric_limits<T>::min());
  for (size_t i = 0; i < errors.size(); ++i) {
    const int64_t row = static_cast<int64_t>(i);
    ASSERT_TRUE(close(got.data() + row * stride, want.data() + row * width, width, Tolerance{errors[i] + underflow})) << what << " row " << row;
    for (int64_t x = width; x < stride; ++x) ASSERT_TRUE(std::isnan(got[row * stride + x])) << what << " row " << row << " wrote into the gap";
  }
}

template <class T>
void check(const AttentionCase& c, uint32_t seed = 1) {
  SCOPED_TRACE(c.name() + (sizeof(T) == 4 ? " float32" : " float64"));
  const AttentionTensors<T> t(c, seed);
  // exp within 2 ULP (4 without fused multiply-add); erf within 2e-7 in float32, that is 2 units of 2^-23.
  const AttentionReference want = attention_reference(t, std::numeric_limits<T>::epsilon(), 4);
  on_every_target([&] {
    AttentionResults<T> got(t);
    const int64_t items = kernels::window_attention_items(t.shape);
    run_attention(t, {0, items / 3, items / 2, items}, &got);
    expect_rows("out", got.out, t.shape.out_stride, want.out, c.d_hidden, want.out_error);
    if (c.function == AttentionFunction::kSoftmax) expect_rows("lse", got.lse, 1, want.lse, 1, want.lse_error);
    expect_rows("dq", got.dq, t.shape.q_stride, want.dq, c.d_attn, want.dq_error);
    expect_rows("dk", got.dk, t.shape.k_stride, want.dk, c.d_attn, want.dk_error);
    expect_rows("dv", got.dv, t.shape.v_stride, want.dv, c.d_hidden, want.dv_error);
    expect_rows("dbias", got.dbias, 1, want.dbias, 1, want.dbias_error);
    EXPECT_TRUE(got.intact());
  });
}

template <class T>
class WindowAttention : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(WindowAttention, Types);

constexpr AttentionFunction kFunctions[] = {AttentionFunction::kSoftmax, AttentionFunction::kRelu2, AttentionFunction::kLaplace};
constexpr PositionBias kBiases[] = {PositionBias::kNone, PositionBias::kOriginalDistance, PositionBias::kWindowDistance};

TYPED_TEST(WindowAttention, EveryFunctionBiasAndWindow) {
  for (const AttentionFunction function : kFunctions) {
    for (const PositionBias bias : kBiases) {
      for (const bool causal : {false, true}) {
        for (const int64_t window : {int64_t{1}, int64_t{5}, int64_t{64}, int64_t{1000}, int64_t{-1}}) {
          if (window < 0 && bias == PositionBias::kWindowDistance) continue;
          AttentionCase c;
          c.lengths = {0, 1, 5, 64, 0, 150, 17, 65};
          c.window = window;
          c.causal = causal;
          c.function = function;
          c.bias = bias;
          c.max_positions = positions_for(bias, window);
          c.gap = 3;
          check<TypeParam>(c);
        }
      }
    }
  }
}

TYPED_TEST(WindowAttention, WidthsAroundTheVector) {
  for (const auto& [d_attn, d_hidden] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {10, 30}, {30, 10}, {16, 64}, {17, 65}, {64, 128}, {130, 131}, {3, 300}}) {
    for (const AttentionFunction function : kFunctions) {
      AttentionCase c;
      c.lengths = {70, 3, 66};
      c.d_attn = d_attn;
      c.d_hidden = d_hidden;
      c.window = 20;
      c.causal = d_hidden % 2 == 0;
      c.function = function;
      c.bias = PositionBias::kOriginalDistance;
      c.max_positions = 40;
      check<TypeParam>(c);
    }
  }
}

// Long enough for several chunks of the backward where the window is narrow, and a table wide enough that its gradient is added in whole vectors.
TYPED_TEST(WindowAttention, SeveralChunks) {
  for (const PositionBias bias : kBiases) {
    for (const bool causal : {false, true}) {
      for (const int64_t window : {int64_t{1}, int64_t{128}, int64_t{256}, int64_t{300}}) {
        AttentionCase c;
        c.lengths = {1100, 3, 513};
        c.d_attn = 4;
        c.d_hidden = 6;
        c.window = window;
        c.causal = causal;
        c.bias = bias;
        c.max_positions = bias == PositionBias::kOriginalDistance ? 900 : positions_for(bias, window);
        check<TypeParam>(c);
      }
    }
  }
}

TYPED_TEST(WindowAttention, StrideOfWholeCachePages) {
  AttentionCase c;
  c.lengths = {100};
  c.d_attn = 8;
  c.d_hidden = 1024 / sizeof(TypeParam) * 2;  // and no gap
  c.window = 30;
  check<TypeParam>(c);
}

TYPED_TEST(WindowAttention, ManyShortSequences) {
  AttentionCase c;
  for (int64_t i = 0; i < 60; ++i) c.lengths.push_back(i * 7 % 11);
  c.function = AttentionFunction::kLaplace;
  c.bias = PositionBias::kWindowDistance;
  c.max_positions = 3 * c.window;
  check<TypeParam>(c);
}

TYPED_TEST(WindowAttention, PositionsFarApart) {
  // Distances that 32 bits do not hold, and such a span within one item.
  for (const int64_t step : {int64_t{1} << 22, int64_t{1} << 31, int64_t{1} << 50}) {
    AttentionCase c;
    c.lengths = {90, 5};
    c.window = 12;
    c.bias = PositionBias::kOriginalDistance;
    c.max_positions = 40;
    c.position_step = step;
    check<TypeParam>(c);
  }
}

TYPED_TEST(WindowAttention, WindowOfOnlyItself) {
  for (const AttentionFunction function : kFunctions) {
    AttentionCase c;
    c.lengths = {3, 70};
    c.window = 0;
    c.function = function;
    check<TypeParam>(c);
  }
}

TYPED_TEST(WindowAttention, HugeWindowDoesNotOverflow) {
  AttentionCase c;
  c.lengths = {70};
  c.window = std::numeric_limits<int64_t>::max() / 4;
  c.function = AttentionFunction::kSoftmax;
  check<TypeParam>(c);
}

TYPED_TEST(WindowAttention, LargeScoresDoNotOverflow) {
  // exp of the scores alone is infinite; the maximum wanders from block to block.
  AttentionCase c;
  c.lengths = {200};
  c.window = 150;
  c.causal = true;
  AttentionTensors<TypeParam> t(c);
  for (int64_t i = 0; i < t.tokens(); ++i) {
    for (int64_t z = 0; z < c.d_attn; ++z) t.k[i * t.shape.k_stride + z] *= static_cast<TypeParam>(1 + i);
  }
  const AttentionReference want = attention_reference(t, std::numeric_limits<TypeParam>::epsilon(), 4);
  on_every_target([&] {
    const AttentionResults<TypeParam> got = run_attention(t);
    expect_rows("out", got.out, t.shape.out_stride, want.out, c.d_hidden, want.out_error);
    expect_rows("lse", got.lse, 1, want.lse, 1, want.lse_error);
    expect_rows("dv", got.dv, t.shape.v_stride, want.dv, c.d_hidden, want.dv_error);
  });
}

TYPED_TEST(WindowAttention, EmptyTableIsNoBias) {
  AttentionCase c;
  c.lengths = {20};
  c.bias = PositionBias::kWindowDistance;
  c.window = 0;
  c.max_positions = 0;
  check<TypeParam>(c);
}

TYPED_TEST(WindowAttention, PhasesReachAsFarAsTheWindow) {
  AttentionCase c;
  c.lengths = {5000, 600};
  c.d_attn = c.d_hidden = 1;
  for (const bool causal : {true, false}) {
    c.causal = causal;
    c.window = 128;
    const AttentionTensors<TypeParam> narrow(c);
    EXPECT_EQ(kernels::window_attention_bwd_phases(narrow.shape), causal ? 2 : 3);
    EXPECT_EQ(kernels::window_attention_bwd_items(narrow.shape, 0), 10 + 2);
    EXPECT_EQ(kernels::window_attention_bwd_items(narrow.shape, 1), 9 + 1);
    c.window = 1024;
    const AttentionTensors<TypeParam> wide(c);
    EXPECT_EQ(kernels::window_attention_bwd_phases(wide.shape), causal ? 9 : 17);
    EXPECT_EQ(kernels::window_attention_bwd_items(wide.shape, 0), 40 + 5);
    EXPECT_EQ(kernels::window_attention_bwd_items(wide.shape, causal ? 8 : 16), 32);
  }
}

TYPED_TEST(WindowAttention, NothingActiveIsNoItem) {
  AttentionCase c;
  c.lengths = {0, 0, 0};
  const AttentionTensors<TypeParam> t(c);
  EXPECT_EQ(kernels::window_attention_items(t.shape), 0);
  EXPECT_EQ(kernels::window_attention_bwd_phases(t.shape), 0);
  run_attention(t);
  c.lengths = {};
  const AttentionTensors<TypeParam> empty(c);
  EXPECT_EQ(kernels::window_attention_items(empty.shape), 0);
}

TYPED_TEST(WindowAttention, BiasGradientIsAddedTo) {
  AttentionCase c;
  c.lengths = {30};
  c.bias = PositionBias::kOriginalDistance;
  c.max_positions = 16;
  const AttentionTensors<TypeParam> t(c);
  AttentionResults<TypeParam> once = run_attention(t);
  AttentionResults<TypeParam> onto(t);
  for (TypeParam& entry : onto.dbias) entry = 1;
  run_attention(t, {0, 1}, &onto);
  for (int64_t e = 0; e < t.table.size(); ++e) EXPECT_EQ(onto.dbias[e], 1 + once.dbias[e]);
}

TYPED_TEST(WindowAttention, ANaNInTheWindowShows) {
  for (const AttentionFunction function : kFunctions) {
    AttentionCase c;
    c.lengths = {40};
    c.window = 4;
    c.function = function;
    AttentionTensors<TypeParam> t(c);
    t.k[20 * t.shape.k_stride] = std::numeric_limits<TypeParam>::quiet_NaN();
    on_every_target([&] {
      const AttentionResults<TypeParam> got = run_attention(t);
      for (int64_t i = 0; i < 40; ++i) EXPECT_EQ(std::isnan(got.out[i * t.shape.out_stride]), i >= 16 && i <= 24) << i;
    });
  }
}

}  // namespace
}  // namespace seqboat::test
