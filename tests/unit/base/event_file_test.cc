#include "seqboat/base/event_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "seqboat/base/file_io.h"
#include "unit/base/file_size_limit.h"
#include "unit/base/temp_dir.h"

namespace seqboat {
namespace {

using test::expect_error;
using test::FileSizeLimit;
using test::TempDir;

std::string hex(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
}

// What open(_, 301, 1.5) writes, made by the reference implementation of protocol buffers: {wall_time: 1.5, file_version: "brain.Event:2"} and
// {wall_time: 1.5, step: 301, session_log {status: START}}.
constexpr std::string_view kOpening =
    "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c"
    "100000000000000095fbfe1809000000000000f83f10ad023a020801d17949d4";

// The float32 of the last point in the file: the last bytes of its record, before the checksum.
float last_value(const EventFile& file) {
  const std::string bytes = read_file(file.path());
  float value;
  std::memcpy(&value, bytes.data() + bytes.size() - 8, sizeof(value));
  return value;
}

TEST(EventFile, WritesTheBytesOfTheReference) {
  TempDir dir;
  EventFile file;
  EXPECT_FALSE(file.is_open());
  file.open(dir.path(), 301, 1.5);
  EXPECT_TRUE(file.is_open());
  EXPECT_EQ(hex(read_file(file.path())), kOpening);
  // {wall_time, step: 310, summary {value {tag: "train/loss", simple_value: 2.25}, value {tag: "lr", simple_value: 0}}}
  file.add_scalars(310, 1700000000.25, {{"train/loss", 2.25}, {"lr", 0}});
  const std::string scalars =
      "2c00000000000000f4aecc450900001040fc54d94110b6022a1e0a110a0a747261696e2f6c6f737315000010400a090a026c7215000000004dec5942";
  EXPECT_EQ(hex(read_file(file.path())), std::string(kOpening) + scalars);
  // {summary {value {tag: "recipe", tensor {dtype: DT_STRING, tensor_shape {}, string_val: "a\n" * 70}, metadata {plugin_data {plugin_name: "text"},
  // data_class: DATA_CLASS_TENSOR}}}}: lengths of two bytes, and zeros left out.
  std::string text;
  for (int i = 0; i < 70; ++i) text += "a\n";
  file.add_text(0, 0, "recipe", text);
  EXPECT_EQ(hex(read_file(file.path())), std::string(kOpening) + scalars +
                                             "b000000000000000964d09342aad010aaa010a0672656369706542930108071200428c01" + hex(text) +
                                             "4a0a0a060a04746578742002db67e094");
  file.sync();
}

TEST(EventFile, NoScalarsAreNoRecord) {
  TempDir dir;
  EventFile file;
  file.open(dir.path(), 301, 1.5);
  file.add_scalars(310, 2.5, {});
  EXPECT_EQ(hex(read_file(file.path())), kOpening);
}

TEST(EventFile, RoundsToFloat32) {
  TempDir dir;
  EventFile file;
  file.open(dir.path(), 0, 1.5);
  const auto written = [&](double value) {
    file.add_scalars(1, 2.5, {{"x", value}});
    return last_value(file);
  };
  EXPECT_EQ(written(0.1), 0.1f);
  EXPECT_EQ(written(-1e-320), -0.0f);
  EXPECT_EQ(written(3.4028234663852886e38), std::numeric_limits<float>::max());
  EXPECT_EQ(written(1e39), std::numeric_limits<float>::infinity());
  EXPECT_EQ(written(-std::numeric_limits<double>::max()), -std::numeric_limits<float>::infinity());
  EXPECT_EQ(written(std::numeric_limits<double>::infinity()), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(written(std::nan(""))));
}

TEST(EventFile, NameTellsTimeHostAndProcess) {
  TempDir dir;
  EventFile file;
  file.open(dir.path(), 0, 1700000000.75);
  const std::string name = file.path().filename().string();
  EXPECT_TRUE(name.starts_with("events.out.tfevents.1700000000.")) << name;
  EXPECT_TRUE(name.ends_with(fmt::format(".{}", ::getpid()))) << name;
  EXPECT_EQ(file.path().parent_path(), dir.path());
  EXPECT_EQ(dir.list(), std::vector<std::string>{name});
}

// Readers go by the order of names, and process ids and clocks do not keep it.
TEST(EventFile, ComesAfterAllThatAreThere) {
  TempDir dir;
  std::string last;
  const auto expect_after = [&](double wall_time, const char* seconds) {
    EventFile file;
    file.open(dir.path(), 0, wall_time);
    const std::string name = file.path().filename().string();
    EXPECT_TRUE(name.starts_with(std::string("events.out.tfevents.") + seconds + ".")) << name;
    EXPECT_GT(name, last);
    last = name;
  };
  expect_after(5, "0000000005");
  expect_after(5.5, "0000000006");  // the same second
  expect_after(1, "0000000007");    // a clock that went back
  expect_after(1700000000, "1700000000");
  expect_after(std::nan(""), "1700000001");
  write_file_atomically(dir / "events.out.tfevents.1800000000.elsewhere.1.v2", "");
  expect_after(1700000002, "1800000001");
  // None of these has a number.
  for (const char* name : {"metrics.jsonl", "events.out.tfevents.", "events.out.tfevents.19000000001.x", "events.out.tfevents.190000000.x",
                           "events.out.tfevents.1900000000x", "events.out.tfevents.-900000000.x"}) {
    write_file_atomically(dir / name, "");
  }
  expect_after(1700000003, "1800000002");
}

TEST(EventFile, OpensAgainAsAnotherFile) {
  TempDir dir;
  EventFile file;
  file.open(dir.path(), 301, 1.5);
  const std::filesystem::path first = file.path();
  file.open(dir.path(), 301, 1.5);
  EXPECT_NE(file.path(), first);
  file.add_scalars(310, 2.5, {{"x", 1}});
  EXPECT_EQ(hex(read_file(first)), kOpening);
  EXPECT_GT(read_file(file.path()).size(), read_file(first).size());
}

TEST(EventFile, NamesWhereItCannotWrite) {
  TempDir dir;
  EventFile file;
  expect_error(ErrorKind::kFailed, {"absent/events.out.tfevents.", "No such file"}, [&] { file.open(dir / "absent", 0, 1.5); });
  write_file_atomically(dir / "plain", "x");
  expect_error(ErrorKind::kFailed, {"plain/events.out.tfevents.", "Not a directory"}, [&] { file.open(dir / "plain", 0, 1.5); });
  expect_error(ErrorKind::kFailed, {"/proc/events.out.tfevents."}, [&] { file.open("/proc", 0, 1.5); });
  EXPECT_FALSE(file.is_open());
}

TEST(EventFile, ReadOnlyFolder) {
  if (::geteuid() == 0) GTEST_SKIP() << "root is not bound by permissions";
  TempDir dir;
  ASSERT_EQ(::chmod(dir.path().c_str(), 0500), 0);
  EventFile file;
  expect_error(ErrorKind::kFailed, {"events.out.tfevents.", "Permission denied"}, [&] { file.open(dir.path(), 0, 1.5); });
  ASSERT_EQ(::chmod(dir.path().c_str(), 0700), 0);
}

TEST(EventFile, NoRoomToBegin) {
  TempDir dir;
  EventFile file;
  for (const rlim_t room : {0, 20, 50}) {  // nothing; half of the first record; half of the second
    const FileSizeLimit limit(room);
    expect_error(ErrorKind::kResource, {"events.out.tfevents.", "cannot be written"}, [&] { file.open(dir.path(), 301, 1.5); });
    EXPECT_FALSE(file.is_open());
    EXPECT_TRUE(dir.list().empty());
  }
}

TEST(EventFile, NoRoomLeavesWholeRecords) {
  TempDir dir;
  EventFile file;
  file.open(dir.path(), 301, 1.5);
  const std::string before = read_file(file.path());
  {
    const FileSizeLimit limit(before.size() + 10);
    expect_error(ErrorKind::kResource, {file.path().string(), "cannot be written"}, [&] { file.add_scalars(310, 2.5, {{"x", 1}}); });
    EXPECT_EQ(hex(read_file(file.path())), hex(before));
  }
  // There is room again.
  file.add_scalars(310, 2.5, {{"x", 1}});
  EXPECT_EQ(read_file(file.path()).substr(0, before.size()), before);
  EXPECT_EQ(last_value(file), 1.0f);
}

TEST(UnixSeconds, IsOfThisCentury) {
  EXPECT_GT(unix_seconds(), 1.7e9);
  EXPECT_LT(unix_seconds(), 4e9);
}

}  // namespace
}  // namespace seqboat
