#include "seqboat/data/shortcut_ladder.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/listops_tree.h"
#include "seqboat/base/error.h"

namespace seqboat::data {
namespace {

using Counts = std::array<int64_t, kListopsClasses>;

int root_class(std::span<const int32_t> tokens) {
  tokens = without_cls(tokens);
  return !tokens.empty() && is_operator(tokens[0]) ? tokens[0] - kListopsMin : kListopsOperators;
}

/// The first of the largest; `otherwise` if all are zero.
int64_t commonest(const Counts& counts, int64_t otherwise) {
  const auto largest = std::max_element(counts.begin(), counts.end());
  return *largest == 0 ? otherwise : largest - counts.begin();
}

}  // namespace

const char* shortcut_name(Shortcut shortcut) {
  switch (shortcut) {
    case Shortcut::kConstant:
      return "constant";
    case Shortcut::kRootOperator:
      return "root_operator";
    case Shortcut::kOneLevel:
      return "one_level";
    case Shortcut::kTwoLevels:
      return "two_levels";
    case Shortcut::kThreeLevels:
      return "three_levels";
  }
  return "?";
}

ListopsShortcuts ListopsShortcuts::fit(const SequenceDataset& dataset, std::string fitted_on) {
  SEQBOAT_CHECK(dataset.size() > 0, ErrorKind::kData, "ListOps shortcuts: expected samples to fit on, found none");
  Counts labels{};
  std::array<Counts, kListopsOperators + 1> labels_of_root{};
  std::array<Counts, kListopsOperators> values{};
  Counts all_values{};
  ListopsWalker walker;
  for_each_sample(dataset, [&](int64_t i) {
    walker.walk(
        dataset.sequence(i),
        [&](const ListopsNode& node, int64_t depth) {
          const int64_t value = node.evaluate();
          if (depth > 1) {
            ++values[node.operator_number][value];
            ++all_values[value];
          }
          return value;
        },
        [](int64_t, int64_t) {});
    const int64_t label = dataset.labels[i];
    SEQBOAT_CHECK(label >= 0 && label < kListopsClasses, ErrorKind::kData, "ListOps sample {}: label: expected 0..9, found {}", i, label);
    ++labels[label];
    ++labels_of_root[root_class(dataset.sequence(i))][label];
  });
  ListopsShortcuts result;
  result.fitted_on_ = std::move(fitted_on);
  result.constant_ = commonest(labels, 0);
  for (int i = 0; i <= kListopsOperators; ++i) result.root_constant_[i] = commonest(labels_of_root[i], result.constant_);
  const int64_t any_value = commonest(all_values, result.constant_);
  for (int i = 0; i < kListopsOperators; ++i) result.commonest_value_[i] = commonest(values[i], any_value);
  return result;
}

int64_t ListopsShortcuts::predict(Shortcut shortcut, std::span<const int32_t> tokens) const {
  if (shortcut == Shortcut::kConstant) return constant_;
  if (shortcut == Shortcut::kRootOperator) return root_constant_[root_class(tokens)];
  const int64_t levels = static_cast<int64_t>(shortcut) - static_cast<int64_t>(Shortcut::kOneLevel) + 1;
  try {
    return ListopsWalker().walk(
        tokens, [&](const ListopsNode& node, int64_t depth) { return depth <= levels ? node.evaluate() : commonest_value_[node.operator_number]; },
        [](int64_t, int64_t) {});
  } catch (const ListopsProblem& problem) {
    fail(ErrorKind::kData, "ListOps expression: token {}: expected {}, found {}", problem.position, problem.expected, problem.found);
  }
}

ShortcutLadder evaluate_shortcuts(const ListopsShortcuts& shortcuts, const SequenceDataset& dataset) {
  ShortcutLadder ladder;
  ladder.samples = dataset.size();
  ladder.fitted_on = shortcuts.fitted_on();
  ladder.one_level_wrong.resize(static_cast<size_t>(dataset.size()));
  for (int64_t i = 0; i < dataset.size(); ++i) {
    for (int rung = 0; rung < kShortcuts; ++rung) {
      const bool right = shortcuts.predict(static_cast<Shortcut>(rung), dataset.sequence(i)) == dataset.labels[i];
      ladder.correct[rung] += right;
      if (static_cast<Shortcut>(rung) == Shortcut::kOneLevel && !right) {
        ladder.one_level_wrong[i] = 1;
        ++ladder.hard_samples;
      }
    }
  }
  return ladder;
}

nlohmann::ordered_json ShortcutLadder::to_json() const {
  nlohmann::ordered_json result;
  for (int rung = 0; rung < kShortcuts; ++rung) result[shortcut_name(static_cast<Shortcut>(rung))] = accuracy(static_cast<Shortcut>(rung));
  result["fitted_on"] = fitted_on;
  result["samples"] = samples;
  result["one_level_wrong"] = hard_samples;
  return result;
}

HardAccuracy accuracy_on_hard(const ShortcutLadder& ladder, std::span<const int64_t> predictions, std::span<const int64_t> labels) {
  const size_t n = ladder.one_level_wrong.size();
  SEQBOAT_CHECK(predictions.size() == n && labels.size() == n, ErrorKind::kData,
                "ListOps shortcuts: expected {} predictions and labels, found {} and {}", n, predictions.size(), labels.size());
  HardAccuracy result;
  for (size_t i = 0; i < n; ++i) {
    if (ladder.one_level_wrong[i] == 0) continue;
    ++result.samples;
    result.correct += predictions[i] == labels[i];
  }
  return result;
}

}  // namespace seqboat::data
