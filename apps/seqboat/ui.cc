#include "ui.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"

namespace seqboat::app {
namespace {

std::atomic<int> stop_signal{0};
std::atomic<bool> cooperative{false};
std::atomic<bool> interrupt_was_ignored{false};
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free, "signal handlers need them");

void on_signal(int signal, siginfo_t* info, void*) {
  // Shells start background jobs with SIGINT ignored, so that the terminal's Ctrl-C passes them by; one that somebody sent is meant.
  if (signal == SIGINT && interrupt_was_ignored.load() && info->si_code == SI_KERNEL) return;
  if (cooperative.load() && stop_signal.exchange(signal) == 0) return;
  _exit(128 + signal);
}

bool environment_set(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0';
}

// Writes all of it; the number of the error, or 0.
int write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    text.remove_prefix(static_cast<size_t>(n));
  }
  return 0;
}

std::string clock_text(double seconds) {
  const auto s = static_cast<int64_t>(std::llround(std::max(0.0, seconds)));
  if (s < 3600) return fmt::format("{}:{:02}", s / 60, s % 60);
  if (s < 86400) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}d {:02}h", s / 86400, s / 3600 % 24);
}

// Columns on the terminal: bytes that begin a character (fields are plain text and block characters).
size_t columns(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

constexpr auto kBarInterval = std::chrono::milliseconds(100);
constexpr auto kLineInterval = std::chrono::seconds(10);

}  // namespace

void prepare_streams() {
  for (int fd = 0; fd <= 2; ++fd) {
    // The lowest free number is the one that was closed. For reading only: writing to it stays an error.
    if (fcntl(fd, F_GETFD) == -1 && errno == EBADF) static_cast<void>(!::open("/dev/null", O_RDONLY));
  }
  // Both become errors of the write that met them.
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGXFSZ, SIG_IGN);
}

void install_signal_handlers() {
  struct sigaction action = {};
  action.sa_sigaction = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART | SA_SIGINFO;
  struct sigaction old = {};
  sigaction(SIGINT, nullptr, &old);
  interrupt_was_ignored = old.sa_handler == SIG_IGN;
  for (const int signal : {SIGINT, SIGTERM}) sigaction(signal, &action, nullptr);
}

const std::atomic<int>& become_cooperative() {
  cooperative = true;
  return stop_signal;
}

bool is_terminal(int fd) {
  const char* term = std::getenv("TERM");
  return isatty(fd) != 0 && term != nullptr && std::strcmp(term, "dumb") != 0;
}

bool wants_colour(int fd) {
  return is_terminal(fd) && !environment_set("NO_COLOR");
}

bool locale_is_utf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    if (!environment_set(name)) continue;
    std::string value = std::getenv(name);
    std::transform(value.begin(), value.end(), value.begin(), [](unsigned char c) { return std::tolower(c); });
    return value.find("utf-8") != std::string::npos || value.find("utf8") != std::string::npos;
  }
  return false;
}

bool write_stdout(std::string_view text) {
  const int error = write_all(STDOUT_FILENO, text);
  if (error == 0 || error == EPIPE) return error == 0;
  fail(is_out_of_space(error) ? ErrorKind::kResource : ErrorKind::kFailed, "standard output: {}", std::strerror(error));
}

void write_stderr(std::string_view text) {
  static_cast<void>(write_all(STDERR_FILENO, text));
}

