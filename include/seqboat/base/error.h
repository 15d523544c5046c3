#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace seqboat {

/// What kind of thing went wrong. The program turns each into its exit code (docs/CLI.md); libraries only throw.
enum class ErrorKind {
  kFailed,    ///< failed while running                                  exit 1
  kUsage,     ///< wrong usage, unknown recipe                           exit 2
  kConfig,    ///< invalid recipe or config                              exit 3
  kData,      ///< bad data, an empty file too                           exit 4
  kModel,     ///< model, checkpoint or state that does not fit          exit 5
  kDiverged,  ///< non-finite loss                                       exit 6
  kResource,  ///< out of memory or disk                                 exit 7
  kNetwork,   ///< network                                               exit 8
};

/// The exit code of the program for each kind.
int exit_code(ErrorKind kind) noexcept;

/// The one exception type of the torch-free libraries. The message says what, where, what was expected and what was found.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const noexcept { return kind_; }

 private:
  ErrorKind kind_;
};

template <class... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace seqboat

/// Throws seqboat::Error of the given kind with a formatted message unless the condition holds. For input from outside.
#define SEQBOAT_CHECK(condition, kind, ...)               \
  do {                                                    \
    if (!(condition)) ::seqboat::fail(kind, __VA_ARGS__); \
  } while (false)

/// For our own invariants, which no input can trip. Compiled out in release builds.
#ifdef NDEBUG
#define SEQBOAT_DCHECK(condition) static_cast<void>(0)
#else
#define SEQBOAT_DCHECK(condition)                                                                                                \
  do {                                                                                                                           \
    if (!(condition)) ::seqboat::fail(::seqboat::ErrorKind::kFailed, "{}:{}: {} does not hold", __FILE__, __LINE__, #condition); \
  } while (false)
#endif
