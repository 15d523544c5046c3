#pragma once

// Private to src/ops/cpu: memory that a fused operator needs only while it runs.

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

namespace seqboat::ops {

/// A stack of buffers that a thread keeps between calls: a fresh large allocation costs more than the arithmetic that fills it (page faults). What is
/// taken inside a Frame is given back with it, in memory that stays. As much is kept as the most
/// that calls needed at once.
class Scratch {
 public:
  /// The calling thread's.
  static Scratch& mine() {
    thread_local Scratch scratch;
    return scratch;
  }

  class Frame {
   public:
    explicit Frame(Scratch& scratch) : scratch_(scratch), block_(scratch.current_), used_(scratch.used_), taken_(scratch.taken_) {}
    ~Frame() { scratch_.rewind(block_, used_, taken_); }
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;

   private:
    Scratch& scratch_;
    size_t block_, used_, taken_;
  };

  /// Uninitialised, 64-byte aligned; valid until the innermost Frame ends.
  template <class T>
  T* take(int64_t count) {
    const size_t bytes = (static_cast<size_t>(std::max<int64_t>(count, 1)) * sizeof(T) + kAlign - 1) / kAlign * kAlign;
    while (current_ < blocks_.size() && used_ + bytes > blocks_[current_].bytes) {
      ++current_;
      used_ = 0;
    }
    if (current_ == blocks_.size()) blocks_.push_back(Block(std::max({bytes, kBlockBytes, blocks_.empty() ? peak_ : 0})));
    T* out = reinterpret_cast<T*>(blocks_[current_].data.get() + used_);
    used_ += bytes;
    taken_ += bytes;
    peak_ = std::max(peak_, taken_);
    return out;
  }

 private:
  static constexpr size_t kAlign = 64;
  static constexpr size_t kHugePage = size_t{1} << 21;
  static constexpr size_t kBlockBytes = size_t{1} << 22;

  struct Unmap {
    size_t bytes;
    void operator()(unsigned char* p) const { munmap(p, bytes); }
  };
  // Mapped by itself and not taken from the heap: what a larger block replaces goes back to the system.
  struct Block {
    explicit Block(size_t size) : bytes((size + kHugePage - 1) / kHugePage * kHugePage), data(nullptr, Unmap{bytes}) {
      void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (mapped == MAP_FAILED) throw std::bad_alloc();
      data.reset(static_cast<unsigned char*>(mapped));
      madvise(mapped, bytes, MADV_HUGEPAGE);  // a hint: nothing is lost where the system has none
    }
    size_t bytes;
    std::unique_ptr<unsigned char, Unmap> data;
  };

  void rewind(size_t block, size_t used, size_t taken) {
    current_ = block;
    used_ = used;
    taken_ = taken;
    // Once everything is given back, many blocks make room for one, which the next call takes as large as the largest need so far.
    if (taken_ == 0 && blocks_.size() > 1) blocks_.clear();
  }

  std::vector<Block> blocks_;
  size_t current_ = 0;  // block that is being filled
  size_t used_ = 0;     // bytes of it
  size_t taken_ = 0;    // bytes in all open frames
  size_t peak_ = 0;
};

}  // namespace seqboat::ops
