#pragma once

#include <array>
#include <cstdint>

namespace seqboat {

/// Philox 4x32-10 (Salmon et al., SC 2011): four random words from a 128-bit counter and a 64-bit key, with no state. The same on every machine.
std::array<uint32_t, 4> philox4x32(const std::array<uint32_t, 4>& counter, const std::array<uint32_t, 2>& key) noexcept;

/// A stream of numbers over Philox: key = seed, counter = (stream, number). Cheap to create; the same on every machine.
class PhiloxStream {
 public:
  PhiloxStream(uint64_t seed, uint64_t stream) noexcept;
  uint32_t next_u32() noexcept;
  uint64_t next_u64() noexcept;
  double next_uniform() noexcept;                ///< [0, 1), 53 bits
  uint64_t next_below(uint64_t bound) noexcept;  ///< [0, bound), without bias
  double next_normal() noexcept;                 ///< standard normal by inverse distribution function (accurate to 1e-9)

 private:
  std::array<uint32_t, 2> key_;
  std::array<uint32_t, 4> counter_;
  std::array<uint32_t, 4> block_{};
  int used_ = 4;
};

/// Inverse of the standard normal distribution function, 0 < p < 1, to 1e-9 relative.
double normal_quantile(double p) noexcept;

}  // namespace seqboat
