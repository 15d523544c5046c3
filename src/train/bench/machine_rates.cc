#include "train/bench/machine_rates.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "seqboat/base/machine.h"
#include "seqboat/kernels/gemm.h"
#include "seqboat/kernels/peak.h"
#include "train/bench/mapped_floats.h"

namespace seqboat::train {
namespace {

using kernels::GemmShape;

constexpr int64_t kRateRuns = 5;
constexpr double kRateBudget = 0.2;  // seconds for each rate
// As the training operators cut a product: rows at multiples of this, and the sum over tokens of a weight's gradient in chunks.
constexpr int64_t kRowBlock = 256;
constexpr int64_t kTokenChunk = 4096;
constexpr int64_t kWeightRowBlock = 128;

int64_t thread_count() {
  return std::max(1, at::get_num_threads());
}

/// work(part) for each part 0 .. thread_count()-1, one in each thread.
template <class Work>
void in_each_thread(const Work& work) {
  at::parallel_for(0, thread_count(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) work(part);
  });
}

/// Uniform in [-0.5, 0.5), so that no product multiplies zeros.
void fill(int64_t count, float* values) {
  at::parallel_for(0, count, 1 << 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) values[i] = static_cast<float>((i * 7919) % 1000) / 1000.0f - 0.5f;
  });
}

/// A part of a product: its shape, and where in the operands it begins.
struct GemmTask {
  GemmShape shape;
  int64_t a, b, c;
};

/// All tasks, dealt out to the threads.
double gemm_seconds(const std::vector<GemmTask>& tasks, int64_t a_size, int64_t b_size, int64_t c_size) {
  MappedFloats a(a_size), b(b_size), c(c_size);
  fill(a_size, a.data());
  fill(b_size, b.data());
  size_t workspace_size = 0;
  for (const GemmTask& task : tasks) workspace_size = std::max(workspace_size, kernels::gemm_workspace_size<float>(task.shape));
  // Pages are aligned; so are parts of whole cache lines.
  workspace_size = (workspace_size + 1023) / 1024 * 1024;
  MappedFloats workspace(static_cast<int64_t>(workspace_size) * thread_count());
  return best_seconds(kRateRuns, kRateBudget / 4, [&] {
    at::parallel_for(0, static_cast<int64_t>(tasks.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const GemmTask& task = tasks[static_cast<size_t>(i)];
        kernels::gemm<float>(task.shape, a.data() + task.a, b.data() + task.b, nullptr, c.data() + task.c,
                             workspace.data() + workspace_size * static_cast<size_t>(at::get_thread_num()));
      }
    });
  });
}

/// (rows, k) x (k, n) with the rows split evenly among the threads, at multiples of kRowBlock.
double rows_seconds(int64_t rows, int64_t n, int64_t k, bool trans_b) {
  const int64_t blocks = (rows + kRowBlock - 1) / kRowBlock, each = (blocks + thread_count() - 1) / thread_count();
  std::vector<GemmTask> tasks;
  for (int64_t row = 0; row < rows; row += each * kRowBlock) {
    const int64_t count = std::min(each * kRowBlock, rows - row);
    tasks.push_back({{.m = count, .n = n, .k = k, .lda = k, .ldb = trans_b ? k : n, .ldc = n, .trans_b = trans_b}, row * k, 0, row * n});
  }
  return gemm_seconds(tasks, rows * k, n * k, rows * n);
}

/// The gradient of a weight (out, in): a sum over all rows.
double weight_gradient_seconds(int64_t rows, int64_t in, int64_t out) {
  std::vector<GemmTask> tasks;
  for (int64_t chunk = 0; chunk * kTokenChunk < rows; ++chunk) {
    const int64_t token = chunk * kTokenChunk;
    for (int64_t row = 0; row < out; row += kWeightRowBlock) {
      const GemmShape shape{.m = std::min(kWeightRowBlock, out - row),
                            .n = in,
                            .k = std::min(kTokenChunk, rows - token),
                            .lda = out,
                            .ldb = in,
                            .ldc = in,
                            .trans_a = true};
      tasks.push_back({shape, token * out + row, token * in, chunk * out * in + row * in});
    }
  }
  const int64_t chunks = (rows + kTokenChunk - 1) / kTokenChunk;
  return gemm_seconds(tasks, rows * out, rows * in, chunks * out * in);
}

double large_gemm_gflops() {
  constexpr int64_t kSize = 1024;
  const int64_t rows = kSize * thread_count();
  return 2e-9 * static_cast<double>(rows) * kSize * kSize / rows_seconds(rows, kSize, kSize, false);
}

double fma_gflops() {
  constexpr int64_t kSteps = 200000;
  std::vector<double> flops(static_cast<size_t>(thread_count()));
  std::vector<float> results(flops.size());
  const double seconds = best_seconds(kRateRuns, kRateBudget, [&] {
    in_each_thread([&](int64_t part) {
      float result = 0;
      flops[static_cast<size_t>(part)] = kernels::fma_chains(kSteps, &result);
      results[static_cast<size_t>(part)] = result;
    });
  });
  double sum = 0;
  for (const double one : flops) sum += one;
  return 1e-9 * sum / seconds;
}

/// GB/s of the triad over three arrays of `count` floats a thread, `times` times in a row.
double triad_gbs(int64_t count, int64_t times) {
  const int64_t all = count * thread_count();
  MappedFloats a(all), b(all), c(all);
  // Each thread touches its own part first, so that it lies near.
  in_each_thread([&](int64_t part) {
    std::fill_n(b.data() + part * count, count, 1.0f);
    std::fill_n(c.data() + part * count, count, 2.0f);
    std::fill_n(a.data() + part * count, count, 0.0f);
  });
  const double seconds = best_seconds(kRateRuns, kRateBudget, [&] {
    in_each_thread([&](int64_t part) {
      const int64_t begin = part * count;
      for (int64_t time = 0; time < times; ++time) kernels::triad(count, 0.5f, b.data() + begin, c.data() + begin, a.data() + begin);
    });
  });
  return 12e-9 * static_cast<double>(all) * static_cast<double>(times) / seconds;
}

}  // namespace

MachineMeasurement measure_machine() {
  constexpr int64_t kL2Bytes = 384 << 10, kMiddleBytes = 64 << 20, kLeastDramBytes = 192 << 20;
  MachineMeasurement out;
  out.dram_bytes = kDramBytes;
  // Half of what is free, at most.
  const int64_t available = machine_memory().available_bytes, left = group_limits().memory_left_bytes;
  for (const int64_t room : {available < 0 ? left : available, left}) out.dram_bytes = std::min(out.dram_bytes, std::max(kLeastDramBytes, room / 2));
  const auto elements = [](int64_t bytes, int64_t parts) { return bytes / parts / 12; };
  out.rates.fma_gflops = fma_gflops();
  out.rates.gemm_gflops = large_gemm_gflops();
  out.rates.triad_l2_gbs = triad_gbs(elements(kL2Bytes, 1), 200);
  out.rates.triad_64mb_gbs = triad_gbs(elements(kMiddleBytes, thread_count()), 1);
  out.rates.triad_dram_gbs = triad_gbs(elements(out.dram_bytes, thread_count()), 1);
  return out;
}

double product_seconds(const Product& product, bool train) {
  const int64_t rows = std::llround(product.rows);
  if (rows == 0) return 0;
  double seconds = rows_seconds(rows, product.out, product.in, true);
  if (train) seconds += rows_seconds(rows, product.in, product.out, false) + weight_gradient_seconds(rows, product.in, product.out);
  return seconds * product.layers;
}

}  // namespace seqboat::train
