#pragma once

// Private to src/train.

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "seqboat/base/error.h"

namespace seqboat::train {

/// Floats, zero, in pages of their own that go back to the system with it: what is measured before a step must not leave pages in the heap, which the
/// step would use without anybody counting them. Error (kResource) where there is no room.
class MappedFloats {
 public:
  explicit MappedFloats(int64_t count) : bytes_(std::max<size_t>(1, static_cast<size_t>(count)) * sizeof(float)) {
    void* pages = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    SEQBOAT_CHECK(pages != MAP_FAILED, ErrorKind::kResource, "out of memory: {} MB to measure the machine", bytes_ >> 20);
    data_ = static_cast<float*>(pages);
  }
  ~MappedFloats() {
    if (data_ != nullptr) ::munmap(data_, bytes_);
  }
  MappedFloats(MappedFloats&& other) noexcept : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}
  MappedFloats(const MappedFloats&) = delete;
  MappedFloats& operator=(const MappedFloats&) = delete;
  MappedFloats& operator=(MappedFloats&&) = delete;

  float* data() { return data_; }

 private:
  float* data_ = nullptr;
  size_t bytes_;
};

}  // namespace seqboat::train
