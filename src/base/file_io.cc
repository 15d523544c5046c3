#include "seqboat/base/file_io.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <new>
#include <system_error>

#include "seqboat/base/error.h"

namespace seqboat {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 18;
constexpr size_t kMaxWriteBytes = size_t{1} << 30;  // write() takes less than 2 GiB at a time

std::string describe(int error) {
  return std::generic_category().message(error);
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

int open_retrying(const char* path, int flags, mode_t mode = 0) {
  int fd;
  do {
    fd = ::open(path, flags | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EINTR);
  return fd;
}

// O_NONBLOCK: opening a pipe for reading must not wait for someone to write into it.
int open_for_reading(const std::filesystem::path& path) {
  const int fd = open_retrying(path.c_str(), O_RDONLY | O_NONBLOCK);
  SEQBOAT_CHECK(fd >= 0, ErrorKind::kFailed, "{}: cannot be opened for reading: {}", path.string(), describe(errno));
  return fd;
}

struct stat regular_file_status(int fd, const std::filesystem::path& path) {
  struct stat status {};
  SEQBOAT_CHECK(::fstat(fd, &status) == 0, ErrorKind::kFailed, "{}: cannot be examined: {}", path.string(), describe(errno));
  SEQBOAT_CHECK(!S_ISDIR(status.st_mode), ErrorKind::kFailed, "{}: expected a file, found a folder", path.string());
  SEQBOAT_CHECK(S_ISREG(status.st_mode), ErrorKind::kFailed, "{}: expected a regular file, found a device, pipe or socket", path.string());
  return status;
}

std::filesystem::path folder_of(const std::filesystem::path& path) {
  const std::filesystem::path folder = path.parent_path();
  return folder.empty() ? std::filesystem::path(".") : folder;
}

// Process id and a counter keep writers of the same file apart; O_EXCL settles what is left. The target's own name is cut, so that a long but
// legal one stays legal.
std::filesystem::path temporary_name(const std::filesystem::path& path) {
  static std::atomic<uint64_t> counter{0};
  return folder_of(path) / fmt::format(".{}.{}-{}.tmp", path.filename().string().substr(0, 128), ::getpid(), counter++);
}

}  // namespace

std::string read_file(const std::filesystem::path& path) {
  const FileDescriptor fd(open_for_reading(path));
  const struct stat status = regular_file_status(fd.get(), path);
  std::string content;
  size_t used = 0;
  // Files of /proc say size 0: read until nothing comes.
  for (;;) {
    content.resize(std::max<size_t>(used + 4096, std::max<size_t>(static_cast<size_t>(status.st_size) + 1, used + used / 2)));
    const ssize_t got = ::read(fd.get(), content.data() + used, std::min(content.size() - used, kMaxWriteBytes));
    if (got < 0 && errno == EINTR) continue;
    SEQBOAT_CHECK(got >= 0, ErrorKind::kFailed, "{}: cannot be read: {}", path.string(), describe(errno));
    if (got == 0) break;
    used += static_cast<size_t>(got);
  }
  content.resize(used);
  return content;
}

bool is_out_of_space(int error) noexcept {
  return error == ENOSPC || error == EDQUOT || error == EFBIG;
}

void write_file_atomically(const std::filesystem::path& path, std::string_view content) {
  AtomicFileWriter writer(path);
  writer.append(content);
  writer.commit();
}

AtomicFileWriter::AtomicFileWriter(const std::filesystem::path& path) : path_(path) {
  SEQBOAT_CHECK(path.has_filename(), ErrorKind::kFailed, "{}: expected the name of a file to write", path.string());
  // A rename would put a file in the place of /dev/null. (One into the place of a folder fails by itself.)
  struct stat there = {};
  const bool exists = ::stat(path.c_str(), &there) == 0;
  SEQBOAT_CHECK(!exists || S_ISREG(there.st_mode) || S_ISDIR(there.st_mode), ErrorKind::kFailed,
                "{}: cannot be written: it is a pipe or a device, and no file; nothing was changed", path.string());
  do {
    temporary_ = temporary_name(path_);
    fd_ = open_retrying(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0666);
  } while (fd_ < 0 && errno == EEXIST);
  if (fd_ < 0) {
    const int error = errno;
    temporary_.clear();
    fail_with("no file can be made in its folder", error);
  }
}

AtomicFileWriter::~AtomicFileWriter() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFileWriter::fail_with(const char* doing, int error) const {
  const bool full = is_out_of_space(error) || error == ENOMEM;
  fail(full ? ErrorKind::kResource : ErrorKind::kFailed, "{}: cannot be written: {}: {}; nothing was changed", path_.string(), doing,
       error == EFBIG ? "the limit on file sizes is reached" : describe(error));
}

void AtomicFileWriter::write_out(const char* data, size_t size) {
  while (size > 0) {
    const ssize_t wrote = ::write(fd_, data, std::min(size, kMaxWriteBytes));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) fail_with("writing failed", wrote < 0 ? errno : ENOSPC);
    data += wrote;
    size -= static_cast<size_t>(wrote);
  }
}

void AtomicFileWriter::append(std::string_view bytes) {
  if (buffer_.size() + bytes.size() > kBufferBytes) {
    write_out(buffer_.data(), buffer_.size());
    buffer_.clear();
  }
  if (bytes.size() >= kBufferBytes) {
    write_out(bytes.data(), bytes.size());
  } else {
    if (buffer_.capacity() < kBufferBytes) buffer_.reserve(kBufferBytes);
    buffer_.append(bytes);
  }
}

void AtomicFileWriter::commit() {
  SEQBOAT_CHECK(fd_ >= 0, ErrorKind::kFailed, "{}: commit() was called twice", path_.string());
  const std::filesystem::path its_folder = folder_of(path_);  // now: once the file stands, want of memory must not be reported any more
  write_out(buffer_.data(), buffer_.size());
  buffer_.clear();
  // Some file systems tell of a full disk only here.
  if (::fsync(fd_) != 0 && errno != EINVAL) fail_with("its content could not be brought to the disk", errno);
  const int fd = fd_;
  fd_ = -1;
  if (::close(fd) != 0 && errno != EINTR) fail_with("closing failed", errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_with("the finished file could not be moved into place", errno);
  temporary_.clear();
  // The new name is durable when the folder is. A folder that cannot be opened or synchronised (some network file systems) is no reason to fail:
  // the file stands. A real input/output error is.
  const int folder = open_retrying(its_folder.c_str(), O_RDONLY | O_DIRECTORY);
  if (folder >= 0) {
    const int result = ::fsync(folder);
    const int error = errno;
    ::close(folder);
    SEQBOAT_CHECK(result == 0 || error != EIO, ErrorKind::kFailed, "{}: written, but its folder could not be brought to the disk: {}", path_.string(),
                  describe(error));
  }
}

MappedFile MappedFile::open(const std::filesystem::path& path) {
  const FileDescriptor fd(open_for_reading(path));
  const struct stat status = regular_file_status(fd.get(), path);
  MappedFile file;
  file.size_ = static_cast<size_t>(status.st_size);
  if (file.size_ == 0) return file;
  void* address = ::mmap(nullptr, file.size_, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  SEQBOAT_CHECK(address != MAP_FAILED, errno == ENOMEM ? ErrorKind::kResource : ErrorKind::kFailed, "{}: {} bytes cannot be mapped: {}",
                path.string(), file.size_, describe(errno));
  const size_t size = file.size_;
  file.owner_ = std::shared_ptr<const void>(address, [size](const void* mapped) { ::munmap(const_cast<void*>(mapped), size); });
  file.data_ = static_cast<const char*>(address);
  return file;
}

uint64_t checksum(const void* data, size_t size, uint64_t seed) noexcept {
  const auto* bytes = static_cast<const unsigned char*>(data);
  uint64_t hash = seed;
  size_t i = 0;
  for (; i + 8 <= size; i += 8) {
    uint64_t word;
    std::memcpy(&word, bytes + i, 8);
    hash = (hash ^ word) * 0x100000001b3;
    hash ^= hash >> 32;
  }
  for (; i < size; ++i) hash = (hash ^ bytes[i]) * 0x100000001b3;
  return hash;
}

}  // namespace seqboat
