#pragma once

#include <array>
#include <cstddef>
#include <string_view>

/// Where the time of a step goes: wall-clock by kind of work, for `seqboat bench --phases`. Off unless started; then a scope costs two readings of a
/// clock. The time of a scope is its own alone: what an inner scope takes is not the outer one's. Scopes stand in the thread that calls the
/// operators, around their parallel loops, never inside them.
namespace seqboat::ops {

enum class Phase { kEma, kRouter, kCompress, kProducts, kAttention, kExtract, kNorm, kElementwise, kDropout, kEmbedding, kHead, kOptimizer, kOther };
inline constexpr size_t kPhases = static_cast<size_t>(Phase::kOther) + 1;

/// Lower-case name: "ema", "router", ...
std::string_view phase_name(Phase phase) noexcept;

/// Sets all times to zero and begins to count in the calling thread; what lies outside every scope is kOther.
void start_phases() noexcept;

/// Ends the counting: milliseconds of each phase since start_phases(). Their sum is the wall-clock between the two calls.
std::array<double, kPhases> stop_phases() noexcept;

class PhaseScope {
 public:
  explicit PhaseScope(Phase phase) noexcept;
  ~PhaseScope();
  PhaseScope(const PhaseScope&) = delete;
  PhaseScope& operator=(const PhaseScope&) = delete;

 private:
  Phase outer_;
  bool counting_;
};

}  // namespace seqboat::ops
