#include "make_splits.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <nlohmann/json.hpp>

namespace seqboat::app {
namespace {

/// Thrown through the generator, which then leaves no unfinished file.
struct Interrupted {
  int signal;
};

}  // namespace

int make_splits(const SplitMaker& maker, Reporter& reporter) {
  using data::Split;
  const auto begin = std::chrono::steady_clock::now();
  const std::atomic<int>& stop = become_cooperative();
  std::vector<Split> made;
  try {
    made = maker.make([&](Split split, int64_t done, int64_t total) {
      if (const int signal = stop.load(); signal != 0) throw Interrupted{signal};
      reporter.progress({fmt::format("{} {}", maker.name, data::split_name(split)), maker.unit, done, total, -1, {}});
    });
  } catch (const Interrupted& interrupted) {
    reporter.finish_progress();
    reporter.warn("interrupted; the same command makes what is left");
    return 128 + interrupted.signal;
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();

  using Json = nlohmann::ordered_json;
  Json json = {{"data", maker.name}, {"path", maker.folder.string()}, {"made", Json::array()}, {"files", Json::array()}};
  std::string text;
  for (const Split split : {Split::kTrain, Split::kValid, Split::kTest}) {
    const bool is_new = std::find(made.begin(), made.end(), split) != made.end();
    if (is_new) json["made"].push_back(data::split_name(split));
    const std::string file = maker.file(split).string();
    json["files"].push_back(file);
    text += fmt::format("{}  {} {}{}\n", file, maker.count(split), maker.unit, is_new ? "" : ", there before");
  }
  json["seconds"] = seconds;
  reporter.result(json, text);
  return 0;
}

}  // namespace seqboat::app
