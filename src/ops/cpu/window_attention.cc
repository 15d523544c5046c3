#include "seqboat/kernels/window_attention.h"

#include <torch/library.h>

#include "ops/common.h"
#include "ops/cpu/attention_passes.h"

namespace seqboat::ops {

using kernels::AttentionFunction;
using kernels::PositionBias;

AttentionFunction parse_attention_function(c10::string_view function) {
  if (function == "softmax") return AttentionFunction::kSoftmax;
  if (function == "relu2") return AttentionFunction::kRelu2;
  if (function == "laplace") return AttentionFunction::kLaplace;
  TORCH_CHECK(false, "seqboat::window_attention: function must be softmax, relu2 or laplace, got '", function, "'");
}

PositionBias parse_position_bias(c10::string_view bias) {
  if (bias == "none") return PositionBias::kNone;
  if (bias == "simple") return PositionBias::kOriginalDistance;
  if (bias == "local") return PositionBias::kWindowDistance;
  TORCH_CHECK(false, "seqboat::window_attention: bias must be none, simple or local, got '", bias, "'");
}

namespace {

using at::Tensor;
using kernels::WindowAttentionShape;

constexpr int64_t kRotaryGrain = 256;

WindowAttentionShape check_and_shape(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& positions, const Tensor& active_cu_seqlens,
                                     const std::optional<Tensor>& bias_table, c10::string_view bias, int64_t window, bool causal,
                                     c10::string_view function) {
  check_floating("window_attention", "q", q);
  for (const auto& [name, t] : {std::pair<const char*, const Tensor*>{"q", &q}, {"k", &k}, {"v", &v}}) {
    check_matrix("window_attention", name, *t);
    check_same_dtype("window_attention", name, *t, q);
    TORCH_CHECK(t->size(0) == q.size(0), "seqboat::window_attention: q, k and v must have as many rows, got ", q.size(0), " and ", t->size(0), " in ",
                name);
  }
  TORCH_CHECK(q.size(1) == k.size(1), "seqboat::window_attention: q and k must be equally wide, got ", q.size(1), " and ", k.size(1));
  check_offsets("window_attention", active_cu_seqlens, q.size(0));
  TORCH_CHECK(q.size(1) > 0 && v.size(1) > 0, "seqboat::window_attention: q and v must be at least one wide, got ", q.size(1), " and ", v.size(1));
  check_positions("window_attention", positions, active_cu_seqlens, bias == "simple");
  WindowAttentionShape shape{};
  shape.batch = active_cu_seqlens.size(0) - 1;
  shape.active_cu_seqlens = active_cu_seqlens.const_data_ptr<int64_t>();
  shape.d_attn = shape.q_stride = shape.k_stride = q.size(1);
  shape.d_hidden = shape.v_stride = shape.out_stride = v.size(1);
  shape.window = window;
  shape.causal = causal;
  shape.function = parse_attention_function(function);
  shape.bias = parse_position_bias(bias);
  if (shape.bias != PositionBias::kNone) {
    TORCH_CHECK(present(bias_table) && bias_table->dim() == 1 && bias_table->size(0) % 2 == 1 && bias_table->scalar_type() == q.scalar_type(),
                "seqboat::window_attention: bias_table must be (2M-1) ", q.scalar_type(), ", got ", bias_table.value_or(Tensor()).sizes());
    shape.max_positions = (bias_table->size(0) + 1) / 2;
  }
  TORCH_CHECK(shape.bias != PositionBias::kWindowDistance || (window > 0 && shape.max_positions == 3 * window),
              "seqboat::window_attention: a local bias needs a window W and a table of 6W-1 entries, got W = ", window, " and ",
              2 * shape.max_positions - 1);
  TORCH_CHECK(window != 0, "seqboat::window_attention: window must be positive, or negative for full attention, got 0");
  return shape;
}

template <class T>
AttentionInput<T> input_of(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& positions, const std::optional<Tensor>& table) {
  return {q.const_data_ptr<T>(), k.const_data_ptr<T>(), v.const_data_ptr<T>(), positions.const_data_ptr<int64_t>(), data_or_null<T>(table)};
}

std::tuple<Tensor, Tensor> window_attention_cpu(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& positions,
                                                const Tensor& active_cu_seqlens, const std::optional<Tensor>& bias_table, c10::string_view bias,
                                                int64_t window, bool causal, c10::string_view function) {
  const PhaseScope phase(Phase::kAttention);
  const WindowAttentionShape shape = check_and_shape(q, k, v, positions, active_cu_seqlens, bias_table, bias, window, causal, function);
  const Tensor qc = q.contiguous(), kc = k.contiguous(), vc = v.contiguous();
  const auto table = contiguous(bias_table);
  Tensor out = at::empty_like(vc);
  Tensor lse = at::empty({shape.function == AttentionFunction::kSoftmax ? q.size(0) : 0}, q.options());
  SEQBOAT_DISPATCH(q, "seqboat::window_attention", [&] {
    attention_forward<scalar_t>(shape, input_of<scalar_t>(qc, kc, vc, positions, table), out.mutable_data_ptr<scalar_t>(),
                                lse.mutable_data_ptr<scalar_t>());
  });
  return {out, lse};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> window_attention_backward_cpu(const Tensor& grad_out, const Tensor& q, const Tensor& k, const Tensor& v,
                                                                         const Tensor& positions, const Tensor& active_cu_seqlens,
                                                                         const std::optional<Tensor>& bias_table, c10::string_view bias,
                                                                         int64_t window, bool causal, c10::string_view function, const Tensor& out,
                                                                         const Tensor& lse) {
  const PhaseScope phase(Phase::kAttention);
  const WindowAttentionShape shape = check_and_shape(q, k, v, positions, active_cu_seqlens, bias_table, bias, window, causal, function);
  const Tensor qc = q.contiguous(), kc = k.contiguous(), vc = v.contiguous(), gout = grad_out.contiguous(), oc = out.contiguous();
  const auto table = contiguous(bias_table);
  Tensor gq = at::empty_like(qc), gk = at::empty_like(kc), gv = at::empty_like(vc), gtable;
  if (shape.bias != PositionBias::kNone) gtable = at::empty_like(*table);
  SEQBOAT_DISPATCH(q, "seqboat::_window_attention_backward", [&] {
    using T = scalar_t;
    attention_backward<T>(shape, input_of<T>(qc, kc, vc, positions, table), oc.const_data_ptr<T>(), lse.const_data_ptr<T>(), gout.const_data_ptr<T>(),
                          gq.mutable_data_ptr<T>(), gk.mutable_data_ptr<T>(), gv.mutable_data_ptr<T>(),
                          gtable.defined() ? gtable.mutable_data_ptr<T>() : nullptr);
  });
  return {gq, gk, gv, gtable};
}

Tensor rotary_cpu(const Tensor& x, const Tensor& positions, bool inverse) {
  const PhaseScope phase(Phase::kAttention);
  check_floating("rotary", "x", x);
  check_matrix("rotary", "x", x);
  TORCH_CHECK(x.size(1) % 2 == 0, "seqboat::rotary: the width must be even, got ", x.size(1));
  TORCH_CHECK(positions.dim() == 1 && positions.size(0) == x.size(0) && positions.scalar_type() == at::kLong && positions.is_contiguous(),
              "seqboat::rotary: positions must be (", x.size(0), ") int64, got ", positions.scalar_type(), " ", positions.sizes());
  const Tensor xc = x.contiguous();
  Tensor y = at::empty_like(xc);
  const int64_t width = x.size(1);
  SEQBOAT_DISPATCH(x, "seqboat::rotary", [&] {
    parallel_for(x.size(0), kRotaryGrain, [&](int64_t begin, int64_t end) {
      kernels::rotary<scalar_t>(end - begin, width, width, width, positions.const_data_ptr<int64_t>() + begin, inverse,
                                xc.const_data_ptr<scalar_t>() + begin * width, y.mutable_data_ptr<scalar_t>() + begin * width);
    });
  });
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(seqboat, CPU, m) {
  m.impl("window_attention", window_attention_cpu);
  m.impl("_window_attention_backward", window_attention_backward_cpu);
  m.impl("rotary", rotary_cpu);
}

}  // namespace seqboat::ops
