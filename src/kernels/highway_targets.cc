// The three functions of Highway's library that dispatch by the processor needs, so that its headers are enough: no shared library to bring along,
// and where Highway is another version or built for another processor, nothing that could disagree with the headers. They are weak: a program that
// links Highway itself keeps Highway's own.

#include <atomic>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "hwy/highway.h"

namespace hwy {
namespace {

// Set by SetSupportedTargetsForTest; 0 = what the processor has.
std::atomic<int64_t> pinned_targets{0};

int64_t detected_targets() {
  // Of 64-bit ARM that is NEON. Highway counts the cryptographic instructions in, which a few small boards lack; no kernel of ours uses them.
  int64_t targets = HWY_ENABLED_BASELINE;
#if HWY_ARCH_X86
  // Whether the system saves the wide registers is part of the answers. F16C and LZCNT, which the target AVX2 uses too, are not asked for: no
  // processor has BMI2 and FMA without them, and not every compiler knows these two names.
  const auto all = [](auto... has) { return (... && (has != 0)); };
  const bool sse4 = all(__builtin_cpu_supports("sse4.1"), __builtin_cpu_supports("sse4.2"), __builtin_cpu_supports("pclmul"),  //
                        __builtin_cpu_supports("aes"));
  const bool avx2 = sse4 && all(__builtin_cpu_supports("avx2"), __builtin_cpu_supports("fma"), __builtin_cpu_supports("bmi"),  //
                                __builtin_cpu_supports("bmi2"));
  const bool avx3 = avx2 && all(__builtin_cpu_supports("avx512f"), __builtin_cpu_supports("avx512vl"), __builtin_cpu_supports("avx512bw"),
                                __builtin_cpu_supports("avx512dq"));
  if (sse4) targets |= HWY_SSSE3 | HWY_SSE4;
  if (avx2) targets |= HWY_AVX2;
  if (avx3) targets |= HWY_AVX3;
#endif
  return targets;
}

}  // namespace

__attribute__((weak)) int64_t SupportedTargets() {
  static const int64_t detected = detected_targets();
  const int64_t pinned = pinned_targets.load();
  return pinned != 0 ? pinned : detected;
}

__attribute__((weak)) void SetSupportedTargetsForTest(int64_t targets) {
  pinned_targets.store(targets);
  GetChosenTarget().DeInit();
}

__attribute__((weak)) ChosenTarget& GetChosenTarget() {
  static ChosenTarget chosen;
  return chosen;
}

// What the headers call where one of their own checks fails: in builds with debugging alone.
__attribute__((weak)) void Abort(const char* file, int line, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::fprintf(stderr, "%s:%d: ", file, line);
  std::vfprintf(stderr, format, arguments);
  std::fputc('\n', stderr);
  va_end(arguments);
  std::abort();
}

}  // namespace hwy
