#pragma once

#include <atomic>
#include <chrono>
#include <string>
#include <string_view>

#include "seqboat/base/reporter.h"

namespace seqboat::app {

/// What every verb takes.
struct CommonOptions {
  bool json = false;
  bool quiet = false;
  int threads = 0;  ///< 0 = all cores
};

/// Opens /dev/null on standard streams that were closed, so that no file of ours lands on their numbers; has SIGPIPE and SIGXFSZ
/// ignored, so that a reader that went away and the limit on file sizes are errors of the write.
void prepare_streams();

/// How the process answers SIGINT and SIGTERM: at once, with exit code 128 + signal, or (cooperative) by raising a flag that the work polls; a second
/// signal then still ends it at once.
void install_signal_handlers();
const std::atomic<int>& become_cooperative();

/// Whether a stream is a terminal that takes control sequences; whether colours are wanted on it, too (NO_COLOR is kept); whether the locale's
/// characters are UTF-8.
bool is_terminal(int fd);
bool wants_colour(int fd);
bool locale_is_utf8();

/// Text on stdout. A reader that has gone away is no error: false, and what goes on for long may end. A full disk is Error (kResource).
bool write_stdout(std::string_view text);

/// Text on stderr, as far as it goes.
void write_stderr(std::string_view text);

/// One line on stderr: "seqboat: error: ...".
void print_error(std::string_view message);

/// The program's reporter: a bar on a terminal, a line every ten seconds elsewhere; results on stdout.
class ConsoleReporter : public Reporter {
 public:
  explicit ConsoleReporter(const CommonOptions& options);
  ~ConsoleReporter() override;

  void log(std::string_view line) override;
  void warn(std::string_view line) override;
  void progress(const Progress& progress) override;
  bool progress_due() const override;
  void finish_progress() override;
  void result(const nlohmann::ordered_json& json, std::string_view text) override;

 private:
  using Clock = std::chrono::steady_clock;
  void show(const Progress& progress, bool last);
  void erase_bar();
  std::string line_of(const Progress& progress, bool last) const;

  CommonOptions options_;
  bool terminal_;
  bool colour_;
  bool unicode_;
  bool bar_shown_ = false;  ///< the cursor stands in a line that holds the bar
  std::string label_;       ///< of the running job; empty = none
  Progress latest_;
  bool latest_shown_ = true;
  Clock::time_point begin_;
  int64_t done_at_begin_ = 0;
  Clock::time_point shown_at_;
};

}  // namespace seqboat::app
