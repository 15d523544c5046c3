#include "seqboat/base/event_file.h"

#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <limits>
#include <system_error>

#include "seqboat/base/crc32c.h"
#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"

namespace seqboat {
namespace {

namespace fs = std::filesystem;

// --- Protocol buffers: fields in the order of their numbers, those at their default left out, as the reference implementation does ---

enum class Wire : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void put_little_endian(std::string* out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}

// Seven bits a byte, the lowest first; the high bit says that another byte follows.
void put_varint(std::string* out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}

void put_key(std::string* out, uint32_t field, Wire wire) {
  put_varint(out, field << 3 | static_cast<uint32_t>(wire));
}

void put_int(std::string* out, uint32_t field, int64_t value) {
  put_key(out, field, Wire::kVarint);
  put_varint(out, static_cast<uint64_t>(value));
}

void put_float(std::string* out, uint32_t field, float value) {
  put_key(out, field, Wire::kFixed32);
  put_little_endian(out, std::bit_cast<uint32_t>(value), 4);
}

// Bytes, a string or a message.
void put_bytes(std::string* out, uint32_t field, std::string_view value) {
  put_key(out, field, Wire::kBytes);
  put_varint(out, value.size());
  out->append(value);
}

// --- Events. Field numbers: tensorboard/compat/proto/{event,summary,tensor}.proto ---

constexpr uint32_t kEventWallTime = 1, kEventStep = 2, kEventFileVersion = 3, kEventSummary = 5, kEventSessionLog = 7;
constexpr uint32_t kSessionLogStatus = 1;
constexpr uint32_t kSummaryValue = 1;
constexpr uint32_t kValueTag = 1, kValueSimpleValue = 2, kValueTensor = 8, kValueMetadata = 9;
constexpr uint32_t kMetadataPluginData = 1, kMetadataDataClass = 4;
constexpr uint32_t kPluginDataName = 1;
constexpr uint32_t kTensorDtype = 1, kTensorShape = 2, kTensorStringVal = 8;
constexpr int64_t kSessionStart = 1, kDataClassTensor = 2, kDtypeString = 7;
// From version 2 on readers look for the start of a session and not for steps that go back.
constexpr std::string_view kFileVersion = "brain.Event:2";

std::string make_event(int64_t step, double wall_time, uint32_t what, std::string_view content) {
  std::string event;
  if (const uint64_t bits = std::bit_cast<uint64_t>(wall_time); bits != 0) {
    put_key(&event, kEventWallTime, Wire::kFixed64);
    put_little_endian(&event, bits, 8);
  }
  if (step != 0) put_int(&event, kEventStep, step);
  put_bytes(&event, what, content);
  return event;
}

uint32_t masked_crc(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xA282EAD8;
}

std::string make_record(std::string_view event) {
  std::string record;
  record.reserve(event.size() + 16);
  put_little_endian(&record, event.size(), 8);
  put_little_endian(&record, masked_crc(record), 4);
  record += event;
  put_little_endian(&record, masked_crc(event), 4);
  return record;
}

// A conversion that overflows is undefined in C++.
float to_float32(double value) {
  using Limits = std::numeric_limits<float>;
  if (std::abs(value) > Limits::max()) return value < 0 ? -Limits::infinity() : Limits::infinity();
  return static_cast<float>(value);
}

// --- The file's name ---

constexpr std::string_view kPrefix = "events.out.tfevents.";
constexpr size_t kDigits = 10;
constexpr int64_t kMaxSeconds = 9'999'999'999;

// The number in the name of an event file, -1 if it is not one of ours.
int64_t seconds_of(const std::string& name) {
  if (!name.starts_with(kPrefix)) return -1;
  const char* begin = name.data() + kPrefix.size();
  const char* end = name.data() + name.size();
  int64_t seconds = -1;
  const auto [stop, error] = std::from_chars(begin, end, seconds);
  const bool whole = error == std::errc() && stop == begin + kDigits && (stop == end || *stop == '.');
  return whole ? seconds : -1;
}

std::string host_name() {
  char buffer[256] = {};
  if (::gethostname(buffer, sizeof(buffer) - 1) != 0) return "localhost";
  std::string name(buffer);
  for (char& c : name) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' || c == '.';
    if (!plain) c = '_';
  }
  return name.empty() ? "localhost" : name;
}

// A name that sorts behind those of the event files that are there.
std::string next_name(const fs::path& folder, double wall_time) {
  int64_t seconds = wall_time >= 0 && wall_time <= static_cast<double>(kMaxSeconds) ? static_cast<int64_t>(wall_time) : 0;
  std::error_code ignored;  // a folder that cannot be listed may still be written
  for (fs::directory_iterator entry(folder, ignored), end; entry != end; entry.increment(ignored)) {
    seconds = std::max(seconds, seconds_of(entry->path().filename().string()) + 1);
  }
  return fmt::format("{}{:010}.{}.{}", kPrefix, std::min(seconds, kMaxSeconds), host_name(), ::getpid());
}

[[noreturn]] void fail_with(const fs::path& path, const char* what, int error) {
  fail(is_out_of_space(error) ? ErrorKind::kResource : ErrorKind::kFailed, "{}: {}: {}", path.string(), what, std::generic_category().message(error));
}

}  // namespace

