#include "seqboat/ops/phases.h"

#include <chrono>

namespace seqboat::ops {
namespace {

using Clock = std::chrono::steady_clock;

struct Counter {
  bool on = false;
  Phase current = Phase::kOther;
  Clock::time_point since;
  std::array<double, kPhases> ms{};

  void change_to(Phase phase) {
    const Clock::time_point now = Clock::now();
    ms[static_cast<size_t>(current)] += std::chrono::duration<double, std::milli>(now - since).count();
    since = now;
    current = phase;
  }
};

thread_local Counter counter;

}  // namespace

std::string_view phase_name(Phase phase) noexcept {
  static constexpr std::array<std::string_view, kPhases> kNames{"ema",         "router",  "compress",  "products", "attention", "extract", "norm",
                                                                "elementwise", "dropout", "embedding", "head",     "optimizer", "other"};
  return kNames[static_cast<size_t>(phase)];
}

void start_phases() noexcept {
  counter = Counter{};
  counter.on = true;
  counter.since = Clock::now();
}

std::array<double, kPhases> stop_phases() noexcept {
  counter.change_to(Phase::kOther);
  counter.on = false;
  return counter.ms;
}

PhaseScope::PhaseScope(Phase phase) noexcept : outer_(counter.current), counting_(counter.on) {
  if (counting_) counter.change_to(phase);
}

PhaseScope::~PhaseScope() {
  if (counting_ && counter.on) counter.change_to(outer_);
}

}  // namespace seqboat::ops
