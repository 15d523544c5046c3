#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace seqboat {

/// The whole file as bytes. Error (kFailed) naming the path if it cannot be read.
std::string read_file(const std::filesystem::path& path);

/// Whether an errno of opening or writing a file says that there is no room for it: a full disk, a used-up quota, the limit on file sizes. Error
/// (kResource), where others are (kFailed).
bool is_out_of_space(int error) noexcept;

/// Writes a file whole or not at all: temporary name in the same folder, fsync, rename, fsync of the folder.
/// A full disk is Error (kResource), any other failure Error (kFailed), also a path at which a pipe or a device stands; what stood there before stays
/// as it was.
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

/// The same in pieces, for content too large to hold. Nothing stands at `path` (or what stood there stays) until commit() returns; a writer that is
/// destroyed before that, by an exception say, takes its temporary file with it. Errors as write_file_atomically.
class AtomicFileWriter {
 public:
  explicit AtomicFileWriter(const std::filesystem::path& path);
  ~AtomicFileWriter();
  AtomicFileWriter(const AtomicFileWriter&) = delete;
  AtomicFileWriter& operator=(const AtomicFileWriter&) = delete;

  void append(std::string_view bytes);  ///< small pieces are collected: one byte at a time is fine
  void commit();                        ///< once, as the last call

 private:
  void write_out(const char* data, size_t size);
  [[noreturn]] void fail_with(const char* doing, int error) const;

  std::filesystem::path path_;
  std::filesystem::path temporary_;  ///< empty once there is nothing to remove
  std::string buffer_;
  int fd_ = -1;
};

/// A regular file mapped read-only; an empty file maps to nothing. Error (kFailed) naming the path if it cannot be opened or is no regular file.
/// Copies share the mapping. The file must not shrink while it is mapped (the system then ends the program with SIGBUS): files that this
/// project writes are replaced by rename, never shortened.
class MappedFile {
 public:
  static MappedFile open(const std::filesystem::path& path);
  const char* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::shared_ptr<const void> owner_;
  const char* data_ = nullptr;
  size_t size_ = 0;
};

/// FNV-1a over eight bytes at a time, going on from `seed`: finds damage and mix-ups, not malice. The same on every little-endian machine.
uint64_t checksum(const void* data, size_t size, uint64_t seed = 0xcbf29ce484222325) noexcept;

}  // namespace seqboat
