#pragma once

// Private to src/train: RUN/metrics.jsonl.

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "train/files.h"

namespace seqboat::train {

class MetricsLog {
 public:
  /// Cuts the file back to the lines of the first `step` updates (without a validation at `step` unless `validated`), and what an interruption left
  /// half-written, then appends.
  void open(const std::filesystem::path& file, int64_t step, bool validated);
  void append(const nlohmann::ordered_json& line);
  void sync() { file_.sync(); }

 private:
  LineFile file_;
};

}  // namespace seqboat::train
