#include "seqboat/data/batching.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "seqboat/base/error.h"
#include "seqboat/base/philox.h"
#include "unit/base/temp_dir.h"

namespace seqboat::data {
namespace {

using test::expect_error;

SequenceDataset dataset_of(const std::vector<int64_t>& lengths) {
  SequenceDataset dataset;
  int32_t token = 0;
  for (size_t i = 0; i < lengths.size(); ++i) {
    std::vector<int32_t> tokens(static_cast<size_t>(lengths[i]));
    for (int32_t& each : tokens) each = token++;
    dataset.append(tokens, static_cast<int64_t>(i) * 10);
  }
  return dataset;
}

SequenceDataset random_dataset(int64_t n) {
  PhiloxStream random(5, 6);
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < n; ++i) lengths.push_back(1 + static_cast<int64_t>(random.next_below(50)));
  return dataset_of(lengths);
}

TEST(Split, NamesAndTheirOpposite) {
  for (Split split : {Split::kTrain, Split::kValid, Split::kTest}) EXPECT_EQ(parse_split(split_name(split)), split);
  EXPECT_EQ(parse_split("valid"), Split::kValid);
  expect_error(ErrorKind::kUsage, {"'dev'", "train, val or test"}, [] { parse_split("dev"); });
}

TEST(SequenceDataset, PrependPutsATokenBeforeEach) {
  SequenceDataset dataset = dataset_of({2, 0, 3});
  dataset.prepend(99);
  EXPECT_EQ(dataset.tokens, (std::vector<int32_t>{99, 0, 1, 99, 99, 2, 3, 4}));
  EXPECT_EQ(dataset.offsets, (std::vector<int64_t>{0, 3, 4, 8}));
  SequenceDataset none;
  none.prepend(99);
  EXPECT_EQ(none.offsets, std::vector<int64_t>{0});
}

TEST(EpochOrder, IsAPermutationThatDependsOnSeedAndEpoch) {
  const std::vector<int64_t> order = epoch_order(1000, 1, 0);
  std::vector<int64_t> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  for (int64_t i = 0; i < 1000; ++i) ASSERT_EQ(sorted[i], i);
  EXPECT_EQ(epoch_order(1000, 1, 0), order);
  EXPECT_NE(epoch_order(1000, 1, 1), order);
  EXPECT_NE(epoch_order(1000, 2, 0), order);
  EXPECT_EQ(epoch_order(1, 1, 0), std::vector<int64_t>{0});
  EXPECT_TRUE(epoch_order(0, 1, 0).empty());
}

TEST(EpochOrder, EveryOrderIsEquallyLikely) {
  // Chi-square with 23 degrees of freedom over the 24 orders of four; 52.6 is passed by chance once in 2,500 times.
  std::vector<int64_t> counts(24);
  for (int64_t epoch = 0; epoch < 24000; ++epoch) {
    const std::vector<int64_t> order = epoch_order(4, 9, epoch);
    int64_t number = 0;
    for (int i = 0; i < 4; ++i) {
      number = number * (4 - i) + std::count_if(order.begin() + i + 1, order.end(), [&](int64_t other) { return other < order[i]; });
    }
    ++counts[number];
  }
  double chi_square = 0;
  for (int64_t count : counts) chi_square += static_cast<double>((count - 1000) * (count - 1000)) / 1000;
  EXPECT_LT(chi_square, 52.6);
}

TEST(BatchSampler, FillsInOrderUpToEitherLimit) {
  const SequenceDataset dataset = dataset_of({3, 4, 5, 1, 1, 1, 9, 2});
  const auto batches = [&](int64_t batch_size, int64_t max_tokens) {
    BatchSampler sampler(dataset.offsets, {batch_size, max_tokens, /*shuffle=*/false});
    std::vector<std::vector<int64_t>> result;
    do {
      result.push_back(sampler.next());
    } while (!sampler.epoch_done());
    EXPECT_EQ(static_cast<int64_t>(result.size()), sampler.batches_in_epoch());
    return result;
  };
  using Batches = std::vector<std::vector<int64_t>>;
  EXPECT_EQ(batches(3, 0), (Batches{{0, 1, 2}, {3, 4, 5}, {6, 7}}));
  EXPECT_EQ(batches(0, 9), (Batches{{0, 1}, {2, 3, 4, 5}, {6}, {7}}));
  EXPECT_EQ(batches(2, 9), (Batches{{0, 1}, {2, 3}, {4, 5}, {6}, {7}}));
  EXPECT_EQ(batches(0, 0), (Batches{{0, 1, 2, 3, 4, 5, 6, 7}}));
  EXPECT_EQ(batches(100, 0).size(), 1u);
}

TEST(BatchSampler, EverySequenceOnceAnEpoch) {
  const SequenceDataset dataset = random_dataset(211);
  BatchSampler sampler(dataset.offsets, {8, 200, true, 3});
  std::set<std::vector<int64_t>> orders;
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<int64_t> seen;
    do {
      const std::vector<int64_t> batch = sampler.next();
      ASSERT_EQ(sampler.state().epoch, epoch);
      ASSERT_GE(batch.size(), 1u);
      ASSERT_LE(batch.size(), 8u);
      int64_t tokens = 0;
      for (int64_t i : batch) tokens += dataset.length(i);
      ASSERT_LE(tokens, 200);
      seen.insert(seen.end(), batch.begin(), batch.end());
    } while (!sampler.epoch_done());
    orders.insert(seen);
    std::sort(seen.begin(), seen.end());
    std::vector<int64_t> all(211);
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(seen, all);
  }
  EXPECT_EQ(orders.size(), 3u);
}

