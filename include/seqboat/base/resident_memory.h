#pragma once

#include <cstdint>

namespace seqboat {

/// How much memory this process has in its hands: of /proc/self/status; -1 = not known.
struct ResidentMemory {
  int64_t now_bytes = -1;   ///< VmRSS
  int64_t peak_bytes = -1;  ///< VmHWM: the most since the process began, or since reset_resident_peak()
};
ResidentMemory resident_memory();

/// Gives free pages of the heap back to the system, so that what is taken from now on counts as taken, and begins the peak anew. False: the system
/// does not let us.
bool reset_resident_peak();

}  // namespace seqboat
