// The fused Mega layer's checks, and from tensors to plain pointers and back.

#include <torch/library.h>

#include "ops/cpu/fused_operator.h"
#include "ops/cpu/mega_view.h"
#include "ops/mega_layer_arguments.h"

namespace seqboat::ops {
namespace {

using at::Tensor;

constexpr const char* kName = "mega_layer";

void check_arguments(const MegaLayerArguments& a) {
  check_floating(kName, "x", a.x);
  check_matrix(kName, "x", a.x);
  check_offsets(kName, a.cu_seqlens, a.x.size(0));
  const auto dtype = a.x.scalar_type();
  const int64_t tokens = a.x.size(0), d = a.x.size(1);
  check_positions(kName, a.positions, a.cu_seqlens, true);
  check_shape(kName, "sequence_ids", a.sequence_ids, {tokens}, at::kLong);
  check_norm_arguments(kName, a, a.prenorm);
  const bool is_s4d = a.encoder_decay.dim() == 3;
  TORCH_CHECK((is_s4d || a.encoder_decay.dim() == 2) && a.encoder_decay.size(1) > 0,
              "seqboat::mega_layer: encoder_decay must be (D, N), or (D, P, 2), got ", a.encoder_decay.sizes());
  const int64_t n = a.encoder_decay.size(1), channels = a.causal ? d : 2 * d;
  const std::vector<int64_t> coefficients = is_s4d ? std::vector<int64_t>{channels, n, 2} : std::vector<int64_t>{channels, n};
  check_shape(kName, "encoder_decay", a.encoder_decay, coefficients, dtype);
  check_shape(kName, "encoder_weight", a.encoder_weight, coefficients, dtype);
  check_shape(kName, "encoder_skip", a.encoder_skip, {d}, dtype);
  TORCH_CHECK(a.qk_gamma.dim() == 2 && a.v_weight.dim() == 2, "seqboat::mega_layer: qk_gamma must be (2, Z) and v_weight (H, D), got ",
              a.qk_gamma.sizes(), " and ", a.v_weight.sizes());
  const int64_t z = a.qk_gamma.size(1), h = a.v_weight.size(0);
  TORCH_CHECK(z > 0 && h > 0, "seqboat::mega_layer: Z and H must be at least 1, got ", z, " and ", h);
  check_shape(kName, "v_weight", a.v_weight, {h, d}, dtype);
  check_shape(kName, "v_bias", a.v_bias, {h}, dtype);
  check_shape(kName, "in_weight", a.in_weight, {z + h + 2 * d, d}, dtype);
  check_shape(kName, "in_bias", a.in_bias, {z + h + 2 * d}, dtype);
  check_shape(kName, "qk_gamma", a.qk_gamma, {2, z}, dtype);
  check_shape(kName, "qk_beta", a.qk_beta, {2, z}, dtype);
  check_shape(kName, "out_weight", a.out_weight, {d, h}, dtype);
  check_shape(kName, "out_bias", a.out_bias, {d}, dtype);
  TORCH_CHECK(a.bias_table.dim() == 1 && a.bias_table.size(0) % 2 == 1 && a.bias_table.scalar_type() == dtype,
              "seqboat::mega_layer: bias_table must be (2L-1) ", dtype, ", got ", a.bias_table.sizes(), " ", a.bias_table.scalar_type());
  TORCH_CHECK(a.truncation >= 0, "seqboat::mega_layer: truncation must be 0 (none) or positive, got ", a.truncation);
  TORCH_CHECK(a.chunk_size != 0, "seqboat::mega_layer: chunk_size must be positive, or negative for one block, got 0");
  TORCH_CHECK(a.activation == "silu" || a.activation == "gelu", "seqboat::mega_layer: activation must be silu or gelu, got '", a.activation, "'");
  check_dropout_arguments(kName, a);
}

/// rstd: storage for batch norm's 1 / sqrt(var + eps).
template <class T>
MegaView<T> make_view(const MegaLayerArguments& a, std::vector<T>* rstd) {
  MegaView<T> v{};
  v.batch = a.cu_seqlens.size(0) - 1;
  v.tokens = a.x.size(0);
  v.dim = a.x.size(1);
  v.d_attn = a.qk_gamma.size(1);
  v.d_hidden = a.v_weight.size(0);
  v.cu_seqlens = data<int64_t>(a.cu_seqlens);
  v.positions = data<int64_t>(a.positions);
  v.sequence_ids = data<int64_t>(a.sequence_ids);
  v.x = data<T>(a.x);
  v.v_weight = data<T>(a.v_weight);
  v.v_bias = data<T>(a.v_bias);
  v.in_weight = data<T>(a.in_weight);
  v.in_bias = data<T>(a.in_bias);
  v.qk_gamma = data<T>(a.qk_gamma);
  v.qk_beta = data<T>(a.qk_beta);
  v.bias_table = data<T>(a.bias_table);
  v.out_weight = data<T>(a.out_weight);
  v.out_bias = data<T>(a.out_bias);
  v.norm = make_norm_view<T>(a, rstd);
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
  kernels::WindowAttentionShape& shape = v.attention;
  shape.d_attn = shape.q_stride = shape.k_stride = v.d_attn;
  shape.d_hidden = shape.v_stride = shape.out_stride = v.d_hidden;
  shape.window = -1;
  shape.causal = a.causal;
  shape.function = parse_attention_function(a.function);
  shape.bias = kernels::PositionBias::kOriginalDistance;
  shape.max_positions = (a.bias_table.size(0) + 1) / 2;
  v.chunk_size = a.chunk_size;
  v.activation = a.activation == "gelu" ? kernels::Activation::kGelu : kernels::Activation::kSilu;
  v.prenorm = a.prenorm;
  v.dropout = a.dropout;
  v.random = dropout_key(a.random);
  return v;
}

}  // namespace

template <>
FusedResult FusedKernels<MegaLayerArguments>::forward(const MegaLayerArguments& given, bool keeps) {
  check_arguments(given);
  const MegaLayerArguments a = contiguous_arguments(given);
  const int64_t tokens = a.x.size(0), row = MegaKept<float>::row(a.x.size(1), a.qk_gamma.size(1), a.v_weight.size(0));
  FusedResult out{at::empty_like(a.x), at::empty({keeps ? tokens : 0, row}, a.x.options())};
  SEQBOAT_DISPATCH(a.x, "seqboat::mega_layer", [&] {
    using T = scalar_t;
    std::vector<T> rstd;
    const MegaView<T> v = make_view<T>(a, &rstd);
    Scratch& scratch = Scratch::mine();
    const Scratch::Frame frame(scratch);
    const MegaKept<T> kept(keeps ? out.kept.mutable_data_ptr<T>() : scratch.take<T>(tokens * row), v);
    // Not every attention has a log-sum-exp, not every norm a mean: an output holds no memory that nobody wrote.
    if (keeps) std::fill_n(kept.lse, 3 * tokens, T(0));
    mega_forward<T>(v, kept, keeps, out.y.mutable_data_ptr<T>());
  });
  return out;
}

template <>
c10::List<std::optional<Tensor>> FusedKernels<MegaLayerArguments>::backward(const Tensor& grad_y, const Tensor& kept, const MegaLayerArguments& a) {
  GradientTensors grads(a);
  SEQBOAT_DISPATCH(a.x, "seqboat::_mega_layer_backward", [&] {
    using T = scalar_t;
    std::vector<T> rstd;
    const MegaView<T> v = make_view<T>(a, &rstd);
    const auto next = [&] { return grads.next<T>(); };
    // Braces evaluate in order, which is that of the parameters.
    const MegaGradients<T> grad{next(), next(), next(), next(), next(), next(), next(), next(),
                                next(), next(), next(), next(), next(), next(), next()};
    mega_backward<T>(v, MegaKept<T>(kept.mutable_data_ptr<T>(), v), grad_y.const_data_ptr<T>(), grad);
  });
  return grads.tensors();
}

TORCH_LIBRARY_IMPL(seqboat, CPU, m) {
  implement_fused_cpu<MegaLayerArguments>(m);
}

}  // namespace seqboat::ops
