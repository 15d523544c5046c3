#pragma once

#include <cstdint>

#include "seqboat/kernels/scan.h"

namespace seqboat::kernels {

/// Packed sequences: rows cu_seqlens[b] .. cu_seqlens[b+1]-1 of x belong to sequence b.
struct S4dScanShape {
  int64_t batch;              ///< B
  const int64_t* cu_seqlens;  ///< (B+1), cu_seqlens[0] == 0, non-decreasing
  int64_t channels;           ///< D, also the row stride of x, y, dy, dx
  int64_t n_modes;            ///< P: complex modes of a channel
  int64_t truncation = 0;     ///< L: kernel length; 0 = none
  ScanDirection direction = ScanDirection::kForward;
};

using S4dScanRange = ScanRange;

/// Diagonal state-space model (S4D) as a scan (docs: the convolution with K[c,l] = 2 Re sum_p w[c,p] d[c,p]^l, l = 0 .. L-1):
///
///   s[t,c,p] = d[c,p] s[t-1,c,p] + x[t,c] - d[c,p]^L x[t-L,c]        (last term only with truncation; s, d, w are complex;
///                                                                     a part of d^L below 2^-64 counts as zero)
///   y[t,c]   = 2 Re sum_p w[c,p] s[t,c,p] + skip[c] x[t,c]
///
/// (kReverse: the same with time running backwards inside each sequence.) Complex numbers stand as [re, im]; 2 Re stands for a mode and its
/// conjugate, which is not carried. d scales and turns a state and stretches it in no direction, so that a rounding error decays as |d|^l, like the
/// input it came with.
///
/// x, y (sum T, D); d, w (D, P, 2), |d| <= 1; skip (D) or nullptr; state_in (B, D, P, 2) or nullptr = 0; history (B, L, D) = the L inputs before the
/// first, oldest first, in scan order, or nullptr = 0, read only with truncation; state_out (B, D, P, 2) or nullptr. accumulate adds to y instead of
/// writing it. y overlaps nothing. Sums over p in order, Re w Re s before Im w Im s, one fused multiply-add each; the same bits for a sequence
/// whatever its batch and however it is cut into calls that carry the state (and the history; whether one of zeros is given or absent may change the
/// sign of a zero). state_out may be state_in. About 80 KiB of stack. Calling thread only; allocates nothing.
template <class T>
void s4d_scan_fwd(const S4dScanShape& shape, const S4dScanRange& range, const T* x, const T* d, const T* w, const T* skip, const T* state_in,
                  const T* history, T* y, bool accumulate, T* state_out) noexcept;

/// Gradient of the parameters, one sweep in scan direction that carries s and e = ds/dd and stores nothing else:
///
///   e[t] = d e[t-1] + s[t-1] - L d^(L-1) x[t-L],   dw[b,c,p] = 2 conj(sum_t dy[t,c] s[t,c,p]),   dd[b,c,p] = 2 conj(w[c,p] sum_t dy[t,c] e[t,c,p])
///
/// and dstate_out conj(e[T-1]) added to dd. Gradients of complex numbers are those of their real and imaginary parts, [re, im].
/// dskip[b,c] = sum_t dy[t,c] x[t,c]. Partial results per sequence: dd, dw (B, D, P, 2), dskip (B, D) or nullptr; written, not added to; the caller
/// adds them in order of b. state_in is a constant here (its own gradient is in s4d_scan_bwd_input). dstate_out (B, D, P, 2) or nullptr. About
/// 110 KiB of stack.
template <class T>
void s4d_scan_bwd_params(const S4dScanShape& shape, const S4dScanRange& range, const T* x, const T* d, const T* w, const T* state_in,
                         const T* history, const T* dy, const T* dstate_out, T* dd, T* dw, T* dskip) noexcept;

/// Gradient of the input, one sweep against scan direction:
///
///   g[t,c,p] = conj(d) g[t+1] + 2 conj(w) dy[t,c] - 2 conj(d^L w) dy[t+L,c]   (g starts from dstate_out),
///   dx[t,c]  = Re sum_p g[t,c,p] + skip[c] dy[t,c]
///
/// dx (sum T, D), written or added to; dstate_in (B, D, P, 2) or nullptr; dhistory (B, L, D) or nullptr (with truncation only).
template <class T>
void s4d_scan_bwd_input(const S4dScanShape& shape, const S4dScanRange& range, const T* d, const T* w, const T* skip, const T* dy, const T* dstate_out,
                        T* dx, bool accumulate, T* dstate_in, T* dhistory) noexcept;

}  // namespace seqboat::kernels
