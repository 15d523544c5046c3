#pragma once

// What leaves the window of a truncated scan, for scans over whole sequences and over a few tokens alike: their results have the same bits.

#include <cmath>

namespace seqboat::kernels {
namespace {

/// An input's coefficient as it leaves the window (q^L and what is made of it), rounded from double. Below 2^-64 it counts as zero: beside inputs of
/// the sequence such a term is lost in the rounding of double already, and where all of a pass are zero the pass leaves them out.
template <class T>
T lag_coefficient(double value) {
  return std::abs(value) < 0x1p-64 ? T{0} : static_cast<T>(value);
}

}  // namespace
}  // namespace seqboat::kernels
