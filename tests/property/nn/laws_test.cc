// The laws of the library at the level of a layer and of a model (bit for bit unless said otherwise).

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

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
  options.router.temperature_init = 1.0;
  return options;
}

/// A layer whose router is lively: about half of the tokens of random input are active.
nn::SeqBoatLayer lively_layer(const nn::SeqBoatLayerOptions& options) {
  PhiloxStream random(11, 1);
  nn::SeqBoatLayer layer(options, random);
  torch::NoGradGuard no_grad;
  if (layer->router) layer->router->proj->weight.mul_(100);
  return layer;
}

Tensor run(nn::SeqBoatLayer& layer, const Tensor& x, const Tensor& cu, std::vector<nn::LayerTrace>* trace = nullptr) {
  nn::ForwardOptions options;
  options.trace = trace;
  return layer(x, nn::PackedLayout::make(cu, {}), options, 0);
}

class LayerTest : public ::testing::TestWithParam<std::tuple<bool, std::string, std::string, int64_t>> {
 protected:
  nn::SeqBoatLayerOptions options() const {
    auto [causal, position, norm, truncation] = GetParam();
    return layer_options(causal, position, norm, truncation);
  }
};

class LayerLaws : public LayerTest {};        // hold for every layer
class CausalLayerLaws : public LayerTest {};  // for causal ones
class TokenNormLaws : public LayerTest {};    // where the norm of a token does not depend on the rest of the batch

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

