#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "seqboat/data/listops.h"

/// How far one gets on ListOps without solving it. Without these numbers an accuracy says little: which shortcut does it equal?
namespace seqboat::data {

/// The shortcuts, each knowing more than the one before.
enum class Shortcut {
  kConstant,      ///< the commonest label
  kRootOperator,  ///< the commonest label for the operator of the root
  kOneLevel,      ///< the root evaluated, each sub-expression below it taken for the commonest value of its operator
  kTwoLevels,     ///< the same one level deeper: operators at depth 1 and 2 evaluated, those at depth 3 guessed
  kThreeLevels,
};
inline constexpr int kShortcuts = 5;
const char* shortcut_name(Shortcut shortcut);  ///< "constant", "root_operator", "one_level", "two_levels", "three_levels"

/// The constants of the shortcuts, counted on some data set. The values of [SM are uniform, so which is its commonest is chance, and with it the
/// rungs from one_level on differ by some hundredths between fits: at lengths 500-2000 one_level is .56 to .60. Reports therefore say what was fitted
/// on. Ties go to the smaller value; what never occurred falls back to the overall commonest.
class ListopsShortcuts {
 public:
  /// fitted_on: words for reports, "train" or "test itself", say. Error (kData) for a malformed expression or no samples.
  static ListopsShortcuts fit(const SequenceDataset& dataset, std::string fitted_on);
  int64_t predict(Shortcut shortcut, std::span<const int32_t> tokens) const;

  int64_t constant() const { return constant_; }
  int64_t root_constant(int operator_number) const { return root_constant_[operator_number]; }
  int64_t commonest_value(int operator_number) const { return commonest_value_[operator_number]; }  ///< of sub-expressions, the root not counted
  const std::string& fitted_on() const { return fitted_on_; }

 private:
  int64_t constant_ = 0;
  std::array<int64_t, kListopsOperators + 1> root_constant_{};  ///< last: a bare digit
  std::array<int64_t, kListopsOperators> commonest_value_{};
  std::string fitted_on_;
};

/// Accuracy of every shortcut on a data set.
struct ShortcutLadder {
  int64_t samples = 0;
  std::array<int64_t, kShortcuts> correct{};
  std::vector<uint8_t> one_level_wrong;  ///< by sample
  int64_t hard_samples = 0;              ///< number of ones there
  std::string fitted_on;

  double accuracy(Shortcut shortcut) const {
    return samples > 0 ? static_cast<double>(correct[static_cast<int>(shortcut)]) / static_cast<double>(samples) : 0.0;
  }
  nlohmann::ordered_json to_json() const;
};
ShortcutLadder evaluate_shortcuts(const ListopsShortcuts& shortcuts, const SequenceDataset& dataset);

/// How often the predictions (one a sample, in the data set's order) are right where the one-level shortcut is wrong.
struct HardAccuracy {
  int64_t samples = 0;
  int64_t correct = 0;
  double accuracy() const { return samples > 0 ? static_cast<double>(correct) / static_cast<double>(samples) : 0.0; }
};
HardAccuracy accuracy_on_hard(const ShortcutLadder& ladder, std::span<const int64_t> predictions, std::span<const int64_t> labels);

}  // namespace seqboat::data
