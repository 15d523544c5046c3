// The general mechanism: any number of sub-modules, each activated token by token by its own router.

#include "seqboat/nn/sparse_modular_activation.h"

#include <limits>

#include "seqboat/nn/fixed_choice.h"
#include "seqboat/nn/gated_attention_unit.h"
#include "seqboat/nn/model_state.h"
#include "seqboat/nn/multi_head_attention.h"
#include "seqboat/nn/seqboat_layer.h"
#include "seqboat/ops/ops.h"
#include "support/torch_checks.h"

namespace seqboat {
namespace {

using test::close;
using test::offsets;
using test::same_bits;
using test::Tolerance;
using torch::Tensor;

constexpr int64_t kD = 10;

nn::RouterOptions router_of(const std::string& kind) {
  nn::RouterOptions options;
  options.kind = kind;
  options.temperature_init = 1.0;
  options.rate = 0.4;
  options.horizon = 9;
  return options;
}

nn::GatedAttentionUnit unit_of(PhiloxStream& random, double dropout = 0) {
  nn::AttentionOptions options;
  options.window = 4;
  options.causal = true;
  options.max_positions = 200;
  options.dropout = dropout;
  return nn::GatedAttentionUnit(kD, 4, 12, options, random);
}

/// What a user might write: each token's contribution is the mean of the activated ones up to it. Counts the tokens that it is given.
class RunningMean : public nn::SubModule {
 public:
  RunningMean() : scale(register_parameter("scale", torch::full({kD}, 1.5))) {}
  Tensor forward(const Tensor& m, const nn::SubModuleCall& call) override {
    tokens += m.size(0);
    const int64_t* at = call.tokens.cu_seqlens.const_data_ptr<int64_t>();
    std::vector<Tensor> rows;
    for (int64_t b = 0; b + 1 < call.tokens.cu_seqlens.size(0); ++b) {
      const Tensor own = m.narrow(0, at[b], at[b + 1] - at[b]);
      rows.push_back(own.cumsum(0) / torch::arange(1, own.size(0) + 1).to(m.scalar_type()).unsqueeze(1));
    }
    return torch::cat(rows) * scale;
  }
  Tensor scale;
  int64_t tokens = 0;
};

struct Three {
  explicit Three(const std::vector<std::string>& kinds) {
    PhiloxStream random(4, 1);
    sma->add("attention", unit_of(random).ptr(), nn::make_router(router_of(kinds[0]), kD, random));
    sma->add("ffn", nn::FeedForwardModule(kD, 16, 0.0, random).ptr(), nn::make_router(router_of(kinds[1]), kD, random));
    sma->add("mean", mean, nn::make_router(router_of(kinds[2]), kD, random));
    sma->to(torch::kFloat64);
    torch::NoGradGuard no_grad;
    torch::manual_seed(2);
    for (const auto& item : sma->named_parameters()) item.value().add_(0.5 * torch::randn_like(item.value()));
  }
  nn::SparseModularActivation sma;
  std::shared_ptr<RunningMean> mean = std::make_shared<RunningMean>();
};

const std::vector<std::vector<std::string>> kRouters{{"tempered-softmax", "tempered-softmax", "tempered-softmax"},
                                                     {"sigmoid-threshold", "gumbel-soft", "top-share"},
                                                     {"gumbel-hard", "tempered-softmax", "sigmoid-threshold"}};

TEST(SparseModularActivation, AllEightPatternsOfThreeModulesOccur) {
  for (const auto& kinds : kRouters) {
    Three three(kinds);
    const Tensor state = torch::randn({400, kD}, torch::kFloat64);
    std::vector<nn::LayerTrace> trace;
    nn::ForwardOptions options;
    options.trace = &trace;
    three.sma(state, nn::PackedLayout::make(offsets({250, 150}), {}), options, 0);
    ASSERT_EQ(trace.size(), 1u);
    ASSERT_EQ(trace[0].modules.size(), 3u);
    Tensor pattern = torch::zeros({400}, torch::kInt64);
    for (int64_t j = 0; j < 3; ++j) pattern += trace[0].modules[static_cast<size_t>(j)].active.to(torch::kInt64) * (int64_t{1} << j);
    EXPECT_GT(torch::bincount(pattern, {}, 8).min().item<int64_t>(), 0) << kinds[0];
    EXPECT_EQ(three.mean->tokens, trace[0].modules[2].active.sum().item<int64_t>()) << "what is not activated is not even seen";
  }
}

// Each pattern by itself, and all of them mixed in one sequence.
TEST(SparseModularActivation, GradientsOfEveryPattern) {
  const nn::PackedLayout layout = nn::PackedLayout::make(offsets({13, 1, 26}), {});
  for (const auto& kinds : kRouters) {
    Three three(kinds);
    const std::vector<Tensor> inputs{test::leaf({40, kD})};
    for (int64_t pattern = 0; pattern <= 8; ++pattern) {
      const Tensor at = pattern < 8 ? torch::full({40}, pattern, torch::kInt64) : torch::arange(40) * 5 % 8;
      nn::ForwardOptions options;
      options.forced_active = {
          torch::stack({at.bitwise_and(1), at.bitwise_right_shift(1).bitwise_and(1), at.bitwise_right_shift(2)}).to(torch::kUInt8)};
      SCOPED_TRACE("pattern " + std::to_string(pattern) + " of " + kinds[0]);
      // Straight through, the gradient is meant not to be the derivative of the value: there it is checked in evaluation, without the router's own.
      const bool straight_through = kinds[0] == "gumbel-hard";
      if (straight_through) three.sma->eval();
      std::vector<Tensor> checked{inputs[0]};
      for (const auto& item : three.sma->named_parameters())
        if (!straight_through || item.key().find("attention_router") == std::string::npos) checked.push_back(item.value());
      test::check_gradients([&](const std::vector<Tensor>& in) { return three.sma(in[0], layout, options, 0); }, checked, 2e-6);
    }
  }
}

TEST(SparseModularActivation, IsTheSumOverItsModulesWeighedByConfidence) {
  torch::NoGradGuard no_grad;
  Three three(kRouters[0]);
  const Tensor state = torch::randn({60, kD}, torch::kFloat64);
  const nn::PackedLayout layout = nn::PackedLayout::make(offsets({60}), {});
  std::vector<nn::LayerTrace> trace;
  nn::ForwardOptions options;
  options.trace = &trace;
  const Tensor got = three.sma(state, layout, options, 0);
  Tensor want = torch::zeros_like(state);
  const auto children = three.sma->named_children();
  for (size_t j = 0; j < 3; ++j) {
    const nn::ModuleTrace& module = trace[0].modules[j];
    const Tensor rows = module.active.nonzero().squeeze(1);
    const nn::PackedLayout tokens{offsets({rows.size(0)}), rows, torch::zeros_like(rows), 0};
    auto f = std::dynamic_pointer_cast<nn::SubModule>(children[module.name]);
    const Tensor h = f->forward(state.index_select(0, rows), {.tokens = tokens, .random = options.random});
    want.index_add_(0, rows, h * module.probability.index_select(0, rows).unsqueeze(1));
  }
  EXPECT_TRUE(close(got, want, Tolerance::sum<double>(kD * 16, 40)));
}

// SeqBoat is the instance with one module and the tempered softmax.
TEST(SparseModularActivation, WithOneModuleHasTheBitsOfSeqBoat) {
  for (const bool causal : {false, true}) {
    nn::SeqBoatLayerOptions options;
    options.d_model = kD;
    options.d_attn = 4;
    options.d_hidden = 12;
    options.d_state = 4;
    options.causal = causal;
    options.attention.window = 6;
    options.attention.max_positions = 200;
    options.router.temperature_init = 1.0;
    options.dropout = 0.2;
    PhiloxStream random(7, 1);
    nn::SeqBoatLayer layer(options, random);
    torch::manual_seed(4);
    {
      torch::NoGradGuard no_grad;
      for (const auto& item : layer->named_parameters())
        if (item.key().find("ema") == std::string::npos) item.value().add_(0.4 * torch::randn_like(item.value()));
    }
    nn::SparseModularActivation sma;
    sma->add("attention", layer->attention.ptr(), layer->router.ptr());
    nn::ForwardOptions forward;
    forward.random = {.seed = 3, .update = 5, .micro_batch = 0, .sequence_ids = {}};
    const nn::PackedLayout layout = nn::PackedLayout::make(offsets({70, 1, 99}), forward.random);
    const Tensor data = torch::randn({170, kD}), w = torch::randn({170, kD});
    const auto drop = [&](const Tensor& t, int64_t site) { return nn::dropout(t, 0.2, true, forward.random, layout, 1, site); };
    const auto general = [&](const Tensor& x) {
      const Tensor m = drop(ops::activation(layer->ema(layer->norm(x), layout.cu_seqlens), "silu"), 0);
      Tensor branches = layer->skip_proj(m);  // first, as in the layer: gradients are added in the order of the forward
      branches = branches + sma(m, layout, forward, 1);
      if (causal) branches = drop(branches, 2);
      return ops::activation(branches + x, "silu");
    };
    std::vector<std::vector<Tensor>> runs;
    for (const int way : {0, 1, 2}) {
      const Tensor x = data.clone().requires_grad_(true);
      layer->zero_grad();
      layer->use_fused(way == 2);
      const Tensor y = way == 0 ? general(x) : layer(x, layout, forward, 1);
      (y * w).sum().backward();
      std::vector<Tensor> run{y.detach(), x.grad()};
      for (const Tensor& p : layer->parameters()) run.push_back(p.grad().clone());
      runs.push_back(run);
    }
    for (size_t i = 0; i < runs[0].size(); ++i) EXPECT_TRUE(same_bits(runs[0][i], runs[1][i])) << "tensor " << i << (causal ? ", causal" : "");
    EXPECT_TRUE(same_bits(runs[0][0], runs[2][0])) << "the fused layer's forward";
  }
}

nn::MultiHeadAttention heads_of(PhiloxStream& random) {
  const nn::MultiHeadAttentionOptions options{.d_model = 12, .n_heads = 3, .window = 4, .causal = true};
  nn::MultiHeadAttention heads(options, 0.0, random);
  torch::manual_seed(5);
  for (const auto& item : heads->named_parameters()) item.value().detach().add_(0.5 * torch::randn_like(item.value()));
  return heads;
}

// Against dense attention in its definition: the tokens that are activated see the last four of their own kind, by their real times.
TEST(MultiHeadAttention, AttendsToTheLastActivatedTokens) {
  torch::NoGradGuard no_grad;
  PhiloxStream random(4, 1);
  nn::SparseModularActivation sma;
  nn::MultiHeadAttention heads = heads_of(random);
  sma->add("heads", heads.ptr(), nn::make_router(router_of("stride"), 12, random));
  sma->to(torch::kFloat64);
  const Tensor x = torch::randn({60, 12}, torch::kFloat64);
  const nn::PackedLayout layout = nn::PackedLayout::make(offsets({37, 23}), {});
  const Tensor y = sma(x, layout, nn::ForwardOptions{}, 0);
  const Tensor active = nn::fixed_choice("stride", 0.4, layout, {}, 0).to(torch::kBool);
  EXPECT_EQ(y.masked_select(active.logical_not().unsqueeze(1)).abs().sum().item<double>(), 0.0);
  int64_t begin = 0;
  for (const int64_t length : {37, 23}) {
    const Tensor rows = begin + active.narrow(0, begin, length).nonzero().squeeze(1), times = rows - begin;
    const int64_t count = rows.size(0);
    const Tensor qkv = heads->in_proj(x.index_select(0, rows));
    const Tensor age = torch::arange(count).unsqueeze(1) - torch::arange(count), hidden = (age < 0).logical_or(age > 4);
    std::vector<Tensor> out;
    for (int64_t head = 0; head < 3; ++head) {
      const auto part = [&](int64_t which) { return qkv.narrow(1, which * 12 + head * 4, 4); };
      const auto rotated = [&](int64_t which) {
        const Tensor angle = times.unsqueeze(1) * torch::tensor({1.0, 0.01}, torch::kFloat64), pairs = part(which).reshape({count, 2, 2});
        const Tensor a = pairs.select(2, 0), b = pairs.select(2, 1);
        return torch::stack({a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()}, 2).reshape({count, 4});
      };
      const Tensor scores = rotated(0).matmul(rotated(1).t()) / 2.0;
      out.push_back(scores.masked_fill(hidden, -std::numeric_limits<double>::infinity()).softmax(1).matmul(part(2)));
    }
    const Tensor want = heads->out_proj(torch::cat(out, 1));
    EXPECT_LT((y.index_select(0, rows) - want).abs().max().item<double>(), 1e-12 * want.abs().max().item<double>());
    begin += length;
  }
}

TEST(MultiHeadAttention, CarriesItsStateFromChunkToChunk) {
  torch::NoGradGuard no_grad;
  PhiloxStream random(4, 1);
  nn::SparseModularActivation sma;
  sma->add("heads", heads_of(random).ptr(), nn::make_router(router_of("stride"), 12, random));
  const Tensor x = torch::randn({300, 12});
  const Tensor want = sma(x, nn::PackedLayout::make(offsets({300}), {}), nn::ForwardOptions{}, 0);
  nn::ModelState state;
  state.layers.resize(1);
  nn::ForwardOptions options;
  options.state = &state;
  std::vector<Tensor> parts;
  for (int64_t at = 0, length = 1; at < 300; at += length, length = std::min<int64_t>(2 * length + 3, 300 - at)) {
    const auto layout = nn::PackedLayout::make(offsets({length}), {}, 0, torch::tensor({at}, torch::kInt64));
    parts.push_back(sma(x.narrow(0, at, length), layout, options, 0));
  }
  EXPECT_TRUE(same_bits(torch::cat(parts), want));
}

TEST(MultiHeadAttention, Misuse) {
  PhiloxStream random(1, 1);
  const nn::MultiHeadAttentionOptions options{.d_model = 12, .n_heads = 4};
  EXPECT_C10_ERROR(nn::MultiHeadAttention(options, 0.0, random), "n_heads must cut d_model = 12 into heads of an even width, got 4");
}

TEST(SparseModularActivation, CarriesItsStateFromChunkToChunk) {
  torch::NoGradGuard no_grad;
  for (const char* first : {"tempered-softmax", "top-share"}) {
    PhiloxStream random(4, 1);
    nn::SparseModularActivation sma;
    sma->add("attention", unit_of(random).ptr(), nn::make_router(router_of(first), kD, random));
    sma->add("ffn", nn::FeedForwardModule(kD, 16, 0.0, random).ptr(), nn::make_router(router_of("sigmoid-threshold"), kD, random));
    torch::manual_seed(3);
    for (const auto& item : sma->named_parameters()) item.value().add_(0.5 * torch::randn_like(item.value()));
    const Tensor x = torch::randn({90, kD});
    const Tensor want = sma(x, nn::PackedLayout::make(offsets({90}), {}), nn::ForwardOptions{}, 0);
    nn::ModelState state;
    state.layers.resize(1);
    nn::ForwardOptions options;
    options.state = &state;
    std::vector<Tensor> parts;
    int64_t at = 0;
    for (const int64_t length : {1, 0, 40, 7, 42}) {
      const auto layout = nn::PackedLayout::make(offsets({length}), {}, 0, torch::tensor({at}, torch::kInt64));
      parts.push_back(sma(x.narrow(0, at, length), layout, options, 0));
      at += length;
    }
    EXPECT_TRUE(same_bits(torch::cat(parts), want)) << first;
  }
}

TEST(SparseModularActivation, Misuse) {
  nn::SparseModularActivation sma;
  const nn::PackedLayout layout = nn::PackedLayout::make(offsets({6}), {});
  const Tensor state = torch::randn({6, kD});
  EXPECT_C10_ERROR(sma(state, layout, nn::ForwardOptions{}, 0), "no sub-module has been added");
  PhiloxStream random(1, 1);
  EXPECT_C10_ERROR(sma->add("mean", nullptr, nn::make_router(router_of("always"), kD, random)), "'mean' needs a module and a router");
  auto mean = std::make_shared<RunningMean>();
  sma->add("ffn", nn::FeedForwardModule(kD, 4, 0.0, random).ptr(), nn::make_router(router_of("always"), kD, random));
  sma->add("mean", mean, nn::make_router(router_of("never"), kD, random));
  EXPECT_ANY_THROW(sma->add("mean", mean, nn::make_router(router_of("never"), kD, random)));
  nn::ForwardOptions options;
  options.forced_active = {torch::ones({6}, torch::kUInt8)};
  EXPECT_C10_ERROR(sma(state, layout, options, 0), "forced_active must be (2, 6), got [6]");
  nn::ModelState carried;
  carried.layers.resize(1);
  options.forced_active.clear();
  options.state = &carried;
  EXPECT_C10_ERROR(sma(state, layout, options, 0), "sub-module 'mean' cannot carry a state");
}

}  // namespace
}  // namespace seqboat
