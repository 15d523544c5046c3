#include "seqboat/train/intervention.h"

#include <gtest/gtest.h>

#include "seqboat/base/error.h"
#include "seqboat/train/evaluate.h"

namespace seqboat::train {
namespace {

using torch::Tensor;

Tensor some_active(int64_t tokens, int64_t every) {
  return (torch::arange(tokens, torch::kInt64) % every == 0).to(torch::kUInt8);
}

InterventionKey key_of(std::vector<int64_t> offsets, std::vector<int64_t> ids, uint64_t seed = 0, int64_t layer = 0, int64_t pass = 0) {
  return {.seed = seed, .layer = layer, .pass = pass, .cu_seqlens = torch::tensor(offsets), .sequence_ids = torch::tensor(ids)};
}

int64_t count(const Tensor& flags, int64_t begin, int64_t end) {
  return flags.narrow(0, begin, end - begin).to(torch::kInt64).sum().item<int64_t>();
}

TEST(Intervene, NoneAllInverted) {
  const Tensor active = some_active(7, 3);
  const InterventionKey key = key_of({0, 7}, {0});
  EXPECT_EQ(count(intervene(Intervention::kNone, active, key), 0, 7), 0);
  EXPECT_EQ(count(intervene(Intervention::kAll, active, key), 0, 7), 7);
  const Tensor inverted = intervene(Intervention::kInverted, active, key);
  EXPECT_EQ(inverted.scalar_type(), torch::kUInt8);
  EXPECT_TRUE(torch::equal(inverted + active, torch::ones_like(active)));
}

TEST(Intervene, RandomHasAsManyOfEachSequence) {
  const Tensor active = some_active(1000, 3);
  const std::vector<int64_t> offsets{0, 10, 10, 400, 1000};
  const Tensor chosen = intervene(Intervention::kRandom, active, key_of(offsets, {5, 6, 7, 8}));
  for (size_t b = 0; b + 1 < offsets.size(); ++b)
    EXPECT_EQ(count(chosen, offsets[b], offsets[b + 1]), count(active, offsets[b], offsets[b + 1])) << b;
  // As many of the model's own tokens as chance has it: 200 of 600 chosen from 600, 67 of them its own, within four deviations of 5.4.
  EXPECT_NEAR(count(chosen * active, 400, 1000), 67, 22);
}

TEST(Intervene, RandomDependsOnItsKeysAlone) {
  const Tensor active = some_active(100, 4), twice = torch::cat({active, active});
  const Tensor alone = intervene(Intervention::kRandom, active, key_of({0, 100}, {9}));
  const Tensor both = intervene(Intervention::kRandom, twice, key_of({0, 100, 200}, {3, 9}));
  EXPECT_TRUE(torch::equal(alone, both.narrow(0, 100, 100)));
  EXPECT_FALSE(torch::equal(alone, both.narrow(0, 0, 100)));
  EXPECT_TRUE(torch::equal(alone, intervene(Intervention::kRandom, active, key_of({0, 100}, {9}))));
  EXPECT_FALSE(torch::equal(alone, intervene(Intervention::kRandom, active, key_of({0, 100}, {9}, 1))));
  EXPECT_FALSE(torch::equal(alone, intervene(Intervention::kRandom, active, key_of({0, 100}, {9}, 0, 1))));
  EXPECT_FALSE(torch::equal(alone, intervene(Intervention::kRandom, active, key_of({0, 100}, {9}, 0, 0, 1))));
}

TEST(Intervene, WordsGoBothWays) {
  for (const Intervention each : kInterventions) EXPECT_EQ(parse_intervention(intervention_word(each)), each);
  EXPECT_THROW(parse_intervention("some"), Error);
}

// D 4, Z 2, H 8, N 16, two directions, window 2, truncation 8; router. By hand from the formulas of config/flops.h.
config::ModelConfig small_model() {
  config::ModelConfig model;
  model.vocab_size = 7;
  model.d_model = 4;
  model.d_attn = 2;
  model.n_layers = 2;
  model.window_size = 2;
  model.truncation = 8;
  model.classes = 2;
  return model;
}

TEST(FlopsCount, OfTwoSequencesByHand) {
  FlopsCount flops(small_model());
  EXPECT_EQ(flops.share(), 1);
  flops.add(0, 5, 3);
  flops.add(0, 10, 0);
  flops.add(1, 5, 5);
  flops.add(1, 10, 10);
  // Products: 15 tokens D -> D + 2, active ones D -> Z + 2H and H -> D. Pairs: 3 tokens 3 + 3 + 3 of 5; 5: 3 + 4 + 5 + 4 + 3; 10: 50 - 6. The scan of
  // the second sequence is truncated.
  const auto cost = [](double active, double pairs) {
    return 2.0 * 15 * 4 * 6 + 2 * active * (4 * 18 + 8 * 4) + pairs * (2 * 10 + 24) + 2 * 16 * 4 * (4.0 * 5 + 6.0 * 10);
  };
  const auto layers = flops.layers();
  EXPECT_DOUBLE_EQ(layers[0].spent, cost(3, 9));
  EXPECT_DOUBLE_EQ(layers[0].dense, cost(15, 19 + 44));
  EXPECT_DOUBLE_EQ(layers[1].spent, cost(15, 19 + 44));
  EXPECT_DOUBLE_EQ(layers[1].dense, layers[1].spent);
  EXPECT_EQ(flops.outside(), 0);
  EXPECT_EQ(flops.tokens(), 15);
  EXPECT_DOUBLE_EQ(flops.share(), (layers[0].spent + layers[1].spent) / (2 * layers[0].dense));
}

TEST(FlopsCount, AStreamIsOneSequence) {
  config::ModelConfig model = small_model();
  model.causal = true;
  model.task = "language-model";
  FlopsCount whole(model), pieces(model);
  for (int64_t layer = 0; layer < 2; ++layer) {
    whole.add(layer, 30, 11);
    for (const int64_t active : {0, 4, 7}) pieces.add_piece(layer, 10, active);
  }
  EXPECT_DOUBLE_EQ(whole.spent(), pieces.spent());
  EXPECT_DOUBLE_EQ(whole.dense(), pieces.dense());
  EXPECT_EQ(whole.outside(), 2.0 * 30 * 4 * 7);
}

// Where nobody decides, and with everything activated, it is what `inspect` says of long sequences; at their ends queries see less.
TEST(FlopsCount, IsWhatInspectSays) {
  for (const char* layer : {"seqboat", "seqboat-full", "ema", "mega", "mega-chunk", "attention"}) {
    SCOPED_TRACE(layer);
    config::ModelConfig model = small_model();
    model.layer = layer;
    model.truncation = 0;
    FlopsCount flops(model);
    constexpr int64_t kLength = 4096;
    for (int64_t i = 0; i < 2; ++i) flops.add(i, kLength, model.layer == "ema" ? 0 : kLength);
    const double said = config::flops_per_token(model, 1, kLength).total();
    EXPECT_DOUBLE_EQ(flops.share(), 1);
    EXPECT_NEAR(flops.spent() / kLength, said, 1e-3 * said);
  }
}

}  // namespace
}  // namespace seqboat::train
