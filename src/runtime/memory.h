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

/// Bytes, aligned for every kernel. Large ones lie in large pages where the system has some: a token reads all weights and half the keys and values
/// once, and in small pages finding them would cost as much as reading them.
class Buffer {
 public:
  enum class Content { kZero, kAny };
  Buffer() = default;
  explicit Buffer(int64_t bytes, const char* what, Content content = Content::kZero);
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

/// Weights one behind the other in one buffer, so that small ones lie in large pages, too.
class WeightArena {
 public:
  WeightArena() = default;
  /// Room for so many bytes, each piece of them rounded up to kAlignment. What is never taken is never touched.
  explicit WeightArena(int64_t bytes) : buffer_(bytes, "weights", Buffer::Content::kAny) {}
  std::byte* take(int64_t bytes) {
    std::byte* piece = buffer_.data() + used_;
    used_ += round_up(bytes, static_cast<int64_t>(kAlignment));
    SEQBOAT_CHECK(used_ <= buffer_.size(), ErrorKind::kFailed, "weights need more than the {} bytes that were reserved", buffer_.size());
    return piece;
  }

 private:
  Buffer buffer_;
  int64_t used_ = 0;
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
