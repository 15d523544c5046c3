#pragma once

#include <cstddef>
#include <cstdint>

namespace seqboat::kernels {

/// Channels of a group: where a step may be cut.
inline constexpr int64_t kScanGroup = 16;

/// The scans of ema_scan.h and s4d_scan.h for one stream that is fed some tokens at a time, from and to a state that stays in the order in which
/// vectors read it.
struct ScanStepShape {
  int64_t channels;        ///< D
  int64_t n_state;         ///< EMA: N, S4D: P modes
  int64_t truncation = 0;  ///< L: kernel length; 0 = none
};

/// float32 elements of coefficients, state and ring, each 64-byte aligned. All layouts are the same on every SIMD target.
///
/// State: groups of 16 channels, (D / 16 rounded up, N, 16), lanes behind the last channel zero; S4D has [re, im] for each mode: (.., P, 2, 16). That
/// of channel d, state n is element scan_step_state_index(n_state, d, n), with 2 P for n_state and 2 p (re) or 2 p + 1 (im) for n in S4D. A stream
/// begins with a state of zeros. Ring: (L, D), none without truncation: row t % L holds the input of time t, for the last L of them; rows that no
/// token has reached are not read.
/// State, ring and the number of tokens fed are all that a stream carries: a caller may copy, save and load them.
size_t ema_step_coefficients_size(const ScanStepShape& shape) noexcept;
size_t ema_step_state_size(const ScanStepShape& shape) noexcept;
size_t s4d_step_coefficients_size(const ScanStepShape& shape) noexcept;
size_t s4d_step_state_size(const ScanStepShape& shape) noexcept;
inline size_t scan_step_ring_size(const ScanStepShape& shape) noexcept {
  return static_cast<size_t>(shape.truncation * shape.channels);
}

inline int64_t scan_step_state_index(int64_t n_state, int64_t channel, int64_t n) noexcept {
  return (channel / kScanGroup * n_state + n) * kScanGroup + channel % kScanGroup;
}

/// q, c (D, N), omega (D) or nullptr, as in ema_scan_fwd(), and q^L, in the order in which ema_step() reads them. All elements are written. The
/// layout is for this version of the library alone.
void ema_step_pack(const ScanStepShape& shape, const float* q, const float* c, const float* omega, float* coefficients) noexcept;

/// d, w (D, P, 2), skip (D) or nullptr, as in s4d_scan_fwd(), and d^L. All elements are written.
void s4d_step_pack(const ScanStepShape& shape, const float* d, const float* w, const float* skip, float* coefficients) noexcept;

/// `tokens` steps of channels [channel_begin, channel_end), both multiples of kScanGroup, or channel_end = D. `time`: tokens that were fed before,
/// read only with truncation. x, y (tokens, D) with row strides in elements, any alignment, column 0 that of channel 0 whatever the range; y overlaps
/// nothing. Reads and writes state and ring; ring may be nullptr without truncation.
///
/// The bits of one call of ema_scan_fwd() (s4d_scan_fwd()) over all tokens of the stream, however they are cut into calls and channels into ranges.
/// Threads may share a step by channels. Flush denormals: states decay towards zero. About 30 KiB of stack. Calling thread only; allocates nothing.
void ema_step(const ScanStepShape& shape, int64_t channel_begin, int64_t channel_end, int64_t time, int64_t tokens, const float* x, int64_t x_stride,
              const float* coefficients, float* state, float* ring, float* y, int64_t y_stride) noexcept;
void s4d_step(const ScanStepShape& shape, int64_t channel_begin, int64_t channel_end, int64_t time, int64_t tokens, const float* x, int64_t x_stride,
              const float* coefficients, float* state, float* ring, float* y, int64_t y_stride) noexcept;

}  // namespace seqboat::kernels
