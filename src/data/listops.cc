#include "seqboat/data/listops.h"

#include <algorithm>
#include <limits>

#include "data/listops_tree.h"
#include "seqboat/base/error.h"
#include "seqboat/base/philox.h"
#include "seqboat/base/text.h"

namespace seqboat::data {
namespace {

// See batching.cc: the upper byte of a Philox stream tells its users apart.
constexpr uint64_t kListopsStream = uint64_t{0x10} << 56;
constexpr int64_t kMaxNodes = 50'000'000;  // a few seconds of search for one sample

/// Length of the largest tree: every node above max_depth an operator with max_args arguments. Stops growing at `enough`.
int64_t largest_length(const ListopsOptions& options, int64_t enough) {
  int64_t length = 1;
  for (int64_t depth = options.max_depth - 1; depth >= 1 && length < enough; --depth) length = 2 + options.max_args * length;
  return length;
}

}  // namespace

const std::array<std::string_view, kListopsVocabSize>& listops_vocabulary() {
  static constexpr std::array<std::string_view, kListopsVocabSize> kWords = {
      "<s>", "<pad>", "</s>", "<unk>", "[MIN", "[MAX", "[MED", "[SM", "]", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "<CLS>"};
  return kWords;
}

void ListopsOptions::validate() const {
  constexpr int64_t kMostLength = 10'000'000;
  SEQBOAT_CHECK(min_length >= 0, ErrorKind::kConfig, "ListOps: min_length: expected 0 or more, found {}", min_length);
  SEQBOAT_CHECK(max_length >= min_length + 2 && max_length <= kMostLength, ErrorKind::kConfig,
                "ListOps: max_length: expected from {} (min_length + 2, both ends being excluded) to {}, found {}", min_length + 2, kMostLength,
                max_length);
  SEQBOAT_CHECK(max_depth >= 1 && max_depth <= 1000, ErrorKind::kConfig, "ListOps: max_depth: expected 1 to 1000, found {}", max_depth);
  SEQBOAT_CHECK(max_args >= 2 && max_args <= 1000, ErrorKind::kConfig, "ListOps: max_args: expected 2 to 1000, found {}", max_args);
  const int64_t largest = largest_length(*this, max_length);
  SEQBOAT_CHECK(largest > min_length, ErrorKind::kConfig,
                "ListOps: min_length: trees of depth {} with {} arguments are at most {} long; expected less than that, found {}", max_depth,
                max_args, largest, min_length);
}

int64_t generate_listops(const ListopsOptions& options, uint64_t seed, Split split, int64_t index, std::vector<int32_t>* tokens) {
  options.validate();
  SEQBOAT_CHECK(index >= 0 && index < int64_t{1} << 48, ErrorKind::kConfig, "ListOps: sample: expected 0 to 2^48 - 1, found {}", index);
  PhiloxStream random(seed, kListopsStream | static_cast<uint64_t>(split) << 48 | static_cast<uint64_t>(index));
  const auto arities = static_cast<uint64_t>(options.max_args - 1);
  std::vector<int64_t> missing;  // arguments that each open operator still waits for
  int64_t nodes = 0;
  for (;;) {
    // One tree, from the root on and from left to right. `least` is the length it has at least, all that is drawn counted and each waiting argument
    // as a digit; when it gets too long the tree is dropped at once, which is what looking at the finished tree would do.
    tokens->clear();
    missing.clear();
    int64_t least = 1;
    for (;;) {
      SEQBOAT_CHECK(
          ++nodes <= kMaxNodes, ErrorKind::kConfig,
          "ListOps: no tree with {} < length < {}, depth up to {} and up to {} arguments turned up in {} nodes: give a wider range of lengths",
          options.min_length, options.max_length, options.max_depth, options.max_args, kMaxNodes);
      const bool deepest = static_cast<int64_t>(missing.size()) + 1 >= options.max_depth;
      // One number in 0..39 decides: below 30 (three quarters) a digit, else an operator.
      const uint64_t drawn = random.next_below(deepest ? 10 : 40);
      if (drawn < 30) {
        tokens->push_back(kListopsDigit0 + static_cast<int32_t>(drawn % 10));
        while (!missing.empty() && --missing.back() == 0) {
          tokens->push_back(kListopsClose);
          missing.pop_back();
        }
        if (missing.empty()) break;
      } else {
        const uint64_t kind = random.next_below(kListopsOperators * arities);
        const auto arguments = static_cast<int64_t>(2 + kind / kListopsOperators);
        tokens->push_back(kListopsMin + static_cast<int32_t>(kind % kListopsOperators));
        missing.push_back(arguments);
        least += 1 + arguments;
        if (least >= options.max_length) break;
      }
    }
    if (least > options.min_length && least < options.max_length) break;
  }
  return ListopsWalker().evaluate(*tokens);
}

SequenceDataset generate_listops(const ListopsOptions& options, uint64_t seed, Split split, int64_t first, int64_t count) {
  SequenceDataset dataset;
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t label = generate_listops(options, seed, split, first + i, &tokens);
    dataset.append(tokens, label);
  }
  return dataset;
}

