#include "seqboat/train/process.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>
#include <malloc.h>
#include <torch/version.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <new>
#include <nlohmann/json.hpp>
#include <system_error>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/base/machine.h"
#include "seqboat/kernels/simd.h"

namespace seqboat::train {
namespace {

std::string compiler_name() {
#if defined(__clang__)
  return __VERSION__;
#else
  return std::string("g++ ") + __VERSION__;
#endif
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const size_t colon = line.find(':');
    if (colon != std::string::npos && colon + 2 <= line.size()) return line.substr(colon + 2);
  }
  return "unknown";
}

// The version of the libraries that are loaded: the headers only tell that of the build. LibTorch tells it in one line of its configuration alone.
std::string loaded_version() {
  const std::string settings = at::show_config();
  const std::string key = "TORCH_VERSION=";
  const size_t begin = settings.find(key);
  if (begin == std::string::npos) return "";
  return settings.substr(begin + key.size(), settings.find_first_of(", \n", begin) - begin - key.size());
}

}  // namespace

int64_t prepare_process(int64_t threads) {
  const int64_t count = threads > 0 ? threads : default_threads();
  at::set_num_threads(static_cast<int>(count));
  at::globalContext().setFlushDenormal(true);
  // One chunk a thread: each worker of the pool sets its own mode.
  at::parallel_for(0, count, 1, [](int64_t, int64_t) { at::globalContext().setFlushDenormal(true); });
#if defined(__GLIBC__)
  // Activations of every step are as large as those of the last: what was freed is taken again instead of going back to the system.
  ::mallopt(M_MMAP_MAX, 0);
  ::mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
  ::mallopt(M_TOP_PAD, 16 << 20);
#endif
  return count;
}

nlohmann::ordered_json machine_json() {
  return {{"simd", kernels::simd_target()}, {"torch", TORCH_VERSION}, {"compiler", compiler_name()}, {"cpu", cpu_name()}, {"cores", usable_cores()}};
}

nlohmann::ordered_json torch_json() {
  nlohmann::ordered_json json = {{"version", loaded_version()}, {"built_for", TORCH_VERSION}, {"library", ""}};
  Dl_info library;
  if (::dladdr(reinterpret_cast<const void*>(&at::show_config), &library) != 0 && library.dli_fname != nullptr) json["library"] = library.dli_fname;
  json["capability"] = at::get_cpu_capability();
  json["mkl"] = at::globalContext().hasMKL();
  json["openmp"] = at::globalContext().hasOpenMP();
  return json;
}

void throw_translated() {
  const auto first_line = [](const char* what) {
    const std::string text = what;
    return text.substr(0, text.find('\n'));
  };
  try {
    throw;
  } catch (const Error&) {
    throw;
  } catch (const c10::OutOfMemoryError& error) {
    throw Error(ErrorKind::kResource, "out of memory: " + first_line(error.what_without_backtrace()));
  } catch (const c10::Error& error) {
    // A failed allocation on the CPU is an ordinary error of LibTorch; its text alone tells.
    const std::string what = error.what_without_backtrace();
    if (what.find("can't allocate memory") != std::string::npos || what.find("not enough memory") != std::string::npos) {
      const size_t tried = what.find("you tried to allocate");
      const size_t end = what.find(" bytes", tried);
      throw Error(ErrorKind::kResource, "out of memory" + (end != std::string::npos ? ": " + what.substr(tried, end + 6 - tried) : std::string()));
    }
    throw Error(ErrorKind::kFailed, first_line(what.c_str()));
  } catch (const std::bad_alloc&) {
    throw Error(ErrorKind::kResource, "out of memory");
  } catch (const std::filesystem::filesystem_error& error) {
    throw Error(is_out_of_space(error.code().value()) ? ErrorKind::kResource : ErrorKind::kFailed, first_line(error.what()));
  } catch (const std::exception& error) {
    throw Error(ErrorKind::kFailed, first_line(error.what()));
  }
}

}  // namespace seqboat::train
