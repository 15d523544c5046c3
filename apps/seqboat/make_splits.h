#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "seqboat/data/dataset.h"
#include "ui.h"

namespace seqboat::app {

/// A generated data set as `data make` speaks of it.
struct SplitMaker {
  std::string name;  ///< "listops"
  std::string unit;  ///< of what the files hold: "samples"
  std::filesystem::path folder;
  std::function<std::filesystem::path(data::Split)> file;
  std::function<int64_t(data::Split)> count;
  /// Called by the generator now and then, with how many of a split's are made; throws to stop it.
  using Progress = std::function<void(data::Split split, int64_t done, int64_t total)>;
  /// Makes what is missing and returns the splits that it made.
  std::function<std::vector<data::Split>(const Progress&)> make;
};

/// Carries it out, with progress, and ends with the result: `data`, `path`, `made`, `files`, `seconds`. Returns 0, or 128 + the signal's number:
/// finished files stay then, and the same command makes what is left.
int make_splits(const SplitMaker& maker, Reporter& reporter);

}  // namespace seqboat::app
