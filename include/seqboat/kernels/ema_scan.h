#pragma once

#include <cstdint>

#include "seqboat/kernels/scan.h"

namespace seqboat::kernels {

/// Packed sequences: rows cu_seqlens[b] .. cu_seqlens[b+1]-1 of x belong to sequence b.
struct EmaScanShape {
  int64_t batch;              ///< B
  const int64_t* cu_seqlens;  ///< (B+1), cu_seqlens[0] == 0, non-decreasing
  int64_t channels;           ///< D, also the row stride of x, y, dy, dx
  int64_t n_state;            ///< N
  int64_t truncation = 0;     ///< L: kernel length; 0 = none
  ScanDirection direction = ScanDirection::kForward;
};

using EmaScanRange = ScanRange;

/// Multi-head EMA as a scan (docs: the convolution with K[d,l] = sum_n c[d,n] q[d,n]^l, l = 0 .. L-1):
///
///   s[t,d,n] = q[d,n] s[t-1,d,n] + x[t,d] - q[d,n]^L x[t-L,d]        (last term only with truncation,
///                                                                     and where q^L >= 2^-64)
///   y[t,d]   = sum_n c[d,n] s[t,d,n] + omega[d] x[t,d]
///
/// (kReverse: the same with time running backwards inside each sequence.) x, y (sum T, D); q, c (D, N), 0 <= q <= 1; omega (D)
/// or nullptr; state_in (B, D, N) or nullptr = 0; history (B, L, D) = the L inputs before the first, oldest first, in scan order,
/// or nullptr = 0, read only with truncation; state_out (B, D, N) or nullptr. accumulate adds to y instead of writing it. y overlaps nothing.
/// Sums over n in a fixed order, one fused multiply-add each; the same bits for a sequence whatever its batch and however it is cut
/// into calls that carry the state (and the history). state_out may be state_in. About 100 KiB of stack. Calling thread only; allocates nothing.
template <class T>
void ema_scan_fwd(const EmaScanShape& shape, const EmaScanRange& range, const T* x, const T* q, const T* c, const T* omega, const T* state_in,
                  const T* history, T* y, bool accumulate, T* state_out) noexcept;

/// Gradient of the parameters, one sweep in scan direction that carries s and e = ds/dq and stores nothing else:
///
///   e[t] = q e[t-1] + s[t-1] - L q^(L-1) x[t-L],   dc[b,d,n] = sum_t dy[t,d] s[t,d,n],   dq[b,d,n] = c[d,n] sum_t dy[t,d] e[t,d,n] + dstate_out .
///   e[T-1]
///
/// domega[b,d] = sum_t dy[t,d] x[t,d]. Partial results per sequence: dq, dc (B, D, N), domega (B, D) or nullptr; written, not added to;
/// the caller adds them in order of b. state_in is a constant here (its own gradient is in ema_scan_bwd_input).
/// dstate_out (B, D, N) or nullptr.
template <class T>
void ema_scan_bwd_params(const EmaScanShape& shape, const EmaScanRange& range, const T* x, const T* q, const T* c, const T* state_in,
                         const T* history, const T* dy, const T* dstate_out, T* dq, T* dc, T* domega) noexcept;

/// Gradient of the input, one sweep against scan direction:
///
///   g[t,d,n] = q g[t+1] + c dy[t,d] - q^L c dy[t+L,d]   (g starts from dstate_out),   dx[t,d] = sum_n g[t,d,n] + omega[d] dy[t,d]
///
/// dx (sum T, D), written or added to; dstate_in (B, D, N) or nullptr; dhistory (B, L, D) or nullptr (with truncation only).
template <class T>
void ema_scan_bwd_input(const EmaScanShape& shape, const EmaScanRange& range, const T* q, const T* c, const T* omega, const T* dy,
                        const T* dstate_out, T* dx, bool accumulate, T* dstate_in, T* dhistory) noexcept;

}  // namespace seqboat::kernels
