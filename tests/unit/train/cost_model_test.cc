#include "../../../src/train/bench/cost_model.h"

#include <gtest/gtest.h>

#include <cmath>

#include "seqboat/config/model_size.h"
#include "seqboat/config/recipe.h"

namespace seqboat::train {
namespace {

constexpr MachineRates kMachine{.gemm_gflops = 310, .fma_gflops = 363, .triad_l2_gbs = 158, .triad_64mb_gbs = 50, .triad_dram_gbs = 25};

// Every sequence of the recipe's batch has the share `rate` of its tokens activated.
StepCost cost_of(const std::string& name, bool train, double rate, bool window_is_full = false) {
  const config::Recipe recipe = config::load_recipe(SEQBOAT_SOURCE_DIR "/recipes/bench/" + name + ".toml");
  const config::ModelConfig& model = recipe.model;
  const auto batch = static_cast<double>(recipe.train.batch_size), length = static_cast<double>(recipe.data.length);
  const double active = rate * length;
  double pairs = attention_pairs(std::llround(active), model.window_size, model.causal);
  if (window_is_full) pairs = active * active;
  const std::vector<LayerWork> layers(static_cast<size_t>(model.n_layers), {.active = batch * active, .pairs = batch * pairs});
  return step_cost(model, train, batch * length, layers, static_cast<double>(config::parameter_count(model)));
}

TEST(CostModel, PairsAreCountedOneByOne) {
  for (const bool causal : {false, true}) {
    for (const int64_t window : {0, 1, 2, 5, 64}) {
      for (const int64_t active : {0, 1, 2, 3, 7, 20}) {
        int64_t count = 0;
        for (int64_t i = 0; i < active; ++i) {
          for (int64_t j = 0; j < active; ++j) {
            const int64_t apart = i - j;
            count += (window == 0 || std::abs(apart) <= window) && (!causal || apart >= 0) ? 1 : 0;
          }
        }
        EXPECT_EQ(attention_pairs(active, window, causal), static_cast<double>(count)) << active << " " << window << " " << causal;
      }
    }
  }
}

// D 4, Z 2, H 8, N 16, one layer, 10 tokens of which 5 are active with 15 pairs; by hand from the formulas.
TEST(CostModel, OperationsOfASmallLayer) {
  config::ModelConfig model;
  model.vocab_size = 7;
  model.d_model = 4;
  model.d_attn = 2;
  model.n_layers = 1;
  model.classes = 2;
  const std::vector<LayerWork> layers = {{.active = 5, .pairs = 15}};
  const StepCost forward = step_cost(model, false, 10, layers, 100);
  EXPECT_EQ(forward.product_flops, 2 * 10 * 4 * 6 + 2 * 5 * (4 * 18 + 8 * 4));
  EXPECT_EQ(forward.attention_flops, 15 * (2 * 10 + 24));
  EXPECT_EQ(forward.scan_flops, 2 * 64 * 10 * 4);
  EXPECT_EQ(forward.bytes, 4 * 10 * (5 * 4 + 0.5 * (2 * 18 + 2 * 8 + 2 * 4)));
  EXPECT_EQ(forward.optimizer_bytes, 0);
  const StepCost train = step_cost(model, true, 10, layers, 100);
  EXPECT_EQ(train.product_flops, 3 * forward.product_flops);
  EXPECT_EQ(train.attention_flops, forward.attention_flops + 15 * (2 * (3 * 2 + 2 * 8) + 30));
  EXPECT_EQ(train.scan_flops, 2 * (64 + 192) * 10 * 4);
  EXPECT_EQ(train.bytes, forward.bytes + 4 * 10 * (9 * 4 + 0.5 * (4 * 18 + 4 * 8 + 4 * 4)));
  EXPECT_EQ(train.optimizer_bytes, 2800);
  model.layer = "seqboat-full";
  EXPECT_EQ(step_cost(model, false, 10, layers, 100).product_flops, forward.product_flops - 2 * 10 * 4 * 2);
  model.ffn_dim = 3;
  EXPECT_EQ(step_cost(model, false, 10, layers, 100).product_flops, forward.product_flops - 2 * 10 * 4 * 2 + 2 * 2 * 10 * 4 * 3);
}

TEST(CostModel, OutputOfALanguageModelIsAProduct) {
  config::ModelConfig model;
  model.task = "language-model";
  model.causal = true;
  model.vocab_size = 7;
  model.d_model = 4;
  model.d_attn = 2;
  model.n_layers = 1;
  const StepCost cost = step_cost(model, false, 10, {{}}, 0);
  EXPECT_EQ(cost.product_flops, 2 * 10 * 4 * 6 + 2 * 10 * 4 * 7);
  EXPECT_EQ(cost.scan_flops, 64 * 10 * 4);
}

TEST(CostModel, LimitAddsItsParts) {
  const StepCost cost{.product_flops = 31e9, .attention_flops = 31e9, .scan_flops = 36.3e9, .bytes = 5e9, .optimizer_bytes = 1e9};
  EXPECT_NEAR(limit_ms(cost, kMachine), 100 + 100 + 100 + 100 + 40, 1e-9);
}

// The limits of the five configurations, worked out by hand from the same formulas for a machine of 310 and 363 GF/s, 50 and 25 GB/s: milliseconds,
// in whole numbers.
TEST(CostModel, LimitsOfTheFiveConfigurations) {
  struct Row {
    const char* name;
    double train_rate, train_ms, forward_rate, forward_ms;
    double at[5];  // training at activation 0, .1, .25, .5, 1
  };
  const Row rows[] = {{"listops", .40, 124, .39, 38, {33, 54, 88, 147, 266}},
                      {"text", .55, 195, .55, 63, {43, 69, 111, 181, 321}},
                      {"image", .48, 245, .63, 98, {61, 93, 162, 253, 454}},
                      {"speech", .53, 262, .75, 112, {58, 96, 154, 250, 443}},
                      {"lm", .57, 836, .54, 253, {179, 267, 421, 737, 1442}}};
  constexpr double kRates[] = {0, .1, .25, .5, 1};
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    EXPECT_NEAR(limit_ms(cost_of(row.name, true, row.train_rate), kMachine), row.train_ms, 1.0);
    EXPECT_NEAR(limit_ms(cost_of(row.name, false, row.forward_rate), kMachine), row.forward_ms, 1.0);
    for (size_t i = 0; i < 5; ++i) {
      // Two numbers of the table are for every query seeing all activated tokens of its sequence, where these are no more than a full window has.
      const bool window_is_full = (row.name == std::string("listops") && i == 1) || (row.name == std::string("image") && i == 2);
      const double ms = limit_ms(cost_of(row.name, true, kRates[i], window_is_full), kMachine);
      EXPECT_NEAR(ms, row.at[i], 1.0) << "activation " << kRates[i];
      if (window_is_full) {
        EXPECT_LT(limit_ms(cost_of(row.name, true, kRates[i]), kMachine), ms);
      }
    }
  }
}

}  // namespace
}  // namespace seqboat::train
