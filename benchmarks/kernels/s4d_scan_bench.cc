// Time and GF/s of the S4D scan on one thread, both directions, at the shapes of the recipes. Multiply-adds counted: 4 a mode and step forward, 12
// backward, which is what the EMA's scan needs for twice as many real states, so that both benchmarks' GF/s compare. (Complex arithmetic takes 6, and
// 19.) SEQBOAT_SIMD=avx2 (or any supported target) forces a target.
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "seqboat/kernels/s4d_scan.h"
#include "seqboat/kernels/simd.h"

namespace seqboat {
namespace {

struct Case {
  const char* name;
  int64_t batch, seq_len, channels, n_modes, truncation;
  bool bidirectional;
};

constexpr Case kCases[] = {
    {"listops", 8, 2048, 80, 8, 0, true},
    {"listops_truncated", 8, 2048, 80, 8, 1024, true},
    {"text_truncated", 4, 4096, 128, 8, 1024, true},
    {"image", 8, 1024, 160, 8, 1024, true},
    {"speech_truncated", 2, 16000, 60, 8, 4000, true},
    {"image_64_states", 8, 1024, 160, 32, 1024, true},
    {"lm", 1, 2048, 512, 8, 0, false},
    {"lm_long", 1, 32768, 512, 8, 0, false},
    {"decode_one_token", 1, 1, 512, 8, 0, false},
    {"decode_one_token_truncated", 1, 1, 512, 8, 2048, false},
};

struct Data {
  explicit Data(const Case& shape_case) : rows(shape_case.batch * shape_case.seq_len) {
    for (int64_t b = 0; b <= shape_case.batch; ++b) offsets.push_back(b * shape_case.seq_len);
    const int64_t params = shape_case.channels * shape_case.n_modes;
    shape.batch = shape_case.batch;
    shape.cu_seqlens = offsets.data();
    shape.channels = shape_case.channels;
    shape.n_modes = shape_case.n_modes;
    shape.truncation = shape_case.truncation;
    range = {0, shape.batch, 0, shape.channels};
    for (int64_t i = 0; i < params; ++i) {
      const float size = 0.5f + 0.4999f * static_cast<float>(i % 97) / 97, angle = 0.1f * static_cast<float>(i % 31);
      d.insert(d.end(), {size * std::cos(angle), size * std::sin(angle)});
      w.insert(w.end(), {static_cast<float>(i % 13) / 13 - 0.5f, static_cast<float>(i % 11) / 11 - 0.5f});
    }
    skip.assign(static_cast<size_t>(shape.channels), 0.3f);
    for (int64_t i = 0; i < rows * shape.channels; ++i) x.push_back(static_cast<float>((i * 7919) % 1000) / 1000 - 0.5f);
    dy = x;
    y.assign(x.size(), 0.0f);
    state.assign(static_cast<size_t>(shape.batch * params * 2), 0.1f);
    history.assign(static_cast<size_t>(shape.batch * shape.truncation * shape.channels), 0.1f);
    dd.assign(state.size(), 0.0f);
    dw = dd;
    dskip.assign(static_cast<size_t>(shape.batch * shape.channels), 0.0f);
  }
  int64_t rows;
  std::vector<int64_t> offsets;
  kernels::S4dScanShape shape{};
  kernels::S4dScanRange range{};
  std::vector<float> d, w, skip, x, dy, y, state, history, dd, dw, dskip;
};

void report(benchmark::State& state, const Case& shape_case, double fmas) {
  const double directions = shape_case.bidirectional ? 2 : 1;
  const double flops = 2 * fmas * directions * static_cast<double>(shape_case.batch * shape_case.seq_len * shape_case.channels * shape_case.n_modes);
  state.counters["GF/s"] = benchmark::Counter(flops * 1e-9 * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

void forward(benchmark::State& state, const Case& shape_case) {
  Data data(shape_case);
  const bool streaming = shape_case.seq_len == 1;
  for (auto _ : state) {
    data.shape.direction = kernels::ScanDirection::kForward;
    kernels::s4d_scan_fwd<float>(data.shape, data.range, data.x.data(), data.d.data(), data.w.data(), data.skip.data(),
                                 streaming ? data.state.data() : nullptr, streaming ? data.history.data() : nullptr, data.y.data(), false,
                                 streaming ? data.state.data() : nullptr);
    if (shape_case.bidirectional) {
      data.shape.direction = kernels::ScanDirection::kReverse;
      kernels::s4d_scan_fwd<float>(data.shape, data.range, data.x.data(), data.d.data(), data.w.data(), nullptr, nullptr, nullptr, data.y.data(),
                                   true, nullptr);
    }
    benchmark::ClobberMemory();
  }
  report(state, shape_case, 4);
}

void backward_params(benchmark::State& state, const Case& shape_case) {
  Data data(shape_case);
  for (auto _ : state) {
    data.shape.direction = kernels::ScanDirection::kForward;
    kernels::s4d_scan_bwd_params<float>(data.shape, data.range, data.x.data(), data.d.data(), data.w.data(), nullptr, nullptr, data.dy.data(),
                                        nullptr, data.dd.data(), data.dw.data(), data.dskip.data());
    if (shape_case.bidirectional) {
      data.shape.direction = kernels::ScanDirection::kReverse;
      kernels::s4d_scan_bwd_params<float>(data.shape, data.range, data.x.data(), data.d.data(), data.w.data(), nullptr, nullptr, data.dy.data(),
                                          nullptr, data.dd.data(), data.dw.data(), nullptr);
    }
    benchmark::ClobberMemory();
  }
  report(state, shape_case, 8);
}

void backward_input(benchmark::State& state, const Case& shape_case) {
  Data data(shape_case);
  for (auto _ : state) {
    data.shape.direction = kernels::ScanDirection::kForward;
    kernels::s4d_scan_bwd_input<float>(data.shape, data.range, data.d.data(), data.w.data(), data.skip.data(), data.dy.data(), nullptr, data.y.data(),
                                       false, nullptr, nullptr);
    if (shape_case.bidirectional) {
      data.shape.direction = kernels::ScanDirection::kReverse;
      kernels::s4d_scan_bwd_input<float>(data.shape, data.range, data.d.data(), data.w.data(), nullptr, data.dy.data(), nullptr, data.y.data(), true,
                                         nullptr, nullptr);
    }
    benchmark::ClobberMemory();
  }
  report(state, shape_case, 4);
}

}  // namespace
}  // namespace seqboat

int main(int argc, char** argv) {
  if (const char* target = std::getenv("SEQBOAT_SIMD")) seqboat::kernels::force_simd_target(target);
  const seqboat::kernels::FlushDenormals flush;
  benchmark::AddCustomContext("simd_target", seqboat::kernels::simd_target());
  for (const seqboat::Case& shape : seqboat::kCases) {
    const auto add = [&shape](const char* what, void (*run)(benchmark::State&, const seqboat::Case&)) {
      benchmark::RegisterBenchmark((std::string("s4d_scan/") + what + "/" + shape.name).c_str(), [&shape, run](benchmark::State& state) {
        run(state, shape);
      })->Unit(benchmark::kMicrosecond);
    };
    add("fwd", seqboat::forward);
    if (shape.seq_len == 1) continue;
    add("bwd_params", seqboat::backward_params);
    add("bwd_input", seqboat::backward_input);
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
