#include "seqboat/base/resident_memory.h"

#include <malloc.h>

#include <fstream>
#include <sstream>
#include <string>

namespace seqboat {

ResidentMemory resident_memory() {
  ResidentMemory out;
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    int64_t kib = 0;
    if (!(words >> name >> kib)) continue;
    if (name == "VmRSS:") out.now_bytes = kib * 1024;
    if (name == "VmHWM:") out.peak_bytes = kib * 1024;
  }
  return out;
}

bool reset_resident_peak() {
#if defined(__GLIBC__)
  ::malloc_trim(0);
#endif
  {
    std::ofstream file("/proc/self/clear_refs");
    file << "5" << std::flush;  // 5 = the peak alone
    if (!file) return false;
  }
  // Where the file takes everything and does nothing, the peak is still that of before.
  const ResidentMemory memory = resident_memory();
  constexpr int64_t kSlack = 16 << 20;
  return memory.now_bytes >= 0 && memory.peak_bytes >= 0 && memory.peak_bytes <= memory.now_bytes + kSlack;
}

}  // namespace seqboat