TEST_P(CausalLayerLaws, ThePastIgnoresTheFuture) {
  auto layer = lively_layer(options());
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

TEST_P(TokenNormLaws, GradientsOfAPackedBatchAreTheSumOfThoseOfItsSequences) {
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

using ::testing::Bool;
using ::testing::Combine;
using ::testing::Values;

INSTANTIATE_TEST_SUITE_P(Kinds, LayerLaws, Combine(Bool(), Values("simple", "local", "rotary"), Values("layernorm", "batchnorm"), Values(0, 16)));
INSTANTIATE_TEST_SUITE_P(Kinds, CausalLayerLaws,
                         Combine(Values(true), Values("simple", "local", "rotary"), Values("layernorm", "batchnorm"), Values(0, 16)));
INSTANTIATE_TEST_SUITE_P(Kinds, TokenNormLaws, Combine(Bool(), Values("simple", "local", "rotary"), Values("layernorm"), Values(0, 16)));

TEST(LayerLaw, EverythingActiveWithAWideWindowIsDenseAttention) {
  constexpr int64_t kTokens = 70, kD = 20, kZ = 6, kH = 24, kM = 64;  // the longest distances lie beyond the table
  auto options = layer_options(false, "simple", "layernorm", 0);
  options.attention.window = 1000;
  auto layer = lively_layer(options);
  layer->to(torch::kFloat64);
  layer->eval();
  torch::NoGradGuard no_grad;
  torch::manual_seed(5);
  auto& unit = *layer->attention;
  for (Tensor* t : {&unit.qk_gamma, &unit.qk_beta, &unit.position->table, &unit.in_proj->bias, &unit.out_proj->bias}) t->normal_();
  const Tensor x = torch::randn({kTokens, kD}, torch::kFloat64), cu = offsets({kTokens});
  nn::ForwardOptions forward;
  forward.forced_active = {torch::ones({kTokens}, torch::kUInt8)};
  const Tensor got = layer(x, nn::PackedLayout::make(cu, {}), forward, 0);

  const Tensor m = torch::silu(layer->ema(torch::layer_norm(x, {kD}, layer->norm->weight, layer->norm->bias, 1e-5), cu));
  const Tensor base = torch::silu(torch::linear(m, unit.in_proj->weight, unit.in_proj->bias));
  const Tensor z = base.slice(1, 0, kZ), r = base.slice(1, kZ, kZ + kH), v = base.slice(1, kZ + kH);
  const Tensor q = z * unit.qk_gamma[0] + unit.qk_beta[0], k = z * unit.qk_gamma[1] + unit.qk_beta[1];
  Tensor b = torch::empty({kTokens, kTokens}, torch::kFloat64);
  for (int64_t i = 0; i < kTokens; ++i)
    for (int64_t j = 0; j < kTokens; ++j) b[i][j] = unit.position->table[std::clamp<int64_t>(kM - 1 + j - i, 0, 2 * kM - 2)];
  const Tensor attention = torch::softmax(torch::matmul(q, k.t()) / std::sqrt(static_cast<double>(kZ)) + b, 1).matmul(v);
  const Tensor logits = torch::linear(m, layer->router->proj->weight, layer->router->proj->bias);
  const Tensor p = torch::sigmoid((logits.select(1, 1) - logits.select(1, 0)) / layer->router->log_temperature.exp());
  const Tensor h = p.unsqueeze(1) * torch::linear(attention * r, unit.out_proj->weight, unit.out_proj->bias);
  const Tensor sum = torch::linear(m, layer->skip_proj->weight, layer->skip_proj->bias) + h + x;
  // The longest sums have 70 terms, as large as the largest score and value; exp carries a score's error over.
  const double magnitude = (1 + torch::matmul(q, k.t()).abs().max().item<double>()) * (1 + v.abs().max().item<double>()) *
                           (1 + unit.out_proj->weight.abs().sum(1).max().item<double>()) * (1 + r.abs().max().item<double>());
  EXPECT_TRUE(test::close(got, torch::silu(sum), test::Tolerance::sum<double>(kTokens, magnitude)));
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

/// The gradients of every parameter, and the logits, of one training step with a number of threads.
std::vector<Tensor> training_step(const config::ModelConfig& config, const nn::PackedSequences& batch, const Tensor& targets, int threads,
                                  std::vector<nn::LayerTrace>* trace) {
  const auto model = nn::make_model(config, 5);
  model->train();
  at::set_num_threads(threads);
  nn::ForwardOptions options;
  options.random = {.seed = 3, .update = 9, .micro_batch = 1, .sequence_ids = {}};
  options.trace = trace;
  const Tensor logits = model->forward(batch, nullptr, options);
  ops::cross_entropy_sum(logits, targets).backward();
  std::vector<Tensor> result{logits.detach()};
  for (const auto& parameter : model->parameters()) {
    EXPECT_TRUE(parameter.grad().defined());
    result.push_back(parameter.grad());
  }
  return result;
}

/// About 10,000 tokens: far more than a thread's share of any operator, so that every sum over tokens is really cut.
void expect_same_step_with_any_threads(const config::ModelConfig& config) {
  torch::manual_seed(8);
  const std::vector<int64_t> lengths{4100, 1, 2777, 1903, 1250};
  nn::PackedSequences batch;
  batch.cu_seqlens = offsets(lengths);
  batch.tokens = torch::randint(0, 20, {batch.cu_seqlens[-1].item<int64_t>()}, torch::kInt64);
  const bool language_model = config.task == "language-model";
  const Tensor targets = language_model ? torch::randint(0, 20, {batch.tokens.size(0)}, torch::kInt64) : torch::arange(5);
  const int before = at::get_num_threads();
  std::vector<nn::LayerTrace> trace;
  const std::vector<Tensor> one = training_step(config, batch, targets, 1, &trace);
  for (const auto& layer : trace) {
    const double active = layer.active.to(torch::kFloat64).mean().item<double>();
    EXPECT_GT(active, 0.1);
    EXPECT_LT(active, 0.9);
  }
  for (size_t i = 1; i < one.size(); ++i) EXPECT_GT(one[i].abs().max().item<double>(), 0) << "parameter " << i - 1;
  std::vector<std::string> names{"logits"};
  for (const auto& item : nn::make_model(config, 5)->named_parameters()) names.push_back(item.key());
  for (const int threads : {2, 3, 5}) {
    const std::vector<Tensor> many = training_step(config, batch, targets, threads, nullptr);
    ASSERT_EQ(many.size(), one.size());
    for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(same_bits(many[i], one[i])) << names[i] << " with " << threads << " threads";
  }
  at::set_num_threads(before);
}

config::ModelConfig larger_classifier() {
  config::ModelConfig config;
  config.vocab_size = 20;
  config.d_model = 80;
  config.d_attn = 64;
  config.d_hidden = 160;
  config.n_layers = 2;
  config.window_size = 32;
  config.max_positions = 512;
  config.classes = 10;
  config.dropout = 0.1;
  config.sinusoidal = true;
  return config;
}

TEST(ModelLaw, ThreadCountChangesNoGradientOfAClassifier) {
  expect_same_step_with_any_threads(larger_classifier());
}

TEST(ModelLaw, ThreadCountChangesNoGradientOfAPrenormClassifierWithBatchNorm) {
  config::ModelConfig config = larger_classifier();
  config.norm = "batchnorm";
  config.prenorm = true;
  config.truncation = 100;
  config.attention = "relu2";
  config.position = "rotary";
  config.sinusoidal = false;
  expect_same_step_with_any_threads(config);
}

TEST(ModelLaw, ThreadCountChangesNoGradientOfALanguageModel) {
  config::ModelConfig config = larger_classifier();
  config.task = "language-model";
  config.causal = true;
  config.classes = 0;
  config.sinusoidal = false;
  config.norm = "scalenorm";
  config.position = "local";
  config.attention = "laplace";
  config.ffn_dim = 160;
  config.d_embedding = 48;
  config.tie_embedding = false;
  expect_same_step_with_any_threads(config);
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
