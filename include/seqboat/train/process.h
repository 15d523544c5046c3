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