TEST(BatchSampler, GoesOnExactlyFromAnyState) {
  const SequenceDataset dataset = random_dataset(57);
  for (bool shuffle : {true, false}) {
    const BatchOptions options{4, 90, shuffle, 11};
    BatchSampler whole(dataset.offsets, options);
    std::vector<BatchState> states = {whole.state()};
    std::vector<std::vector<int64_t>> batches;
    for (int i = 0; i < 60; ++i) {
      batches.push_back(whole.next());
      states.push_back(whole.state());
    }
    ASSERT_GE(whole.state().epoch, 2);
    for (size_t from = 0; from < states.size(); ++from) {
      BatchSampler resumed(dataset.offsets, options);
      resumed.restore(states[from]);
      ASSERT_EQ(resumed.state(), states[from]);
      for (size_t i = from; i < batches.size(); ++i) ASSERT_EQ(resumed.next(), batches[i]) << from << " " << i;
      ASSERT_EQ(resumed.state(), states.back());
    }
  }
}

TEST(BatchSampler, LanesGoOnWhereTheyWere) {
  const SequenceDataset dataset = random_dataset(23);
  const BatchOptions options{.batch_size = 4, .max_tokens = 0, .shuffle = true, .seed = 1, .lanes = 4};
  BatchSampler sampler(dataset.offsets, options);
  EXPECT_EQ(sampler.batches_in_epoch(), 5);  // 23 / 4, and three sequences left over
  std::vector<std::vector<int64_t>> batches;
  std::vector<BatchState> states = {sampler.state()};
  for (int i = 0; i < 12; ++i) {
    batches.push_back(sampler.next());
    states.push_back(sampler.state());
    EXPECT_EQ(sampler.epoch_done(), i % 5 == 4) << i;
  }
  for (size_t i = 0; i < batches.size(); ++i) {
    const int64_t k = static_cast<int64_t>(i) % 5;
    EXPECT_EQ(batches[i], (std::vector<int64_t>{k, 5 + k, 10 + k, 15 + k})) << i;
  }
  for (size_t from = 0; from < states.size(); ++from) {
    BatchSampler resumed(dataset.offsets, options);
    resumed.restore(states[from]);
    for (size_t i = from; i < batches.size(); ++i) EXPECT_EQ(resumed.next(), batches[i]);
  }
  expect_error(ErrorKind::kData, {"23 sequences", "24 lanes"}, [&] { BatchSampler(dataset.offsets, {.batch_size = 24, .lanes = 24}); });
  expect_error(ErrorKind::kConfig, {"4 lanes", "8"}, [&] { BatchSampler(dataset.offsets, {.batch_size = 8, .lanes = 4}); });
}

TEST(BatchSampler, WhatCannotBeDealtOut) {
  const SequenceDataset dataset = dataset_of({3, 12, 5});
  expect_error(ErrorKind::kData, {"sequence 1", "12 tokens", "max_tokens is 11"}, [&] { BatchSampler(dataset.offsets, {0, 11}); });
  EXPECT_NO_THROW(BatchSampler(dataset.offsets, {0, 12}));
  expect_error(ErrorKind::kData, {"no sequences"}, [&] { BatchSampler(SequenceDataset().offsets, {}); });
  expect_error(ErrorKind::kConfig, {"batch_size", "-1"}, [&] { BatchSampler(dataset.offsets, {-1, 0}); });
  expect_error(ErrorKind::kConfig, {"max_tokens", "-1"}, [&] { BatchSampler(dataset.offsets, {0, -1}); });
  BatchSampler sampler(dataset.offsets, {});
  expect_error(ErrorKind::kModel, {"sequence 4 of 3"}, [&] { sampler.restore({0, 4}); });
  expect_error(ErrorKind::kModel, {"epoch -1"}, [&] { sampler.restore({-1, 0}); });
  EXPECT_EQ(sampler.state(), BatchState{});
}

TEST(Gather, PacksTheSequencesInTheGivenOrder) {
  const SequenceDataset dataset = dataset_of({2, 3, 1});
  Batch batch;
  gather(dataset, std::vector<int64_t>{0, 1, 2}, &batch);
  gather(dataset, std::vector<int64_t>{2, 0}, &batch);
  EXPECT_EQ(batch.tokens, (std::vector<int64_t>{5, 0, 1}));
  EXPECT_EQ(batch.cu_seqlens, (std::vector<int64_t>{0, 1, 3}));
  EXPECT_EQ(batch.labels, (std::vector<int64_t>{20, 0}));
  EXPECT_EQ(batch.indices, (std::vector<int64_t>{2, 0}));
  gather(dataset, std::vector<int64_t>{}, &batch);
  EXPECT_EQ(batch.cu_seqlens, std::vector<int64_t>{0});
}

}  // namespace
}  // namespace seqboat::data
