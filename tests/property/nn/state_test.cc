// The law of the carried state: a sequence is the same whole, in any chunks, or token by token, however the sequences are batched; bit for bit in
// values, and in gradients that flow back through the state.

#include <random>

#include "seqboat/base/error.h"
#include "seqboat/nn/model.h"
#include "seqboat/nn/model_state.h"
#include "seqboat/ops/ops.h"
#include "support/torch_checks.h"

namespace seqboat {
namespace {

using test::offsets;
using test::same_bits;
using torch::Tensor;

config::ModelConfig language_model() {
  config::ModelConfig config;
  config.task = "language-model";
  config.causal = true;
  config.vocab_size = 30;
  config.d_model = 20;
  config.d_attn = 6;
  config.d_hidden = 24;
  config.d_state = 4;
  config.n_layers = 3;
  config.window_size = 5;
  config.max_positions = 64;
  config.position = "rotary";
  config.prenorm = true;
  config.temperature_init = 1.0;
  config.scale_embedding = true;
  return config;
}

/// About half of the tokens active in every layer.
std::shared_ptr<nn::Model> lively_model(const config::ModelConfig& config, torch::ScalarType dtype = torch::kFloat32) {
  const auto model = nn::make_model(config, 3);
  torch::NoGradGuard no_grad;
  for (const auto& item : model->named_parameters()) {
    if (item.key().find("router.proj.weight") != std::string::npos) item.value().mul_(100);
    // Attention that says something: at its initial size it would be lost beside the skip path.
    if (item.key().find("out_proj.weight") != std::string::npos || item.key().find("qk_gamma") != std::string::npos) item.value().mul_(20);
  }
  model->to(dtype);
  if (config.norm == "batchnorm") {  // running statistics as training leaves them
    model->train();
    for (int i = 0; i < 40; ++i) {
      model->forward({.tokens = torch::randint(4, 30, {500}, torch::kInt64), .values = {}, .cu_seqlens = offsets({500})}, nullptr, {});
    }
  }
  model->eval();
  return model;
}

nn::PackedSequences pack(const std::vector<Tensor>& sequences) {
  std::vector<int64_t> lengths;
  for (const Tensor& s : sequences) lengths.push_back(s.size(0));
  return {.tokens = torch::cat(sequences), .values = {}, .cu_seqlens = offsets(lengths)};
}

/// Forwards chunk after chunk; chunks[i][b] rows of sequence b. Returns the logits of each sequence, put together again.
std::vector<Tensor> in_chunks(nn::Model& model, const std::vector<Tensor>& sequences, const std::vector<std::vector<int64_t>>& chunks,
                              std::vector<int64_t>* active = nullptr, bool save_and_load = false) {
  nn::ModelState state;
  std::vector<int64_t> at(sequences.size(), 0);
  std::vector<std::vector<Tensor>> parts(sequences.size());
  for (const auto& chunk : chunks) {
    std::vector<Tensor> pieces;
    for (size_t b = 0; b < sequences.size(); ++b) pieces.push_back(sequences[b].narrow(0, at[b], chunk[b]));
    std::vector<nn::LayerTrace> trace;
    nn::ForwardOptions options;
    options.state = &state;
    options.trace = &trace;
    const Tensor logits = model.forward(pack(pieces), nullptr, options);
    int64_t row = 0;
    for (size_t b = 0; b < sequences.size(); ++b) {
      parts[b].push_back(logits.narrow(0, row, chunk[b]));
      row += chunk[b];
      at[b] += chunk[b];
    }
    if (active != nullptr) {
      active->resize(trace.size(), 0);
      for (size_t layer = 0; layer < trace.size(); ++layer)
        (*active)[layer] += trace[layer].active.defined() ? trace[layer].active.sum().item<int64_t>() : row;
    }
    if (save_and_load) state = nn::ModelState::from_named(state.named(), model.config());
    // The state is bounded, however much has passed.
    for (const nn::LayerState& layer : state.layers) {
      if (!layer.attention.offsets.defined()) continue;  // nothing attends
      const int64_t kept = layer.attention.offsets.diff().max().item<int64_t>();
      if (model.config().is_mega()) {
        EXPECT_LT(kept, model.config().chunk());
      } else {
        EXPECT_LE(kept, model.config().window_size + 63);
      }
    }
  }
  std::vector<Tensor> out;
  for (size_t b = 0; b < sequences.size(); ++b) {
    EXPECT_EQ(at[b], sequences[b].size(0));
    out.push_back(torch::cat(parts[b]));
  }
  return out;
}

/// Random cuts of all sequences into the same number of chunks, empty ones among them.
std::vector<std::vector<int64_t>> random_chunks(const std::vector<Tensor>& sequences, int64_t pieces, std::mt19937_64& random) {
  std::vector<std::vector<int64_t>> chunks(static_cast<size_t>(pieces), std::vector<int64_t>(sequences.size()));
  for (size_t b = 0; b < sequences.size(); ++b) {
    std::vector<int64_t> cuts{0, sequences[b].size(0)};
    for (int64_t i = 1; i < pieces; ++i) cuts.push_back(static_cast<int64_t>(random() % static_cast<uint64_t>(sequences[b].size(0) + 1)));
    std::sort(cuts.begin(), cuts.end());
    for (int64_t i = 0; i < pieces; ++i) chunks[static_cast<size_t>(i)][b] = cuts[static_cast<size_t>(i) + 1] - cuts[static_cast<size_t>(i)];
  }
  return chunks;
}

struct Case {
  const char* name;
  void (*change)(config::ModelConfig&);
};

class CarriedState : public ::testing::TestWithParam<Case> {
 protected:
  config::ModelConfig config() const {
    config::ModelConfig config = language_model();
    GetParam().change(config);
    return config;
  }
};

TEST_P(CarriedState, WholeIsAnySplitIsTokenByToken) {
  torch::NoGradGuard no_grad;
  const auto model = lively_model(config());
  torch::manual_seed(5);
  const std::vector<Tensor> sequences{torch::randint(4, 30, {300}, torch::kInt64), torch::randint(4, 30, {41}, torch::kInt64),
                                      torch::randint(4, 30, {157}, torch::kInt64)};
  std::vector<Tensor> whole;
  for (const Tensor& s : sequences) whole.push_back(model->forward(pack({s}), nullptr, {}));
  std::vector<int64_t> active;
  const auto all_at_once = in_chunks(*model, sequences, {{300, 41, 157}}, &active);
  if (model->config().uses_router()) {
    for (const int64_t count : active) {
      EXPECT_GT(count, 50);
      EXPECT_LT(count, 450);
    }
  }
  for (size_t b = 0; b < sequences.size(); ++b) EXPECT_TRUE(same_bits(all_at_once[b], whole[b])) << "in one piece, sequence " << b;

  std::mt19937_64 random(9);
  for (const int64_t pieces : {2, 3, 7, 20}) {
    const auto chunks = random_chunks(sequences, pieces, random);
    const auto got = in_chunks(*model, sequences, chunks, nullptr, pieces == 7);
    for (size_t b = 0; b < sequences.size(); ++b) EXPECT_TRUE(same_bits(got[b], whole[b])) << pieces << " pieces, sequence " << b;
  }
  const auto stepped = in_chunks(*model, {sequences[0]}, std::vector<std::vector<int64_t>>(300, {1}));
  EXPECT_TRUE(same_bits(stepped[0], whole[0])) << "token by token";
}

// In float64, so that only the order of sums is between the two.
TEST_P(CarriedState, GradientsFlowBackThroughIt) {
  const auto model = lively_model(config(), torch::kFloat64);
  torch::manual_seed(6);
  const std::vector<Tensor> sequences{torch::randint(4, 30, {120}, torch::kInt64), torch::randint(4, 30, {60}, torch::kInt64)};
  const Tensor weight = torch::randn({180, 30}, torch::kFloat64);
  const auto gradients = [&](const Tensor& logits) {
    model->zero_grad();
    (logits * weight).sum().backward();
    std::vector<Tensor> out;
    for (const Tensor& p : model->parameters()) out.push_back(p.grad().defined() ? p.grad().clone() : torch::zeros_like(p));
    return out;
  };
  const auto want = gradients(model->forward(pack(sequences), nullptr, {}));
  const auto got = gradients(torch::cat(in_chunks(*model, sequences, {{50, 3}, {1, 0}, {69, 57}})));
  double largest = 0;
  for (const Tensor& g : want) largest = std::max(largest, g.abs().max().item<double>());
  for (size_t i = 0; i < want.size(); ++i) EXPECT_LE((got[i] - want[i]).abs().max().item<double>(), 1e-11 * largest) << "parameter " << i;

  // Detached, the past has no gradient: the law must be able to fail.
  nn::ModelState state;
  nn::ForwardOptions options;
  options.state = &state;
  const Tensor first = model->forward(pack({sequences[0].narrow(0, 0, 60)}), nullptr, options);
  state.detach();
  const Tensor second = model->forward(pack({sequences[0].narrow(0, 60, 60)}), nullptr, options);
  model->zero_grad();
  (torch::cat({first, second}) * weight.narrow(0, 0, 120)).sum().backward();
  const Tensor cut = model->parameters()[0].grad().clone();
  model->zero_grad();
  (model->forward(pack({sequences[0]}), nullptr, {}) * weight.narrow(0, 0, 120)).sum().backward();
  EXPECT_GT((model->parameters()[0].grad() - cut).abs().max().item<double>(), 1e-6 * largest);
}

INSTANTIATE_TEST_SUITE_P(
    Models, CarriedState,
    ::
        testing::
            Values(Case{"Rotary", [](config::ModelConfig&) {}}, Case{"Simple", [](config::ModelConfig& c) { c.position = "simple"; }},
                   Case{"Local", [](config::ModelConfig& c) { c.position = "local"; }},
                   Case{"Truncated", [](config::ModelConfig& c) { c.truncation = 17; }},
                   Case{"WindowOverSeveralBlocks", [](config::ModelConfig& c) { c.window_size = 90; }},
                   Case{"Relu2", [](config::ModelConfig& c) { c.attention = "relu2"; }},
                   Case{"Laplace", [](config::ModelConfig& c) { c.attention = "laplace", c.window_size = 70; }},
                   Case{"WithoutRouter", [](config::ModelConfig& c) { c.layer = "seqboat-full"; }},
                   Case{"PostNormWithFeedForward", [](config::ModelConfig& c) { c.prenorm = false, c.norm = "scalenorm", c.ffn_dim = 12; }},
                   Case{"Sinusoidal", [](config::ModelConfig& c) { c.sinusoidal = true; }},
                   Case{"BatchNorm", [](config::ModelConfig& c) { c.norm = "batchnorm"; }},
                   Case{"Stride", [](config::ModelConfig& c) { c.layer = "seqboat-stride", c.rates = {0.3, 0.5, 1.0}; }},
                   Case{"EncoderAlone", [](config::ModelConfig& c) { c.layer = "ema", c.truncation = 9; }},
                   Case{"OnS4d", [](config::ModelConfig& c) { c.encoder = "s4d"; }},
                   Case{"S4dAlone", [](config::ModelConfig& c) { c.layer = "s4d", c.truncation = 9; }},
                   Case{"TopShare", [](config::ModelConfig& c) { c.router = "top-share", c.rates = {0.3, 0.5, 0.4}, c.router_horizon = 11; }},
                   Case{"MegaChunk", [](config::ModelConfig& c) { c.layer = "mega-chunk", c.chunk_size = 13; }},
                   Case{
                       "MegaChunkOfTheWindow",
                       [](config::ModelConfig& c) {
                         c.layer = "mega-chunk", c.window_size = 80, c.max_positions = 1, c.position = "simple";
                         c.attention = "relu2", c.prenorm = false, c.ffn_dim = -1;
                       }},
                   Case{"Attention", [](config::ModelConfig& c) { c.layer = "attention", c.n_heads = 5, c.window_size = 20; }}),
    [](const auto& of) { return of.param.name; });

TEST(ModelState, WhatCannotCarryOneSaysSo) {
  config::ModelConfig config = language_model();
  config.window_size = 0;
  nn::ModelState state;
  nn::ForwardOptions options;
  options.state = &state;
  const nn::PackedSequences input = pack({torch::full({4}, 5, torch::kInt64)});
  try {
    nn::make_model(config, 1)->forward(input, nullptr, options);
    FAIL() << "full attention carried a state";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kConfig);
    EXPECT_NE(std::string(error.what()).find("model.window_size must be at least 1"), std::string::npos) << error.what();
  }
  const auto model = nn::make_model(language_model(), 1);
  model->forward(input, nullptr, options);
  const auto message_of = [&](const nn::PackedSequences& batch) {
    try {
      model->forward(batch, nullptr, options);
    } catch (const c10::Error& error) {
      return std::string(error.what_without_backtrace());
    }
    return std::string();
  };
  EXPECT_NE(message_of(pack({input.tokens, input.tokens})).find("the state is one of 1 sequences, the batch has 2"), std::string::npos);

  auto named = state.named();
  named.pop_back();
  EXPECT_THROW(nn::ModelState::from_named(named, model->config()), c10::Error);
  EXPECT_TRUE(nn::ModelState::from_named({}, model->config()).fresh());
}

}  // namespace
}  // namespace seqboat