double unix_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

EventFile::~EventFile() {
  close();
}

void EventFile::close() noexcept {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void EventFile::open(const fs::path& folder, int64_t first_step, double wall_time) {
  close();
  path_ = folder / next_name(folder, wall_time);
  size_ = 0;
  do {
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
  } while (fd_ < 0 && errno == EINTR);
  if (fd_ < 0) fail_with(path_, "cannot be opened for writing", errno);
  std::string session_log;
  put_int(&session_log, kSessionLogStatus, kSessionStart);
  try {
    // In one piece: no file begins without its START.
    append(make_record(make_event(0, wall_time, kEventFileVersion, kFileVersion)) +
           make_record(make_event(first_step, wall_time, kEventSessionLog, session_log)));
  } catch (...) {
    close();
    ::unlink(path_.c_str());
    throw;
  }
}

void EventFile::add_scalars(int64_t step, double wall_time, const std::vector<EventScalar>& scalars) {
  if (scalars.empty()) return;
  std::string summary;
  for (const EventScalar& scalar : scalars) {
    std::string value;
    put_bytes(&value, kValueTag, scalar.tag);
    put_float(&value, kValueSimpleValue, to_float32(scalar.value));
    put_bytes(&summary, kSummaryValue, value);
  }
  append(make_record(make_event(step, wall_time, kEventSummary, summary)));
}

void EventFile::add_text(int64_t step, double wall_time, std::string_view tag, std::string_view text) {
  // Without dimensions: one with them is shown as a table.
  std::string tensor;
  put_int(&tensor, kTensorDtype, kDtypeString);
  put_bytes(&tensor, kTensorShape, "");
  put_bytes(&tensor, kTensorStringVal, text);
  std::string plugin_data;
  put_bytes(&plugin_data, kPluginDataName, "text");
  std::string metadata;
  put_bytes(&metadata, kMetadataPluginData, plugin_data);
  put_int(&metadata, kMetadataDataClass, kDataClassTensor);
  std::string value;
  put_bytes(&value, kValueTag, tag);
  put_bytes(&value, kValueTensor, tensor);
  put_bytes(&value, kValueMetadata, metadata);
  std::string summary;
  put_bytes(&summary, kSummaryValue, value);
  append(make_record(make_event(step, wall_time, kEventSummary, summary)));
}

void EventFile::append(std::string_view bytes) {
  SEQBOAT_DCHECK(fd_ >= 0);
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t wrote = ::write(fd_, bytes.data() + done, bytes.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) {
      const int error = wrote < 0 ? errno : ENOSPC;
      // Half a record would make all that follow unreadable. If it cannot be cut off, the disk is worse than full.
      if (done > 0 && ::ftruncate(fd_, size_) != 0) close();
      fail_with(path_, "cannot be written", error);
    }
    done += static_cast<size_t>(wrote);
  }
  size_ += static_cast<int64_t>(bytes.size());
}

void EventFile::sync() {
  if (fd_ >= 0 && ::fdatasync(fd_) != 0 && errno != EINVAL) fail_with(path_, "cannot be written", errno);
}

}  // namespace seqboat
