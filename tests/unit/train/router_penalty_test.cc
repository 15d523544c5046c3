#include "seqboat/train/router_penalty.h"

#include <gtest/gtest.h>

#include <cmath>

#include "seqboat/ops/ops.h"
#include "unit/base/temp_dir.h"
#include "unit/train/tiny_run.h"

namespace seqboat::train::test {
namespace {

using torch::Tensor;

nn::LayerTrace trace_of(const Tensor& logits, const Tensor& log_temperature) {
  auto [active, p, probability] = ops::router(logits, log_temperature, 0, std::nullopt);
  nn::LayerTrace trace;
  trace.active = active;
  trace.probability = probability;
  return trace;
}

TEST(RouterPenalty, IsItsFormulaAndPullsStraightThrough) {
  const Tensor temperature = torch::full({1}, 0.4, torch::kFloat64);
  // Layer 0: three of four active; layer 1: none of four.
  const Tensor first = torch::tensor({{0.0, 1.0}, {0.0, 0.2}, {0.5, 1.0}, {1.0, 0.0}}, torch::kFloat64).requires_grad_(true);
  const Tensor second = torch::tensor({{1.0, 0.0}, {0.3, 0.2}, {0.5, 0.1}, {1.0, 0.0}}, torch::kFloat64).requires_grad_(true);
  const auto penalty = router_penalty({trace_of(first, temperature), trace_of(second, temperature)}, 2, 0.25, 3.0, 10);
  EXPECT_NEAR(penalty.value, 3 * (0.5 * 0.5 + 0.25 * 0.25), 1e-15);
  penalty.pull.backward();
  for (const auto& [logits, gap] : {std::pair(first, 0.5), std::pair(second, -0.25)}) {
    for (int64_t t = 0; t < 4; ++t) {
      const double z = (logits[t][1].item<double>() - logits[t][0].item<double>()) / std::exp(0.4), p = 1 / (1 + std::exp(-z));
      const double want = 10 * 2 * 3 * gap / 4 * p * (1 - p) / std::exp(0.4);
      EXPECT_NEAR(logits.grad()[t][1].item<double>(), want, 1e-12);
      EXPECT_NEAR(logits.grad()[t][0].item<double>(), -want, 1e-12);
    }
  }
}

TEST(RouterPenalty, PassesOfALayerCountTogetherAndAtTheTargetThereIsNoPull) {
  const Tensor temperature = torch::zeros({1}, torch::kFloat64);
  const Tensor on = torch::tensor({{0.0, 1.0}}, torch::kFloat64), off = torch::tensor({{1.0, 0.0}}, torch::kFloat64);
  const auto penalty = router_penalty({trace_of(on, temperature), trace_of(off, temperature)}, 1, 0.5, 1.0, 2);
  EXPECT_EQ(penalty.value, 0);
  EXPECT_FALSE(penalty.pull.defined());
}

TEST(RouterPenalty, ALayerWithoutARouterIsRefused) {
  EXPECT_THROW(router_penalty({nn::LayerTrace{}}, 1, 0.5, 1.0, 2), c10::Error);
}

/// Activation of the last hundred updates, by layer.
std::vector<double> rates_after(config::Recipe recipe, const std::filesystem::path& run) {
  Listener listener;
  recipe.train.steps = 300;
  recipe.train.log_every = 100;
  recipe.train.eval_every = 0;
  recipe.optim.total_steps = 0;
  recipe.optim.schedule = "constant";
  recipe.optim.lr = 0.003;
  EXPECT_EQ(train_tiny(recipe, run, &listener), 0);
  const std::string text = read_file(run / "metrics.jsonl");
  const size_t line = text.find("{\"step\":300,");
  return nlohmann::json::parse(text.substr(line, text.find('\n', line) - line)).at("activation_rate").get<std::vector<double>>();
}

TEST(RouterPenalty, DrawsEveryLayerToTheTarget) {
  const seqboat::test::TempDir dir;
  const config::Recipe plain = tiny_recipe(dir / "data");
  const std::vector<double> left_alone = rates_after(plain, dir / "plain");
  for (const double target : {0.2, 0.8}) {
    config::Recipe recipe = plain;
    recipe.router = {.target_rate = target, .target_weight = 10.0};
    const std::vector<double> rates = rates_after(recipe, dir / ("target" + std::to_string(target)));
    ASSERT_EQ(rates.size(), 2u);
    for (size_t layer = 0; layer < rates.size(); ++layer) {
      EXPECT_NEAR(rates[layer], target, 0.1) << "layer " << layer << ", left alone it is at " << left_alone[layer];
    }
  }
  // The line of metrics says what the penalty was, and only where there is one.
  EXPECT_NE(read_file(dir / "target0.200000" / "metrics.jsonl").find("\"router_penalty\""), std::string::npos);
  EXPECT_EQ(read_file(dir / "plain" / "metrics.jsonl").find("\"router_penalty\""), std::string::npos);
}

}  // namespace
}  // namespace seqboat::train::test
