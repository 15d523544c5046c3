// The fused layer's checks, and from tensors to plain pointers and back.

#include <torch/library.h>

#include "ops/cpu/fused_operator.h"
#include "ops/cpu/layer_view.h"
#include "ops/seqboat_layer_arguments.h"

namespace seqboat::ops {
namespace {

using at::Tensor;
using torch::jit::Stack;

constexpr const char* kName = "seqboat_layer";

void check_unit_arguments(const SeqBoatLayerArguments& a);

void check_arguments(const SeqBoatLayerArguments& a) {
  check_floating(kName, "x", a.x);
  check_matrix(kName, "x", a.x);
  check_offsets(kName, a.cu_seqlens, a.x.size(0));
  const auto dtype = a.x.scalar_type();
  const int64_t tokens = a.x.size(0), d = a.x.size(1);
  const bool is_s4d = a.encoder_decay.dim() == 3;
  TORCH_CHECK((is_s4d || a.encoder_decay.dim() == 2) && a.encoder_decay.size(1) > 0,
              "seqboat::seqboat_layer: encoder_decay must be (D, N), or (D, P, 2), got ", a.encoder_decay.sizes());
  const int64_t n = a.encoder_decay.size(1), channels = a.causal ? d : 2 * d;
  const std::vector<int64_t> coefficients = is_s4d ? std::vector<int64_t>{channels, n, 2} : std::vector<int64_t>{channels, n};
  check_positions(kName, a.positions, a.cu_seqlens, a.in_weight.defined() && a.position == "simple");
  check_shape(kName, "sequence_ids", a.sequence_ids, {tokens}, at::kLong);
  if (a.forced.defined()) check_shape(kName, "forced", a.forced, {tokens}, at::kByte);
  check_shape(kName, "encoder_decay", a.encoder_decay, coefficients, dtype);
  check_shape(kName, "encoder_weight", a.encoder_weight, coefficients, dtype);
  check_shape(kName, "encoder_skip", a.encoder_skip, {d}, dtype);
  if (a.router_weight.defined()) {
    check_shape(kName, "router_weight", a.router_weight, {2, d}, dtype);
    check_shape(kName, "router_bias", a.router_bias, {2}, dtype);
    check_shape(kName, "log_temperature", a.log_temperature, {1}, dtype);
  }
  check_shape(kName, "skip_weight", a.skip_weight, {d, d}, dtype);
  check_shape(kName, "skip_bias", a.skip_bias, {d}, dtype);
  check_norm_arguments(kName, a, a.prenorm);
  TORCH_CHECK(a.truncation >= 0, "seqboat::seqboat_layer: truncation must be 0 (none) or positive, got ", a.truncation);
  check_dropout_arguments(kName, a);
  if (a.in_weight.defined()) {
    check_unit_arguments(a);
    return;
  }
  const bool nothing = !a.in_bias.defined() && !a.qk_gamma.defined() && !a.qk_beta.defined() && !a.bias_table.defined() && !a.out_weight.defined() &&
                       !a.out_bias.defined() && !a.router_weight.defined() && !a.forced.defined();
  TORCH_CHECK(nothing, "seqboat::seqboat_layer: without in_weight there is no unit, and nothing of it and nobody who decides may be given");
}

void check_unit_arguments(const SeqBoatLayerArguments& a) {
  const auto dtype = a.x.scalar_type();
  const int64_t d = a.x.size(1);
  TORCH_CHECK(a.qk_gamma.defined() && a.qk_gamma.dim() == 2 && a.out_weight.defined() && a.out_weight.dim() == 2,
              "seqboat::seqboat_layer: qk_gamma must be (2, Z) and out_weight (D, H)");
  const int64_t z = a.qk_gamma.size(1), h = a.out_weight.size(1);
  TORCH_CHECK(z > 0 && h > 0, "seqboat::seqboat_layer: Z and H must be at least 1, got ", z, " and ", h);
  check_shape(kName, "in_weight", a.in_weight, {z + 2 * h, d}, dtype);
  check_shape(kName, "in_bias", a.in_bias, {z + 2 * h}, dtype);
  check_shape(kName, "qk_gamma", a.qk_gamma, {2, z}, dtype);
  check_shape(kName, "qk_beta", a.qk_beta, {2, z}, dtype);
  check_shape(kName, "out_weight", a.out_weight, {d, h}, dtype);
  check_shape(kName, "out_bias", a.out_bias, {d}, dtype);
  TORCH_CHECK(a.window != 0, "seqboat::seqboat_layer: window must be positive, or negative for full attention, got 0");
  TORCH_CHECK(a.position == "simple" || a.position == "local" || a.position == "rotary",
              "seqboat::seqboat_layer: position must be simple, local or rotary, got '", a.position, "'");
  if (a.position == "rotary") {
    TORCH_CHECK(z % 2 == 0, "seqboat::seqboat_layer: rotary positions need an even Z, got ", z);
    TORCH_CHECK(!a.bias_table.defined(), "seqboat::seqboat_layer: rotary positions have no bias_table");
  } else {
    TORCH_CHECK(a.bias_table.defined() && a.bias_table.dim() == 1 && a.bias_table.size(0) % 2 == 1 && a.bias_table.scalar_type() == dtype,
                "seqboat::seqboat_layer: bias_table must be (2M-1) ", dtype);
    TORCH_CHECK(a.position != "local" || (a.window > 0 && a.bias_table.size(0) == 6 * a.window - 1),
                "seqboat::seqboat_layer: local positions need a window W and a table of 6W-1 entries, got W = ", a.window, " and ",
                a.bias_table.size(0));
  }
}

/// rstd: storage for batch norm's 1 / sqrt(var + eps).
template <class T>
LayerView<T> make_view(const SeqBoatLayerArguments& a, std::vector<T>* rstd) {
  LayerView<T> v{};
  v.batch = a.cu_seqlens.size(0) - 1;
  v.tokens = a.x.size(0);
  v.dim = a.x.size(1);
  v.has_unit = a.in_weight.defined();
  v.d_attn = v.has_unit ? a.qk_gamma.size(1) : 0;
  v.d_hidden = v.has_unit ? a.out_weight.size(1) : 0;
  v.width = v.d_attn + 2 * v.d_hidden;
  v.cu_seqlens = data<int64_t>(a.cu_seqlens);
  v.positions = data<int64_t>(a.positions);
  v.sequence_ids = data<int64_t>(a.sequence_ids);
  v.forced = data<uint8_t>(a.forced);
  v.x = data<T>(a.x);
  v.router_weight = data<T>(a.router_weight);
  v.router_bias = data<T>(a.router_bias);
  v.log_temperature = data<T>(a.log_temperature);
  v.skip_weight = data<T>(a.skip_weight);
  v.skip_bias = data<T>(a.skip_bias);
  v.in_weight = data<T>(a.in_weight);
  v.in_bias = data<T>(a.in_bias);
  v.qk_gamma = data<T>(a.qk_gamma);
  v.qk_beta = data<T>(a.qk_beta);
  v.bias_table = data<T>(a.bias_table);
  v.out_weight = data<T>(a.out_weight);
  v.out_bias = data<T>(a.out_bias);
  v.norm = make_norm_view<T>(a, rstd);
  v.prenorm = a.prenorm;
  v.causal = a.causal;
  v.rotary = a.position == "rotary";
  v.has_router = a.router_weight.defined();
  v.selects = v.has_router || a.forced.defined();
  v.act_bias = a.act_bias;
  v.dropout = a.dropout;
  v.random = dropout_key(a.random);
  v.scan = {.kind = a.encoder_decay.dim() == 3 ? ScanKind::kS4d : ScanKind::kEma,
            .batch = v.batch,
            .cu_seqlens = v.cu_seqlens,
            .channels = v.dim,
            .n_state = a.encoder_decay.size(1),
            .truncation = a.truncation,
            .bidirectional = !a.causal,
            .decay = data<T>(a.encoder_decay),
            .weight = data<T>(a.encoder_weight),
            .skip = data<T>(a.encoder_skip)};
  if (!v.has_unit) return v;
  kernels::WindowAttentionShape& shape = v.attention;
  shape.batch = v.batch;
  shape.d_attn = shape.q_stride = shape.k_stride = v.d_attn;
  shape.d_hidden = shape.out_stride = v.d_hidden;
  shape.v_stride = v.width;
  shape.window = a.window;
  shape.causal = a.causal;
  shape.function = parse_attention_function(a.function);
  shape.bias = v.rotary ? kernels::PositionBias::kNone : parse_position_bias(a.position);
  shape.max_positions = v.rotary ? 0 : (a.bias_table.size(0) + 1) / 2;
  return v;
}

/// What a forward gives: tokens (M (2D+4)) and active_tokens (K, Z+3H+1), both empty where no activations are kept. K is an extent of its own: a
/// tracer (register_fake in Python) gives it a name, and finds it in no product.
struct Kept {
  Tensor y, active, probability, tokens, active_tokens;
};

Kept run_forward(const SeqBoatLayerArguments& given, bool keeps_activations) {
  check_arguments(given);
  const SeqBoatLayerArguments a = contiguous_arguments(given);
  const int64_t tokens = a.x.size(0), d = a.x.size(1), routed = a.router_weight.defined() ? tokens : 0;
  const int64_t decided = a.router_weight.defined() || a.forced.defined() ? tokens : 0;
  const auto empty = [&](int64_t count) { return at::empty({count}, a.x.options()); };
  Kept out{at::empty_like(a.x), at::empty({decided}, a.x.options().dtype(at::kByte)), empty(routed), empty(0), Tensor()};
  SEQBOAT_DISPATCH(a.x, "seqboat::seqboat_layer", [&] {
    using T = scalar_t;
    std::vector<T> rstd;
    const LayerView<T> v = make_view<T>(a, &rstd);
    Scratch& scratch = Scratch::mine();
    const Scratch::Frame frame(scratch);
    const int64_t row = KeptActive<T>::size(1, v.width, v.d_hidden);
    out.active_tokens = at::empty({0, row}, a.x.options());
    if (keeps_activations) out.tokens = empty(KeptTokens<T>::size(tokens, d));
    const KeptTokens<T> kept(keeps_activations ? out.tokens.mutable_data_ptr<T>() : scratch.take<T>(KeptTokens<T>::size(tokens, d)), tokens, d);
    // Not every norm has a mean, not every layer logits, not every attention a log-sum-exp: an output holds no memory that nobody wrote.
    std::fill_n(kept.mean, keeps_activations ? 4 * tokens : 0, T(0));
    layer_forward<T>(v, kept,
                     [&](int64_t count) {
                       if (!keeps_activations) return scratch.take<T>(count * row);
                       out.active_tokens = at::empty({count, row}, a.x.options());
                       T* buffer = out.active_tokens.mutable_data_ptr<T>();
                       std::fill_n(KeptActive<T>(buffer, count, v.width, v.d_hidden).lse, count, T(0));
                       return buffer;
                     },
                     {out.y.mutable_data_ptr<T>(), decided > 0 ? out.active.mutable_data_ptr<uint8_t>() : nullptr,
                      routed > 0 ? out.probability.mutable_data_ptr<T>() : nullptr});
  });
  return out;
}

c10::List<std::optional<Tensor>> run_backward(const Tensor& grad_y, const Tensor& grad_probability, const Tensor& active, const Tensor& kept_tokens,
                                              const Tensor& kept_active, const SeqBoatLayerArguments& given) {
  SeqBoatLayerArguments a = contiguous_arguments(given);
  Tensor tokens = kept_tokens.contiguous(), active_tokens = kept_active.contiguous();
  if (tokens.numel() == 0 && a.x.numel() > 0) {  // only the inputs were kept
    SeqBoatLayerArguments again = a;
    if (a.router_weight.defined()) again.forced = active;
    Kept kept = run_forward(again, true);
    tokens = kept.tokens;
    active_tokens = kept.active_tokens;
  }
  const Tensor gy = grad_y.contiguous(), gp = grad_probability.defined() ? grad_probability.contiguous() : grad_probability;
  GradientTensors grads(a);
  SEQBOAT_DISPATCH(a.x, "seqboat::_seqboat_layer_backward", [&] {
    using T = scalar_t;
    std::vector<T> rstd;
    const LayerView<T> v = make_view<T>(a, &rstd);
    const auto take = [&] { return grads.next<T>(); };
    // Braces evaluate in order, which is that of the parameters.
    const LayerGradients<T> out{take(), take(), take(), take(), take(), take(), take(), take(), take(),
                                take(), take(), take(), take(), take(), take(), take(), take(), take()};
    layer_backward<T>(v, KeptTokens<T>(tokens.mutable_data_ptr<T>(), v.tokens, v.dim), active_tokens.mutable_data_ptr<T>(),
                      v.selects ? active.const_data_ptr<uint8_t>() : nullptr, gy.const_data_ptr<T>(), data<T>(gp), out);
  });
  return grads.tensors();
}

void layer_cpu(const c10::OperatorHandle&, Stack* stack) {
  const Kept out = run_forward(pop_arguments<SeqBoatLayerArguments>(stack), false);
  torch::jit::push(*stack, out.y, out.active, out.probability);
}

void layer_forward_cpu(const c10::OperatorHandle&, Stack* stack) {
  const SeqBoatLayerArguments arguments = pop_arguments<SeqBoatLayerArguments>(stack);
  const Kept out = run_forward(arguments, !arguments.keep_inputs_only);
  torch::jit::push(*stack, out.y, out.active, out.probability, out.tokens, out.active_tokens);
}

void layer_backward_cpu(const c10::OperatorHandle&, Stack* stack) {
  const SeqBoatLayerArguments arguments = pop_arguments<SeqBoatLayerArguments>(stack);
  const Tensor kept_active = pop_tensor(stack), kept_tokens = pop_tensor(stack), active = pop_tensor(stack);
  const Tensor grad_probability = pop_tensor(stack), grad_y = pop_tensor(stack);
  torch::jit::push(*stack, run_backward(grad_y, grad_probability, active, kept_tokens, kept_active, arguments));
}

}  // namespace

TORCH_LIBRARY_IMPL(seqboat, CPU, m) {
  m.impl("seqboat_layer", torch::CppFunction::makeFromBoxedFunction<&layer_cpu>());
  m.impl("_seqboat_layer_forward", torch::CppFunction::makeFromBoxedFunction<&layer_forward_cpu>());
  m.impl("_seqboat_layer_backward", torch::CppFunction::makeFromBoxedFunction<&layer_backward_cpu>());
}

}  // namespace seqboat::ops
