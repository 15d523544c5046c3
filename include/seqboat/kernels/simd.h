#pragma once

#include <string>
#include <vector>

namespace seqboat::kernels {

/// Name of the SIMD target that kernels run on now: the best that this CPU and this build have, or the forced one. Lower case: "avx2", "avx3",
/// "sse4", ...
std::string simd_target();

/// Every target that this CPU and this build can run, best first.
std::vector<std::string> supported_simd_targets();

/// Makes every later kernel call use this target (name as in supported_simd_targets(); empty = the best again).
/// Throws Error (kUsage) for a name that this machine cannot run. Not thread-safe: call before the work begins.
void force_simd_target(const std::string& name);

/// Sets flush-to-zero and denormals-are-zero for the calling thread and puts the old mode back when it goes.
class FlushDenormals {
 public:
  FlushDenormals() noexcept;
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  unsigned saved_;
};

}  // namespace seqboat::kernels