void print_error(std::string_view message) {
  // One line, whatever the message holds.
  std::string line(message);
  std::replace_if(
      line.begin(), line.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
  write_stderr(wants_colour(STDERR_FILENO) ? fmt::format("seqboat: \033[1;31merror:\033[0m {}\n", line) : fmt::format("seqboat: error: {}\n", line));
}

ConsoleReporter::ConsoleReporter(const CommonOptions& options) : options_(options) {
  terminal_ = is_terminal(STDERR_FILENO);
  colour_ = wants_colour(STDERR_FILENO);
  unicode_ = locale_is_utf8();
}

ConsoleReporter::~ConsoleReporter() {
  // An exception may have left the bar standing: what follows begins on a line of its own.
  if (bar_shown_) write_stderr("\n");
}

void ConsoleReporter::log(std::string_view line) {
  if (options_.quiet) return;
  erase_bar();
  write_stderr(fmt::format("{}\n", line));
}

void ConsoleReporter::warn(std::string_view line) {
  erase_bar();
  write_stderr(colour_ ? fmt::format("seqboat: \033[1;33mwarning:\033[0m {}\n", line) : fmt::format("seqboat: warning: {}\n", line));
}

void ConsoleReporter::progress(const Progress& progress) {
  if (progress.label != label_) {
    finish_progress();
    label_ = progress.label;
    begin_ = Clock::now();
    done_at_begin_ = progress.done;
    shown_at_ = terminal_ ? Clock::time_point() : begin_;  // a bar at once, a line after the first interval
  }
  latest_ = progress;
  latest_shown_ = false;
  if (progress_due()) show(progress, /*last=*/false);
}

bool ConsoleReporter::progress_due() const {
  if (options_.quiet || label_.empty()) return false;
  const auto since = Clock::now() - shown_at_;
  return terminal_ ? since >= kBarInterval : since >= kLineInterval;
}

void ConsoleReporter::finish_progress() {
  if (label_.empty()) return;
  if (!options_.quiet && (!latest_shown_ || bar_shown_)) show(latest_, /*last=*/true);
  if (bar_shown_) write_stderr("\n");
  bar_shown_ = false;
  label_.clear();
}

void ConsoleReporter::result(const nlohmann::ordered_json& json, std::string_view text) {
  finish_progress();
  if (options_.json) {
    write_stdout(json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
  } else {
    write_stdout(text);
  }
}

void ConsoleReporter::show(const Progress& progress, bool last) {
  const std::string line = line_of(progress, last);
  if (terminal_) {
    write_stderr("\r\033[K" + line);  // to the line's beginning, and clear it
    bar_shown_ = true;
  } else {
    write_stderr(line + "\n");
  }
  shown_at_ = Clock::now();
  latest_shown_ = true;
}

void ConsoleReporter::erase_bar() {
  if (!bar_shown_) return;
  write_stderr("\r\033[K");
  bar_shown_ = false;
}

std::string ConsoleReporter::line_of(const Progress& progress, bool last) const {
  const bool has_total = progress.total > 0;
  const double share = has_total ? std::clamp(static_cast<double>(progress.done) / static_cast<double>(progress.total), 0.0, 1.0) : 0.0;
  const double elapsed = std::chrono::duration<double>(Clock::now() - begin_).count();

  // The most wanted first: on a narrow terminal the last ones are left out.
  std::vector<std::string> parts;
  // A terminal's line is short: it goes without the word.
  const std::string count = has_total ? fmt::format("{}/{}", progress.done, progress.total) : fmt::format("{}", progress.done);
  parts.push_back(terminal_ && has_total ? count : progress.unit + " " + count);
  if (last) {
    parts.push_back("in " + clock_text(elapsed));
  } else {
    double left = progress.seconds_left;
    const int64_t fresh = progress.done - done_at_begin_;
    if (left < 0 && has_total && fresh > 0 && elapsed > 0.5) {
      left = elapsed * static_cast<double>(progress.total - progress.done) / static_cast<double>(fresh);
    }
    if (left >= 0) parts.push_back("left " + clock_text(left));
  }
  for (const ProgressField& field : progress.fields) parts.push_back(field.name + " " + field.text);

  if (!terminal_) {
    return has_total ? fmt::format("{}: {:.0f}%  {}", progress.label, 100 * share, fmt::join(parts, "  "))
                     : fmt::format("{}: {}", progress.label, fmt::join(parts, "  "));
  }

  winsize size = {};
  const bool size_known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  const size_t width = size_known ? size.ws_col : 80;
  const auto fits = [&](size_t used, size_t more) { return used + more < width; };  // the last column stays free: writing there may wrap

  constexpr size_t kShortBar = 8;
  constexpr size_t kLongBar = 30;
  const std::string label = columns(progress.label) + kShortBar + 10 < width ? progress.label + "  " : "";
  const std::string percent = has_total ? fmt::format(" {:3.0f}%", 100 * share) : "";
  size_t used = columns(label) + percent.size() + (has_total ? kShortBar : 0);
  std::string tail;
  for (const std::string& part : parts) {
    if (!fits(used, columns(part) + 2)) break;
    tail += "  " + part;
    used += columns(part) + 2;
  }
  if (!has_total) return label + tail;

  // The bar takes what the figures leave.
  size_t bar = kShortBar;
  while (bar < kLongBar && fits(used, bar - kShortBar + 1)) ++bar;
  const auto full = static_cast<size_t>(share * static_cast<double>(bar));
  std::string done;
  std::string open;
  for (size_t i = 0; i < bar; ++i) {
    if (i < full) {
      done += unicode_ ? "\u2588" : "#";
    } else {
      open += unicode_ ? "\u2591" : "-";
    }
  }
  return label + (colour_ ? fmt::format("\033[32m{}\033[0m{}", done, open) : done + open) + percent + tail;
}

}  // namespace seqboat::app
