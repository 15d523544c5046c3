#pragma once

#include <filesystem>

namespace seqboat::app {

/// The folder of the running program; empty where the system does not tell.
std::filesystem::path program_dir();

/// The module with the verbs that need LibTorch, beside the program or in ../lib; empty if there is none.
std::filesystem::path train_module_path();

/// How long threads of that module's OpenMP runtime spin at the end of a parallel region, unless GOMP_SPINCOUNT says otherwise. By default it is so
/// long that a second program on the same cores slows training by an order of magnitude; this much bridges our gaps between regions.
constexpr int kSpinCount = 20000;

/// A function of that module, loaded on the first call. Error (kFailed) with the remedy where the module is absent, cannot be loaded, or is another
/// version's.
void* train_module_function(const char* name);

}  // namespace seqboat::app
