#pragma once

#include <array>
#include <cstdint>

namespace seqboat::app {

/// Times of many short steps, in constant memory: counted in classes that are 0.8 % wide, so that a quantile is off by 0.4 % at most.
class Latencies {
 public:
  void add(double seconds);
  /// The time that the share q in [0, 1] of the steps do not exceed, in microseconds; 0 without steps.
  double us(double q) const;
  int64_t count() const { return count_; }
  double seconds() const { return sum_; }  ///< all together

 private:
  static constexpr int kPerOctave = 128;             ///< classes from one power of two to the next
  static constexpr int kLeast = -34, kOctaves = 48;  ///< from 2^-34 s, which is 0.06 ns, on
  std::array<int64_t, kPerOctave * kOctaves> counts_{};
  int64_t count_ = 0;
  double sum_ = 0;
};

}  // namespace seqboat::app
