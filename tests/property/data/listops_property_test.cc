#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "seqboat/base/error.h"
#include "seqboat/data/batching.h"
#include "seqboat/data/listops.h"

namespace seqboat::data {
namespace {

// Any tree, not only those of the generator: operators with one argument, any shape. Returns its value by the definition, on sorted lists.
int64_t random_tree(int depth, std::vector<int32_t>* tokens) {
  if (depth >= 6 || *rc::gen::inRange(0, 3) == 0) {
    const int digit = *rc::gen::inRange(0, 10);
    tokens->push_back(kListopsDigit0 + digit);
    return digit;
  }
  const int32_t op = *rc::gen::inRange<int32_t>(kListopsMin, kListopsSum + 1);
  tokens->push_back(op);
  std::vector<int64_t> values;
  const int arguments = *rc::gen::inRange(1, 5);
  for (int i = 0; i < arguments; ++i) values.push_back(random_tree(depth + 1, tokens));
  tokens->push_back(kListopsClose);
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  switch (op) {
    case kListopsMin:
      return values.front();
    case kListopsMax:
      return values.back();
    case kListopsMed:
      return static_cast<int64_t>(n % 2 == 1 ? static_cast<double>(values[n / 2]) : (values[n / 2 - 1] + values[n / 2]) / 2.0);
    default: {
      int64_t sum = 0;
      for (int64_t value : values) sum += value;
      return sum % 10;
    }
  }
}

TEST(ListopsProperty, EvaluatorIsTheDefinitionAndTextGoesRound) {
  EXPECT_TRUE(rc::check([] {
    std::vector<int32_t> tokens;
    const int64_t value = random_tree(1, &tokens);
    RC_ASSERT(evaluate_listops(tokens) == value);
    for (bool parentheses : {false, true}) {
      const std::string text = listops_text(tokens, parentheses);
      RC_ASSERT(tokenize_listops(text) == tokens);
      // In the original's form every pair is closed.
      RC_ASSERT(std::count(text.begin(), text.end(), '(') == std::count(text.begin(), text.end(), ')'));
    }
  }));
}

TEST(ListopsProperty, AnyTokensEvaluateOrThrow) {
  EXPECT_TRUE(rc::check([](const std::vector<uint8_t>& bytes) {
    std::vector<int32_t> tokens;
    for (uint8_t byte : bytes) tokens.push_back(byte % 22 - 1);
    try {
      const int64_t value = evaluate_listops(tokens);
      RC_ASSERT(value >= 0 && value <= 9);
    } catch (const Error& error) {
      RC_ASSERT(error.kind() == ErrorKind::kData);
    }
  }));
}

TEST(BatchingProperty, EveryEpochDealsEachSequenceOnceWithinTheLimits) {
  EXPECT_TRUE(rc::check([](const std::vector<uint8_t>& lengths, uint64_t seed) {
    RC_PRE(!lengths.empty());
    std::vector<int64_t> offsets = {0};
    for (uint8_t length : lengths) offsets.push_back(offsets.back() + length);
    const int64_t batch_size = *rc::gen::inRange<int64_t>(0, 6);
    const int64_t max_tokens = *rc::gen::element<int64_t>(0, 255, 300, 1000);
    BatchSampler sampler(offsets, {batch_size, max_tokens, true, seed});
    for (int epoch = 0; epoch < 2; ++epoch) {
      std::vector<int> seen(lengths.size());
      int64_t batches = 0;
      do {
        const std::vector<int64_t> batch = sampler.next();
        int64_t tokens = 0;
        for (int64_t i : batch) {
          ++seen[i];
          tokens += lengths[i];
        }
        RC_ASSERT(!batch.empty());
        RC_ASSERT(batch_size == 0 || static_cast<int64_t>(batch.size()) <= batch_size);
        RC_ASSERT(max_tokens == 0 || tokens <= max_tokens);
        ++batches;
      } while (!sampler.epoch_done());
      RC_ASSERT(batches == sampler.batches_in_epoch());
      RC_ASSERT(std::all_of(seen.begin(), seen.end(), [](int count) { return count == 1; }));
    }
  }));
}

}  // namespace
}  // namespace seqboat::data
