#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

#include "seqboat/base/error.h"

namespace seqboat::runtime {

inline constexpr size_t kAlignment = 64;

inline int64_t round_up(int64_t value, int64_t to) {
  return (value + to - 1) / to * to;
}

/// Zeroed bytes, aligned for every kernel.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t bytes, const char* what);
  Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Buffer();

  std::byte* data() const { return data_; }
  int64_t size() const { return size_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

/// Hands out pieces of one block of memory, one after the other, each aligned. Without memory it counts what would be needed.
class Carver {
 public:
  explicit Carver(std::byte* memory = nullptr) : memory_(memory) {}
  template <class T>
  T* take(int64_t count) {
    T* piece = memory_ != nullptr ? reinterpret_cast<T*>(memory_ + used_) : nullptr;
    used_ += round_up(count * static_cast<int64_t>(sizeof(T)), static_cast<int64_t>(kAlignment));
    return piece;
  }
  int64_t used() const { return used_; }

 private:
  std::byte* memory_;
  int64_t used_ = 0;
};

}  // namespace seqboat::runtime
