// Useful GF/s of window attention on one thread: n Kq 2(Z+H) floating-point operations forward, n Kq 2(3Z+2H) backward, Kq the keys a query sees.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "seqboat/kernels/simd.h"
#include "seqboat/kernels/window_attention.h"

namespace {

using seqboat::kernels::AttentionFunction;
using seqboat::kernels::PositionBias;
using seqboat::kernels::WindowAttentionShape;

struct Problem {
  std::vector<int64_t> cu, positions;
  WindowAttentionShape shape;
  std::vector<float> q, k, v, dout, out, lse, delta, dq, dk, dv, table, dbias;
  float* workspace;
  double pairs = 0;  // query-key pairs within the window

  Problem(int64_t sequences, int64_t active, int64_t d_attn, int64_t d_hidden, int64_t window, bool causal, AttentionFunction function,
          PositionBias bias) {
    std::mt19937 engine(1);
    for (int64_t b = 0; b <= sequences; ++b) cu.push_back(b * active);
    for (int64_t b = 0; b < sequences; ++b) {
      int64_t position = 0;
      for (int64_t i = 0; i < active; ++i) {
        positions.push_back(position);
        position += 1 + static_cast<int64_t>(engine() % 3);
        const int64_t after = causal ? 0 : window;
        pairs += static_cast<double>(std::min(active, i + after + 1) - std::max<int64_t>(0, i - window));
      }
    }
    shape = {sequences, cu.data(), d_attn, d_hidden, d_attn, d_attn, d_hidden, d_hidden, window, causal, function, bias, 0};
    shape.max_positions = bias == PositionBias::kNone ? 0 : bias == PositionBias::kWindowDistance ? 3 * window : 4096;
    const auto fill = [&](std::vector<float>* values, int64_t n) {
      values->resize(static_cast<size_t>(n));
      for (float& x : *values) x = static_cast<float>(engine() * 0x1p-31 - 1);
    };
    const int64_t tokens = cu.back();
    fill(&q, tokens * d_attn), fill(&k, tokens * d_attn), fill(&v, tokens * d_hidden), fill(&dout, tokens * d_hidden);
    fill(&table, std::max<int64_t>(0, 2 * shape.max_positions - 1));
    dbias.resize(table.size());
    out.resize(v.size()), dv.resize(v.size()), dq.resize(q.size()), dk.resize(k.size());
    lse.resize(static_cast<size_t>(tokens)), delta.resize(static_cast<size_t>(tokens));
    workspace =
        static_cast<float*>(::operator new (seqboat::kernels::window_attention_workspace_size<float>(shape) * sizeof(float), std::align_val_t{64}));
  }
  ~Problem() { ::operator delete (workspace, std::align_val_t{64}); }
  Problem(const Problem&) = delete;

  void forward() {
    seqboat::kernels::window_attention_fwd(shape, 0, seqboat::kernels::window_attention_items(shape), q.data(), k.data(), v.data(), positions.data(),
                                           table.data(), out.data(), lse.data(), workspace);
  }
  void backward() {
    for (int64_t phase = 0; phase < seqboat::kernels::window_attention_bwd_phases(shape); ++phase) {
      seqboat::kernels::window_attention_bwd(shape, phase, 0, seqboat::kernels::window_attention_bwd_items(shape, phase), q.data(), k.data(),
                                             v.data(), positions.data(), table.data(), out.data(), lse.data(), dout.data(), dq.data(), dk.data(),
                                             dv.data(), dbias.data(), delta.data(), workspace);
    }
  }
};

struct Setting {
  const char* name;
  int64_t sequences, active, d_attn, d_hidden, window;
  bool causal;
  AttentionFunction function;
  PositionBias bias;
};

constexpr Setting kSettings[] = {
    {"listops_softmax", 8, 820, 64, 160, 128, false, AttentionFunction::kSoftmax, PositionBias::kNone},
    {"listops_softmax_original_distance", 8, 820, 64, 160, 128, false, AttentionFunction::kSoftmax, PositionBias::kOriginalDistance},
    {"listops_relu2_original_distance", 8, 820, 64, 160, 128, false, AttentionFunction::kRelu2, PositionBias::kOriginalDistance},
    {"listops_laplace_window_distance", 8, 820, 64, 160, 128, false, AttentionFunction::kLaplace, PositionBias::kWindowDistance},
    {"text_softmax_2250", 4, 2250, 64, 256, 128, false, AttentionFunction::kSoftmax, PositionBias::kNone},
    {"speech_softmax_8480", 2, 8480, 30, 120, 128, false, AttentionFunction::kSoftmax, PositionBias::kNone},
    {"image_softmax_490", 8, 490, 96, 320, 128, false, AttentionFunction::kSoftmax, PositionBias::kNone},
    {"lm_softmax_causal_1024", 1, 1170, 128, 1024, 1024, true, AttentionFunction::kSoftmax, PositionBias::kNone},
    {"lm_softmax_causal_1024_original_distance", 1, 1170, 128, 1024, 1024, true, AttentionFunction::kSoftmax, PositionBias::kOriginalDistance},
    {"short_softmax_30", 200, 30, 64, 160, 128, false, AttentionFunction::kSoftmax, PositionBias::kNone},
};

void run(benchmark::State& state, const Setting& s, bool backward) {
  Problem problem(s.sequences, s.active, s.d_attn, s.d_hidden, s.window, s.causal, s.function, s.bias);
  problem.forward();
  for (auto _ : state) backward ? problem.backward() : problem.forward();
  const double width = static_cast<double>(backward ? 3 * s.d_attn + 2 * s.d_hidden : s.d_attn + s.d_hidden);
  state.counters["useful_flops_per_s"] =
      benchmark::Counter(problem.pairs * 2 * width * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

}  // namespace

// Beside google-benchmark's flags: --simd_target=avx2 and the like.
int main(int argc, char** argv) {
  const std::string flag = "--simd_target=";
  char** const end = std::remove_if(argv + 1, argv + argc, [&](const char* arg) {
    const bool ours = std::string(arg).rfind(flag, 0) == 0;
    if (ours) seqboat::kernels::force_simd_target(arg + flag.size());
    return ours;
  });
  argc = static_cast<int>(end - argv);
  for (const Setting& setting : kSettings) {
    for (const bool backward : {false, true}) {
      benchmark::RegisterBenchmark((std::string(setting.name) + (backward ? "/backward" : "/forward")).c_str(),
                                   [&setting, backward](benchmark::State& state) { run(state, setting, backward); });
    }
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
