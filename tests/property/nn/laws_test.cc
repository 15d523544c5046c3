// The laws of the library at the level of a layer and of a model (bit for bit unless said otherwise).

#include <ATen/Parallel.h>

#include "seqboat/base/philox.h"
#include "seqboat/nn/model.h"
#include "seqboat/nn/seqboat_layer.h"
#include "seqboat/ops/ops.h"
#include "support/torch_checks.h"

namespace seqboat {
namespace {

using test::offsets;
using test::same_bits;
using torch::Tensor;

nn::SeqBoatLayerOptions layer_options(bool causal, const std::string& position, const std::string& norm, int64_t truncation) {
  nn::SeqBoatLayerOptions options;
  options.d_model = 20;
  options.d_attn = 6;
  options.d_hidden = 24;
  options.d_state = 4;
  options.truncation = truncation;
  options.causal = causal;
  options.attention.position = position;
  options.attention.window = 5;
  options.attention.max_positions = 64;
  options.norm = norm;
  options.temperature_init = 1.0;
  return options;
}

/// A layer whose router is lively: about half of the tokens of random input are active.
nn::SeqBoatLayer lively_layer(const nn::SeqBoatLayerOptions& options) {
  PhiloxStream random(11, 1);
  nn::SeqBoatLayer layer(options, random);
  torch::NoGradGuard no_grad;
  if (options.use_router) layer->router->proj->weight.mul_(100);
  return layer;
}

Tensor run(nn::SeqBoatLayer& layer, const Tensor& x, const Tensor& cu, std::vector<nn::LayerTrace>* trace = nullptr) {
  nn::ForwardOptions options;
  options.trace = trace;
  return layer(x, nn::PackedLayout::make(cu, {}), options, 0);
}

class LayerLaws : public ::testing::TestWithParam<std::tuple<bool, std::string, std::string, int64_t>> {
 protected:
  nn::SeqBoatLayerOptions options() const {
    auto [causal, position, norm, truncation] = GetParam();
    return layer_options(causal, position, norm, truncation);
  }
};

TEST_P(LayerLaws, SequencesDoNotSeeEachOther) {
  auto layer = lively_layer(options());
  layer->eval();
  torch::manual_seed(1);
  const std::vector<int64_t> lengths{17, 1, 140, 33};
  const Tensor x = torch::randn({191, 20});
  std::vector<nn::LayerTrace> trace;
  const Tensor whole = run(layer, x, offsets(lengths), &trace);
  const double active = trace[0].active.to(torch::kFloat64).mean().item<double>();
  EXPECT_GT(active, 0.1);
  EXPECT_LT(active, 0.9);
  int64_t begin = 0;
  for (const int64_t length : lengths) {
    EXPECT_TRUE(same_bits(run(layer, x.narrow(0, begin, length).clone(), offsets({length})), whole.narrow(0, begin, length)))
        << "sequence of " << length;
    begin += length;
  }
}

TEST_P(LayerLaws, ThePastIgnoresTheFuture) {
  auto layer = lively_layer(options());
  if (!options().causal) return;
  layer->eval();
  torch::manual_seed(2);
  const Tensor x = torch::randn({150, 20});
  for (const int64_t cut : {1, 64, 77, 149}) {
    Tensor changed = x.clone();
    changed.narrow(0, cut, 150 - cut).normal_();
    EXPECT_TRUE(same_bits(run(layer, x, offsets({150})).narrow(0, 0, cut), run(layer, changed, offsets({150})).narrow(0, 0, cut)))
        << "cut at " << cut;
  }
}

TEST_P(LayerLaws, ThreadCountChangesNothing) {
  auto layer = lively_layer(options());
  layer->train();
  torch::manual_seed(3);
  const Tensor x = torch::randn({1200, 20}), w = torch::randn({1200, 20}), cu = offsets({500, 3, 697});
  const int before = at::get_num_threads();
  std::vector<std::vector<Tensor>> results;
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    layer->zero_grad();
    Tensor in = x.clone().requires_grad_(true);
    const Tensor y = run(layer, in, cu);
    (y * w).sum().backward();
    std::vector<Tensor> result{y.detach(), in.grad()};
    for (const auto& parameter : layer->parameters()) result.push_back(parameter.grad().clone());
    results.push_back(result);
  }
  at::set_num_threads(before);
  for (size_t i = 0; i < results[0].size(); ++i) {
    EXPECT_TRUE(same_bits(results[0][i], results[1][i])) << "tensor " << i << ", two threads";
    EXPECT_TRUE(same_bits(results[0][i], results[2][i])) << "tensor " << i << ", three threads";
  }
}

TEST_P(LayerLaws, NothingActiveIsThePureStateSpaceLayer) {
  auto layer = lively_layer(options());
  layer->eval();
  const Tensor x = torch::randn({90, 20}), cu = offsets({50, 40});
  nn::ForwardOptions forward;
  forward.forced_active = {torch::zeros({90}, torch::kUInt8)};
  const Tensor got = layer(x, nn::PackedLayout::make(cu, {}), forward, 0);
  const Tensor m = ops::activation(layer->ema(options().prenorm ? layer->norm(x) : x, cu), "silu");
  Tensor want = ops::activation(layer->skip_proj(m) + x, "silu");
  if (!options().prenorm) want = layer->norm(want);
  EXPECT_TRUE(same_bits(got, want));
}

TEST_P(LayerLaws, GradientsOfAPackedBatchAreTheSumOfThoseOfItsSequences) {
  if (options().norm == "batchnorm") return;
  auto layer = lively_layer(options());
  layer->to(torch::kFloat64);
  layer->train();
  torch::manual_seed(4);
  const Tensor x = torch::randn({130, 20}, torch::kFloat64), w = torch::randn({130, 20}, torch::kFloat64);
  const auto gradients = [&](const std::vector<std::pair<Tensor, Tensor>>& parts) {
    layer->zero_grad();
    int64_t begin = 0;
    for (const auto& [part, cu] : parts) {
      (run(layer, part, cu) * w.narrow(0, begin, part.size(0))).sum().backward();
      begin += part.size(0);
    }
    std::vector<Tensor> result;
    for (const auto& parameter : layer->parameters()) result.push_back(parameter.grad().clone());
    return result;
  };
  const auto together = gradients({{x, offsets({90, 40})}});
  const auto apart = gradients({{x.narrow(0, 0, 90), offsets({90})}, {x.narrow(0, 90, 40), offsets({40})}});
  for (size_t i = 0; i < together.size(); ++i) {
    // Equal but for the order of sums of 130 terms.
    const double scale = 1 + together[i].abs().max().item<double>();
    EXPECT_LT((together[i] - apart[i]).abs().max().item<double>(), 130 * 2.3e-16 * 10 * scale) << "parameter " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, LayerLaws,
                         ::testing::Combine(::testing::Bool(), ::testing::Values("simple", "local", "rotary"),
                                            ::testing::Values("layernorm", "batchnorm"), ::testing::Values(0, 16)));

TEST(LayerLaw, EverythingActiveWithAWideWindowIsDenseAttention) {
  auto options = layer_options(false, "simple", "layernorm", 0);
  options.attention.window = 1000;
  auto layer = lively_layer(options);
  layer->to(torch::kFloat64);
  layer->eval();
  const Tensor x = torch::randn({70, 20}, torch::kFloat64), cu = offsets({70});
  nn::ForwardOptions forward;
  forward.forced_active = {torch::ones({70}, torch::kUInt8)};
  const Tensor got = layer(x, nn::PackedLayout::make(cu, {}), forward, 0);
  layer->attention->use_composite(true);
  const Tensor want = layer(x, nn::PackedLayout::make(cu, {}), forward, 0);
  EXPECT_LT((got - want).abs().max().item<double>(), 1e-12);
}

TEST(LayerLaw, ForcedDecisionsAreKept) {
  auto layer = lively_layer(layer_options(true, "rotary", "layernorm", 0));
  const Tensor forced = (torch::arange(60) % 3 == 0).to(torch::kUInt8);
  std::vector<nn::LayerTrace> trace;
  nn::ForwardOptions forward;
  forward.forced_active = {forced};
  forward.trace = &trace;
  layer(torch::randn({60, 20}), nn::PackedLayout::make(offsets({60}), {}), forward, 0);
  EXPECT_TRUE(torch::equal(trace[0].active, forced));
}

config::ModelConfig small_classifier() {
  config::ModelConfig config;
  config.vocab_size = 20;
  config.d_model = 16;
  config.d_attn = 8;
  config.d_state = 4;
  config.n_layers = 2;
  config.window_size = 6;
  config.max_positions = 64;
  config.classes = 10;
  config.dropout = 0.3;
  return config;
}

TEST(ModelLaw, DropoutFollowsTheSequenceNotThePacking) {
  const auto model = nn::make_model(small_classifier(), 5);
  model->train();
  torch::manual_seed(6);
  nn::PackedSequences batch;
  batch.tokens = torch::randint(4, 20, {50}, torch::kInt64);
  batch.cu_seqlens = offsets({20, 30});
  nn::ForwardOptions options;
  options.random = {.seed = 3, .update = 9, .micro_batch = 0, .sequence_ids = torch::tensor({71, 4}, torch::kInt64)};
  const Tensor together = model->forward(batch, nullptr, options);
  nn::PackedSequences alone;
  alone.tokens = batch.tokens.narrow(0, 20, 30).clone();
  alone.cu_seqlens = offsets({30});
  options.random.sequence_ids = torch::tensor({4}, torch::kInt64);
  EXPECT_TRUE(same_bits(model->forward(alone, nullptr, options), together.narrow(0, 1, 1)));
  options.random.update = 10;
  EXPECT_FALSE(torch::equal(model->forward(alone, nullptr, options), together.narrow(0, 1, 1)));
}

TEST(ModelLaw, SameSeedSameModel) {
  const auto a = nn::make_model(small_classifier(), 5), b = nn::make_model(small_classifier(), 5), c = nn::make_model(small_classifier(), 6);
  bool all_equal = true;
  for (size_t i = 0; i < a->parameters().size(); ++i) {
    EXPECT_TRUE(torch::equal(a->parameters()[i], b->parameters()[i]));
    all_equal = all_equal && torch::equal(a->parameters()[i], c->parameters()[i]);
  }
  EXPECT_FALSE(all_equal);
}

}  // namespace
}  // namespace seqboat
