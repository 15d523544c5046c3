// What every kind of layer owes: sequences do not see each other, the past ignores the future, thread counts change nothing, gradients are the
// derivative; and what each kind is.

#include <ATen/Parallel.h>

#include "seqboat/config/model_size.h"
#include "seqboat/nn/encoder.h"
#include "seqboat/nn/fixed_choice.h"
#include "seqboat/nn/mega_layer.h"
#include "seqboat/nn/model.h"
#include "seqboat/nn/seqboat_layer.h"
#include "support/torch_checks.h"

namespace seqboat {
namespace {

using test::offsets;
using test::same_bits;
using torch::Tensor;

struct Kind {
  const char* name;
  void (*change)(config::ModelConfig&);
};

std::ostream& operator<<(std::ostream& out, const Kind& kind) {
  return out << kind.name;
}

config::ModelConfig small_model(const Kind& kind, bool causal) {
  config::ModelConfig config;
  config.d_model = 20;
  config.d_attn = 6;
  config.d_hidden = 24;
  config.d_state = 4;
  config.n_layers = 2;
  config.window_size = 16;
  config.max_positions = 800;
  config.causal = causal;
  config.vocab_size = 30;
  if (causal) {
    config.task = "language-model";
  } else {
    config.classes = 5;
  }
  kind.change(config);
  return config;
}

std::shared_ptr<nn::Model> lively_model(const config::ModelConfig& config) {
  const auto model = nn::make_model(config, 3);
  torch::NoGradGuard no_grad;
  for (const auto& item : model->named_parameters()) {
    if (item.key().find("router.proj.weight") != std::string::npos) item.value().mul_(100);
    if (item.key().find("out_proj.weight") != std::string::npos || item.key().find("qk_gamma") != std::string::npos) item.value().mul_(10);
  }
  return model;
}

class LayerKinds : public ::testing::TestWithParam<Kind> {};

nn::PackedSequences tokens_of(const std::vector<int64_t>& lengths) {
  nn::PackedSequences batch;
  batch.cu_seqlens = offsets(lengths);
  batch.tokens = torch::randint(0, 30, {batch.cu_seqlens[-1].item<int64_t>()}, torch::kInt64);
  return batch;
}

TEST_P(LayerKinds, SequencesDoNotSeeEachOther) {
  for (const bool causal : {false, true}) {
    const auto model = lively_model(small_model(GetParam(), causal));
    model->train();  // dropout as well
    torch::manual_seed(1);
    const std::vector<int64_t> lengths{17, 1, 140, 33};
    const nn::PackedSequences batch = tokens_of(lengths);
    nn::ForwardOptions options;
    options.random = {.seed = 2, .update = 3, .micro_batch = 0, .sequence_ids = torch::tensor({40, 41, 42, 43}, torch::kInt64)};
    const Tensor whole = model->forward(batch, nullptr, options);
    int64_t begin = 0;
    for (int64_t b = 0; b < 4; ++b) {
      const int64_t length = lengths[static_cast<size_t>(b)];
      nn::PackedSequences one{.tokens = batch.tokens.narrow(0, begin, length).clone(), .values = {}, .cu_seqlens = offsets({length})};
      options.random.sequence_ids = torch::tensor({40 + b}, torch::kInt64);
      const Tensor want = causal ? whole.narrow(0, begin, length) : whole.narrow(0, b, 1);
      EXPECT_TRUE(same_bits(model->forward(one, nullptr, options), want)) << (causal ? "causal" : "bidirectional") << ", sequence " << b;
      begin += length;
    }
  }
}

TEST_P(LayerKinds, ThePastIgnoresTheFuture) {
  const auto model = lively_model(small_model(GetParam(), true));
  model->eval();
  torch::NoGradGuard no_grad;
  torch::manual_seed(2);
  const nn::PackedSequences batch = tokens_of({150});
  const Tensor want = model->forward(batch, nullptr, {});
  for (const int64_t cut : {1, 64, 77, 149}) {
    nn::PackedSequences changed = batch;
    changed.tokens = batch.tokens.clone();
    changed.tokens.narrow(0, cut, 150 - cut).copy_(torch::randint(0, 30, {150 - cut}, torch::kInt64));
    EXPECT_TRUE(same_bits(model->forward(changed, nullptr, {}).narrow(0, 0, cut), want.narrow(0, 0, cut))) << "cut at " << cut;
  }
}

TEST_P(LayerKinds, ThreadCountChangesNothing) {
  for (const bool causal : {false, true}) {
    const config::ModelConfig config = small_model(GetParam(), causal);
    torch::manual_seed(3);
    const nn::PackedSequences batch = tokens_of({700, 3, 640});
    const Tensor w = torch::randn(causal ? std::vector<int64_t>{1343, 30} : std::vector<int64_t>{3, 5});
    const int before = at::get_num_threads();
    std::vector<std::vector<Tensor>> results;
    for (const int threads : {1, 2, 3}) {
      at::set_num_threads(threads);
      const auto model = lively_model(config);
      model->train();
      const Tensor y = model->forward(batch, nullptr, {});
      (y * w).sum().backward();
      std::vector<Tensor> result{y.detach()};
      for (const auto& item : model->named_parameters()) {
        EXPECT_TRUE(item.value().grad().defined() && item.value().grad().abs().max().item<double>() > 0) << item.key();
        result.push_back(item.value().grad());
      }
      results.push_back(result);
    }
    at::set_num_threads(before);
    for (size_t i = 0; i < results[0].size(); ++i) {
      EXPECT_TRUE(same_bits(results[0][i], results[1][i])) << "tensor " << i << ", two threads";
      EXPECT_TRUE(same_bits(results[0][i], results[2][i])) << "tensor " << i << ", three threads";
    }
  }
}

TEST_P(LayerKinds, GradientsAreTheDerivative) {
  config::ModelConfig config = small_model(GetParam(), false);
  if (config.router == "gumbel-hard") return;  // straight through: meant not to be the derivative (router_kinds_test.cc)
  config.dropout = 0;
  PhiloxStream random(5, 1);
  nn::Encoder encoder(config, random);
  encoder->to(torch::kFloat64);
  {
    torch::NoGradGuard no_grad;
    torch::manual_seed(4);
    for (const auto& item : encoder->named_parameters()) item.value().add_(0.2 * torch::randn_like(item.value()));
  }
  const nn::PackedLayout layout = nn::PackedLayout::make(offsets({19, 1, 40}), {});
  nn::ForwardOptions options;  // decisions must not flip between the two sides of a difference
  if (config.uses_router()) options.forced_active.assign(2, (torch::arange(60) % 3 == 0).to(torch::kUInt8));
  std::vector<Tensor> inputs{test::leaf({60, 20})};
  for (const Tensor& p : encoder->parameters()) inputs.push_back(p);
  test::check_gradients([&](const std::vector<Tensor>& in) { return encoder(in[0], layout, options); }, inputs, 2e-6);
}

TEST_P(LayerKinds, HasAsManyParametersAsItsConfigSays) {
  for (const bool causal : {false, true}) {
    const config::ModelConfig config = small_model(GetParam(), causal);
    int64_t count = 0;
    for (const Tensor& p : nn::make_model(config, 1)->parameters()) count += p.numel();
    EXPECT_EQ(count, config::parameter_count(config));
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, LayerKinds,
    ::testing::Values(Kind{"SeqBoat", [](config::ModelConfig& c) { c.dropout = 0.1; }},
                      Kind{"Full", [](config::ModelConfig& c) { c.layer = "seqboat-full"; }},
                      Kind{"Random", [](config::ModelConfig& c) { c.layer = "seqboat-random", c.rates = {0.3}, c.dropout = 0.1; }},
                      Kind{"Stride",
                           [](config::ModelConfig& c) {
                             c.layer = "seqboat-stride", c.rates = {0.25, 1.0};
                           }},
                      Kind{"Encoder", [](config::ModelConfig& c) { c.layer = "ema", c.dropout = 0.2, c.prenorm = true; }},
                      Kind{"S4d", [](config::ModelConfig& c) { c.layer = "s4d", c.dropout = 0.2; }},
                      Kind{"SeqBoatOnS4d", [](config::ModelConfig& c) { c.encoder = "s4d", c.truncation = 30; }},
                      Kind{"Sigmoid", [](config::ModelConfig& c) { c.router = "sigmoid-threshold", c.router_threshold = 0.45; }},
                      Kind{"GumbelSoft", [](config::ModelConfig& c) { c.router = "gumbel-soft", c.router_temperature = 0.7; }},
                      Kind{"GumbelHard", [](config::ModelConfig& c) { c.router = "gumbel-hard", c.dropout = 0.1; }},
                      Kind{"TopShare", [](config::ModelConfig& c) { c.router = "top-share", c.rates = {0.3}, c.router_horizon = 20; }},
                      Kind{"Mega", [](config::ModelConfig& c) { c.layer = "mega", c.dropout = 0.1; }},
                      Kind{"MegaRotary", [](config::ModelConfig& c) { c.layer = "mega", c.position = "rotary", c.prenorm = true; }},
                      Kind{"MegaChunk", [](config::ModelConfig& c) { c.layer = "mega-chunk", c.attention = "laplace"; }},
                      Kind{"MegaOnS4d", [](config::ModelConfig& c) { c.layer = "mega-chunk", c.encoder = "s4d"; }},
                      Kind{"Attention", [](config::ModelConfig& c) { c.layer = "attention", c.n_heads = 2, c.dropout = 0.1; }},
                      Kind{"FullAttention", [](config::ModelConfig& c) { c.layer = "attention", c.window_size = 0; }}),
    [](const auto& of) { return std::string(of.param.name); });

nn::PackedLayout layout_of(const std::vector<int64_t>& lengths) {
  return nn::PackedLayout::make(offsets(lengths), {});
}

TEST(FixedChoice, AStrideIsEvenlySpread) {
  const nn::PackedLayout layout = layout_of({12, 5});
  const auto flags = [&](double rate) { return nn::fixed_choice("stride", rate, layout, {}, 0); };
  EXPECT_TRUE(torch::equal(flags(0.25), torch::tensor({0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0}, torch::kUInt8)));
  EXPECT_EQ(flags(0).sum().item<int64_t>(), 0);
  EXPECT_EQ(flags(1).sum().item<int64_t>(), 17);
  const nn::PackedLayout longer = layout_of({100000});
  EXPECT_NEAR(nn::fixed_choice("stride", 0.37, longer, {}, 0).to(torch::kFloat64).mean().item<double>(), 0.37, 1e-5);
}

TEST(FixedChoice, AtRandomButByTheKeysAlone) {
  const nn::PackedLayout layout = layout_of({60000, 40000});
  nn::RandomKey random{.seed = 1, .update = 7, .micro_batch = 0, .sequence_ids = {}};
  const auto draw = [&](int64_t layer) { return nn::fixed_choice("random", 0.3, layout, random, layer); };
  const Tensor first = draw(0);
  // Three standard deviations of a mean of 100,000.
  EXPECT_NEAR(first.to(torch::kFloat64).mean().item<double>(), 0.3, 3 * std::sqrt(0.3 * 0.7 / 1e5));
  EXPECT_TRUE(torch::equal(first, draw(0)));
  const auto agreement = [&](const Tensor& other) { return (first == other).to(torch::kFloat64).mean().item<double>(); };
  const double independent = 0.3 * 0.3 + 0.7 * 0.7;
  EXPECT_NEAR(agreement(draw(1)), independent, 0.01);
  random.update = 8;
  EXPECT_NEAR(agreement(draw(0)), independent, 0.01) << "new at each update";
  random.update = 7, random.seed = 2;
  EXPECT_NEAR(agreement(draw(0)), independent, 0.01);
  EXPECT_EQ(nn::fixed_choice("random", 0, layout, random, 0).sum().item<int64_t>(), 0);
  EXPECT_EQ(nn::fixed_choice("random", 1, layout, random, 0).sum().item<int64_t>(), 100000);
}

// A fixed choice weighs what it activates by one: forced to the same tokens, and its router's confidence taken as one, a SeqBoat layer is the same.
TEST(FixedChoice, EverythingByStrideIsSeqBoatFull) {
  nn::SeqBoatLayerOptions options;
  options.d_model = 20, options.d_attn = 6, options.d_hidden = 24, options.d_state = 4, options.router.kind = "always";
  PhiloxStream a(3, 1), b(3, 1);
  nn::SeqBoatLayer full(options, a);
  options.router.kind = "stride", options.router.rate = 1;
  nn::SeqBoatLayer strided(options, b);
  torch::manual_seed(1);
  const Tensor x = torch::randn({90, 20});
  EXPECT_TRUE(same_bits(full(x, layout_of({50, 40}), nn::ForwardOptions{}, 0), strided(x, layout_of({50, 40}), nn::ForwardOptions{}, 0)));
}

TEST(Mega, AChunkAttendsToItselfAlone) {
  nn::MegaLayerOptions options;
  options.d_model = 20, options.d_attn = 6, options.d_hidden = 24, options.d_state = 4, options.chunk_size = 8, options.prenorm = true;
  PhiloxStream random(3, 1);
  nn::MegaLayer layer(options, random);
  torch::NoGradGuard no_grad;
  layer->out_proj->weight.mul_(50);
  layer->ema->gamma.zero_();  // the EMA passes its own token on, and nothing else
  torch::manual_seed(1);
  const Tensor x = torch::randn({30, 20});
  Tensor changed = x.clone();
  changed.narrow(0, 9, 1).normal_();
  const Tensor before = layer->forward(x, layout_of({30}), {}, 0), after = layer->forward(changed, layout_of({30}), {}, 0);
  const Tensor moved = (before - after).abs().amax(1) > 0;
  EXPECT_TRUE(torch::equal(moved, torch::floor_divide(torch::arange(30), 8) == 1)) << moved;
}

TEST(Mega, ChunksOfOneSequenceEach) {
  EXPECT_TRUE(torch::equal(nn::chunk_offsets(offsets({5, 0, 9, 4}), 4), torch::tensor({0, 4, 5, 9, 13, 14, 18})));
  EXPECT_TRUE(torch::equal(nn::chunk_offsets(offsets({5, 2}), -1), offsets({5, 2})));
}

TEST(Mega, TheRotaryBiasIsThatOfTheRotatedVectors) {
  PhiloxStream random(3, 1);
  nn::MegaPositionBias bias("rotary", 6, 1, random);
  torch::NoGradGuard no_grad;
  bias->to(torch::kFloat64);
  torch::manual_seed(1);
  bias->alpha.normal_(), bias->beta.normal_();
  const auto rotated = [](const Tensor& w, int64_t time) {
    Tensor out = w.clone();
    for (int64_t d = 0; d < 3; ++d) {
      const double phi = static_cast<double>(time) * std::pow(10000.0, -static_cast<double>(d) / 3), a = w[d].item<double>(),
                   b = w[d + 3].item<double>();
      out[d] = a * std::cos(phi) - b * std::sin(phi);
      out[d + 3] = b * std::cos(phi) + a * std::sin(phi);
    }
    return out;
  };
  for (const int64_t longest : {5, 3}) {  // and again, where another length was asked for before
    const Tensor table = bias->table_for(longest);
    ASSERT_EQ(table.size(0), 2 * longest - 1);
    for (int64_t i = 0; i < longest; ++i) {
      for (int64_t j = 0; j < longest; ++j)
        EXPECT_NEAR(table[longest - 1 + j - i].item<double>(), rotated(bias->alpha, i).dot(rotated(bias->beta, j)).item<double>(), 1e-12);
    }
  }
}

TEST(Mega, ASimpleTableMustReachThroughTheBlock) {
  nn::MegaLayerOptions options;
  options.d_model = 20, options.d_attn = 6, options.d_hidden = 24, options.max_positions = 10;
  PhiloxStream random(3, 1);
  nn::MegaLayer layer(options, random);
  EXPECT_NO_THROW(layer->forward(torch::randn({10, 20}), layout_of({10}), {}, 0));
  EXPECT_THROW(layer->forward(torch::randn({11, 20}), layout_of({11}), {}, 0), c10::Error);
}

}  // namespace
}  // namespace seqboat
