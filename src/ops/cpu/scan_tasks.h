#pragma once

// Private to src/ops/cpu: how a scan over a packed batch is cut for the threads.

#include "ops/common.h"
#include "seqboat/kernels/scan.h"

namespace seqboat::ops {

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

}  // namespace seqboat::ops
