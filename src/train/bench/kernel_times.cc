#include "train/bench/kernel_times.h"

#include <optional>
#include <tuple>

#include "seqboat/nn/mega_layer.h"
#include "seqboat/ops/ops.h"
#include "train/bench/machine_rates.h"

namespace seqboat::train {
namespace {

using torch::Tensor;

constexpr int64_t kKernelRuns = 3;
constexpr double kKernelBudget = 0.1;

/// Deterministic, in [-0.5, 0.5).
Tensor numbers(at::IntArrayRef shape) {
  Tensor out = torch::empty(shape);
  float* values = out.mutable_data_ptr<float>();
  for (int64_t i = 0; i < out.numel(); ++i) values[i] = static_cast<float>((i * 7919) % 1000) / 1000.0f - 0.5f;
  return out;
}

/// Milliseconds of an operator, and with `train` of its backward as well.
template <class Forward>
double operator_ms(bool train, const std::vector<Tensor>& inputs, const Forward& forward) {
  if (!train) {
    const torch::NoGradGuard no_grad;
    return 1e3 * best_seconds(kKernelRuns, kKernelBudget, forward);
  }
  const Tensor grad = numbers(forward().sizes());
  return 1e3 * best_seconds(kKernelRuns, kKernelBudget, [&] { torch::autograd::grad({forward()}, inputs, {grad}); });
}

double mega_attention_ms(const config::ModelConfig& model, bool train, const Tensor& chunks, const Tensor& positions) {
  const int64_t tokens = positions.size(0), longest = chunks.diff().max().item<int64_t>();
  const Tensor q = numbers({tokens, model.d_attn}).requires_grad_(train), k = numbers({tokens, model.d_attn}).requires_grad_(train);
  const Tensor v = numbers({tokens, model.hidden()}).requires_grad_(train), table = numbers({2 * longest - 1}).requires_grad_(train);
  return operator_ms(train, {q, k, v, table}, [&] {
    return std::get<0>(ops::window_attention(q, k, v, positions, chunks, table, "simple", -1, model.causal, model.attention));
  });
}

/// The heads as sequences of their own.
double heads_attention_ms(const config::ModelConfig& model, bool train, const Tensor& positions, const Tensor& offsets) {
  const int64_t heads = model.heads(), tokens = positions.size(0), width = model.d_model / heads;
  const Tensor q = numbers({heads * tokens, width}).requires_grad_(train), k = numbers({heads * tokens, width}).requires_grad_(train);
  const Tensor v = numbers({heads * tokens, width}).requires_grad_(train), times = positions.repeat({heads});
  std::vector<Tensor> cuts{torch::zeros({1}, torch::kInt64)};
  for (int64_t head = 0; head < heads; ++head) cuts.push_back(offsets.narrow(0, 1, offsets.size(0) - 1) + head * tokens);
  const Tensor all = torch::cat(cuts);
  return operator_ms(train, {q, k, v}, [&] {
    return std::get<0>(ops::window_attention(ops::rotary(q, times), ops::rotary(k, times), v, times, all, std::nullopt, "none",
                                             model.window_size > 0 ? model.window_size : -1, model.causal, "softmax"));
  });
}

}  // namespace

double scan_ms(const config::ModelConfig& model, bool train, const Tensor& cu_seqlens) {
  const int64_t tokens = cu_seqlens[cu_seqlens.size(0) - 1].item<int64_t>(), d = model.d_model, n = model.d_state;
  if (tokens == 0 || model.layer == "attention") return 0;
  const int64_t rows = model.causal ? d : 2 * d;
  const Tensor x = numbers({tokens, d}).requires_grad_(train);
  if (model.state_encoder() == "s4d") {
    const int64_t modes = n / 2;
    const Tensor radius = torch::sigmoid(torch::linspace(-4, 8, rows * modes)).reshape({rows, modes}), angle = 3 * numbers({rows, modes});
    const Tensor decay = torch::stack({radius * angle.cos(), radius * angle.sin()}, 2).requires_grad_(train);
    const Tensor weight = numbers({rows, modes, 2}).requires_grad_(train), skip = numbers({d}).requires_grad_(train);
    return operator_ms(train, {x, decay, weight, skip}, [&] {
      return std::get<0>(ops::s4d_scan(x, cu_seqlens, decay, weight, skip, model.truncation, !model.causal, std::nullopt, std::nullopt));
    });
  }
  // Decays from almost none to almost at once, as trained ones.
  const Tensor q = torch::sigmoid(torch::linspace(-4, 8, rows * n)).reshape({rows, n}).requires_grad_(train);
  const Tensor c = numbers({rows, n}).requires_grad_(train), omega = numbers({d}).requires_grad_(train);
  return operator_ms(train, {x, q, c, omega}, [&] {
    return std::get<0>(ops::ema_scan(x, cu_seqlens, q, c, omega, model.truncation, !model.causal, std::nullopt, std::nullopt));
  });
}

double attention_ms(const config::ModelConfig& model, bool train, const Tensor& cu_seqlens, const Tensor& active) {
  const int64_t tokens = cu_seqlens[cu_seqlens.size(0) - 1].item<int64_t>();
  const Tensor flags = active.defined() ? active : torch::ones({tokens}, torch::kUInt8);
  Tensor index, positions, offsets;
  std::tie(index, positions, offsets) = ops::active_index(flags, cu_seqlens);
  if (index.size(0) == 0) return 0;
  if (model.is_mega()) return mega_attention_ms(model, train, nn::chunk_offsets(cu_seqlens, model.chunk() > 0 ? model.chunk() : -1), positions);
  if (model.layer == "attention") return heads_attention_ms(model, train, positions, offsets);
  const int64_t count = index.size(0);
  const Tensor q = numbers({count, model.d_attn}).requires_grad_(train), k = numbers({count, model.d_attn}).requires_grad_(train);
  const Tensor v = numbers({count, model.hidden()}).requires_grad_(train);
  std::vector<Tensor> inputs = {q, k, v};
  std::optional<Tensor> table;
  if (model.position == "simple" || model.position == "local") {
    table = numbers({2 * (model.position == "local" ? 3 * model.window_size : model.max_positions) - 1}).requires_grad_(train);
    inputs.push_back(*table);
  }
  return operator_ms(train, inputs, [&] {
    const bool rotary = model.position == "rotary";
    return std::get<0>(ops::window_attention(rotary ? ops::rotary(q, positions) : q, rotary ? ops::rotary(k, positions) : k, v, positions, offsets,
                                             table, table ? model.position : "none", model.window_size > 0 ? model.window_size : -1, model.causal,
                                             model.attention));
  });
}

}  // namespace seqboat::train
