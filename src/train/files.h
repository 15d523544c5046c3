#pragma once

// Private to src/train: folders and append-only files, with errors that name the path.

#include <filesystem>
#include <string>
#include <string_view>

namespace seqboat::train {

/// The folder and those above it. Error (kResource) for a full disk, else (kFailed).
void make_folders(const std::filesystem::path& path);

/// The folder and all in it, if it is there; what cannot be removed stays.
void remove_folder(const std::filesystem::path& path) noexcept;

/// Puts folder `from` in the place of `to`, in one step where the system can (Linux), and removes what stood there; both in the same folder, which is
/// fsynced. Error (kResource, kFailed), with `to` as it was.
void replace_folder(const std::filesystem::path& from, const std::filesystem::path& to);

/// A file that grows line by line; every line goes to the system at once and whole.
class LineFile {
 public:
  LineFile() = default;
  ~LineFile();
  LineFile(const LineFile&) = delete;
  LineFile& operator=(const LineFile&) = delete;

  void open(const std::filesystem::path& path);  ///< to append; made if it is missing. Error (kResource, kFailed)
  bool is_open() const { return fd_ >= 0; }
  void append(std::string_view line);  ///< without its line end. Error (kResource, kFailed)
  void sync();

 private:
  std::filesystem::path path_;
  int fd_ = -1;
};

/// A lock that one process at a time holds on a file, until it ends. Error (kFailed) if another one holds it.
class RunLock {
 public:
  RunLock() = default;
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;
  void take(const std::filesystem::path& run_dir);

 private:
  int fd_ = -1;
};

}  // namespace seqboat::train
