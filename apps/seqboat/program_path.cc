#include "program_path.h"

#include <dlfcn.h>

#include <cstdlib>
#include <string>

#include "seqboat/base/error.h"

namespace seqboat::app {

namespace fs = std::filesystem;

fs::path program_dir() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  return error ? fs::path() : program.parent_path();
}

fs::path train_module_path() {
  const fs::path here = program_dir();
  std::error_code error;
  for (const fs::path& folder : {here / ".." / "lib", here}) {
    const fs::path file = (folder / "libseqboat_train_verbs.so").lexically_normal();
    if (!here.empty() && fs::is_regular_file(file, error)) return file;
  }
  return {};
}

void* train_module_function(const char* name) {
  static void* const module = [] {
    const fs::path file = train_module_path();
    SEQBOAT_CHECK(!file.empty(), ErrorKind::kFailed,
                  "this build has no LibTorch, which train, eval and bench need (libseqboat_train_verbs.so is not beside {}). "
                  "Remedy: cmake --preset release && cmake --build --preset release, or tools/quickstart",
                  program_dir().string());
    // The OpenMP runtime reads its settings while it is loaded.
    setenv("GOMP_SPINCOUNT", std::to_string(kSpinCount).c_str(), 0);
    void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    SEQBOAT_CHECK(handle != nullptr, ErrorKind::kFailed, "{}: {}. Remedy: build again with the LibTorch that is installed now (tools/quickstart)",
                  file.string(), dlerror());
    auto* version = reinterpret_cast<const char* (*)()>(dlsym(handle, "seqboat_verbs_version"));
    SEQBOAT_CHECK(version != nullptr && std::string(version()) == SEQBOAT_VERSION, ErrorKind::kFailed,
                  "{}: expected the module of version {}, found {}. Remedy: build or install program and module together", file.string(),
                  SEQBOAT_VERSION, version != nullptr ? version() : "another file");
    return handle;
  }();
  void* function = dlsym(module, name);
  SEQBOAT_CHECK(function != nullptr, ErrorKind::kFailed, "{}: no function {}", train_module_path().string(), name);
  return function;
}

}  // namespace seqboat::app
