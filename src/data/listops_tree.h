#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "seqboat/data/listops.h"

namespace seqboat::data {

/// What is wrong with an expression. Internal: turned into an Error by whoever knows the place.
struct ListopsProblem {
  int64_t position;  ///< of the token, after a leading <CLS>
  std::string expected;
  std::string found;
};

/// An operator node that has been closed. Arguments are values 0..9, so how often each came is all that any operator needs.
struct ListopsNode {
  int operator_number = 0;  ///< id - kListopsMin
  int64_t arguments = 0;
  std::array<int64_t, kListopsClasses> counts{};
  int64_t evaluate() const;
};

inline bool is_operator(int32_t token) {
  return token >= kListopsMin && token <= kListopsSum;
}
inline bool is_digit(int32_t token) {
  return token >= kListopsDigit0 && token < kListopsDigit0 + 10;
}
inline std::span<const int32_t> without_cls(std::span<const int32_t> tokens) {
  return !tokens.empty() && tokens[0] == kListopsCls ? tokens.subspan(1) : tokens;
}
std::string token_text(int32_t token);

/// Appends the tokens of a text; its problem's position is a byte of the text.
std::optional<ListopsProblem> tokenize_listops_into(std::string_view text, std::vector<int32_t>* tokens);

/// Walks expressions from left to right with a stack of its own (nesting costs memory, not calls).
class ListopsWalker {
 public:
  /// For each operator node, children first, calls on_operator(node, depth) (root: depth 1), whose result counts as the node's value above it.
  /// on_digit(value, depth) for each leaf. Returns the root's value; throws ListopsProblem.
  template <class OnOperator, class OnDigit>
  int64_t walk(std::span<const int32_t> tokens, OnOperator&& on_operator, OnDigit&& on_digit) {
    tokens = without_cls(tokens);
    open_.clear();
    const auto size = static_cast<int64_t>(tokens.size());
    int64_t root = -1;
    for (int64_t i = 0; i < size; ++i) {
      const int32_t token = tokens[i];
      if (root >= 0) throw ListopsProblem{i, "the end of the expression", token_text(token)};
      int64_t value;
      if (is_operator(token)) {
        // A hundred bytes for five in a file: without an end to it, a hostile file would take the memory.
        if (open_.size() == kMaxNesting) throw ListopsProblem{i, nesting_limit(), "one more"};
        open_.push_back({token - kListopsMin, 0, {}});
        continue;
      } else if (is_digit(token)) {
        value = token - kListopsDigit0;
        on_digit(value, static_cast<int64_t>(open_.size()) + 1);
      } else if (token == kListopsClose && !open_.empty() && open_.back().arguments > 0) {
        value = on_operator(static_cast<const ListopsNode&>(open_.back()), static_cast<int64_t>(open_.size()));
        open_.pop_back();
      } else {
        throw ListopsProblem{i, open_.empty() || open_.back().arguments == 0 ? "an operator or a digit" : "an operator, a digit or ]",
                             token_text(token)};
      }
      if (open_.empty()) {
        root = value;
      } else {
        ++open_.back().arguments;
        ++open_.back().counts[value];
      }
    }
    if (root < 0) {
      throw ListopsProblem{size, open_.empty() ? "an expression" : missing_brackets(static_cast<int64_t>(open_.size())), "the end"};
    }
    return root;
  }

  int64_t evaluate(std::span<const int32_t> tokens) {
    return walk(
        tokens, [](const ListopsNode& node, int64_t) { return node.evaluate(); }, [](int64_t, int64_t) {});
  }

 private:
  static constexpr size_t kMaxNesting = 1'000'000;
  static std::string missing_brackets(int64_t open);
  static std::string nesting_limit();
  std::vector<ListopsNode> open_;
};

[[noreturn]] void fail_in_sample(int64_t sample, const ListopsProblem& problem);

/// Runs f(i) for each sample and turns a ListopsProblem into an Error (kData) that names the sample.
template <class F>
void for_each_sample(const SequenceDataset& dataset, F&& f) {
  for (int64_t i = 0; i < dataset.size(); ++i) {
    try {
      f(i);
    } catch (const ListopsProblem& problem) {
      fail_in_sample(i, problem);
    }
  }
}

}  // namespace seqboat::data
