#pragma once

#include <atomic>
#include <cstdint>
#include <span>

namespace seqboat::app {

/// Standard input as it comes: a pipe's writer need not fill any buffer before its bytes are seen.
class LiveInput {
 public:
  /// `stop` is what become_cooperative() gave.
  explicit LiveInput(const std::atomic<int>* stop) : stop_(stop) {}

  /// Waits until there is something and reads what is there, at most buffer.size() bytes. 0: the input is at its end, the stop signal came, or
  /// nobody reads standard output any more. Error (kFailed) if it cannot be read.
  size_t read(std::span<uint8_t> buffer);

  int64_t bytes() const { return bytes_; }           ///< read so far
  bool reader_gone() const { return reader_gone_; }  ///< of standard output
  bool stopped() const { return stop_->load() != 0; }
  int signal() const { return stop_->load(); }

 private:
  const std::atomic<int>* stop_;
  int64_t bytes_ = 0;
  bool reader_gone_ = false;
};

}  // namespace seqboat::app
