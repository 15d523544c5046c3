#pragma once

#include <cstdint>

/// What the scans over packed sequences (ema_scan.h, s4d_scan.h) have in common.
namespace seqboat::kernels {

enum class ScanDirection {
  kForward,  ///< t = 0, 1, ... : causal
  kReverse,  ///< t = T-1, ..., 0 : the anti-causal half of a bidirectional encoder
};

/// The part of the work that one call does: sequences [seq_begin, seq_end) of channels [channel_begin, channel_end).
/// Results have the same bits however the work is cut.
struct ScanRange {
  int64_t seq_begin, seq_end;
  int64_t channel_begin, channel_end;
};

}  // namespace seqboat::kernels
