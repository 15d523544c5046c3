#include "seqboat/train/optimizer.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/base/safetensors.h"
#include "seqboat/train/schedule.h"

namespace seqboat::train {
namespace {

using torch::Tensor;

Tensor tensor_of(const SafetensorsFile& file, const std::string& name) {
  const TensorView& view = file.at(name);
  const auto type = view.dtype == DType::kF64 ? torch::kFloat64 : torch::kFloat32;
  Tensor out = torch::empty(view.shape, type);
  std::memcpy(out.mutable_data_ptr(), view.data, view.size_bytes);
  return out;
}

std::array<double, 2> betas_of(const std::string& text) {
  std::array<double, 2> out{};
  EXPECT_EQ(std::sscanf(text.c_str(), "(%lf, %lf)", &out[0], &out[1]), 2) << text;
  return out;
}

double largest(const Tensor& x) {
  return x.abs().max().item<double>();
}

class OfficialOptimizer : public ::testing::TestWithParam<std::tuple<const char*, torch::ScalarType>> {};

TEST_P(OfficialOptimizer, EveryUpdateAgrees) {
  const auto [name, type] = GetParam();
  const std::string path = std::string(SEQBOAT_SOURCE_DIR) + "/tests/golden/official/" + name;
  const auto json = nlohmann::json::parse(read_file(path + ".json"));
  const SafetensorsFile file = SafetensorsFile::open(path + ".safetensors");
  const auto& args = json["args"];
  const std::string suffix = type == torch::kFloat64 ? ".f64" : ".f32";
  // What the official float32 run itself is off by, times ten; nothing is gained below 1e-6.
  const double relative = type == torch::kFloat64 ? 1e-9 : std::max(1e-6, 10 * json["f32_vs_f64"][0].get<double>());

  const Schedule schedule({.lr = args["lr"][0],
                           .warmup = args["warmup_updates"],
                           .warmup_init_lr = args["warmup_init_lr"],
                           .total_steps = args["total_num_update"],
                           .power = args["warmup_power"],
                           .end_lr = args["end_learning_rate"]});
  const std::string kind = args["optimizer"];
  config::OptimConfig config;
  config.name = kind;
  config.betas = betas_of(args[kind + "_betas"]);
  config.eps = args[kind + "_eps"];
  config.weight_decay = args["weight_decay"];

  std::vector<NamedParameter> parameters;
  for (int i = 0; file.find("param." + std::to_string(i)) != nullptr; ++i) {
    parameters.push_back({std::to_string(i), tensor_of(file, "param." + std::to_string(i)).to(type).set_requires_grad(true)});
  }
  ASSERT_EQ(parameters.size(), 4u);
  const auto optimizer = make_optimizer(config, parameters);

  const int64_t steps = json["steps"];
  const Tensor want_lr = tensor_of(file, "lr" + suffix), want_norm = tensor_of(file, "gnorm" + suffix);
  for (int64_t step = 0; step < steps; ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    optimizer->zero_grad();
    for (const NamedParameter& p : parameters) {
      p.tensor.mutable_grad() = tensor_of(file, "grad.step" + std::to_string(step) + "." + p.name).to(type);
    }
    const auto [norm, factor] = gradient_scale(parameters, 1.0 / json["sample_size"].get<double>(), json["clip_norm"]);
    EXPECT_NEAR(norm, want_norm[step].item<double>(), relative * norm);
    const double lr = schedule.value(step);
    EXPECT_NEAR(lr, want_lr[step].item<double>(), 1e-12 * lr);
    optimizer->step(lr, factor);
    for (const NamedParameter& p : parameters) {
      const std::string key = "param_after.step" + std::to_string(step) + "." + p.name + suffix;
      if (file.find(key) == nullptr) continue;  // float64: only some steps are kept
      const Tensor want = tensor_of(file, key);
      EXPECT_LE(largest(p.tensor.detach() - want), relative * largest(want)) << key;
    }
  }
  EXPECT_EQ(optimizer->steps(), steps);
  for (const NamedParameter& state : optimizer->state()) {
    const size_t dot = state.name.find('.');
    const std::string key = state.name.substr(0, dot) + ".final" + state.name.substr(dot) + suffix;
    const Tensor want = tensor_of(file, key);
    EXPECT_LE(largest(state.tensor - want), relative * largest(want)) << key;
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, OfficialOptimizer,
                         ::testing::Combine(::testing::Values("optim_adam_lra", "optim_adam_nowd_noclip", "optim_radam_enwik8"),
                                            ::testing::Values(torch::kFloat32, torch::kFloat64)));

std::vector<NamedParameter> random_parameters(uint64_t seed, torch::ScalarType type) {
  torch::manual_seed(seed);
  std::vector<NamedParameter> out;
  for (const int64_t count : {1, 7, 1000, 200'003}) {
    Tensor p = torch::randn({count}).to(type).set_requires_grad(true);
    p.mutable_grad() = torch::randn({count}).to(type);
    out.push_back({"p" + std::to_string(count), p});
  }
  return out;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.sizes() == b.sizes() && std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0;
}

TEST(ScaleAndClip, SameBitsAtAnyThreadCount) {
  const int threads = at::get_num_threads();
  std::vector<std::vector<NamedParameter>> runs;
  std::vector<double> norms;
  for (const int n : {1, 2, 5}) {
    at::set_num_threads(n);
    auto parameters = random_parameters(3, torch::kFloat32);
    norms.push_back(scale_and_clip_gradients(parameters, 1.0 / 64, 1.0));
    Adam(parameters, {.weight_decay = 0.01}).step(0.01);
    runs.push_back(parameters);
  }
  at::set_num_threads(threads);
  for (size_t run = 1; run < runs.size(); ++run) {
    EXPECT_EQ(norms[run], norms[0]);
    for (size_t i = 0; i < runs[0].size(); ++i) {
      EXPECT_TRUE(same_bits(runs[run][i].tensor.grad(), runs[0][i].tensor.grad()));
      EXPECT_TRUE(same_bits(runs[run][i].tensor.detach(), runs[0][i].tensor.detach()));
    }
  }
}

TEST(ScaleAndClip, ScalesThenTakesTheNormThenClips) {
  Tensor a = torch::zeros({2}, torch::kFloat64).set_requires_grad(true), b = torch::zeros({1}, torch::kFloat64).set_requires_grad(true);
  Tensor missing = torch::zeros({3}, torch::kFloat64).set_requires_grad(true);
  a.mutable_grad() = torch::tensor({6.0, 0.0}, torch::kFloat64);
  b.mutable_grad() = torch::tensor({8.0}, torch::kFloat64);
  const std::vector<NamedParameter> parameters{{"a", a}, {"missing", missing}, {"b", b}};
  EXPECT_DOUBLE_EQ(scale_and_clip_gradients(parameters, 0.5, 0.0), 5.0);  // 0 = off
  EXPECT_DOUBLE_EQ(a.grad()[0].item<double>(), 3.0);
  EXPECT_DOUBLE_EQ(scale_and_clip_gradients(parameters, 1.0, 1.0), 5.0);
  EXPECT_DOUBLE_EQ(a.grad()[0].item<double>(), 3.0 * (1.0 / (5.0 + 1e-6)));
  EXPECT_DOUBLE_EQ(b.grad()[0].item<double>(), 4.0 * (1.0 / (5.0 + 1e-6)));
  EXPECT_FALSE(missing.grad().defined());
  b.grad()[0] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(std::isnan(scale_and_clip_gradients(parameters, 1.0, 1.0)));
}

TEST(Optimizer, AMissingGradientIsZeroAndDecayStillApplies) {
  for (const char* name : {"adam", "radam"}) {
    config::OptimConfig config{.name = name, .weight_decay = 0.5};
    Tensor p = torch::full({3}, 2.0).set_requires_grad(true);
    const auto optimizer = make_optimizer(config, {{"p", p}});
    optimizer->step(0.1);
    EXPECT_TRUE(torch::equal(p.detach(), torch::full({3}, 2.0F - static_cast<float>(0.1 * 0.5) * 2.0F))) << name;
    // What an all-zero gradient gives, after a step that filled the momentum.
    Tensor q = p.detach().clone().set_requires_grad(true);
    const auto other = make_optimizer(config, {{"p", q}});
    other->step(0.0);
    p.mutable_grad() = torch::tensor({1.0F, -2.0F, 0.5F});
    q.mutable_grad() = p.grad().clone();
    optimizer->step(0.1);
    other->step(0.1);
    optimizer->zero_grad();
    q.mutable_grad() = torch::zeros({3});
    optimizer->step(0.1);
    other->step(0.1);
    EXPECT_TRUE(same_bits(p.detach(), q.detach())) << name;
  }
}

TEST(Optimizer, StateCanBeSavedAndLoaded) {
  const OptimizerOptions options{.weight_decay = 0.01};
  auto a = random_parameters(1, torch::kFloat32);
  Adam first(a, options);
  first.step(0.01);
  first.step(0.01);
  std::vector<NamedParameter> b;
  for (const NamedParameter& p : a) {
    b.push_back({p.name, p.tensor.detach().clone().set_requires_grad(true)});
    b.back().tensor.mutable_grad() = p.tensor.grad().clone();
  }
  Adam second(b, options);
  const auto from = first.state(), to = second.state();
  ASSERT_EQ(from.size(), 2 * a.size());
  for (size_t i = 0; i < from.size(); ++i) {
    EXPECT_EQ(from[i].name, to[i].name);
    to[i].tensor.copy_(from[i].tensor);
  }
  second.set_steps(first.steps());
  first.step(0.02);
  second.step(0.02);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(same_bits(a[i].tensor.detach(), b[i].tensor.detach()));
}

TEST(Optimizer, UnknownNameIsAConfigError) {
  try {
    make_optimizer({.name = "sgd"}, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kConfig);
    EXPECT_NE(std::string(error.what()).find("'sgd'"), std::string::npos) << error.what();
  }
}

struct Shared : torch::nn::Module {
  Shared() {
    a = register_parameter("a", torch::zeros({2}));
    register_parameter("tied", a);
    register_parameter("b", torch::zeros({1}));
  }
  Tensor a;
};

TEST(Optimizer, ATiedMatrixComesOnce) {
  const auto parameters = parameters_of(Shared());
  ASSERT_EQ(parameters.size(), 2u);
  EXPECT_EQ(parameters[0].name, "a");
  EXPECT_EQ(parameters[1].name, "b");
}

}  // namespace
}  // namespace seqboat::train
