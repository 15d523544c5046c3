#pragma once

// Private to src/train: what an evaluation says of activation, as `eval` prints it. docs/CLI.md has the keys.

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "seqboat/train/evaluate.h"

namespace seqboat::train {

/// [{"modules": {name: {"rate", "rate_of_sequences", "by_position", "by_tenth", "by_<grouping>", "gaps", "span", "weighted_span"}}} a layer].
/// weighted_span is null unless it was asked for.
nlohmann::ordered_json activation_json(const trace::ActivationStats& stats, bool weighted_span);
/// {"spent", "dense", "share", "per_token", "outside_layers", "per_layer": [{"spent", "dense"}]}
nlohmann::ordered_json flops_json(const FlopsCount& flops);

/// "FLOPs             0.41 M a token, 62.3 % of those with every token activated"
std::string flops_line(const FlopsCount& flops);
/// Tables of the rate by class and position, a column a layer.
std::string activation_tables(const trace::ActivationStats& stats);

/// One row a decision: metric, loss, rates and FLOPs. `words` and `results` go together.
std::string intervention_table(const std::vector<std::string>& words, const std::vector<const Evaluation*>& results,
                               const std::vector<std::string>& metrics);

}  // namespace seqboat::train
