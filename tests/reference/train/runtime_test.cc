// The runtime against the training library: the same folder, read by both. Most models must have the same bits, since both stand on the same kernels;
// where the training library takes another path (T5 buckets by plain tensor operations, means summed in float32), the runtime must lie as near to the
// float64 model as the training library itself does.

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <filesystem>

#include "seqboat/nn/gated_attention_unit.h"
#include "seqboat/nn/model.h"
#include "seqboat/runtime/forward.h"
#include "seqboat/train/model_io.h"
#include "support/runtime_case.h"
#include "support/torch_checks.h"

namespace seqboat {
namespace {

using config::ModelConfig;
using test::offsets;
using test::RuntimeCase;
using torch::Tensor;

/// Whole sequences of every kind: what causal_cases() has, and these, bidirectional.
const std::vector<RuntimeCase>& bidirectional_cases() {
  using C = ModelConfig;
  static const std::vector<RuntimeCase> cases{
      {"SeqBoat", [](C&) {}},
      {"Local", [](C& c) { c.position = "local", c.attention = "relu2", c.norm = "scalenorm", c.truncation = 20; }},
      {"Rotary", [](C& c) { c.position = "rotary", c.prenorm = true, c.norm = "batchnorm", c.sinusoidal = true, c.d_hidden = 70; }},
      {"T5", [](C& c) { c.position = "t5", c.attention = "laplace", c.norm = "rmsnorm", c.window_size = 0; }},
      {"NoWindow", [](C& c) { c.window_size = 0, c.attention = "relu2", c.ffn_dim = 12; }},
      {"S4dEncoder", [](C& c) { c.encoder = "s4d", c.truncation = 33; }},
      {"TopShare", [](C& c) { c.router = "top-share", c.rates = {0.3}, c.router_horizon = 20; }},
      {"Sigmoid", [](C& c) { c.router = "sigmoid-threshold", c.router_threshold = 0.45; }},
      {"Gumbel", [](C& c) { c.router = "gumbel-hard"; }},
      {"Random", [](C& c) { c.layer = "seqboat-random", c.rates = {0.3}; }},
      {"Stride",
       [](C& c) {
         c.layer = "seqboat-stride", c.rates = {0.25, 1.0};
       }},
      {"Full", [](C& c) { c.layer = "seqboat-full", c.pool = "first"; }},
      {"Ema", [](C& c) { c.layer = "ema", c.prenorm = true; }},
      {"S4d", [](C& c) { c.layer = "s4d", c.norm = "batchnorm"; }},
      {"Mega", [](C& c) { c.layer = "mega", c.max_positions = 300; }},
      {"MegaRotary", [](C& c) { c.layer = "mega", c.position = "rotary", c.prenorm = true, c.attention = "laplace"; }},
      {"MegaChunk", [](C& c) { c.layer = "mega-chunk", c.chunk_size = 70, c.attention = "relu2"; }},
      {"MegaChunkRotary", [](C& c) { c.layer = "mega-chunk", c.position = "rotary", c.encoder = "s4d"; }},
      {"Attention", [](C& c) { c.layer = "attention", c.n_heads = 2; }},
      {"FullAttention", [](C& c) { c.layer = "attention", c.n_heads = 5, c.window_size = 0; }},
      {"Real", [](C& c) { c.vocab_size = 0, c.input = "real", c.channels = 3, c.embedding_norm = true, c.sinusoidal = true; }},
      {"Retrieval", [](C& c) { c.task = "retrieval", c.classes = 2; }},
      {"RetrievalNli", [](C& c) { c.task = "retrieval", c.classes = 2, c.nli = true, c.classifier_layers = 2, c.pool = "first"; }},
  };
  return cases;
}

ModelConfig config_of(const RuntimeCase& of, bool causal) {
  ModelConfig c = test::causal_model();
  if (!causal) {
    c.causal = false;
    c.task = "classification";
    c.classes = 5;
  }
  of.change(c);
  return c;
}

/// A batch with an odd mix of lengths, one of a single token.
struct Batch {
  Batch(const ModelConfig& config, std::vector<int64_t> lengths, uint64_t seed) {
    torch::manual_seed(seed);
    packed.cu_seqlens = offsets(lengths);
    rows = packed.cu_seqlens[-1].item<int64_t>();
    if (config.input == "real") {
      packed.values = torch::rand({rows, config.channels}) * 2 - 1;
    } else {
      packed.tokens = torch::randint(0, config.vocab_size, {rows}, torch::kInt64);
    }
    for (int64_t i = 0; i < config.n_layers; ++i) forced.push_back((torch::rand({rows}) < (i == 0 ? 0.5 : 0.8)).to(torch::kUInt8));
    all_forced = torch::cat(forced);
  }

