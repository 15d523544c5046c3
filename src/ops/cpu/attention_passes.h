#pragma once

// Private to src/ops/cpu: window attention over all active tokens, for the single operator and the fused layer alike.

#include "ops/common.h"
#include "ops/cpu/scratch.h"
#include "seqboat/kernels/elementwise.h"
#include "seqboat/kernels/window_attention.h"

namespace seqboat::ops {

/// Names of the operators' arguments -> the kernels' kinds; anything else is an error that names it.
kernels::AttentionFunction parse_attention_function(c10::string_view function);
kernels::PositionBias parse_position_bias(c10::string_view bias);

// Gradients of the bias table are summed within this many fixed groups of query blocks, whatever the thread count, and the groups added in order.
inline constexpr int64_t kBiasGroups = 32;

template <class T>
T* attention_workspace(const kernels::WindowAttentionShape& shape) {
  return thread_workspace<T>(kernels::window_attention_workspace_size<T>(shape));
}

template <class T>
struct AttentionInput {
  const T* q;  ///< (K, Z)
  const T* k;
  const T* v;                ///< (K, H)
  const int64_t* positions;  ///< (K)
  const T* bias_table;       ///< (2M-1) or nullptr
};

/// out (K, H), lse (K; softmax).
template <class T>
void attention_forward(const kernels::WindowAttentionShape& shape, const AttentionInput<T>& in, T* out, T* lse) {
  parallel_tasks(kernels::window_attention_items(shape), [&](int64_t item) {
    kernels::window_attention_fwd<T>(shape, item, item + 1, in.q, in.k, in.v, in.positions, in.bias_table, out, lse, attention_workspace<T>(shape));
  });
}

/// dq, dk, dv as q, k, v (their strides) are written; dtable (2M-1) likewise where there is a bias.
template <class T>
void attention_backward(const kernels::WindowAttentionShape& shape, const AttentionInput<T>& in, const T* out, const T* lse, const T* dout, T* dq,
                        T* dk, T* dv, T* dtable) {
  const int64_t entries = shape.bias == kernels::PositionBias::kNone ? 0 : 2 * shape.max_positions - 1;
  const int64_t phases = kernels::window_attention_bwd_phases(shape);
  // Phase 0 has the most items; the later ones add to the first of its groups.
  const int64_t most_groups = phases > 0 ? std::min(kernels::window_attention_bwd_items(shape, 0), kBiasGroups) : 0;
  Scratch& scratch = Scratch::mine();
  const Scratch::Frame frame(scratch);
  T* delta = scratch.take<T>(shape.active_cu_seqlens[shape.batch]);
  T* partial = scratch.take<T>(most_groups * entries);
  std::fill(partial, partial + most_groups * entries, T(0));
  for (int64_t phase = 0; phase < phases; ++phase) {
    const int64_t items = kernels::window_attention_bwd_items(shape, phase), groups = entries > 0 ? std::min(items, kBiasGroups) : items;
    parallel_tasks(groups, [&](int64_t group) {
      kernels::window_attention_bwd<T>(shape, phase, group * items / groups, (group + 1) * items / groups, in.q, in.k, in.v, in.positions,
                                       in.bias_table, out, lse, dout, dq, dk, dv, entries > 0 ? partial + group * entries : nullptr, delta,
                                       attention_workspace<T>(shape));
    });
  }
  if (entries > 0) kernels::column_sum<T>(most_groups, entries, entries, 0, entries, partial, dtable);
}

}  // namespace seqboat::ops
