#pragma once

// Private to src/ops/cpu: the EMA over a whole packed batch, for the single operator and the fused layer alike.

#include "ops/common.h"
#include "ops/cpu/scan_tasks.h"
#include "seqboat/kernels/elementwise.h"
#include "seqboat/kernels/ema_scan.h"

namespace seqboat::ops {

template <class T>
struct EmaArguments {
  int64_t batch;
  const int64_t* cu_seqlens;
  int64_t channels;  ///< D
  int64_t n_state;   ///< N
  int64_t truncation;
  bool bidirectional;
  const T* q;      ///< (D, N), or (2D, N) when bidirectional
  const T* c;      ///< like q
  const T* omega;  ///< (D)
  const T* state = nullptr;
  const T* history = nullptr;

  kernels::EmaScanShape shape(kernels::ScanDirection direction) const { return {batch, cu_seqlens, channels, n_state, truncation, direction}; }
};

/// y (sum T, D) is written; state_out (B, D, N) or nullptr.
template <class T>
void ema_forward(const EmaArguments<T>& args, const T* x, T* y, T* state_out) {
  const kernels::EmaScanShape ahead = args.shape(kernels::ScanDirection::kForward), back = args.shape(kernels::ScanDirection::kReverse);
  const int64_t half = args.channels * args.n_state;
  for_each_scan_task(args.batch, args.channels, [&](const kernels::ScanRange& range) {
    kernels::ema_scan_fwd<T>(ahead, range, x, args.q, args.c, args.omega, args.state, args.history, y, false, state_out);
    if (args.bidirectional) kernels::ema_scan_fwd<T>(back, range, x, args.q + half, args.c + half, nullptr, nullptr, nullptr, y, true, nullptr);
  });
}

template <class T>
struct EmaGradientBuffers {
  T* x;               ///< (sum T, D), written, or added to
  bool accumulate_x;  ///< added to
  T* q;               ///< like q
  T* c;
  T* omega;
  T* state = nullptr;    ///< (B, D, N)
  T* history = nullptr;  ///< (B, truncation, D)
  T* partial;            ///< workspace of ema_partial_size() elements
};

template <class T>
int64_t ema_partial_size(const EmaArguments<T>& args) {
  return args.batch * args.channels * ((args.bidirectional ? 4 : 2) * args.n_state + 1);
}

/// dstate (B, D, N) or nullptr: gradient of state_out. Partial results of each sequence are added in order of the sequences: the same bits at any
/// thread count.
template <class T>
void ema_backward(const EmaArguments<T>& args, const T* x, const T* dy, const T* dstate, const EmaGradientBuffers<T>& out) {
  const kernels::EmaScanShape ahead = args.shape(kernels::ScanDirection::kForward), back = args.shape(kernels::ScanDirection::kReverse);
  const int64_t half = args.channels * args.n_state, part = args.batch * half, directions = args.bidirectional ? 2 : 1;
  T* dq = out.partial;
  T* dc = dq + directions * part;
  T* domega = dc + directions * part;
  for_each_scan_task(args.batch, args.channels, [&](const kernels::ScanRange& range) {
    kernels::ema_scan_bwd_params<T>(ahead, range, x, args.q, args.c, args.state, args.history, dy, dstate, dq, dc, domega);
    kernels::ema_scan_bwd_input<T>(ahead, range, args.q, args.c, args.omega, dy, dstate, out.x, out.accumulate_x, out.state, out.history);
    if (args.bidirectional) {
      kernels::ema_scan_bwd_params<T>(back, range, x, args.q + half, args.c + half, nullptr, nullptr, dy, nullptr, dq + part, dc + part, nullptr);
      kernels::ema_scan_bwd_input<T>(back, range, args.q + half, args.c + half, nullptr, dy, nullptr, out.x, true, nullptr, nullptr);
    }
  });
  for (int64_t direction = 0; direction < directions; ++direction) {
    kernels::column_sum<T>(args.batch, half, half, 0, half, dq + direction * part, out.q + direction * half);
    kernels::column_sum<T>(args.batch, half, half, 0, half, dc + direction * part, out.c + direction * half);
  }
  kernels::column_sum<T>(args.batch, args.channels, args.channels, 0, args.channels, domega, out.omega);
}

}  // namespace seqboat::ops
