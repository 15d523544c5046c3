// The fused Mega and Transformer layers and the fused feed-forward block against their composites of single operators: forward bit for bit, gradients
// to the rounding of sums in another order.

#include <sstream>

#include "seqboat/base/philox.h"
#include "seqboat/nn/feed_forward.h"
#include "seqboat/nn/mega_layer.h"
#include "seqboat/nn/transformer_layer.h"
#include "seqboat/ops/feed_forward.h"
#include "seqboat/ops/mega_layer.h"
#include "support/torch_checks.h"

namespace seqboat {
namespace {

using test::offsets;
using test::same_bits;
using torch::Tensor;

constexpr int64_t kD = 19;  // no multiple of any vector
constexpr int64_t kRows = 964;

struct Case {
  const char* name;
  int64_t chunk_size = 48;
  bool causal = false;
  const char* position = "simple";
  const char* norm = "layernorm";
  bool prenorm = true;
  const char* function = "softmax";
  const char* activation = "silu";
  int64_t truncation = 0;
  double dropout = 0;
  bool affine = true;
  int64_t window = -1;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.name;
}

/// Every parameter far from its initial zeros and ones, so that no gradient hides behind one.
void scatter_parameters(torch::nn::Module& module) {
  torch::manual_seed(5);
  torch::NoGradGuard no_grad;
  for (const auto& parameter : module.named_parameters()) {
    if (parameter.key().find("ema") == std::string::npos) parameter.value().add_(0.3 * torch::randn_like(parameter.value()));
  }
}

nn::MegaLayer make_mega(const Case& c, torch::ScalarType dtype) {
  nn::MegaLayerOptions options;
  options.d_model = kD;
  options.d_attn = 6;
  options.d_hidden = 21;
  options.d_state = 5;
  options.truncation = c.truncation;
  options.causal = c.causal;
  options.chunk_size = c.chunk_size;
  options.function = c.function;
  options.position = c.position;
  options.activation = c.activation;
  options.norm = c.norm;
  options.norm_affine = c.affine;
  options.prenorm = c.prenorm;
  options.dropout = c.dropout;
  PhiloxStream random(17, 1);
  nn::MegaLayer layer(options, random);
  scatter_parameters(*layer);
  layer->to(dtype);
  layer->train();
  return layer;
}

nn::FeedForward make_feed_forward(const Case& c, torch::ScalarType dtype) {
  PhiloxStream random(17, 1);
  nn::FeedForward block(kD, 37, c.norm, c.prenorm, c.affine, c.dropout, false, random);
  scatter_parameters(*block);
  block->to(dtype);
  block->train();
  return block;
}

constexpr int64_t kHeadedD = 24;  // three heads of eight

nn::TransformerLayer make_transformer(const Case& c, torch::ScalarType dtype) {
  nn::TransformerLayerOptions options;
  options.d_model = kHeadedD;
  options.n_heads = 3;
  options.window = c.window;
  options.causal = c.causal;
  options.norm = c.norm;
  options.norm_affine = c.affine;
  options.dropout = c.dropout;
  PhiloxStream random(17, 1);
  nn::TransformerLayer layer(options, random);
  scatter_parameters(*layer);
  layer->to(dtype);
  layer->train();
  return layer;
}

struct ModuleRun {
  Tensor y;
  std::vector<std::pair<std::string, Tensor>> grads;
  std::vector<Tensor> buffers;
};

/// forward(x, layout, options) and its backward, over blocks of 128 and chunks of 512 rows, begun, ended and crossed.
template <class Forward>
ModuleRun run_module(torch::nn::Module& module, int64_t dim, torch::ScalarType dtype, bool recompute, const Forward& forward) {
  torch::manual_seed(9);
  const Tensor x = torch::randn({kRows, dim}, dtype).requires_grad_(true), w = torch::randn({kRows, dim}, dtype);
  nn::ForwardOptions options;
  options.random = {.seed = 3, .update = 4, .micro_batch = 1, .sequence_ids = torch::tensor({9, 8, 7, 6, 5}, torch::kInt64)};
  options.recompute = recompute;
  const Tensor y = forward(x, nn::PackedLayout::make(offsets({260, 0, 1, 700, 3}), options.random, 1), options);
  (y * w).sum().backward();
  ModuleRun out{y.detach(), {{"x", x.grad()}}, {}};
  for (const auto& parameter : module.named_parameters()) out.grads.emplace_back(parameter.key(), parameter.value().grad());
  for (const Tensor& buffer : module.buffers()) out.buffers.push_back(buffer.clone());
  return out;
}

ModuleRun run_mega(const Case& c, torch::ScalarType dtype, bool fused, bool recompute = false) {
  nn::MegaLayer layer = make_mega(c, dtype);
  layer->use_fused(fused);
  return run_module(*layer, kD, dtype, recompute, [&](const Tensor& x, const nn::PackedLayout& layout, const nn::ForwardOptions& options) {
    return layer->forward(x, layout, options, 2);
  });
}

ModuleRun run_feed_forward(const Case& c, torch::ScalarType dtype, bool fused, bool recompute = false) {
  nn::FeedForward block = make_feed_forward(c, dtype);
  block->use_fused(fused);
  return run_module(*block, kD, dtype, recompute, [&](const Tensor& x, const nn::PackedLayout& layout, const nn::ForwardOptions& options) {
    return block->forward(x, layout, options.random, 2, options.recompute);
  });
}

ModuleRun run_transformer(const Case& c, torch::ScalarType dtype, bool fused, bool recompute = false) {
  nn::TransformerLayer layer = make_transformer(c, dtype);
  layer->use_fused(fused);
  return run_module(*layer, kHeadedD, dtype, recompute, [&](const Tensor& x, const nn::PackedLayout& layout, const nn::ForwardOptions& options) {
    return layer->forward(x, layout, options, 2);
  });
}

/// Gradients are sums over 964 rows of terms that themselves are sums: rounding of about a thousand additions on the tensor's own scale, and room for
/// the cancellation between its terms.
void expect_alike(const ModuleRun& got, const ModuleRun& want, torch::ScalarType dtype) {
  EXPECT_TRUE(same_bits(got.y, want.y));
  for (size_t i = 0; i < want.buffers.size(); ++i) EXPECT_TRUE(same_bits(got.buffers[i], want.buffers[i])) << "buffer " << i;
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

void expect_same_bits(const ModuleRun& got, const ModuleRun& want) {
  EXPECT_TRUE(same_bits(got.y, want.y));
  for (size_t i = 0; i < want.grads.size(); ++i) {
    ASSERT_EQ(got.grads[i].second.defined(), want.grads[i].second.defined()) << want.grads[i].first;
    if (!want.grads[i].second.defined()) continue;
    EXPECT_TRUE(same_bits(got.grads[i].second, want.grads[i].second)) << want.grads[i].first;
  }
}

class FusedMega : public ::testing::TestWithParam<Case> {};

TEST_P(FusedMega, HasTheBitsOfTheCompositeAndItsGradients) {
  for (const auto dtype : {torch::kFloat64, torch::kFloat32})
    expect_alike(run_mega(GetParam(), dtype, true), run_mega(GetParam(), dtype, false), dtype);
}

TEST_P(FusedMega, RecomputingFromTheInputAndAnotherThreadCountChangeNoBit) {
  const ModuleRun want = run_mega(GetParam(), torch::kFloat32, true);
  expect_same_bits(run_mega(GetParam(), torch::kFloat32, true, true), want);
  const int before = at::get_num_threads();
  at::set_num_threads(before == 1 ? 2 : 1);
  expect_same_bits(run_mega(GetParam(), torch::kFloat32, true), want);
  at::set_num_threads(before);
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, FusedMega,
    ::testing::Values(
        Case{.name = "Chunks"}, Case{.name = "CausalChunks", .causal = true}, Case{.name = "Full", .chunk_size = -1},
        Case{.name = "CausalFull", .chunk_size = -1, .causal = true, .dropout = 0.2}, Case{.name = "ChunkOfOne", .chunk_size = 1},
        Case{.name = "Rotary", .position = "rotary", .dropout = 0.1}, Case{.name = "Relu2", .chunk_size = 64, .function = "relu2", .truncation = 40},
        Case{.name = "LaplaceGelu", .chunk_size = 30, .causal = true, .function = "laplace", .activation = "gelu", .dropout = 0.3},
        Case{.name = "Truncated", .truncation = 33, .dropout = 0.25}, Case{.name = "ScaleNorm", .norm = "scalenorm", .dropout = 0.1},
        Case{.name = "RmsNormPlain", .norm = "rmsnorm", .affine = false}, Case{.name = "BatchNorm", .norm = "batchnorm", .dropout = 0.1},
        Case{.name = "BatchNormPlain", .norm = "batchnorm", .affine = false}, Case{.name = "PostLayerNorm", .prenorm = false, .dropout = 0.1},
        Case{.name = "PostScaleNorm", .causal = true, .norm = "scalenorm", .prenorm = false},
        Case{.name = "PostRmsNormPlain", .norm = "rmsnorm", .prenorm = false, .affine = false},
        Case{.name = "PostBatchNormFallsBack", .norm = "batchnorm", .prenorm = false}),
    [](const auto& of) { return std::string(of.param.name); });

class FusedFeedForward : public ::testing::TestWithParam<Case> {};

TEST_P(FusedFeedForward, HasTheBitsOfTheCompositeAndItsGradients) {
  for (const auto dtype : {torch::kFloat64, torch::kFloat32})
    expect_alike(run_feed_forward(GetParam(), dtype, true), run_feed_forward(GetParam(), dtype, false), dtype);
}

TEST_P(FusedFeedForward, RecomputingFromTheInputAndAnotherThreadCountChangeNoBit) {
  const ModuleRun want = run_feed_forward(GetParam(), torch::kFloat32, true);
  expect_same_bits(run_feed_forward(GetParam(), torch::kFloat32, true, true), want);
  const int before = at::get_num_threads();
  at::set_num_threads(before == 1 ? 2 : 1);
  expect_same_bits(run_feed_forward(GetParam(), torch::kFloat32, true), want);
  at::set_num_threads(before);
}

INSTANTIATE_TEST_SUITE_P(Kinds, FusedFeedForward,
                         ::testing::Values(Case{.name = "LayerNorm"}, Case{.name = "LayerNormPlain", .dropout = 0.3, .affine = false},
                                           Case{.name = "ScaleNorm", .norm = "scalenorm", .dropout = 0.1}, Case{.name = "RmsNorm", .norm = "rmsnorm"},
                                           Case{.name = "BatchNorm", .norm = "batchnorm", .dropout = 0.1},
                                           Case{.name = "PostLayerNorm", .prenorm = false, .dropout = 0.1},
                                           Case{.name = "PostScaleNorm", .norm = "scalenorm", .prenorm = false},
                                           Case{.name = "PostRmsNormPlain", .norm = "rmsnorm", .prenorm = false, .affine = false},
                                           Case{.name = "PostBatchNormFallsBack", .norm = "batchnorm", .prenorm = false}),
                         [](const auto& of) { return std::string(of.param.name); });

class FusedTransformer : public ::testing::TestWithParam<Case> {};

TEST_P(FusedTransformer, HasTheBitsOfTheCompositeAndItsGradients) {
  for (const auto dtype : {torch::kFloat64, torch::kFloat32})
    expect_alike(run_transformer(GetParam(), dtype, true), run_transformer(GetParam(), dtype, false), dtype);
}

TEST_P(FusedTransformer, RecomputingFromTheInputAndAnotherThreadCountChangeNoBit) {
  const ModuleRun want = run_transformer(GetParam(), torch::kFloat32, true);
  expect_same_bits(run_transformer(GetParam(), torch::kFloat32, true, true), want);
  const int before = at::get_num_threads();
  at::set_num_threads(before == 1 ? 2 : 1);
  expect_same_bits(run_transformer(GetParam(), torch::kFloat32, true), want);
  at::set_num_threads(before);
}

INSTANTIATE_TEST_SUITE_P(Kinds, FusedTransformer,
                         ::testing::Values(Case{.name = "Full"}, Case{.name = "CausalWindow", .causal = true, .dropout = 0.2, .window = 30},
                                           Case{.name = "ScaleNorm", .norm = "scalenorm", .dropout = 0.1, .window = 9},
                                           Case{.name = "RmsNormPlain", .norm = "rmsnorm", .affine = false, .window = 100},
                                           Case{.name = "BatchNorm", .norm = "batchnorm", .dropout = 0.1, .window = 20}),
                         [](const auto& of) { return std::string(of.param.name); });

TEST(FusedRivals, EvaluationAndAnEmptyBatch) {
  const Case c{.name = "Edge", .dropout = 0.4};
  nn::MegaLayer layer = make_mega(c, torch::kFloat32);
  nn::FeedForward block = make_feed_forward(c, torch::kFloat32);
  nn::TransformerLayer transformer = make_transformer(c, torch::kFloat32);
  for (torch::nn::Module* module : std::initializer_list<torch::nn::Module*>{layer.get(), block.get(), transformer.get()}) module->eval();
  torch::NoGradGuard no_grad;
  torch::manual_seed(2);
  for (const std::vector<int64_t>& lengths : {std::vector<int64_t>{300, 41}, std::vector<int64_t>{0}, std::vector<int64_t>{}}) {
    const nn::PackedLayout layout = nn::PackedLayout::make(offsets(lengths), {});
    const Tensor x = torch::randn({layout.positions.size(0), kD}), headed = torch::randn({layout.positions.size(0), kHeadedD});
    Tensor y[2], z[2], t[2];
    for (const bool fused : {false, true}) {
      layer->use_fused(fused);
      block->use_fused(fused);
      y[fused] = layer->forward(x, layout, {}, 0);
      z[fused] = block->forward(x, layout, {}, 0);
      transformer->use_fused(fused);
      t[fused] = transformer->forward(headed, layout, {}, 0);
    }
    EXPECT_TRUE(same_bits(y[0], y[1]));
    EXPECT_TRUE(same_bits(z[0], z[1]));
    EXPECT_TRUE(same_bits(t[0], t[1]));
  }
}

TEST(FusedRivals, IntermediatesAreTheComposites) {
  const Case c{.name = "Edge", .dropout = 0.2};
  nn::MegaLayer layer = make_mega(c, torch::kFloat32);
  const nn::PackedLayout layout = nn::PackedLayout::make(offsets({100, 7}), {});
  torch::manual_seed(2);
  const Tensor x = torch::randn({107, kD});
  std::vector<nn::LayerTrace> trace[2];
  for (const bool fused : {false, true}) {
    layer->use_fused(fused);
    nn::ForwardOptions options;
    options.trace = &trace[fused];
    options.intermediates = true;
    EXPECT_TRUE(layer->forward(x, layout, options, 0).requires_grad());
    ASSERT_EQ(trace[fused].size(), 1u);
  }
  EXPECT_TRUE(same_bits(trace[0][0].q, trace[1][0].q));
  EXPECT_TRUE(same_bits(trace[0][0].attention, trace[1][0].attention));
  EXPECT_TRUE(same_bits(trace[0][0].reset, trace[1][0].reset));
}

TEST(FusedRivals, MisuseIsNamed) {
  const Case c{.name = "Edge"};
  nn::MegaLayer layer = make_mega(c, torch::kFloat32);
  nn::FeedForward block = make_feed_forward(c, torch::kFloat32);
  const nn::PackedLayout layout = nn::PackedLayout::make(offsets({5}), {});
  EXPECT_C10_ERROR(layer->forward(torch::randn({5, 18}), layout, {}, 0), "seqboat::mega_layer: norm_weight must be [18]");
  EXPECT_C10_ERROR(layer->forward(torch::randn({6, kD}), layout, {}, 0), "seqboat::mega_layer: cu_seqlens must go from 0 to 6");
  EXPECT_C10_ERROR(layer->forward(torch::zeros({5, kD}, torch::kInt64), layout, {}, 0), "seqboat::mega_layer: x must be float32 or float64");
  EXPECT_C10_ERROR(block->forward(torch::randn({5, 18}), layout, {}, 0), "seqboat::feed_forward: in_weight must be [37, 18]");
  EXPECT_C10_ERROR(block->forward(torch::randn({6, kD}), layout, {}, 0), "seqboat::feed_forward: positions must be [6]");
  nn::TransformerLayer transformer = make_transformer(c, torch::kFloat32);
  EXPECT_C10_ERROR(transformer->forward(torch::randn({6, kHeadedD}), layout, {}, 0), "seqboat::transformer_layer: cu_seqlens must go from 0 to 6");
  EXPECT_C10_ERROR(transformer->forward(torch::randn({5, 18}), layout, {}, 0), "seqboat::transformer_layer: norm_weight must be [18]");

  ops::MegaLayerArguments a;
  a.x = torch::randn({5, kD});
  a.cu_seqlens = layout.cu_seqlens;
  a.positions = layout.positions;
  a.sequence_ids = layout.sequence_ids;
  std::tie(a.encoder_decay, a.encoder_weight) = layer->ema->coefficients();
  a.encoder_skip = layer->ema->omega;
  a.v_weight = layer->v_proj->weight;
  a.v_bias = layer->v_proj->bias;
  a.in_weight = layer->in_proj->weight;
  a.in_bias = layer->in_proj->bias;
  a.qk_gamma = layer->qk_gamma;
  a.qk_beta = layer->qk_beta;
  a.bias_table = layer->position->table;
  a.out_weight = layer->out_proj->weight;
  a.out_bias = layer->out_proj->bias;
  EXPECT_NO_THROW(ops::mega_layer(a));
  const auto with = [&](const std::function<void(ops::MegaLayerArguments&)>& change) {
    ops::MegaLayerArguments changed = a;
    change(changed);
    return ops::mega_layer(changed);
  };
  EXPECT_C10_ERROR(with([](auto& b) { b.chunk_size = 0; }), "chunk_size must be positive");
  EXPECT_C10_ERROR(with([](auto& b) { b.activation = "relu2"; }), "activation must be silu or gelu, got 'relu2'");
  EXPECT_C10_ERROR(with([](auto& b) { b.norm = "none"; }), "norm must be layernorm");
  EXPECT_C10_ERROR(with([](auto& b) { b.norm = "batchnorm", b.prenorm = false; }), "batchnorm must come first");
  EXPECT_C10_ERROR(with([](auto& b) { b.dropout = 1; }), "dropout must lie in [0, 1)");
  EXPECT_C10_ERROR(with([](auto& b) { b.bias_table = torch::zeros({4}); }), "bias_table must be (2L-1)");
  EXPECT_C10_ERROR(with([](auto& b) { b.causal = true; }), "encoder_decay must be");
}

}  // namespace
}  // namespace seqboat
