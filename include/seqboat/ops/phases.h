#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
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

/// One parallel pass over blocks of rows does several kinds of work. Its wall-clock is divided among them in proportion to what the threads spent on
/// each, by their laps. Stands in the calling thread as PhaseScope does; the laps are the workers'.
class PhaseSplit {
 public:
  PhaseSplit() noexcept;
  ~PhaseSplit();
  PhaseSplit(const PhaseSplit&) = delete;
  PhaseSplit& operator=(const PhaseSplit&) = delete;

  /// A worker's watch, begun when it is made: done(phase) books the time since the last call to the phase. Free where nothing is counted.
  class Laps {
   public:
    explicit Laps(PhaseSplit& split) noexcept;
    void done(Phase phase) noexcept {
      if (split_.counting_) book(phase);
    }

   private:
    void book(Phase phase) noexcept;
    PhaseSplit& split_;
    int64_t last_;
  };

 private:
  bool counting_;
  int64_t begin_;
  std::array<std::atomic<int64_t>, kPhases> ns_{};
};

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
