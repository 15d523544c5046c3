#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace seqboat {

/// One figure of a progress line, already formatted: {"loss", "1.234"}, {"tokens/s", "71.2k"}, {"active", ".41"}.
struct ProgressField {
  std::string name;
  std::string text;
};

/// Where a long job stands.
struct Progress {
  std::string label;                  ///< what is under way: "train", "valid", "listops train data"; a new label begins a new line
  std::string unit = "step";          ///< what `done` counts
  int64_t done = 0;                   ///< so far, work done before a resume included
  int64_t total = 0;                  ///< 0 = unknown
  double seconds_left = -1;           ///< negative = estimated by the reporter from the pace since the label's first report
  std::vector<ProgressField> fields;  ///< shown in this order, after the count
};

/// How a library speaks to whoever called it: libraries never print. The program's reporter draws a bar on a terminal and a line an interval
/// elsewhere, all on stderr, and puts results on stdout. Called from one thread at a time.
class Reporter {
 public:
  virtual ~Reporter() = default;

  /// One line for people, without its line end; nothing under --quiet.
  virtual void log(std::string_view line) = 0;
  /// One line that --quiet does not silence.
  virtual void warn(std::string_view line) = 0;
  /// Cheap, made to be called every step: the reporter decides how often it shows anything. Ask progress_due() before costly formatting.
  virtual void progress(const Progress& progress) = 0;
  /// Whether the next progress() of the running label would be shown.
  virtual bool progress_due() const = 0;
  /// Shows the last state of the running label, if it was not, and leaves its line. Without a running label it does nothing.
  virtual void finish_progress() = 0;
  /// The result, once: under --json the object as one line on stdout, else `text` (lines for people, the last line end included) on stdout.
  virtual void result(const nlohmann::ordered_json& json, std::string_view text) = 0;
};

/// A reporter that says nothing, for tests.
class SilentReporter : public Reporter {
 public:
  void log(std::string_view) override {}
  void warn(std::string_view) override {}
  void progress(const Progress&) override {}
  bool progress_due() const override { return false; }
  void finish_progress() override {}
  void result(const nlohmann::ordered_json&, std::string_view) override {}
};

}  // namespace seqboat
