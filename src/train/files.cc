#include "train/files.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"

namespace seqboat::train {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail_with(const fs::path& path, const char* what, int error) {
  fail(is_out_of_space(error) ? ErrorKind::kResource : ErrorKind::kFailed, "{}: {}: {}", path.string(), what, std::strerror(error));
}

void sync_folder(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

}  // namespace

void make_folders(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) fail_with(path, "the folder cannot be made", error.value());
}

void remove_folder(const fs::path& path) noexcept {
  std::error_code ignored;
  fs::remove_all(path, ignored);
}

void replace_folder(const fs::path& from, const fs::path& to) {
  sync_folder(from);
  std::error_code error;
  if (!fs::exists(to, error)) {
    if (::rename(from.c_str(), to.c_str()) != 0) fail_with(to, "the folder cannot be put in its place", errno);
  } else if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) {
    remove_folder(from);
  } else {
    // A file system that cannot exchange: for a moment the name is gone, and an interruption then leaves the old folder beside it.
    fs::path old = from;
    old += "-old";
    remove_folder(old);
    if (::rename(to.c_str(), old.c_str()) != 0) fail_with(to, "the folder cannot be replaced", errno);
    if (::rename(from.c_str(), to.c_str()) != 0) {
      const int why = errno;
      ::rename(old.c_str(), to.c_str());
      fail_with(to, "the folder cannot be put in its place", why);
    }
    remove_folder(old);
  }
  sync_folder(to.parent_path());
}

LineFile::~LineFile() {
  if (fd_ >= 0) ::close(fd_);
}

void LineFile::open(const fs::path& path) {
  path_ = path;
  fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd_ < 0) fail_with(path_, "cannot be opened for writing", errno);
}

void LineFile::append(std::string_view line) {
  std::string text(line);
  text += '\n';
  for (size_t done = 0; done < text.size();) {
    const ssize_t written = ::write(fd_, text.data() + done, text.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_with(path_, "cannot be written", errno);
    done += static_cast<size_t>(written);
  }
}

void LineFile::sync() {
  if (fd_ >= 0 && ::fdatasync(fd_) != 0 && errno != EINVAL) fail_with(path_, "cannot be written", errno);
}

RunLock::~RunLock() {
  if (fd_ >= 0) ::close(fd_);
}

void RunLock::take(const fs::path& run_dir) {
  const fs::path file = run_dir / ".lock";
  fd_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd_ < 0) fail_with(file, "cannot be opened for writing", errno);
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    fail(ErrorKind::kFailed, "{}: another process trains in this run directory", run_dir.string());
  }
}

}  // namespace seqboat::train
