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

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count();
}

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

PhaseSplit::PhaseSplit() noexcept : counting_(counter.on), begin_(0) {
  if (counting_) {
    counter.change_to(counter.current);  // what came before is booked
    begin_ = now_ns();
  }
}

PhaseSplit::~PhaseSplit() {
  if (!counting_ || !counter.on) return;
  int64_t total = 0;
  for (const auto& ns : ns_) total += ns.load();
  if (total == 0) return;
  const double wall_ms = static_cast<double>(now_ns() - begin_) * 1e-6;
  for (size_t i = 0; i < kPhases; ++i) counter.ms[i] += wall_ms * static_cast<double>(ns_[i].load()) / static_cast<double>(total);
  counter.since = Clock::now();
}

PhaseSplit::Laps::Laps(PhaseSplit& split) noexcept : split_(split), last_(split.counting_ ? now_ns() : 0) {}

void PhaseSplit::Laps::book(Phase phase) noexcept {
  const int64_t now = now_ns();
  split_.ns_[static_cast<size_t>(phase)].fetch_add(now - last_, std::memory_order_relaxed);
  last_ = now;
}

PhaseScope::PhaseScope(Phase phase) noexcept : outer_(counter.current), counting_(counter.on) {
  if (counting_) counter.change_to(phase);
}

PhaseScope::~PhaseScope() {
  if (counting_ && counter.on) counter.change_to(outer_);
}

}  // namespace seqboat::ops
