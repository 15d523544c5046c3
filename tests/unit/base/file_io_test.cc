#include "seqboat/base/file_io.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "unit/base/file_size_limit.h"
#include "unit/base/temp_dir.h"

namespace seqboat {
namespace {

using test::expect_error;
using test::FileSizeLimit;
using test::TempDir;
using Names = std::vector<std::string>;

TEST(ReadFile, GivesEveryByte) {
  TempDir dir;
  std::string content;
  for (int i = 0; i < 100000; ++i) content += static_cast<char>(i * 7);
  write_file_atomically(dir / "f", content);
  EXPECT_EQ(read_file(dir / "f"), content);
  write_file_atomically(dir / "f", "");
  EXPECT_EQ(read_file(dir / "f"), "");
  EXPECT_FALSE(read_file("/proc/self/stat").empty());  // says its size is 0
}

TEST(ReadFile, NamesWhatItCannotRead) {
  TempDir dir;
  expect_error(ErrorKind::kFailed, {"absent", "No such file"}, [&] { read_file(dir / "absent"); });
  expect_error(ErrorKind::kFailed, {dir.path().string(), "found a folder"}, [&] { read_file(dir.path()); });
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  expect_error(ErrorKind::kFailed, {"pipe", "regular file"}, [&] { read_file(dir / "pipe"); });  // and does not wait for a writer
  expect_error(ErrorKind::kFailed, {"pipe", "regular file"}, [&] { MappedFile::open(dir / "pipe"); });
}

TEST(MappedFile, SharesItsBytesWithCopies) {
  TempDir dir;
  write_file_atomically(dir / "f", "hello");
  MappedFile copy;
  {
    const MappedFile file = MappedFile::open(dir / "f");
    copy = file;
  }
  EXPECT_EQ(std::string(copy.data(), copy.size()), "hello");
  write_file_atomically(dir / "f", "other");  // a rename: the mapping keeps the old file
  EXPECT_EQ(std::string(copy.data(), copy.size()), "hello");
  write_file_atomically(dir / "empty", "");
  EXPECT_EQ(MappedFile::open(dir / "empty").size(), 0u);
  expect_error(ErrorKind::kFailed, {"absent"}, [&] { MappedFile::open(dir / "absent"); });
}

TEST(WriteFileAtomically, ReplacesAndLeavesNothingElse) {
  TempDir dir;
  write_file_atomically(dir / "f", "one");
  write_file_atomically(dir / "f", "two");
  EXPECT_EQ(read_file(dir / "f"), "two");
  EXPECT_EQ(dir.list(), Names{"f"});
  const std::string longest(255, 'n');  // the longest legal name: the temporary one must not be longer
  write_file_atomically(dir / longest, "x");
  EXPECT_EQ(read_file(dir / longest), "x");
}

TEST(WriteFileAtomically, WorksInTheCurrentFolder) {
  TempDir dir;
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(dir.path());
  write_file_atomically("plain", "x");
  std::filesystem::current_path(before);
  EXPECT_EQ(dir.list(), Names{"plain"});
}

TEST(WriteFileAtomically, KeepsTheModeThatTheUserAsksFor) {
  TempDir dir;
  const mode_t old = ::umask(027);
  write_file_atomically(dir / "f", "x");
  ::umask(old);
  struct stat status {};
  ASSERT_EQ(::stat((dir / "f").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0640u);
}

TEST(WriteFileAtomically, CannotWriteThere) {
  TempDir dir;
  write_file_atomically(dir / "f", "x");
  expect_error(ErrorKind::kFailed, {"f/below", "Not a directory"}, [&] { write_file_atomically(dir / "f/below", "y"); });
  expect_error(ErrorKind::kFailed, {"absent/f", "No such file"}, [&] { write_file_atomically(dir / "absent/f", "y"); });
  expect_error(ErrorKind::kFailed, {"/proc/f"}, [&] { write_file_atomically("/proc/f", "y"); });
  std::filesystem::create_directory(dir / "folder");
  expect_error(ErrorKind::kFailed, {"folder", "moved into place"}, [&] { write_file_atomically(dir / "folder", "y"); });
  expect_error(ErrorKind::kFailed, {"name of a file"}, [&] { write_file_atomically(dir.path() / "", "y"); });
  EXPECT_EQ(dir.list(), (Names{"f", "folder"}));
  EXPECT_EQ(read_file(dir / "f"), "x");
}

TEST(WriteFileAtomically, TakesNoPipesPlace) {
  TempDir dir;
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  expect_error(ErrorKind::kFailed, {"pipe", "no file"}, [&] { write_file_atomically(dir / "pipe", "x"); });
  EXPECT_TRUE(std::filesystem::is_fifo(dir / "pipe"));
  EXPECT_EQ(dir.list(), Names{"pipe"});
}

TEST(WriteFileAtomically, ReadOnlyFolderHarmsNothing) {
  if (::geteuid() == 0) GTEST_SKIP() << "root is not bound by permissions; ReadOnlyMount covers this";
  TempDir dir;
  write_file_atomically(dir / "f", "old");
  ASSERT_EQ(::chmod(dir.path().c_str(), 0500), 0);
  expect_error(ErrorKind::kFailed, {"f", "Permission denied"}, [&] { write_file_atomically(dir / "f", "new"); });
  ASSERT_EQ(::chmod(dir.path().c_str(), 0700), 0);
  EXPECT_EQ(read_file(dir / "f"), "old");
  EXPECT_EQ(dir.list(), Names{"f"});
}

TEST(WriteFileAtomically, NoRoomHarmsNothing) {
  TempDir dir;
  write_file_atomically(dir / "f", "old");
  for (size_t size : {size_t{70000}, size_t{1} << 20}) {  // collected in the buffer; written straight through
    const FileSizeLimit limit(65536);
    expect_error(ErrorKind::kResource, {"f", "nothing was changed"}, [&] { write_file_atomically(dir / "f", std::string(size, 'x')); });
  }
  EXPECT_EQ(read_file(dir / "f"), "old");
  EXPECT_EQ(dir.list(), Names{"f"});
}

class Mount {
 public:
  Mount(const std::filesystem::path& where, unsigned long flags, const char* options) : where_(where) {
    mounted_ = ::mount("none", where.c_str(), "tmpfs", flags, options) == 0;
  }
  ~Mount() {
    if (mounted_) ::umount2(where_.c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }

 private:
  std::filesystem::path where_;
  bool mounted_;
};

TEST(WriteFileAtomically, FullDiskHarmsNothing) {
  TempDir dir;
  const Mount mount(dir.path(), 0, "size=64k");
  if (!mount.mounted()) GTEST_SKIP() << "no file system can be mounted here: " << std::strerror(errno);
  write_file_atomically(dir / "f", "old");
  expect_error(ErrorKind::kResource, {"f", "No space left"}, [&] { write_file_atomically(dir / "f", std::string(100000, 'x')); });
  EXPECT_EQ(read_file(dir / "f"), "old");
  EXPECT_EQ(dir.list(), Names{"f"});
  write_file_atomically(dir / "f", std::string(30000, 'y'));  // the temporary file gave its room back
  EXPECT_EQ(read_file(dir / "f").size(), 30000u);
}

TEST(WriteFileAtomically, ReadOnlyMount) {
  TempDir dir;
  const Mount mount(dir.path(), MS_RDONLY, "size=64k");
  if (!mount.mounted()) GTEST_SKIP() << "no file system can be mounted here: " << std::strerror(errno);
  expect_error(ErrorKind::kFailed, {"f", "Read-only file system"}, [&] { write_file_atomically(dir / "f", "new"); });
}

TEST(AtomicFileWriter, NothingStandsThereBeforeCommit) {
  TempDir dir;
  write_file_atomically(dir / "f", "old");
  {
    AtomicFileWriter writer(dir / "f");
    writer.append("abandoned");
    EXPECT_EQ(read_file(dir / "f"), "old");
  }
  EXPECT_EQ(dir.list(), Names{"f"});
  AtomicFileWriter writer(dir / "f");
  std::string expected;
  for (int i = 0; i < 200000; ++i) {
    const std::string piece = std::to_string(i) + "\n";
    writer.append(piece);
    expected += piece;
  }
  const std::string large(600000, 'z');
  writer.append(large);
  writer.append("end");
  writer.commit();
  EXPECT_EQ(read_file(dir / "f"), expected + large + "end");
  EXPECT_EQ(dir.list(), Names{"f"});
  expect_error(ErrorKind::kFailed, {"twice"}, [&] { writer.commit(); });
}

}  // namespace
}  // namespace seqboat
