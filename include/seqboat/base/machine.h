#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>

/// What this process may use of the machine. Linux' files are read below a root folder that tests can set up elsewhere; what cannot be read counts as
/// no limit.
namespace seqboat {

/// Cores that this process may run on (its affinity), at least 1.
int64_t usable_cores();

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

/// What the control groups of this process allow, the tightest from its own group up to the top; version 2 and version 1.
struct GroupLimits {
  double cores = std::numeric_limits<double>::infinity();  ///< processor time per time: 1.5 = three halves of a core
  int64_t memory_bytes = kNoLimit;                         ///< the limit of the group that has the least room left
  int64_t memory_left_bytes = kNoLimit;                    ///< that room: its limit less what it uses, where files cached for reading are not counted
};
GroupLimits group_limits(const std::filesystem::path& root = "/");

/// What "all cores" means in --threads and in recipes: usable_cores(), or what the control groups allow, rounded up, where that is less (more threads
/// would be halted in turn).
int64_t default_threads(const std::filesystem::path& root = "/");

/// /proc/meminfo; -1 = not known.
struct MachineMemory {
  int64_t total_bytes = -1;
  int64_t available_bytes = -1;  ///< the system's own estimate of what programs can still take without swapping
};
MachineMemory machine_memory(const std::filesystem::path& root = "/");

}  // namespace seqboat
