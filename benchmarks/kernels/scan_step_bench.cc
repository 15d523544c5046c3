// Scan steps of one stream on one thread, D 512, N 16 (S4D: 16 modes): some tokens at a time beside one call of the scan. States and coefficients
// stay in the cache, or (..._layers) are those of twelve layers in turn. SEQBOAT_SIMD=avx2 (or any supported target) forces a target.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "seqboat/kernels/ema_scan.h"
#include "seqboat/kernels/s4d_scan.h"
#include "seqboat/kernels/scan_step.h"
#include "seqboat/kernels/simd.h"

namespace seqboat {
namespace {

using kernels::ScanStepShape;

constexpr int64_t kChannels = 512, kStates = 16;

struct Layer {
  std::vector<float> coefficients, state, ring;
};

void step(benchmark::State& bench, bool ema, int64_t tokens, int64_t truncation, size_t layers) {
  const ScanStepShape shape{kChannels, kStates, truncation};
  const std::vector<float> decay(kChannels * kStates * 2, 0.5f), x(static_cast<size_t>(tokens * kChannels), 0.25f);
  std::vector<float> y(x.size());
  std::vector<Layer> all(layers);
  for (Layer& layer : all) {
    layer.coefficients.resize(ema ? ema_step_coefficients_size(shape) : s4d_step_coefficients_size(shape));
    (ema ? kernels::ema_step_pack : kernels::s4d_step_pack)(shape, decay.data(), decay.data(), decay.data(), layer.coefficients.data());
    layer.state.resize(ema ? ema_step_state_size(shape) : s4d_step_state_size(shape));
    layer.ring.resize(scan_step_ring_size(shape));
  }
  int64_t time = truncation;
  size_t turn = 0;
  for (auto _ : bench) {
    Layer& layer = all[turn];
    (ema ? kernels::ema_step : kernels::s4d_step)(shape, 0, kChannels, time, tokens, x.data(), kChannels, layer.coefficients.data(),
                                                  layer.state.data(), layer.ring.data(), y.data(), kChannels);
    turn = (turn + 1) % layers;
    time += turn == 0 ? tokens : 0;
    benchmark::ClobberMemory();
  }
  bench.counters["tokens_per_s"] = benchmark::Counter(static_cast<double>(tokens * bench.iterations()), benchmark::Counter::kIsRate);
}

void scan(benchmark::State& bench, bool ema, int64_t tokens) {
  const int64_t cu[] = {0, tokens};
  const kernels::ScanRange all{0, 1, 0, kChannels};
  const std::vector<float> decay(kChannels * kStates * 2, 0.5f), x(static_cast<size_t>(tokens * kChannels), 0.25f);
  std::vector<float> y(x.size()), state(decay.size(), 0.0f);
  for (auto _ : bench) {
    if (ema) {
      kernels::ema_scan_fwd<float>({1, cu, kChannels, kStates}, all, x.data(), decay.data(), decay.data(), decay.data(), state.data(), nullptr,
                                   y.data(), false, state.data());
    } else {
      kernels::s4d_scan_fwd<float>({1, cu, kChannels, kStates}, all, x.data(), decay.data(), decay.data(), decay.data(), state.data(), nullptr,
                                   y.data(), false, state.data());
    }
    benchmark::ClobberMemory();
  }
  bench.counters["tokens_per_s"] = benchmark::Counter(static_cast<double>(tokens * bench.iterations()), benchmark::Counter::kIsRate);
}

void register_all() {
  for (const bool ema : {true, false}) {
    const std::string kind = ema ? "ema" : "s4d";
    for (const int64_t tokens : {1, 2, 4, 8, 16, 64, 512, 2048}) {
      const std::string name = "/" + std::to_string(tokens);
      benchmark::RegisterBenchmark((kind + "_step" + name).c_str(), [=](benchmark::State& state) { step(state, ema, tokens, 0, 1); });
      if (tokens <= 2) {
        benchmark::RegisterBenchmark((kind + "_step_layers" + name).c_str(), [=](benchmark::State& state) { step(state, ema, tokens, 0, 12); });
        benchmark::RegisterBenchmark((kind + "_step_truncated" + name).c_str(), [=](benchmark::State& state) { step(state, ema, tokens, 1024, 1); });
      }
      if (tokens >= 16) benchmark::RegisterBenchmark((kind + "_scan" + name).c_str(), [=](benchmark::State& state) { scan(state, ema, tokens); });
    }
  }
}

}  // namespace
}  // namespace seqboat

int main(int argc, char** argv) {
  if (const char* target = std::getenv("SEQBOAT_SIMD")) seqboat::kernels::force_simd_target(target);
  const seqboat::kernels::FlushDenormals flush;
  seqboat::register_all();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
