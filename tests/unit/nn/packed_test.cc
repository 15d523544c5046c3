#include "seqboat/nn/packed.h"

#include "seqboat/nn/dropout_sites.h"
#include "support/torch_checks.h"

namespace seqboat {
namespace {

using test::offsets;
using torch::Tensor;

TEST(PackedLayout, TimesAndIdsOfEveryToken) {
  const auto layout = nn::PackedLayout::make(offsets({2, 0, 3}), {});
  EXPECT_TRUE(torch::equal(layout.positions, torch::tensor({0, 1, 0, 1, 2}, torch::kInt64)));
  EXPECT_TRUE(torch::equal(layout.sequence_ids, torch::tensor({0, 0, 2, 2, 2}, torch::kInt64)));
  nn::RandomKey key;
  key.sequence_ids = torch::tensor({7, 9, 4}, torch::kInt64);
  EXPECT_TRUE(torch::equal(nn::PackedLayout::make(offsets({2, 0, 3}), key).sequence_ids, torch::tensor({7, 7, 4, 4, 4}, torch::kInt64)));
  EXPECT_EQ(nn::PackedLayout::make(offsets({}), {}).positions.size(0), 0);
}

TEST(PackedLayout, Misuse) {
  EXPECT_C10_ERROR(nn::PackedLayout::make(torch::tensor({0, 3}, torch::kInt32), {}), "cu_seqlens must be (B+1) int64, got Int [2]");
  EXPECT_C10_ERROR(nn::PackedLayout::make(torch::empty({0}, torch::kInt64), {}), "cu_seqlens must be (B+1) int64, got Long [0]");
  nn::RandomKey key;
  key.sequence_ids = torch::tensor({7}, torch::kInt64);
  EXPECT_C10_ERROR(nn::PackedLayout::make(offsets({2, 3}), key), "sequence_ids must be (2), got [1]");
}

TEST(PackedDropout, ActsInTrainingOnly) {
  const Tensor x = torch::randn({200, 30}, torch::kFloat64);
  const auto layout = nn::PackedLayout::make(offsets({150, 50}), {});
  EXPECT_TRUE(test::same_bits(nn::dropout(x, 0.4, false, {}, layout, 0, nn::kDropoutState), x));
  EXPECT_TRUE(test::same_bits(nn::dropout(x, 0.0, true, {}, layout, 0, nn::kDropoutState), x));
  const Tensor y = nn::dropout(x, 0.4, true, {}, layout, 0, nn::kDropoutState), zero = y == 0;
  EXPECT_NEAR(zero.to(torch::kFloat64).mean().item<double>(), 0.4, 5 * std::sqrt(0.4 * 0.6 / 6000));
  const double kept = 1 - std::round(0.4 * 65536) / 65536;  // probabilities are multiples of 2^-16
  EXPECT_TRUE(test::close(y, torch::where(zero, torch::zeros_like(x), x / kept), test::Tolerance::ulps<double>(2, 10)));
}

TEST(PackedDropout, EveryKeyCounts) {
  const Tensor x = torch::ones({40, 30});
  const auto layout = nn::PackedLayout::make(offsets({40}), {});
  const Tensor base = nn::dropout(x, 0.5, true, {}, layout, 0, nn::kDropoutState);
  EXPECT_TRUE(torch::equal(base, nn::dropout(x, 0.5, true, {}, layout, 0, nn::kDropoutState)));
  const auto differs = [&](const nn::RandomKey& key, int64_t pass, int64_t layer, int64_t site) {
    return !torch::equal(base, nn::dropout(x, 0.5, true, key, nn::PackedLayout::make(offsets({40}), key, pass), layer, site));
  };
  nn::RandomKey seed, update, micro_batch, id;
  seed.seed = update.update = micro_batch.micro_batch = 1;
  id.sequence_ids = torch::tensor({1}, torch::kInt64);
  EXPECT_TRUE(differs(seed, 0, 0, nn::kDropoutState));
  EXPECT_TRUE(differs(update, 0, 0, nn::kDropoutState));
  EXPECT_TRUE(differs(micro_batch, 0, 0, nn::kDropoutState));
  EXPECT_TRUE(differs(id, 0, 0, nn::kDropoutState));
  EXPECT_TRUE(differs({}, 1, 0, nn::kDropoutState));
  EXPECT_TRUE(differs({}, 0, 1, nn::kDropoutState));
  EXPECT_TRUE(differs({}, 0, 0, nn::kDropoutAttention));
}

}  // namespace
}  // namespace seqboat
