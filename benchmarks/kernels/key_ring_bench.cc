// Attention of one stream to its ring on one thread, at a window that has wrapped: one query (both stages; the rings of several layers take turns, so
// that they come from memory), and blocks of 64 queries beside window_attention_fwd() on the same sequence. Useful flops: 2 (Z + H) a query and key.
// SEQBOAT_SIMD=avx2 (or any supported target) forces a target.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "seqboat/kernels/key_ring.h"
#include "seqboat/kernels/simd.h"

namespace seqboat {
namespace {

using kernels::AttentionFunction;
using kernels::PositionBias;
using kernels::RingAttention;
using kernels::RingType;

struct Setting {
  const char* name;
  int64_t d_attn, d_hidden, window;
  AttentionFunction function;
  PositionBias bias;
  int layers;
};

constexpr Setting kSettings[] = {
    {"lm_softmax", 128, 1024, 1024, AttentionFunction::kSoftmax, PositionBias::kNone, 12},
    {"lm_softmax_original_distance", 128, 1024, 1024, AttentionFunction::kSoftmax, PositionBias::kOriginalDistance, 12},
    {"lm_relu2", 128, 1024, 1024, AttentionFunction::kRelu2, PositionBias::kNone, 12},
    {"small_softmax", 64, 160, 128, AttentionFunction::kSoftmax, PositionBias::kNone, 6},
    {"small_laplace_window_distance", 64, 160, 128, AttentionFunction::kLaplace, PositionBias::kWindowDistance, 6},
};

struct Free {
  void operator()(float* memory) const { ::operator delete (memory, std::align_val_t{64}); }
};
using Memory = std::unique_ptr<float, Free>;
Memory take(size_t floats) {
  Memory memory(static_cast<float*>(::operator new (floats * sizeof(float), std::align_val_t{64})));
  std::fill_n(memory.get(), floats, 0.25f);
  return memory;
}

RingAttention attention_of(const Setting& s, RingType type, int64_t queries) {
  RingAttention a{{kernels::key_ring_capacity(s.window, queries), s.d_attn, s.d_hidden, type}, s.window, s.function, s.bias, 0};
  if (s.bias != PositionBias::kNone) a.max_positions = s.bias == PositionBias::kWindowDistance ? 3 * s.window : 4096;
  return a;
}

struct Stream {
  RingAttention attention;
  std::vector<Memory> rings;
  std::vector<int64_t> positions;
  std::vector<float> table;
  Memory rows;
  int64_t next = 0;

