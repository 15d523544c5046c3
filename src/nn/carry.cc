#include "seqboat/nn/carry.h"

#include "seqboat/kernels/window_attention.h"

namespace seqboat::nn {

using torch::Tensor;

Tensor encode_on(StateEncoder& encoder, const Tensor& x, const PackedLayout& layout, LayerState* state) {
  const auto [y, encoder_state] = encoder.forward_with_state(x, layout.cu_seqlens, state->encoder, state->history);
  state->encoder = encoder_state;
  if (const int64_t truncation = encoder.truncation(); truncation > 0) {
    const int64_t batch = layout.cu_seqlens.size(0) - 1;
    const int64_t* offsets = layout.cu_seqlens.const_data_ptr<int64_t>();
    const Tensor past = state->history.defined() ? state->history : x.new_zeros({batch, truncation, x.size(1)});
    std::vector<Tensor> last;
    for (int64_t b = 0; b < batch; ++b) {
      const Tensor seen = torch::cat({past[b], x.narrow(0, offsets[b], offsets[b + 1] - offsets[b])});
      last.push_back(seen.narrow(0, seen.size(0) - truncation, truncation));
    }
    state->history = torch::stack(last);
  }
  return y;
}

// Kept and new tokens of each sequence stand in one packed tensor, in order. The kept ones ask nothing, but stand among the queries all the same
// (with zeros), since a sequence has as many queries as keys; what comes out there is dropped. That costs some queries a chunk and keeps one kernel.
Tensor attend_on(const CarriedAttention& how, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& positions, const Tensor& cu_seqlens,
                 AttentionState* state) {
  const int64_t batch = cu_seqlens.size(0) - 1, added = q.size(0);
  if (!state->offsets.defined()) {
    *state = {.k = k.new_empty({0, k.size(1)}),
              .v = v.new_empty({0, v.size(1)}),
              .positions = torch::empty({0}, torch::kInt64),
              .offsets = torch::zeros({batch + 1}, torch::kInt64),
              .first = torch::zeros({batch}, torch::kInt64)};
  }
  TORCH_CHECK(state->offsets.size(0) == batch + 1, "seqboat: the state is one of ", state->offsets.size(0) - 1, " sequences, the batch has ", batch);
  const int64_t* kept = state->offsets.const_data_ptr<int64_t>();
  const int64_t* fresh = cu_seqlens.const_data_ptr<int64_t>();
  const int64_t kept_rows = kept[batch];
  std::vector<int64_t> order, new_rows, keep, offsets{0}, keep_offsets{0}, keep_first;
  order.reserve(static_cast<size_t>(kept_rows + added));
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t begin = static_cast<int64_t>(order.size());
    for (int64_t row = kept[b]; row < kept[b + 1]; ++row) order.push_back(row);
    for (int64_t row = fresh[b]; row < fresh[b + 1]; ++row) {
      new_rows.push_back(static_cast<int64_t>(order.size()));
      order.push_back(kept_rows + row);
    }
    const int64_t end = static_cast<int64_t>(order.size()), first = state->first.const_data_ptr<int64_t>()[b];
    offsets.push_back(end);
    const int64_t keep_from = how.keep_from(first, first + end - begin);
    for (int64_t row = begin + keep_from - first; row < end; ++row) keep.push_back(row);
    keep_offsets.push_back(static_cast<int64_t>(keep.size()));
    keep_first.push_back(keep_from);
  }
  const auto index = [](const std::vector<int64_t>& rows) { return torch::tensor(rows, torch::kInt64); };
  const Tensor to_order = index(order), to_keep = index(keep);
  const Tensor all_k = torch::cat({state->k, k}).index_select(0, to_order), all_v = torch::cat({state->v, v}).index_select(0, to_order);
  const Tensor all_positions = torch::cat({state->positions, positions}).index_select(0, to_order);
  const Tensor all_q = torch::cat({q.new_zeros({kept_rows, q.size(1)}), q}).index_select(0, to_order);
  const Tensor all_offsets = index(offsets), asking = index(new_rows);
  const Tensor h = how.attend(all_q, all_k, all_v, all_positions, all_offsets).index_select(0, asking);
  if (how.observe) how.observe(all_q, all_k, all_positions, all_offsets, asking);
  *state = {.k = all_k.index_select(0, to_keep),
            .v = all_v.index_select(0, to_keep),
            .positions = all_positions.index_select(0, to_keep),
            .offsets = index(keep_offsets),
            .first = index(keep_first)};
  return h;
}

std::function<int64_t(int64_t, int64_t)> keep_window(int64_t window) {
  return [window](int64_t first, int64_t next) {
    return std::max(first, std::max<int64_t>(0, next - window) / kernels::kAttentionBlock * kernels::kAttentionBlock);
  };
}

}  // namespace seqboat::nn
