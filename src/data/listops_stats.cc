#include "seqboat/data/listops_stats.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/listops_tree.h"

namespace seqboat::data {
namespace {

template <class Key>
nlohmann::ordered_json histogram_json(const std::map<Key, int64_t>& histogram) {
  nlohmann::ordered_json result = nlohmann::ordered_json::object();
  for (const auto& [key, count] : histogram) result[std::to_string(key)] = count;
  return result;
}

template <size_t kSize>
nlohmann::ordered_json by_operator(const std::array<int64_t, kSize>& counts) {
  nlohmann::ordered_json result = nlohmann::ordered_json::object();
  for (int i = 0; i < kListopsOperators; ++i) result[std::string(listops_vocabulary()[kListopsMin + i].substr(1))] = counts[i];
  if constexpr (kSize > kListopsOperators) result["digit"] = counts[kListopsOperators];
  return result;
}

}  // namespace

LengthStats length_stats(const SequenceDataset& dataset) {
  LengthStats stats;
  stats.sequences = dataset.size();
  stats.tokens = dataset.offsets.back();
  if (stats.sequences == 0) return stats;
  std::vector<int64_t> lengths;
  lengths.reserve(static_cast<size_t>(stats.sequences));
  for (int64_t i = 0; i < stats.sequences; ++i) lengths.push_back(dataset.length(i));
  std::sort(lengths.begin(), lengths.end());
  stats.mean = static_cast<double>(stats.tokens) / static_cast<double>(stats.sequences);
  stats.min = lengths.front();
  stats.max = lengths.back();
  for (int percent : {5, 25, 50, 75, 95}) {
    const int64_t rank = (stats.sequences * percent + 99) / 100;  // nearest rank, from 1
    stats.percentiles[percent] = lengths[std::max<int64_t>(rank, 1) - 1];
  }
  return stats;
}

nlohmann::ordered_json LengthStats::to_json() const {
  nlohmann::ordered_json result = {{"sequences", sequences}, {"tokens", tokens}, {"mean", mean}, {"min", min}, {"max", max}};
  for (const auto& [percent, length] : percentiles) result[fmt::format("p{}", percent)] = length;
  return result;
}

ListopsStats listops_stats(const SequenceDataset& dataset) {
  ListopsStats stats;
  stats.length = length_stats(dataset);
  ListopsWalker walker;
  for_each_sample(dataset, [&](int64_t i) {
    int64_t depth = 1;
    walker.walk(
        dataset.sequence(i),
        [&](const ListopsNode& node, int64_t) {
          ++stats.operators[node.operator_number];
          ++stats.arguments[node.arguments];
          return node.evaluate();
        },
        [&](int64_t value, int64_t leaf_depth) {
          ++stats.digits[value];
          depth = std::max(depth, leaf_depth);  // the deepest node is a leaf
        });
    ++stats.depth[depth];
    const int32_t root = without_cls(dataset.sequence(i))[0];
    ++stats.roots[is_operator(root) ? root - kListopsMin : kListopsOperators];
    const int64_t label = dataset.labels[i];
    if (label >= 0 && label < kListopsClasses) ++stats.labels[label];
  });
  return stats;
}

nlohmann::ordered_json ListopsStats::to_json() const {
  nlohmann::ordered_json result;
  result["length"] = length.to_json();
  result["depth"] = histogram_json(depth);
  result["labels"] = labels;
  result["operators"] = by_operator(operators);
  result["roots"] = by_operator(roots);
  result["arguments"] = histogram_json(arguments);
  result["digits"] = digits;
  return result;
}

}  // namespace seqboat::data
