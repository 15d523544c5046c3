#pragma once

// Private to src/ops/cpu: a state encoder's scan over a whole packed batch, for the single operators and the fused layers alike.

#include "ops/common.h"
#include "seqboat/kernels/elementwise.h"
#include "seqboat/kernels/ema_scan.h"
#include "seqboat/kernels/s4d_scan.h"

namespace seqboat::ops {

enum class ScanKind {
  kEma,  ///< kernels/ema_scan.h: N real states a channel
  kS4d,  ///< kernels/s4d_scan.h: P complex ones, [re, im]
};

template <class T>
struct ScanArguments {
  ScanKind kind;
  int64_t batch;
  const int64_t* cu_seqlens;
  int64_t channels;  ///< D
  int64_t n_state;   ///< N, or P
  int64_t truncation;
  bool bidirectional;
  const T* decay;   ///< the kernel's q or d: (D, N) or (D, P, 2); twice as many rows when bidirectional, the second half for reversed time
  const T* weight;  ///< its c or w, like decay
  const T* skip;    ///< (D): its omega or skip
  const T* state = nullptr;
  const T* history = nullptr;

  /// Real numbers in the state of a channel.
  int64_t numbers() const { return kind == ScanKind::kS4d ? 2 * n_state : n_state; }
  /// Numbers in the decay of one direction.
  int64_t half() const { return channels * numbers(); }
};

// One task is one sequence of this many channels: two AVX-512 vectors, one cache line a row in float32 twice.
inline constexpr int64_t kScanChannelBlock = 32;

/// Runs f(range) over all sequences and channel blocks.
template <class F>
void for_each_scan_task(int64_t batch, int64_t channels, const F& f) {
  const int64_t blocks = (channels + kScanChannelBlock - 1) / kScanChannelBlock;
  parallel_tasks(batch * blocks, [&](int64_t task) {
    const int64_t b = task / blocks, channel = task % blocks * kScanChannelBlock;
    f(kernels::ScanRange{b, b + 1, channel, std::min(channel + kScanChannelBlock, channels)});
  });
}

template <class T>
struct EmaKernels {
  using Shape = kernels::EmaScanShape;
  static constexpr auto kForward = kernels::ema_scan_fwd<T>;
  static constexpr auto kParameters = kernels::ema_scan_bwd_params<T>;
  static constexpr auto kInput = kernels::ema_scan_bwd_input<T>;
};
template <class T>
struct S4dKernels {
  using Shape = kernels::S4dScanShape;
  static constexpr auto kForward = kernels::s4d_scan_fwd<T>;
  static constexpr auto kParameters = kernels::s4d_scan_bwd_params<T>;
  static constexpr auto kInput = kernels::s4d_scan_bwd_input<T>;
};

/// Calls f(the kind's kernels).
template <class T, class F>
void with_scan_kernels(ScanKind kind, const F& f) {
  if (kind == ScanKind::kS4d) {
    f(S4dKernels<T>{});
  } else {
    f(EmaKernels<T>{});
  }
}

template <class Shape, class T>
Shape scan_shape(const ScanArguments<T>& a, kernels::ScanDirection direction) {
  return {a.batch, a.cu_seqlens, a.channels, a.n_state, a.truncation, direction};
}

/// y (sum T, D) is written; state_out, like the decay of one direction for each sequence, or nullptr.
template <class T>
void scan_forward(const ScanArguments<T>& a, const T* x, T* y, T* state_out) {
  with_scan_kernels<T>(a.kind, [&](auto kernel) {
    using Shape = typename decltype(kernel)::Shape;
    const Shape ahead = scan_shape<Shape>(a, kernels::ScanDirection::kForward), back = scan_shape<Shape>(a, kernels::ScanDirection::kReverse);
    for_each_scan_task(a.batch, a.channels, [&](const kernels::ScanRange& range) {
      kernel.kForward(ahead, range, x, a.decay, a.weight, a.skip, a.state, a.history, y, false, state_out);
      if (a.bidirectional) kernel.kForward(back, range, x, a.decay + a.half(), a.weight + a.half(), nullptr, nullptr, nullptr, y, true, nullptr);
    });
  });
}

template <class T>
struct ScanGradients {
  T* x;               ///< (sum T, D), written, or added to
  bool accumulate_x;  ///< added to
  T* decay;
  T* weight;
  T* skip;
  T* state = nullptr;
  T* history = nullptr;  ///< (B, truncation, D)
  T* partial;            ///< workspace of scan_partial_size() elements
};

template <class T>
int64_t scan_partial_size(const ScanArguments<T>& a) {
  return a.batch * a.channels * ((a.bidirectional ? 4 : 2) * a.numbers() + 1);
}

/// dstate, or nullptr: gradient of state_out. Partial results of each sequence are added in order of the sequences: the same bits at any thread
/// count.
template <class T>
void scan_backward(const ScanArguments<T>& a, const T* x, const T* dy, const T* dstate, const ScanGradients<T>& out) {
  const int64_t half = a.half(), part = a.batch * half, directions = a.bidirectional ? 2 : 1;
  T* d_decay = out.partial;
  T* d_weight = d_decay + directions * part;
  T* d_skip = d_weight + directions * part;
  with_scan_kernels<T>(a.kind, [&](auto kernel) {
    using Shape = typename decltype(kernel)::Shape;
    const Shape ahead = scan_shape<Shape>(a, kernels::ScanDirection::kForward), back = scan_shape<Shape>(a, kernels::ScanDirection::kReverse);
    for_each_scan_task(a.batch, a.channels, [&](const kernels::ScanRange& range) {
      kernel.kParameters(ahead, range, x, a.decay, a.weight, a.state, a.history, dy, dstate, d_decay, d_weight, d_skip);
      kernel.kInput(ahead, range, a.decay, a.weight, a.skip, dy, dstate, out.x, out.accumulate_x, out.state, out.history);
      if (!a.bidirectional) return;
      const T *decay = a.decay + half, *weight = a.weight + half;
      kernel.kParameters(back, range, x, decay, weight, nullptr, nullptr, dy, nullptr, d_decay + part, d_weight + part, nullptr);
      kernel.kInput(back, range, decay, weight, nullptr, dy, nullptr, out.x, true, nullptr, nullptr);
    });
  });
  for (int64_t direction = 0; direction < directions; ++direction) {
    kernels::column_sum<T>(a.batch, half, half, 0, half, d_decay + direction * part, out.decay + direction * half);
    kernels::column_sum<T>(a.batch, half, half, 0, half, d_weight + direction * part, out.weight + direction * half);
  }
  kernels::column_sum<T>(a.batch, a.channels, a.channels, 0, a.channels, d_skip, out.skip);
}

}  // namespace seqboat::ops
