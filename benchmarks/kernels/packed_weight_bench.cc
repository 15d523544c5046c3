// Products with a packed weight on one thread. Decoding: bytes of the weight a second, beside what plain reading gives; the weights of several layers
// take turns, so that they come from memory, or (..._cached) from the last cache. Prefill: flops a second beside gemm_packed().
// SEQBOAT_SIMD=avx2 (or any supported target) forces a target.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "seqboat/kernels/gemm.h"
#include "seqboat/kernels/packed_weight.h"
#include "seqboat/kernels/simd.h"

namespace seqboat {
namespace {

using kernels::PackedWeightShape;
using kernels::WeightType;

class Bytes {
 public:
  explicit Bytes(size_t size) : data_(static_cast<char*>(::operator new (size, std::align_val_t{64}))), size_(size) { std::memset(data_, 1, size); }
  Bytes(Bytes&& other) noexcept : data_(other.data_), size_(other.size_) { other.data_ = nullptr; }
  ~Bytes() { ::operator delete (data_, std::align_val_t{64}); }
  char* data() { return data_; }
  size_t size() const { return size_; }

 private:
  char* data_;
  size_t size_;
};

constexpr size_t kMemory = 256u << 20, kCached = 8u << 20;

std::vector<Bytes> layers_of(size_t bytes, size_t total) {
  std::vector<Bytes> layers;
  for (size_t taken = 0; taken < total; taken += bytes) layers.emplace_back(bytes);
  return layers;
}

void product(benchmark::State& state, PackedWeightShape shape, int64_t m, size_t total) {
  std::vector<Bytes> layers = layers_of(kernels::packed_weight_bytes(shape), total);
  std::vector<float> x(static_cast<size_t>(m * shape.k), 0.5f), y(static_cast<size_t>(m * shape.n));
  size_t layer = 0;
  for (auto _ : state) {
    kernels::multiply_packed(shape, 0, shape.n, m, x.data(), shape.k, layers[layer].data(), nullptr, y.data(), shape.n);
    layer = (layer + 1) % layers.size();
    benchmark::ClobberMemory();
  }
  const double runs = static_cast<double>(state.iterations());
  state.counters["weight_bytes_per_s"] = benchmark::Counter(static_cast<double>(layers[0].size()) * runs, benchmark::Counter::kIsRate);
  state.counters["flops_per_s"] = benchmark::Counter(2.0 * static_cast<double>(m * shape.n * shape.k) * runs, benchmark::Counter::kIsRate);
}

void gemm(benchmark::State& state, int64_t n, int64_t k, int64_t m, size_t total) {
  kernels::GemmShape shape{m, n, k, k, k, n, false, true, false};
  std::vector<Bytes> layers = layers_of(kernels::gemm_packed_size<float>(shape) * sizeof(float), total);
  std::vector<float> x(static_cast<size_t>(m * k), 0.5f), y(static_cast<size_t>(m * n));
  size_t layer = 0;
  for (auto _ : state) {
    kernels::gemm_packed<float>(shape, x.data(), reinterpret_cast<const float*>(layers[layer].data()), nullptr, y.data());
    layer = (layer + 1) % layers.size();
    benchmark::ClobberMemory();
  }
  const double runs = static_cast<double>(state.iterations());
  state.counters["weight_bytes_per_s"] = benchmark::Counter(static_cast<double>(layers[0].size()) * runs, benchmark::Counter::kIsRate);
  state.counters["flops_per_s"] = benchmark::Counter(2.0 * static_cast<double>(m * n * k) * runs, benchmark::Counter::kIsRate);
}

void read(benchmark::State& state, size_t total) {
  std::vector<Bytes> layers = layers_of(size_t{4} << 20, total);
  size_t layer = 0;
  for (auto _ : state) {
    const auto* words = reinterpret_cast<const uint64_t*>(layers[layer].data());
    uint64_t sums[8] = {};
    for (size_t i = 0; i < layers[layer].size() / 8; i += 8) {
      for (size_t j = 0; j < 8; ++j) sums[j] += words[i + j];
    }
    for (const uint64_t sum : sums) benchmark::DoNotOptimize(sum);
    layer = (layer + 1) % layers.size();
  }
  state.SetBytesProcessed(state.iterations() * (int64_t{4} << 20));
}

void register_all() {
  constexpr struct {
    const char* name;
    WeightType type;
  } kTypes[] = {{"float32", WeightType::kFloat32}, {"bf16", WeightType::kBf16}, {"int8", WeightType::kInt8}};
  for (const bool cached : {false, true}) {
    const size_t total = cached ? kCached : kMemory;
    const std::string where = cached ? "_cached" : "";
    benchmark::RegisterBenchmark(("read" + where).c_str(), [=](benchmark::State& state) { read(state, total); });
    for (const int64_t m : {1, 2, 4, 8, 16}) {
      const std::string name = "/n1152_k512_m" + std::to_string(m);
      for (const auto& [type, kind] : kTypes) {
        const PackedWeightShape shape{kind, 1152, 512};
        benchmark::RegisterBenchmark((std::string("decode") + where + name + "/" + type).c_str(),
                                     [=](benchmark::State& state) { product(state, shape, m, total); });
      }
      benchmark::RegisterBenchmark(("decode" + where + name + "/gemm_packed").c_str(),
                                   [=](benchmark::State& state) { gemm(state, 1152, 512, m, total); });
    }
  }
  constexpr struct { int64_t n, k, m; } kPrefill[] = {{1152, 512, 256}, {512, 1024, 256}, {1152, 512, 64}, {192, 80, 512}};
  for (const auto& [n, k, m] : kPrefill) {
    const std::string name = "prefill/n" + std::to_string(n) + "_k" + std::to_string(k) + "_m" + std::to_string(m) + "/";
    for (const auto& [type, kind] : kTypes) {
      const PackedWeightShape shape{kind, n, k};
      benchmark::RegisterBenchmark((name + type).c_str(), [=, rows = m](benchmark::State& state) { product(state, shape, rows, kCached); });
    }
    benchmark::RegisterBenchmark((name + "gemm_packed").c_str(),
                                 [=, cols = n, depth = k, rows = m](benchmark::State& state) { gemm(state, cols, depth, rows, kCached); });
  }
}

}  // namespace
}  // namespace seqboat

int main(int argc, char** argv) {
  if (const char* target = std::getenv("SEQBOAT_SIMD")) seqboat::kernels::force_simd_target(target);
  seqboat::register_all();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
