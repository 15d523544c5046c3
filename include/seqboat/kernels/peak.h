#pragma once

#include <cstdint>

/// What a processor can do at best, for comparisons with what a kernel does: two loops that are timed, and whose results nobody needs.
namespace seqboat::kernels {

/// Twelve independent chains of fused multiply-adds on full vectors of float32, `steps` links each; no memory is touched. Returns the floating-point
/// operations done, two a multiply-add. `result` is written so that the work cannot be left out. Calling thread only; allocates nothing.
double fma_chains(int64_t steps, float* result) noexcept;

/// a[i] = b[i] + scale * c[i], i < n, one fused multiply-add an element: the triad, which moves 12 bytes an element (two read, one written; the line
/// that a write first fetches is not counted). a overlaps nothing; any alignment. Calling thread only; allocates nothing.
void triad(int64_t n, float scale, const float* b, const float* c, float* a) noexcept;

}  // namespace seqboat::kernels
