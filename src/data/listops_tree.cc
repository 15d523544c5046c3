#include "data/listops_tree.h"

#include <algorithm>

#include "seqboat/base/error.h"

namespace seqboat::data {

std::string token_text(int32_t token) {
  if (token < 0 || token >= kListopsVocabSize) return fmt::format("token {}", token);
  return std::string(listops_vocabulary()[token]);
}

std::string ListopsWalker::missing_brackets(int64_t open) {
  return fmt::format("{} more ]", open);
}

std::string ListopsWalker::nesting_limit() {
  return fmt::format("at most {} operators within each other", kMaxNesting);
}

int64_t ListopsNode::evaluate() const {
  // The value at rank r (from 0) when the arguments are sorted.
  const auto at_rank = [this](int64_t rank) {
    int64_t value = 0;
    while (rank >= counts[value]) rank -= counts[value++];
    return value;
  };
  switch (operator_number + kListopsMin) {
    case kListopsMin:
      return at_rank(0);
    case kListopsMax:
      return at_rank(arguments - 1);
    case kListopsMed:
      return (at_rank((arguments - 1) / 2) + at_rank(arguments / 2)) / 2;
    default: {
      int64_t sum = 0;
      for (int64_t value = 0; value < kListopsClasses; ++value) sum += value * counts[value];
      return sum % 10;
    }
  }
}

void fail_in_sample(int64_t sample, const ListopsProblem& problem) {
  fail(ErrorKind::kData, "ListOps sample {}: token {}: expected {}, found {}", sample, problem.position, problem.expected, problem.found);
}

}  // namespace seqboat::data
