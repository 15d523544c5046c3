#include "seqboat/nn/seqboat_layer.h"

#include "support/torch_checks.h"

namespace seqboat {
namespace {

using test::offsets;
using torch::Tensor;

constexpr int64_t kD = 12, kTokens = 40;

nn::SeqBoatLayerOptions small_options(bool prenorm, bool causal, bool use_router) {
  nn::SeqBoatLayerOptions options;
  options.d_model = kD;
  options.d_attn = 6;
  options.d_hidden = 14;
  options.d_state = 4;
  options.causal = causal;
  options.prenorm = prenorm;
  if (!use_router) options.router.kind = "always";
  options.attention.window = 5;
  options.attention.max_positions = 64;
  return options;
}

nn::SeqBoatLayer make_layer(const nn::SeqBoatLayerOptions& options) {
  PhiloxStream random(3, 1);
  nn::SeqBoatLayer layer(options, random);
  layer->to(torch::kFloat64);
  torch::NoGradGuard no_grad;
  torch::manual_seed(1);
  if (layer->router) layer->router->proj->weight.normal_();
  layer->attention->out_proj->weight.normal_();
  return layer;
}

TEST(SeqBoatLayer, FollowsItsFormula) {
  torch::NoGradGuard no_grad;
  for (int kind = 0; kind < 8; ++kind) {
    const bool prenorm = (kind & 1) != 0, causal = (kind & 2) != 0, use_router = (kind & 4) != 0;
    auto layer = make_layer(small_options(prenorm, causal, use_router));
    layer->eval();
    const Tensor x = torch::randn({kTokens, kD}, torch::kFloat64), cu = offsets({kTokens});
    const Tensor m = torch::silu(layer->ema(prenorm ? layer->norm(x) : x, cu));
    Tensor h = torch::zeros({kTokens, kD}, torch::kFloat64);
    if (use_router) {
      const auto decision = layer->router->decide(m, {});
      const Tensor index = decision.active.nonzero().squeeze(1);
      ASSERT_GT(index.size(0), 0);
      ASSERT_LT(index.size(0), kTokens);
      const Tensor unit = layer->attention->apply(m.index_select(0, index), index, offsets({index.size(0)}));
      h.index_copy_(0, index, decision.p.index_select(0, index).unsqueeze(1) * unit);
    } else {
      h = layer->attention->apply(m, torch::arange(kTokens), cu);
    }
    Tensor want = torch::silu(torch::linear(m, layer->skip_proj->weight, layer->skip_proj->bias) + h + x);
    if (!prenorm) want = layer->norm(want);
    // The parts are the same; what differs are sums of kD terms and one SiLU. Postnorm divides by a spread that is not small here.
    const double magnitude = 100 * (1 + want.abs().max().item<double>() + h.abs().max().item<double>());
    EXPECT_TRUE(test::close(layer->forward(x, nn::PackedLayout::make(cu, {}), {}, 0), want, test::Tolerance::sum<double>(kD, magnitude)))
        << (prenorm ? "prenorm" : "postnorm") << (causal ? " causal" : "") << (use_router ? "" : " full");
  }
}

TEST(SeqBoatLayer, RecordsWhatIsAskedFor) {
  const Tensor x = torch::randn({kTokens, kD}, torch::kFloat64);
  const auto layout = nn::PackedLayout::make(offsets({25, 15}), {});
  auto layer = make_layer(small_options(true, false, true));
  std::vector<nn::LayerTrace> trace;
  nn::ForwardOptions options;
  options.trace = &trace;
  layer->forward(x, layout, options, 0);
  options.intermediates = true;
  layer->forward(x, layout, options, 0);
  auto full = make_layer(small_options(true, false, false));
  full(x, layout, options, 0);
  ASSERT_EQ(trace.size(), 3u);
  EXPECT_EQ(trace[0].active.sizes(), at::IntArrayRef({kTokens}));
  EXPECT_EQ(trace[0].probability.sizes(), at::IntArrayRef({kTokens}));
  EXPECT_FALSE(trace[0].logits.defined() || trace[0].ema_out.defined() || trace[0].q.defined() || trace[0].attention.defined());
  const int64_t active = trace[1].active.sum().item<int64_t>();
  EXPECT_EQ(trace[1].logits.sizes(), at::IntArrayRef({kTokens, 2}));
  EXPECT_EQ(trace[1].ema_out.sizes(), at::IntArrayRef({kTokens, kD}));
  EXPECT_EQ(trace[1].q.sizes(), at::IntArrayRef({active, 6}));
  EXPECT_EQ(trace[1].v.sizes(), at::IntArrayRef({active, 14}));
  EXPECT_EQ(trace[1].attention.sizes(), at::IntArrayRef({active, 14}));
  EXPECT_FALSE(trace[2].active.defined());
  EXPECT_EQ(trace[2].attention.sizes(), at::IntArrayRef({kTokens, 14}));
}

TEST(SeqBoatLayer, Misuse) {
  auto layer = make_layer(small_options(true, false, true));
  const auto layout = nn::PackedLayout::make(offsets({kTokens}), {});
  nn::ForwardOptions options;
  options.forced_active = {Tensor()};
  EXPECT_C10_ERROR(layer->forward(torch::randn({kTokens, kD}, torch::kFloat64), layout, options, 1), "forced_active has 1 layers, none for layer 1");
  EXPECT_C10_ERROR(layer->forward(torch::randn({30, kD}, torch::kFloat64), layout, {}, 0), "cu_seqlens must go from 0 to 30, got 0 to 40");
}

}  // namespace
}  // namespace seqboat
