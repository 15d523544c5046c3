// The fused layer operator against the composite of single operators: forward bit for bit, gradients to the rounding of sums in another order.

#include <sstream>

#include "seqboat/base/philox.h"
#include "seqboat/nn/seqboat_layer.h"
#include "seqboat/ops/seqboat_layer.h"
#include "support/torch_checks.h"

namespace seqboat {
namespace {

using test::offsets;
using test::same_bits;
using torch::Tensor;

struct Case {
  const char* name;
  bool causal = false;
  const char* position = "simple";
  const char* norm = "layernorm";
  bool prenorm = true;
  const char* function = "softmax";
  int64_t truncation = 0;
  int64_t window = 7;
  double dropout = 0;
  const char* router = "tempered-softmax";
  bool affine = true;
  const char* encoder = "ema";
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.name;
}

nn::SeqBoatLayerOptions options_of(const Case& c) {
  nn::SeqBoatLayerOptions options;
  options.d_model = 19;  // no multiple of any vector
  options.d_attn = 6;
  options.d_hidden = 21;
  options.d_state = std::string(c.encoder) == "s4d" ? 6 : 5;
  options.truncation = c.truncation;
  options.causal = c.causal;
  options.attention.function = c.function;
  options.attention.position = c.position;
  options.attention.window = c.window;
  options.attention.max_positions = 100;  // the longest distances are clamped
  options.norm = c.norm;
  options.norm_affine = c.affine;
  options.prenorm = c.prenorm;
  options.encoder = c.encoder;
  options.router.kind = c.router;
  options.router.rate = 0.4;
  options.use_attention = std::string(c.router) != "never";
  options.router.temperature_init = 1.0;
  options.router.bias = 0.1;
  options.dropout = c.dropout;
  return options;
}

/// A layer with every parameter far from its initial zeros and ones, so that no gradient hides behind one.
nn::SeqBoatLayer make_layer(const Case& c, torch::ScalarType dtype) {
  PhiloxStream random(17, 1);
  nn::SeqBoatLayer layer(options_of(c), random);
  torch::manual_seed(5);
  torch::NoGradGuard no_grad;
  for (const auto& parameter : layer->named_parameters()) {
    if (parameter.key().find("ema") == std::string::npos && parameter.key().find("s4d") == std::string::npos)
      parameter.value().add_(0.3 * torch::randn_like(parameter.value()));
  }
  if (layer->router) layer->router->proj->weight.mul_(4);
  layer->to(dtype);
  layer->train();
  return layer;
}

struct LayerRun {
  Tensor y;
  nn::LayerTrace trace;
  std::vector<std::pair<std::string, Tensor>> grads;
  std::vector<Tensor> buffers;
};

LayerRun run_layer(const Case& c, torch::ScalarType dtype, bool fused, bool recompute, const std::vector<Tensor>& forced = {},
                   bool router_gradients = true) {
  nn::SeqBoatLayer layer = make_layer(c, dtype);
  layer->use_fused(fused);
  torch::manual_seed(9);
  const Tensor cu = offsets({260, 0, 1, 700, 3});  // blocks of 128 and chunks of 512 rows, begun, ended and crossed
  const Tensor x = torch::randn({964, 19}, dtype).requires_grad_(true), w = torch::randn({964, 19}, dtype), wp = torch::randn({964}, dtype);
  nn::ForwardOptions options;
  options.random = {.seed = 3, .update = 4, .micro_batch = 1, .sequence_ids = torch::tensor({9, 8, 7, 6, 5}, torch::kInt64)};
  options.forced_active = forced;
  options.router_gradients = router_gradients;
  options.recompute = recompute;
  std::vector<nn::LayerTrace> trace;
  options.trace = &trace;
  const Tensor y = layer(x, nn::PackedLayout::make(cu, options.random, 1), options, 0);
  Tensor loss = (y * w).sum();
  if (router_gradients && layer->router) loss = loss + (trace[0].probability * wp).sum();
  loss.backward();
  LayerRun out{y.detach(), trace[0], {{"x", x.grad()}}, {}};
  for (const auto& parameter : layer->named_parameters()) out.grads.emplace_back(parameter.key(), parameter.value().grad());
  for (const Tensor& buffer : layer->buffers()) out.buffers.push_back(buffer.clone());
  return out;
}

/// Gradients are sums over 964 rows of terms that themselves are sums: rounding of about a thousand additions on the tensor's own scale, and room for
/// the cancellation between its terms.
void expect_gradients_close(const LayerRun& got, const LayerRun& want, torch::ScalarType dtype) {
  const double eps = dtype == torch::kFloat64 ? 2.3e-16 : 1.2e-7;
  ASSERT_EQ(got.grads.size(), want.grads.size());
  for (size_t i = 0; i < got.grads.size(); ++i) {
    const auto& [name, grad] = want.grads[i];
    ASSERT_EQ(got.grads[i].second.defined(), grad.defined()) << name;
    if (!grad.defined()) continue;
    const double scale = std::max(1.0, grad.abs().max().item<double>());
    EXPECT_TRUE(test::close(got.grads[i].second, grad, {1000 * eps * scale})) << name;
  }
}

class FusedLayer : public ::testing::TestWithParam<Case> {};

TEST_P(FusedLayer, HasTheBitsOfTheCompositeAndItsGradients) {
  for (const auto dtype : {torch::kFloat64, torch::kFloat32}) {
    const LayerRun want = run_layer(GetParam(), dtype, false, false), got = run_layer(GetParam(), dtype, true, false);
    EXPECT_TRUE(same_bits(got.y, want.y));
    for (size_t i = 0; i < want.buffers.size(); ++i) EXPECT_TRUE(same_bits(got.buffers[i], want.buffers[i])) << "buffer " << i;
    if (std::string(GetParam().router) == "tempered-softmax") {
      EXPECT_TRUE(torch::equal(got.trace.active, want.trace.active));
      EXPECT_TRUE(same_bits(got.trace.probability, want.trace.probability));
      const double active = want.trace.active.to(torch::kFloat64).mean().item<double>();
      EXPECT_GT(active, 0.1);
      EXPECT_LT(active, 0.9);
    }
    expect_gradients_close(got, want, dtype);
  }
}

TEST_P(FusedLayer, RecomputingFromTheInputsChangesNoBit) {
  const LayerRun want = run_layer(GetParam(), torch::kFloat32, true, false), got = run_layer(GetParam(), torch::kFloat32, true, true);
  EXPECT_TRUE(same_bits(got.y, want.y));
  for (size_t i = 0; i < want.grads.size(); ++i) {
    ASSERT_EQ(got.grads[i].second.defined(), want.grads[i].second.defined()) << want.grads[i].first;
    if (!want.grads[i].second.defined()) continue;
    EXPECT_TRUE(same_bits(got.grads[i].second, want.grads[i].second)) << want.grads[i].first;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, FusedLayer,
    ::testing::Values(
        Case{.name = "Bidirectional"}, Case{.name = "Causal", .causal = true}, Case{.name = "Rotary", .position = "rotary"},
        Case{.name = "CausalRotaryDropout", .causal = true, .position = "rotary", .dropout = 0.3},
        Case{.name = "Local", .position = "local", .function = "relu2"}, Case{.name = "Laplace", .function = "laplace"},
        Case{.name = "Dropout", .dropout = 0.25}, Case{.name = "Truncated", .truncation = 40, .dropout = 0.1}, Case{.name = "Full", .window = -1},
        Case{.name = "NoRouter", .dropout = 0.2, .router = "always"},
        Case{.name = "CausalNoRouter", .causal = true, .dropout = 0.2, .router = "always"}, Case{.name = "ScaleNorm", .norm = "scalenorm"},
        Case{.name = "RmsNorm", .norm = "rmsnorm", .dropout = 0.1}, Case{.name = "BatchNorm", .norm = "batchnorm"},
        Case{.name = "BatchNormPlain", .norm = "batchnorm", .affine = false}, Case{.name = "PostLayerNorm", .prenorm = false, .dropout = 0.1},
        Case{.name = "PostScaleNorm", .norm = "scalenorm", .prenorm = false},
        Case{.name = "PostRmsNormPlain", .norm = "rmsnorm", .prenorm = false, .affine = false},
        Case{.name = "Stride", .dropout = 0.2, .router = "stride"}, Case{.name = "CausalRandom", .causal = true, .dropout = 0.2, .router = "random"},
        Case{.name = "EncoderAlone", .truncation = 30, .dropout = 0.2, .router = "never"},
        Case{.name = "CausalEncoderAlone", .causal = true, .norm = "scalenorm", .prenorm = false, .dropout = 0.2, .router = "never"},
        Case{.name = "S4d", .truncation = 40, .dropout = 0.1, .encoder = "s4d"},
        Case{.name = "CausalS4d", .causal = true, .norm = "rmsnorm", .prenorm = false, .encoder = "s4d"},
        Case{.name = "S4dAlone", .router = "never", .encoder = "s4d"}, Case{.name = "PostBatchNormFallsBack", .norm = "batchnorm", .prenorm = false}),
    [](const auto& of) { return std::string(of.param.name); });

TEST(FusedLayerEdge, ForcedDecisionsAndNothingOrAllActive) {
  const Case c{.name = "Edge", .dropout = 0.2};
  for (const auto& forced :
       {torch::zeros({964}, torch::kUInt8), torch::ones({964}, torch::kUInt8), (torch::arange(964) % 3 == 0).to(torch::kUInt8)}) {
    const LayerRun want = run_layer(c, torch::kFloat64, false, false, {forced}), got = run_layer(c, torch::kFloat64, true, false, {forced});
    EXPECT_TRUE(same_bits(got.y, want.y));
    EXPECT_TRUE(torch::equal(got.trace.active, forced));
    expect_gradients_close(got, want, torch::kFloat64);
  }
}

TEST(FusedLayerEdge, WithoutAGradientOfTheProbabilities) {
  const Case c{.name = "Edge"};
  const LayerRun want = run_layer(c, torch::kFloat64, false, false, {}, false), got = run_layer(c, torch::kFloat64, true, false, {}, false);
  EXPECT_FALSE(got.trace.probability.requires_grad());
  expect_gradients_close(got, want, torch::kFloat64);
}

TEST(FusedLayerEdge, EvaluationAndAnEmptyBatch) {
  const Case c{.name = "Edge", .dropout = 0.4};
  nn::SeqBoatLayer layer = make_layer(c, torch::kFloat32);
  layer->eval();
  torch::NoGradGuard no_grad;
  torch::manual_seed(2);
  for (const std::vector<int64_t>& lengths : {std::vector<int64_t>{300, 41}, std::vector<int64_t>{0}, std::vector<int64_t>{}}) {
    const Tensor cu = offsets(lengths), x = torch::randn({cu[-1].item<int64_t>(), 19});
    Tensor y[2];
    for (const bool fused : {false, true}) {
      layer->use_fused(fused);
      y[fused] = layer(x, nn::PackedLayout::make(cu, {}), nn::ForwardOptions{}, 0);
    }
    EXPECT_TRUE(same_bits(y[0], y[1]));
  }
}

TEST(FusedLayerEdge, KeepsWhatItSaysAndLess) {
  // Asked of the operator below autograd, which gives what is kept as outputs of its own.
  const Case c{.name = "Edge"};
  nn::SeqBoatLayer layer = make_layer(c, torch::kFloat32);
  ops::SeqBoatLayerArguments a;
  const Tensor x = torch::randn({640, 19});
  const nn::PackedLayout layout = nn::PackedLayout::make(offsets({640}), {});
  std::tie(a.encoder_decay, a.encoder_weight) = layer->ema->coefficients();
  a.x = x;
  a.cu_seqlens = layout.cu_seqlens;
  a.positions = layout.positions;
  a.sequence_ids = layout.sequence_ids;
  a.forced = (torch::arange(640) % 4 == 0).to(torch::kUInt8);
  a.norm_weight = layer->norm->weight;
  a.norm_bias = layer->norm->bias;
  a.encoder_skip = layer->ema->omega;
  a.router_weight = layer->router->proj->weight;
  a.router_bias = layer->router->proj->bias;
  a.log_temperature = layer->router->log_temperature;
  a.skip_weight = layer->skip_proj->weight;
  a.skip_bias = layer->skip_proj->bias;
  a.in_weight = layer->attention->in_proj->weight;
  a.in_bias = layer->attention->in_proj->bias;
  a.qk_gamma = layer->attention->qk_gamma;
  a.qk_beta = layer->attention->qk_beta;
  a.bias_table = layer->attention->position->table;
  a.out_weight = layer->attention->out_proj->weight;
  a.out_bias = layer->attention->out_proj->bias;
  a.window = 7;
  const auto kept = [&](bool inputs_only) {
    a.keep_inputs_only = inputs_only;
    const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("seqboat::_seqboat_layer_forward", "");
    torch::jit::Stack stack;
    torch::NoGradGuard no_grad;
    for (const Tensor& t : {a.x, a.cu_seqlens, a.positions, a.sequence_ids, a.forced, a.norm_weight, a.norm_bias}) stack.emplace_back(t);
    for (int absent = 0; absent < 2; ++absent) stack.emplace_back();
    for (const Tensor& t : {a.encoder_decay, a.encoder_weight, a.encoder_skip, a.router_weight, a.router_bias, a.log_temperature, a.skip_weight,
                            a.skip_bias, a.in_weight, a.in_bias, a.qk_gamma, a.qk_beta, a.bias_table, a.out_weight, a.out_bias})
      stack.emplace_back(t.detach());
    torch::jit::push(stack, a.norm, a.prenorm, a.batch_stats, a.eps, a.causal, a.truncation, a.window, a.position, a.function, a.act_bias, a.dropout,
                     a.random, a.keep_inputs_only);
    op.callBoxed(&stack);
    return std::pair(stack[3].toTensor().numel(), stack[4].toTensor().numel());
  };
  EXPECT_EQ(kept(false), std::pair(int64_t{640 * (2 * 19 + 4)}, int64_t{160 * (6 + 3 * 21 + 1)}));
  EXPECT_EQ(kept(true), std::pair(int64_t{0}, int64_t{0}));
}

TEST(FusedLayerEdge, MisuseIsNamed) {
  const Tensor x = torch::randn({5, 19});
  const nn::PackedLayout layout = nn::PackedLayout::make(offsets({5}), {});
  const Case c{.name = "Edge"};
  nn::SeqBoatLayer layer = make_layer(c, torch::kFloat32);
  EXPECT_C10_ERROR(layer(torch::randn({5, 18}), layout, nn::ForwardOptions{}, 0), "seqboat::seqboat_layer: encoder_decay must be");
  EXPECT_C10_ERROR(layer(x.to(torch::kInt64), layout, nn::ForwardOptions{}, 0), "x must be float32 or float64");
  nn::ForwardOptions forced;
  forced.forced_active = {torch::ones({4}, torch::kUInt8)};
  EXPECT_C10_ERROR(layer(x, layout, forced, 0), "forced must be [5]");
  EXPECT_C10_ERROR(layer(torch::randn({6, 19}), layout, nn::ForwardOptions{}, 0), "cu_seqlens must go from 0 to 6");
}

}  // namespace
}  // namespace seqboat
