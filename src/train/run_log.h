#pragma once

// Private to src/train.

#include <atomic>
#include <filesystem>
#include <string>
#include <vector>

#include "seqboat/base/reporter.h"
#include "train/files.h"

namespace seqboat::train {

/// Thrown out of long preparations when the user interrupts.
struct Interrupted {
  int signal;
};

/// The caller's reporter, with a copy of every log line in RUN/train.log. While preparing, progress() throws Interrupted when the user has asked to
/// stop; the training loop looks for itself.
class RunLog : public Reporter {
 public:
  RunLog(Reporter& reporter, const std::atomic<int>* stop_signal) : reporter_(reporter), stop_signal_(stop_signal) {}

  int stop() const { return stop_signal_ != nullptr ? stop_signal_->load() : 0; }
  void set_preparing(bool preparing) { preparing_ = preparing; }

  /// From here on lines go to the file too, those said before it first.
  void open(const std::filesystem::path& file) {
    file_.open(file);
    for (const std::string& line : early_) file_.append(line);
    early_.clear();
  }

  /// A line for the file alone. Never throws: it is called on the way out.
  void note(const std::string& line) noexcept {
    try {
      if (file_.is_open()) file_.append(line);
    } catch (...) {
    }
  }

  void log(std::string_view line) override {
    write(std::string(line));
    reporter_.log(line);
  }
  void warn(std::string_view line) override {
    write("warning: " + std::string(line));
    reporter_.warn(line);
  }
  void progress(const Progress& progress) override {
    if (preparing_ && stop() != 0) {
      reporter_.finish_progress();
      throw Interrupted{stop()};
    }
    reporter_.progress(progress);
  }
  bool progress_due() const override { return reporter_.progress_due(); }
  void finish_progress() override { reporter_.finish_progress(); }
  void result(const nlohmann::ordered_json& json, std::string_view text) override { reporter_.result(json, text); }

 private:
  void write(std::string line) {
    if (file_.is_open()) {
      file_.append(line);
    } else {
      early_.push_back(std::move(line));
    }
  }

  Reporter& reporter_;
  const std::atomic<int>* stop_signal_;
  LineFile file_;
  std::vector<std::string> early_;
  bool preparing_ = true;
};

}  // namespace seqboat::train
