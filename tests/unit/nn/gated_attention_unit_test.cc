#include "seqboat/nn/gated_attention_unit.h"

#include <cmath>

#include "support/torch_checks.h"

namespace seqboat {
namespace {

using test::close;
using test::offsets;
using test::Tolerance;
using torch::Tensor;

constexpr int64_t kD = 10, kZ = 6, kH = 14;

nn::GatedAttentionUnit make_unit(const nn::AttentionOptions& options) {
  PhiloxStream random(3, 1);
  nn::GatedAttentionUnit unit(kD, kZ, kH, options, random);
  unit->to(torch::kFloat64);
  torch::NoGradGuard no_grad;
  torch::manual_seed(1);
  for (const Tensor& parameter : unit->parameters()) parameter.normal_();
  return unit;
}

TEST(GatedAttentionUnit, FollowsItsFormula) {
  torch::NoGradGuard no_grad;
  nn::AttentionOptions options;
  options.max_positions = 64;
  auto unit = make_unit(options);
  const Tensor m = torch::randn({20, kD}, torch::kFloat64), times = torch::arange(20) * 2;
  nn::LayerTrace trace;
  const Tensor got = unit->apply(m, times, offsets({20}), &trace);
  const Tensor base = torch::silu(torch::linear(m, unit->in_proj->weight, unit->in_proj->bias));
  const Tensor z = base.slice(1, 0, kZ), r = base.slice(1, kZ, kZ + kH), v = base.slice(1, kZ + kH);
  const Tensor q = z * unit->qk_gamma[0] + unit->qk_beta[0], k = z * unit->qk_gamma[1] + unit->qk_beta[1];
  const Tensor distance = times.unsqueeze(0) - times.unsqueeze(1);
  const Tensor scores = torch::matmul(q, k.t()) / std::sqrt(static_cast<double>(kZ)) + unit->position->table.index({distance + 63});
  const Tensor attention = torch::softmax(scores, 1).matmul(v);
  const double magnitude = (1 + torch::matmul(q.abs(), k.abs().t()).max().item<double>()) * (1 + v.abs().max().item<double>());
  const double gated = magnitude * (1 + r.abs().max().item<double>()) * (1 + unit->out_proj->weight.abs().sum(1).max().item<double>());
  EXPECT_TRUE(close(got, torch::linear(attention * r, unit->out_proj->weight, unit->out_proj->bias), Tolerance::sum<double>(20 + kH, gated)));
  EXPECT_TRUE(close(trace.q, q, Tolerance::sum<double>(20 + kH, magnitude)));
  EXPECT_TRUE(close(trace.k, k, Tolerance::sum<double>(20 + kH, magnitude)));
  EXPECT_TRUE(close(trace.v, v, Tolerance::sum<double>(20 + kH, magnitude)));
  EXPECT_TRUE(close(trace.attention, attention, Tolerance::sum<double>(20 + kH, magnitude)));
}

TEST(GatedAttentionUnit, TablesOfEachPositionKind) {
  PhiloxStream random(3, 1);
  EXPECT_EQ(nn::PositionBias("simple", 50, random)->table.size(0), 99);
  EXPECT_EQ(nn::PositionBias("t5", 50, random)->table.size(0), 32);
  EXPECT_FALSE(nn::PositionBias("rotary", 50, random)->table.defined());
  nn::AttentionOptions local;
  local.position = "local";
  local.window = 5;
  EXPECT_EQ(make_unit(local)->position->table.size(0), 2 * 15 - 1);
}

TEST(GatedAttentionUnit, T5Buckets) {
  // Exact up to half of the buckets, then logarithmic up to distance 128: 8 + floor(log(n / 8) / log(16) * 8) and 16 + floor(log(n / 16) / log(8) *
  // 16).
  const Tensor distance = torch::tensor({0, -1, 1, -7, -20, 20, -1000, 1000}, torch::kInt64);
  EXPECT_TRUE(torch::equal(nn::t5_bucket(distance, false), torch::tensor({0, 1, 17, 7, 10, 26, 15, 31}, torch::kInt64)));
  EXPECT_TRUE(torch::equal(nn::t5_bucket(distance, true), torch::tensor({0, 1, 0, 7, 17, 0, 31, 0}, torch::kInt64)));
}

TEST(GatedAttentionUnit, NoActiveTokenGivesNone) {
  auto unit = make_unit({});
  EXPECT_EQ(unit->apply(torch::empty({0, kD}, torch::kFloat64), torch::empty({0}, torch::kInt64), offsets({0, 0})).sizes(), at::IntArrayRef({0, kD}));
}

TEST(GatedAttentionUnit, Misuse) {
  PhiloxStream random(3, 1);
  nn::AttentionOptions local, rotary, unknown;
  local.position = "local";
  rotary.position = "rotary";
  unknown.position = "learned";
  EXPECT_C10_ERROR(nn::GatedAttentionUnit(kD, kZ, kH, local, random), "a local position bias needs a window");
  EXPECT_C10_ERROR(nn::GatedAttentionUnit(kD, 5, kH, rotary, random), "rotary positions need an even d_attn, got 5");
  EXPECT_C10_ERROR(nn::GatedAttentionUnit(kD, kZ, kH, unknown, random), "kind must be simple, local, rotary or t5, got 'learned'");
}

// Straight through: nothing changes but the gradient of the confidence, which is that of a factor on the token's value.
TEST(GatedAttentionUnit, ATokenThatOthersLookAtTrainsItsConfidence) {
  nn::AttentionOptions options;
  options.window = 4;
  options.causal = true;
  options.max_positions = 50;
  auto unit = make_unit(options);
  const Tensor m = torch::randn({20, kD}, torch::kFloat64), w = torch::randn({20, kD}, torch::kFloat64), times = torch::arange(20);
  const Tensor confidence = torch::rand({20}, torch::kFloat64).requires_grad_(true);
  const auto with_confidence = [&] { return unit->apply(m, times, offsets({12, 8}), nullptr, nullptr, nullptr, confidence); };
  const Tensor plain = unit->apply(m, times, offsets({12, 8}));
  EXPECT_TRUE(test::same_bits(with_confidence(), plain));
  (with_confidence() * w).sum().backward();
  // All values times s are the result without the bias times s.
  const double slope = ((plain - unit->out_proj->bias) * w).sum().item<double>();
  EXPECT_NEAR(confidence.grad().sum().item<double>(), slope, 1e-10 * (1 + std::abs(slope)));
  // The first three results look at the first three tokens alone.
  const Tensor share = torch::autograd::grad({(with_confidence() * w).narrow(0, 0, 3).sum()}, {confidence})[0];
  EXPECT_EQ(share.narrow(0, 3, 17).abs().max().item<double>(), 0.0);
  EXPECT_GT(share.narrow(0, 0, 3).abs().min().item<double>(), 0.0);
}

}  // namespace
}  // namespace seqboat