  template <class T>
  static std::span<const T> span(const Tensor& t) {
    return t.defined() ? std::span<const T>(t.const_data_ptr<T>(), static_cast<size_t>(t.numel())) : std::span<const T>();
  }
  runtime::Sequences sequences(bool force) const {
    return {span<int64_t>(packed.tokens), span<float>(packed.values), span<int64_t>(packed.cu_seqlens),
            force ? span<uint8_t>(all_forced) : std::span<const uint8_t>()};
  }

  nn::PackedSequences packed;
  std::vector<Tensor> forced;
  Tensor all_forced;
  int64_t rows = 0;
};

/// Weights under which every part says something: about half of the tokens activated, attention and positions that matter.
std::shared_ptr<nn::Model> lively_model(const ModelConfig& config) {
  torch::manual_seed(5);
  const auto model = nn::make_model(config, 3);
  torch::NoGradGuard no_grad;
  for (const auto& item : model->named_parameters()) {
    const auto has = [&](const char* part) { return item.key().find(part) != std::string::npos; };
    if (has("router.proj.weight")) item.value().mul_(100);
    if (has("_proj.weight") || has("qk_gamma") || has("fc1") || has("fc2")) item.value().mul_(10);
    if (has("position.") || has("bias")) item.value().add_(0.3 * torch::randn_like(item.value()));
    if (has("norm.weight")) item.value().add_(0.1 * torch::randn_like(item.value()));
  }
  for (const auto& item : model->named_buffers()) {
    if (item.key().find("running_mean") != std::string::npos) item.value().normal_();
    if (item.key().find("running_var") != std::string::npos) item.value().uniform_(0.5, 2.0);
  }
  model->eval();
  // Routers of two logits in the middle of what they see, one layer after the other: each activates some tokens and leaves others.
  const Batch first(config, {300}, 9), second(config, {300}, 10);
  for (int64_t i = 0; i < config.n_layers; ++i) {
    nn::ForwardOptions options;
    std::vector<nn::LayerTrace> trace;
    options.trace = &trace;
    options.intermediates = true;
    model->forward(first.packed, config.task == "retrieval" ? &second.packed : nullptr, options);
    const Tensor& logits = trace[static_cast<size_t>(i)].logits;
    if (!logits.defined() || logits.dim() != 2 || logits.size(1) != 2) continue;
    const Tensor middle = (logits.select(1, 1) - logits.select(1, 0)).median();
    for (const auto& item : model->named_parameters()) {
      const bool mine = item.key().find("layers." + std::to_string(i) + ".") != std::string::npos;
      if (mine && item.key().find("router.proj.bias") != std::string::npos && item.value().numel() == 2) item.value()[1] -= middle;
    }
  }
  return model;
}

void compare(const ModelConfig& config, const std::string& name) {
  const torch::NoGradGuard no_grad;
  const std::filesystem::path folder = std::filesystem::path(SEQBOAT_BINARY_DIR) / "runtime-models" / name;
  std::filesystem::create_directories(folder);
  const auto model = lively_model(config);
  train::save_model(folder, *model);
  const auto loaded = runtime::load(folder);
  std::filesystem::remove_all(folder);

  const Batch a(config, {140, 1, 67, 200}, 1), b(config, {90, 150, 3, 64}, 2);
  const bool pair = config.task == "retrieval", language_model = config.task == "language-model";
  for (const bool force : {false, true}) {
    if (force && config.chooser() == "never") continue;  // the runtime leaves such a unit out and has nothing to force
    nn::ForwardOptions options;
    std::vector<nn::LayerTrace> trace;
    options.trace = &trace;
    if (force) {
      options.forced_active = a.forced;
      options.forced_active1 = b.forced;
    }
    const Tensor want = model->forward(a.packed, pair ? &b.packed : nullptr, options).contiguous();
    runtime::ForwardTrace traced;
    const runtime::Sequences second = b.sequences(force);
    const std::vector<float> logits = runtime::forward(
        loaded, a.sequences(force), {.threads = 2, .want = language_model ? runtime::Want::kAll : runtime::Want::kLast, .trace = &traced},
        pair ? &second : nullptr);
    ASSERT_EQ(static_cast<int64_t>(logits.size()), want.numel());
    const Tensor got = torch::from_blob(const_cast<float*>(logits.data()), want.sizes(), torch::kFloat32).clone();
    const std::string what = std::string(force ? "forced" : "decided by itself");

    const bool t5 = config.position == "t5" && config.has_unit(), mean = !language_model && config.pool == "mean";
    for (int64_t i = 0; i < config.n_layers && config.chooses(); ++i) {
      const Tensor active = torch::from_blob(traced.active.data() + i * a.rows, {a.rows}, torch::kUInt8);
      if (!t5 || force) {
        EXPECT_TRUE(torch::equal(active, trace[static_cast<size_t>(i)].active)) << what << ", decisions of layer " << i;
      }
      const bool all = config.rates.back() == 1.0 || (config.router == "top-share" && config.router_horizon == 1);
      const double rate = active.to(torch::kFloat64).mean().item<double>();
      EXPECT_TRUE(force || (rate > 0.02 && rate < 0.98) || all) << what << ", layer " << i << " activates " << rate;
    }
    if (!t5 && !mean) {
      EXPECT_TRUE(test::same_bits(got, want)) << what;
      continue;
    }
    if (t5 && !force) continue;  // one bit may flip a decision
    // As near to float64, given the same decisions, as the training library is: twice its own error, and the rounding of the last sums.
    nn::ForwardOptions same = options;
    same.trace = nullptr;
    if (!force && config.chooses()) {
      for (int64_t i = 0; i < config.n_layers; ++i) same.forced_active.push_back(trace[static_cast<size_t>(i)].active);
      if (pair) {
        same.forced_active1.clear();
        for (int64_t i = 0; i < config.n_layers; ++i) same.forced_active1.push_back(trace[static_cast<size_t>(config.n_layers + i)].active);
      }
    }
    const auto exact = lively_model(config);
    exact->to(torch::kFloat64);
    nn::PackedSequences a64 = a.packed, b64 = b.packed;
    if (a64.values.defined()) a64.values = a64.values.to(torch::kFloat64);
    if (b64.values.defined()) b64.values = b64.values.to(torch::kFloat64);
    const Tensor truth = exact->forward(a64, pair ? &b64 : nullptr, same);
    const double own = (want.to(torch::kFloat64) - truth).abs().max().item<double>(), size = truth.abs().max().item<double>();
    const double error = (got.to(torch::kFloat64) - truth).abs().max().item<double>();
    EXPECT_LE(error, 2 * own + 64 * 1.2e-7 * size) << what << ": the training library's own error is " << own;
  }
}

class AgainstTraining : public ::testing::TestWithParam<RuntimeCase> {};

TEST_P(AgainstTraining, CausalModels) {
  compare(config_of(GetParam(), true), std::string("causal-") + GetParam().name);
}
INSTANTIATE_TEST_SUITE_P(Causal, AgainstTraining, ::testing::ValuesIn(test::causal_cases()),
                         [](const auto& of) { return std::string(of.param.name); });

class AgainstTrainingBothWays : public ::testing::TestWithParam<RuntimeCase> {};

TEST_P(AgainstTrainingBothWays, BidirectionalModels) {
  compare(config_of(GetParam(), false), std::string("both-ways-") + GetParam().name);
}
INSTANTIATE_TEST_SUITE_P(Bidirectional, AgainstTrainingBothWays, ::testing::ValuesIn(bidirectional_cases()),
                         [](const auto& of) { return std::string(of.param.name); });

TEST(RuntimeTensors, AreThoseOfTheTrainingLibraryInItsOrder) {
  for (const bool causal : {true, false}) {
    for (const RuntimeCase& of : causal ? test::causal_cases() : bidirectional_cases()) {
      const ModelConfig config = config_of(of, causal);
      const auto model = nn::make_model(config, 3);
      const auto expected = train::tensors_of(*model);
      const std::vector<runtime::TensorSpec> specs = runtime::tensor_specs(config);
      ASSERT_EQ(specs.size(), expected.size()) << of.name;
      for (size_t i = 0; i < specs.size(); ++i) {
        EXPECT_EQ(specs[i].name, expected[i].name) << of.name;
        EXPECT_EQ(specs[i].shape, expected[i].tensor.sizes().vec()) << of.name << ", " << specs[i].name;
      }
    }
  }
}

}  // namespace
}  // namespace seqboat