  Stream(const Setting& s, RingType type, int64_t queries)
      : attention(attention_of(s, type, queries)),
        positions(static_cast<size_t>(attention.ring.capacity)),
        table(static_cast<size_t>(std::max<int64_t>(1, 2 * attention.max_positions - 1)), 0.125f),
        rows(take(static_cast<size_t>(queries * (2 * s.d_attn + 2 * s.d_hidden)))) {
    for (int layer = 0; layer < s.layers; ++layer) rings.push_back(take(kernels::key_ring_bytes(attention.ring) / sizeof(float)));
    for (; next < attention.ring.capacity + 1000; ++next) append(1, true);
  }
  float* q() { return rows.get(); }
  void append(int64_t n, bool all) {
    const auto& ring = attention.ring;
    std::vector<int64_t> times(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) times[static_cast<size_t>(i)] = 2 * (next + i);
    kernels::position_ring_append(ring.capacity, next, n, times.data(), positions.data());
    for (size_t layer = 0; layer < (all ? rings.size() : 1); ++layer) {
      kernels::key_ring_append(ring, next, n, q(), ring.d_attn, q(), ring.d_hidden, rings[layer].get());
    }
  }
};

void step(benchmark::State& state, const Setting& s, RingType type) {
  Stream stream(s, type, 1);
  const RingAttention& a = stream.attention;
  const Memory scores = take(kernels::key_ring_step_scores_size(a)), workspace = take(kernels::key_ring_step_workspace_size(a));
  const Memory out = take(static_cast<size_t>(s.d_hidden));
  const int64_t number = stream.next - 1, items = kernels::key_ring_step_items(a, number);
  size_t layer = 0;
  for (auto _ : state) {
    const float* ring = stream.rings[layer].get();
    kernels::key_ring_step_scores(a, number, 0, items, stream.q(), ring, stream.positions.data(), stream.table.data(), scores.get());
    kernels::key_ring_step_sum(a, number, 0, s.d_hidden, scores.get(), ring, out.get(), workspace.get());
    layer = (layer + 1) % stream.rings.size();
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * (s.window + 1) * (s.d_attn + s.d_hidden) * (type == RingType::kBf16 ? 2 : 4));
}

void append(benchmark::State& state, const Setting& s, RingType type, int64_t n) {
  Stream stream(s, type, n);
  const auto& ring = stream.attention.ring;
  size_t layer = 0;
  for (auto _ : state) {
    kernels::key_ring_append(ring, stream.next, n, stream.q(), ring.d_attn, stream.q(), ring.d_hidden, stream.rings[layer].get());
    layer = (layer + 1) % stream.rings.size();
    stream.next += layer == 0 ? n : 0;
  }
}

constexpr int64_t kBlocks = 8;

double flops(const Setting& s) {
  return 2.0 * static_cast<double>(kBlocks * kernels::kAttentionBlock * (s.window + 1) * (s.d_attn + s.d_hidden));
}

void block(benchmark::State& state, const Setting& s, RingType type) {
  constexpr int64_t kQueries = kBlocks * kernels::kAttentionBlock;
  Stream stream(s, type, kQueries);
  const RingAttention& a = stream.attention;
  const Memory workspace = take(kernels::key_ring_attention_workspace_size(a)), out = take(static_cast<size_t>(kQueries * s.d_hidden));
  const int64_t first = stream.next - kQueries;
  for (auto _ : state) {
    for (int64_t i = 0; i < kQueries; i += kernels::kAttentionBlock) {
      kernels::key_ring_attention(a, first + i, kernels::kAttentionBlock, stream.q() + i * s.d_attn, s.d_attn, stream.rings[0].get(),
                                  stream.positions.data(), stream.table.data(), out.get() + i * s.d_hidden, s.d_hidden, workspace.get());
    }
    benchmark::ClobberMemory();
  }
  state.counters["useful_flops_per_s"] = benchmark::Counter(flops(s) * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

/// The same queries at the end of one sequence.
void window_attention(benchmark::State& state, const Setting& s) {
  const int64_t before = (s.window + kernels::kAttentionBlock - 1) / kernels::kAttentionBlock, tokens = (before + kBlocks) * kernels::kAttentionBlock;
  const int64_t cu[] = {0, tokens};
  const RingAttention a = attention_of(s, RingType::kFloat32, 1);
  kernels::WindowAttentionShape shape{1,          cu,       s.d_attn, s.d_hidden, s.d_attn, s.d_attn,       s.d_hidden,
                                      s.d_hidden, s.window, true,     s.function, s.bias,   a.max_positions};
  const Memory q = take(static_cast<size_t>(tokens * s.d_attn)), k = take(static_cast<size_t>(tokens * s.d_attn));
  const Memory v = take(static_cast<size_t>(tokens * s.d_hidden)), out = take(static_cast<size_t>(tokens * s.d_hidden));
  const Memory workspace = take(kernels::window_attention_workspace_size<float>(shape));
  std::vector<int64_t> positions(static_cast<size_t>(tokens));
  for (int64_t i = 0; i < tokens; ++i) positions[static_cast<size_t>(i)] = 2 * i;
  const std::vector<float> table(static_cast<size_t>(std::max<int64_t>(1, 2 * a.max_positions - 1)), 0.125f);
  for (auto _ : state) {
    kernels::window_attention_fwd<float>(shape, before, before + kBlocks, q.get(), k.get(), v.get(), positions.data(), table.data(), out.get(),
                                         nullptr, workspace.get());
    benchmark::ClobberMemory();
  }
  state.counters["useful_flops_per_s"] = benchmark::Counter(flops(s) * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

void register_all() {
  for (const Setting& s : kSettings) {
    for (const RingType type : {RingType::kFloat32, RingType::kBf16}) {
      const std::string name = std::string(s.name) + (type == RingType::kBf16 ? "/bf16" : "/float32");
      benchmark::RegisterBenchmark(("step/" + name).c_str(), [&s, type](benchmark::State& state) { step(state, s, type); });
      benchmark::RegisterBenchmark(("append1/" + name).c_str(), [&s, type](benchmark::State& state) { append(state, s, type, 1); });
      benchmark::RegisterBenchmark(("append64/" + name).c_str(), [&s, type](benchmark::State& state) { append(state, s, type, 64); });
      benchmark::RegisterBenchmark(("block/" + name).c_str(), [&s, type](benchmark::State& state) { block(state, s, type); });
    }
    benchmark::RegisterBenchmark(("block/" + std::string(s.name) + "/window_attention").c_str(),
                                 [&s](benchmark::State& state) { window_attention(state, s); });
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
