#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "command.h"

namespace seqboat::app {

/// `bench --mode decode` and `prefill`, which need no LibTorch.
struct RuntimeBenchOptions {
  std::string recipe;  ///< random weights; or
  std::string model;   ///< a folder's
  std::vector<std::string> overrides;
  bool prefill = false;
  int64_t streams = 0;  ///< 0 = 1
  int64_t length = 0;   ///< 0 = the recipe's
  int64_t steps = 0;    ///< 0 = by the time
  int64_t context = 1024;
  double activation_rate = -1;
  std::string type;  ///< of weights; empty = the model's, of a recipe float32
  std::string ring = "float32";
  std::string simd;
};

int bench_runtime(const RuntimeBenchOptions& options, const CommonOptions& common, Reporter& reporter);

/// The file of a recipe that was named on the command line: a stored one's name, or a .toml file.
std::filesystem::path recipe_file(const std::string& name);

}  // namespace seqboat::app
