#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace seqboat::test {

/// How far a computed value may lie from the definition in float64: |got - want| <= absolute. Built from the arithmetic, never by trial.
struct Tolerance {
  double absolute;

  /// Data movement.
  static Tolerance exact() { return {0.0}; }
  /// A sum of n products whose magnitudes add up to at most `magnitude`: rounding errors of n steps, in the unit roundoff of T.
  template <class T>
  static Tolerance sum(int64_t n, double magnitude) {
    return {(static_cast<double>(n) + 8) * magnitude * static_cast<double>(std::numeric_limits<T>::epsilon())};
  }
  /// A fixed number of ULPs of the given magnitude.
  template <class T>
  static Tolerance ulps(double ulps, double magnitude) {
    return {ulps * magnitude * static_cast<double>(std::numeric_limits<T>::epsilon())};
  }
};

/// Compares n elements with the reference; on failure prints the worst element and its index. NaN never passes.
template <class T, class R>
::testing::AssertionResult close(const T* got, const R* want, int64_t n, Tolerance tolerance) {
  int64_t worst = -1;
  double worst_error = -1;
  for (int64_t i = 0; i < n; ++i) {
    double error = std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i]));
    if (std::isnan(error)) error = std::numeric_limits<double>::infinity();
    if (error > worst_error) {
      worst_error = error;
      worst = i;
    }
  }
  if (worst < 0 || worst_error <= tolerance.absolute) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "worst of " << n << " at index " << worst << ": got " << static_cast<double>(got[worst]) << ", want "
                                       << static_cast<double>(want[worst]) << ", error " << worst_error << " > " << tolerance.absolute;
}

template <class T, class R>
void expect_close(const T* got, const R* want, int64_t n, Tolerance tolerance) {
  EXPECT_TRUE(close(got, want, n, tolerance));
}

}  // namespace seqboat::test