int64_t evaluate_listops(std::span<const int32_t> tokens) {
  try {
    return ListopsWalker().evaluate(tokens);
  } catch (const ListopsProblem& problem) {
    fail(ErrorKind::kData, "ListOps expression: token {}: expected {}, found {}", problem.position, problem.expected, problem.found);
  }
}

std::vector<ListopsStep> listops_steps(std::span<const int32_t> tokens) {
  evaluate_listops(tokens);  // from here on it is known to be well-formed
  const std::span<const int32_t> expression = without_cls(tokens);
  const auto cls = static_cast<int64_t>(tokens.size() - expression.size());
  std::vector<ListopsStep> out;
  struct Open {
    ListopsNode node;
    size_t step;  ///< of its operator in `out`
  };
  std::vector<Open> open;
  for (size_t i = 0; i < expression.size(); ++i) {
    const int32_t token = expression[i];
    out.push_back({cls + static_cast<int64_t>(i), 0});
    if (is_operator(token)) {
      open.push_back({{token - kListopsMin, 0, {}}, out.size() - 1});
      continue;
    }
    int64_t value = token - kListopsDigit0;
    if (!is_digit(token)) {
      value = open.back().node.evaluate();
      out[open.back().step].value = out.back().value = value;
      open.pop_back();
    }
    if (open.empty()) {
      out.back().value = value;
      break;
    }
    ListopsNode& parent = open.back().node;
    ++parent.arguments;
    ++parent.counts[static_cast<size_t>(value)];
    if (is_digit(token)) out.back().value = parent.evaluate();
  }
  return out;
}

std::vector<int32_t> tokenize_listops(std::string_view text) {
  std::vector<int32_t> tokens;
  if (const auto problem = tokenize_listops_into(text, &tokens)) {
    fail(ErrorKind::kData, "ListOps expression: column {}: expected {}, found {}", problem->position + 1, problem->expected, problem->found);
  }
  return tokens;
}

std::optional<ListopsProblem> tokenize_listops_into(std::string_view text, std::vector<int32_t>* tokens) {
  const auto is_blank = [](char c) { return c == ' '; };
  size_t i = 0;
  while (i < text.size()) {
    if (is_blank(text[i])) {
      ++i;
      continue;
    }
    size_t end = i + 1;
    while (end < text.size() && !is_blank(text[end])) ++end;
    const std::string_view word = text.substr(i, end - i);
    int32_t token = -1;
    if (word.size() == 1) {
      const char c = word[0];
      if (c >= '0' && c <= '9') {
        token = kListopsDigit0 + (c - '0');
      } else if (c == ']') {
        token = kListopsClose;
      } else if (c == '(' || c == ')') {
        i = end;
        continue;
      }
    } else if (word[0] == '[') {
      for (int32_t candidate = kListopsMin; candidate <= kListopsSum; ++candidate) {
        if (word == listops_vocabulary()[candidate]) token = candidate;
      }
    }
    if (token < 0) return ListopsProblem{static_cast<int64_t>(i), "one of [MIN [MAX [MED [SM ] 0..9", in_quotes(word, 40)};
    tokens->push_back(token);
    i = end;
  }
  return std::nullopt;
}

std::string listops_text(std::span<const int32_t> tokens, bool parentheses) {
  tokens = without_cls(tokens);
  std::vector<int64_t> arguments;  // of each operator, in the order of the text
  if (parentheses) {
    evaluate_listops(tokens);
    std::vector<size_t> open;
    for (int32_t token : tokens) {
      if (is_operator(token)) {
        if (!open.empty()) ++arguments[open.back()];
        open.push_back(arguments.size());
        arguments.push_back(0);
      } else if (token == kListopsClose) {
        open.pop_back();
      } else if (!open.empty()) {
        ++arguments[open.back()];
      }
    }
  }
  std::string text;
  size_t next_operator = 0;
  int64_t depth = 0;
  const auto add = [&text](std::string_view word) {
    if (!text.empty()) text += ' ';
    text += word;
  };
  for (int32_t token : tokens) {
    SEQBOAT_CHECK(is_operator(token) || is_digit(token) || token == kListopsClose, ErrorKind::kData, "ListOps expression: expected {}, found {}",
                  "an operator, a digit or ]", token_text(token));
    if (parentheses && is_operator(token)) {
      // A pair for the operator with its first argument, one for each further argument, one for the bracket at the end.
      for (int64_t i = 0; i <= arguments[next_operator]; ++i) add("(");
      ++next_operator;
    }
    add(listops_vocabulary()[token]);
    if (!parentheses) continue;
    if (is_operator(token)) {
      ++depth;
    } else {
      if (token == kListopsClose) {
        add(")");
        --depth;
      }
      if (depth > 0) add(")");
    }
  }
  return text;
}

}  // namespace seqboat::data
