#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>

/// What a training or evaluating process asks of the machine and of LibTorch.
namespace seqboat::train {

/// Threads for LibTorch's loops (0 = all cores that this process may use), denormals flushed in every one of them, and an allocator that keeps its
/// pages (a fresh page costs more than the arithmetic on it). Returns the number of threads. The settings stay until the process ends.
int64_t prepare_process(int64_t threads);

/// Where and how a run was made: {"version", "seed", "threads", "simd", "torch", "compiler", "cpu", "cores", "recipe", "overrides", "command_line"}:
/// this function fills those that the machine knows (torch, simd, compiler, cpu, cores).
nlohmann::ordered_json machine_json();

/// The LibTorch that is loaded: {"version" (its own; "" if it does not tell), "built_for" (that of the headers), "library" (file of libtorch_cpu),
/// "capability" (the instructions that its own loops use), "mkl", "openmp"}.
nlohmann::ordered_json torch_json();

/// Calls `body`; failed allocations become Error (kResource), errors of LibTorch and the rest Error (kFailed) with their first line.
[[noreturn]] void throw_translated();
template <class Body>
auto with_translated_errors(Body&& body) {
  try {
    return std::forward<Body>(body)();
  } catch (...) {
    throw_translated();
  }
}

}  // namespace seqboat::train
