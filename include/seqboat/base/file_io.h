#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace seqboat {

/// The whole file as bytes. Error (kFailed) naming the path if it cannot be read.
std::string read_file(const std::filesystem::path& path);

/// Writes a file whole or not at all: temporary name in the same folder, fsync, rename, fsync of the folder.
/// A full disk is Error (kResource), any other failure Error (kFailed); what stood there before stays as it was.
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

/// A file mapped read-only; an empty file maps to nothing.
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

}  // namespace seqboat
