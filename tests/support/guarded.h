#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "seqboat/kernels/simd.h"

namespace seqboat::test {

/// n elements between two rows of guard words, starting `offset` elements off the allocation's alignment. The guards are NaNs, so a kernel that
/// takes one into account shows it in the result, and one that writes on it is found by intact(). New elements are NaN too.
template <class T>
class Guarded {
 public:
  explicit Guarded(int64_t n, int64_t offset = 1) : begin_(kGuard + offset), n_(n), all_(static_cast<size_t>(begin_ + n + kGuard)) {
    std::memset(all_.data(), 0xff, all_.size() * sizeof(T));
  }
  T* data() { return all_.data() + begin_; }
  const T* data() const { return all_.data() + begin_; }
  int64_t size() const { return n_; }
  T& operator[](int64_t i) { return data()[i]; }
  const T& operator[](int64_t i) const { return data()[i]; }
  T* begin() { return data(); }
  T* end() { return data() + n_; }

  bool intact() const {
    const auto* bytes = reinterpret_cast<const unsigned char*>(all_.data());
    const size_t first = static_cast<size_t>(begin_) * sizeof(T), last = static_cast<size_t>(begin_ + n_) * sizeof(T);
    for (size_t i = 0; i < all_.size() * sizeof(T); ++i) {
      if ((i < first || i >= last) && bytes[i] != 0xff) return false;
    }
    return true;
  }

 private:
  static constexpr int64_t kGuard = 40;
  int64_t begin_;
  int64_t n_;
  std::vector<T> all_;
};

/// n uniform numbers in [low, high), of values that float holds, so that float and double see the same input.
template <class T>
Guarded<T> random_numbers(int64_t n, uint32_t seed, double low = -2, double high = 2) {
  Guarded<T> out(n);
  std::mt19937 engine(seed);
  for (T& v : out) v = static_cast<T>(static_cast<float>(low + (high - low) * (engine() * 0x1p-32)));
  return out;
}

template <class T>
bool same_bits(const T* a, const T* b, int64_t n) {
  return n == 0 || std::memcmp(a, b, static_cast<size_t>(n) * sizeof(T)) == 0;
}

/// body() once for every SIMD target of this machine.
template <class Body>
void on_every_target(const Body& body) {
  for (const std::string& target : kernels::supported_simd_targets()) {
    SCOPED_TRACE("target " + target);
    kernels::force_simd_target(target);
    body();
  }
  kernels::force_simd_target("");
}

/// Lengths around the width of every vector.
inline std::vector<int64_t> awkward_sizes() {
  return {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 80, 127, 257};
}

}  // namespace seqboat::test
