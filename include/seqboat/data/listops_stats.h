#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>

#include "seqboat/data/listops.h"

namespace seqboat::data {

/// Lengths of the sequences of any data set. Percentiles are lengths that occur (nearest rank).
struct LengthStats {
  int64_t sequences = 0;
  int64_t tokens = 0;
  double mean = 0;
  int64_t min = 0;
  int64_t max = 0;
  std::map<int, int64_t> percentiles;  ///< 5, 25, 50, 75, 95
  nlohmann::ordered_json to_json() const;
};
LengthStats length_stats(const SequenceDataset& dataset);

struct ListopsStats {
  LengthStats length;
  std::map<int64_t, int64_t> depth;                    ///< samples by depth of their deepest node, the root being 1
  std::array<int64_t, kListopsClasses> labels{};       ///< samples by label
  std::array<int64_t, kListopsOperators> operators{};  ///< nodes: [MIN [MAX [MED [SM
  std::array<int64_t, kListopsOperators + 1> roots{};  ///< samples by operator of the root; last: a bare digit
  std::map<int64_t, int64_t> arguments;                ///< operator nodes by their number of arguments
  std::array<int64_t, kListopsClasses> digits{};       ///< leaves
  nlohmann::ordered_json to_json() const;
};
/// Error (kData) for a malformed expression.
ListopsStats listops_stats(const SequenceDataset& dataset);

}  // namespace seqboat::data
