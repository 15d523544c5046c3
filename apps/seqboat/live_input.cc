#include "live_input.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "seqboat/base/error.h"

namespace seqboat::app {

size_t LiveInput::read(std::span<uint8_t> buffer) {
  // A signal that comes between looking at the flag and waiting interrupts nothing: so the wait has an end.
  constexpr int kWaitMs = 100;
  for (;;) {
    if (stopped()) return 0;
    // A pipe's writer is told of a reader that went away even when it asks for nothing.
    pollfd fds[2] = {{STDIN_FILENO, POLLIN, 0}, {STDOUT_FILENO, 0, 0}};
    const int ready = ::poll(fds, 2, kWaitMs);
    if (ready < 0 && errno != EINTR) fail(ErrorKind::kFailed, "standard input: {}", std::strerror(errno));
    if (ready <= 0) continue;
    if ((fds[1].revents & POLLERR) != 0) {
      reader_gone_ = true;
      return 0;
    }
    if (fds[0].revents == 0) continue;
    const ssize_t got = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    SEQBOAT_CHECK(got >= 0, ErrorKind::kFailed, "standard input: {}", std::strerror(errno));
    bytes_ += got;
    return static_cast<size_t>(got);
  }
}

}  // namespace seqboat::app
