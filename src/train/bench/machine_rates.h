#pragma once

// Private to src/train: what this machine does, measured with the threads of LibTorch's loops as they are set.

#include <chrono>
#include <cstdint>
#include <limits>

#include "train/bench/cost_model.h"

namespace seqboat::train {

/// The shortest of several runs of `work` in seconds, after one that does not count: at least `least` of them, and as many as fill `budget` seconds.
template <class Work>
double best_seconds(int64_t least, double budget, const Work& work) {
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); };
  work();
  double best = std::numeric_limits<double>::infinity();
  const Clock::time_point begin = Clock::now();
  for (int64_t run = 0; run < least || since(begin) < budget; ++run) {
    const Clock::time_point start = Clock::now();
    work();
    best = std::min(best, since(start));
  }
  return best;
}

/// Of the three arrays that the DRAM triad runs over, where memory allows.
constexpr int64_t kDramBytes = int64_t{3} * (512 << 20);

/// The machine's rates: our own GEMM of 1024 columns and as many rows a thread, the multiply-add peak, and the triad over 384 KiB a thread (within an
/// L2 cache), over 64 MB and over kDramBytes, three arrays together. About two seconds. `dram_bytes`: those in truth, less where little memory is
/// free, down to 192 MB.
struct MachineMeasurement {
  MachineRates rates;
  int64_t dram_bytes = 0;
};
MachineMeasurement measure_machine();

/// Seconds of our own GEMM for a product, once for each of its layers: the forward's, and in training the gradients' of its input and weight, with
/// rows (of the weight's gradient: chunks of tokens) split among the threads. No rows take no time.
double product_seconds(const Product& product, bool train);

}  // namespace seqboat::train
