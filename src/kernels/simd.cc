#include "seqboat/kernels/simd.h"

#include <cctype>
#include <cstdint>

#include "hwy/highway.h"
#include "seqboat/base/error.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace seqboat::kernels {
namespace {

std::string target_name(int64_t target) {
  std::string name = hwy::TargetName(target);
  for (char& ch : name) ch = static_cast<char>(std::tolower(static_cast<unsigned char>(ch)));
  return name;
}

// Highway's bit mask has the best target in its lowest bit.
int64_t best(int64_t targets) {
  return targets & -targets;
}

// What the CPU has, whatever is forced at the moment.
int64_t runnable_targets() {
  static const int64_t targets = [] {
    hwy::SetSupportedTargetsForTest(0);
    return hwy::SupportedTargets() & HWY_TARGETS;
  }();
  return targets;
}

int64_t& forced_target() {
  static int64_t target = 0;
  return target;
}

}  // namespace

std::string simd_target() {
  return target_name(forced_target() != 0 ? forced_target() : best(runnable_targets()));
}

std::vector<std::string> supported_simd_targets() {
  std::vector<std::string> names;
  for (int64_t rest = runnable_targets(); rest != 0; rest &= rest - 1) names.push_back(target_name(best(rest)));
  return names;
}

void force_simd_target(const std::string& name) {
  int64_t wanted = 0;
  if (!name.empty()) {
    std::string known;
    for (int64_t rest = runnable_targets(); rest != 0; rest &= rest - 1) {
      if (target_name(best(rest)) == name) wanted = best(rest);
      known += (known.empty() ? "" : ", ") + target_name(best(rest));
    }
    SEQBOAT_CHECK(wanted != 0, ErrorKind::kUsage, "SIMD target: expected one of {}, found \"{}\"", known, name);
  }
  forced_target() = wanted;
  // The dispatch table reads a cached choice: it must be renewed here, or the first kernel call of the process would pin it for good.
  hwy::SetSupportedTargetsForTest(wanted);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

#if defined(__SSE__)
// Bit 15: results that are denormal become zero. Bit 6: operands that are denormal count as zero.
FlushDenormals::FlushDenormals() noexcept : saved_(_mm_getcsr()) {
  _mm_setcsr(saved_ | 0x8040u);
}
FlushDenormals::~FlushDenormals() {
  _mm_setcsr((_mm_getcsr() & ~0x8040u) | (saved_ & 0x8040u));
}
#elif defined(__aarch64__)
namespace {
// FPCR.FZ flushes operands and results.
constexpr uint64_t kFlushBit = uint64_t{1} << 24;
uint64_t control_register() {
  uint64_t value;
  asm volatile("mrs %0, fpcr" : "=r"(value));
  return value;
}
void set_control_register(uint64_t value) {
  asm volatile("msr fpcr, %0" : : "r"(value));
}
}  // namespace

FlushDenormals::FlushDenormals() noexcept : saved_(static_cast<unsigned>(control_register())) {
  set_control_register(control_register() | kFlushBit);
}
FlushDenormals::~FlushDenormals() {
  set_control_register((control_register() & ~kFlushBit) | (saved_ & kFlushBit));
}
#else
// Nothing to set on this architecture.
FlushDenormals::FlushDenormals() noexcept : saved_(0) {}
FlushDenormals::~FlushDenormals() {
  static_cast<void>(saved_);
}
#endif

}  // namespace seqboat::kernels
