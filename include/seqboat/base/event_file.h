#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace seqboat {

/// Seconds since 1970 by the system's clock: the wall time of events.
double unix_seconds();

/// A point of the curve `tag`. The format holds float32: the value is rounded to it, what is beyond its range becomes infinite. NaN is allowed.
struct EventScalar {
  std::string tag;  ///< UTF-8, or readers refuse the event; slashes make groups: "train/loss"
  double value = 0;
};

/// Writes a file of events that TensorBoard shows: curves and texts of a run. One file for each process that works on a run, all in the run's folder.
///
///   FOLDER/events.out.tfevents.<seconds, ten digits>.<host>.<process id>
///
/// Readers go through the files of a folder in the order of their names. So `seconds` is the wall time of opening, or one more than the largest that
/// stands in the folder: a file comes after all that were there, even when a process starts again within a second or by a clock that went back.
///
///   file:    records, one event each, the first two written by open()
///   record:  length of the event: u64 LE | masked CRC-32C of these 8 bytes: u32 LE | event | masked CRC-32C of it: u32 LE
///            masked(crc) = (crc rotated right by 15 bits) + 0xA282EAD8
///   event:   a protocol buffer, field numbers of TensorBoard's event.proto and summary.proto:
///            wall_time = 1, step = 2, and one of  file_version = 3, summary = 5, session_log = 7
///
/// Going on: a process that was killed may have written points after the checkpoint from which the next one goes on. The start of session in the
/// second record of each file voids them. At such a record a reader forgets the points whose step is that of the record or larger, so it carries the
/// first step that the new process may write:
///
///   first process    START 0,  points of steps 10 20 30 40 50, killed; its newest checkpoint is of step 30
///   second process   START 31, points of steps 40 50 60           shown: 10 20 30 of the first, 40 50 60 of the second
///
/// TensorBoard itself takes the first START of a folder for the beginning of the run and not for a restart: that is why the first file has one too.
/// Its fast loader (`tensorboard-data-server`) looks at no START: there each point of a curve voids the curve's earlier-written points at its step
/// and after.
///
/// Every record goes to the system at once and whole: a reader sees it immediately, and nothing is lost when the process is killed. One thread at a
/// time. Errors name the file: Error (kResource) for a full disk, else (kFailed); what was written of the record is then cut off again, so that the
/// records before it can be read and another attempt may follow.
class EventFile {
 public:
  EventFile() = default;
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  /// Begins a new file in a folder that exists, and closes the one that was open. `first_step`: the first that this process may write; 0 for a new
  /// run, one more than the checkpoint's for one that goes on. If the first two records cannot be written there is no file.
  void open(const std::filesystem::path& folder, int64_t first_step, double wall_time);
  bool is_open() const { return fd_ >= 0; }
  const std::filesystem::path& path() const { return path_; }  ///< empty before open()

  /// Points of several curves at one step, as one record; none if there are no scalars. The steps of a curve should grow. Requires is_open().
  void add_scalars(int64_t step, double wall_time, const std::vector<EventScalar>& scalars);

  /// A text, shown as Markdown in TensorBoard's own page of texts. Requires is_open().
  void add_text(int64_t step, double wall_time, std::string_view tag, std::string_view text);

  /// Brings what was written to the disk.
  void sync();

 private:
  void append(std::string_view bytes);
  void close() noexcept;

  std::filesystem::path path_;
  int fd_ = -1;
  int64_t size_ = 0;  ///< of the whole records
};

}  // namespace seqboat
