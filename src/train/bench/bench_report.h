#pragma once

// Private to src/train: what `bench` has found out, as JSON and as lines for people.

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "seqboat/ops/phases.h"
#include "train/bench/cost_model.h"

namespace seqboat::train {

/// Milliseconds of steps.
struct StepTimes {
  using Phases = std::array<double, ops::kPhases>;
  std::vector<double> ms;
  std::vector<Phases> phases;  ///< of each step, where asked for

  double min() const;
  double median() const;
  /// Of the step nearest to the median, in the order of the list of phases.
  std::vector<std::pair<std::string, double>> median_phases() const;
};

/// A batch and the steps that took it.
struct BenchTiming {
  std::vector<int64_t> lengths;  ///< of its sequences
  int64_t tokens = 0;            ///< that a step reads: twice the lengths where sequences come in pairs
  StepTimes times;

  int64_t longest() const;
  double tokens_per_s() const;  ///< by the fastest step
};

struct BenchResult {
  std::string recipe;
  std::string model;  ///< a trained model, on its own data; empty = the recipe's, on made-up data
  bool train = true;
  bool pairs = false;          ///< retrieval
  double forced_rate = -1;     ///< negative: the routers decided
  bool listops_batch = false;  ///< real lengths
  int64_t threads = 0;
  int64_t parameters = 0;
  BenchTiming batch;
  std::optional<BenchTiming> full;        ///< sequences of full length, as many tokens
  std::optional<BenchTiming> everything;  ///< a trained model: the same batch with every token activated
  std::vector<LayerWork> work;            ///< of a timed step, by layer: the mean
  MachineRates machine;
  double limit_ms = 0;
  double scan_ms = 0, attention_ms = 0, products_ms = 0, memory_ms = 0;  ///< what reachable is the sum of
  int64_t peak_bytes = -1;                                               ///< -1 = not known
  int64_t added_bytes = -1;
  int64_t everything_added_bytes = -1;

  std::vector<double> activation_rate() const;
  double reachable_ms() const { return scan_ms + attention_ms + products_ms + memory_ms; }
  /// Time a token over that in a full batch.
  double ratio_to_full() const;
  /// How many times as long a step takes that activates everything.
  double gain() const;
};

nlohmann::ordered_json bench_json(const BenchResult& result);
std::string bench_text(const BenchResult& result);

}  // namespace seqboat::train
