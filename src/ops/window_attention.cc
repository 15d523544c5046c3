#include "ops/common.h"
#include "ops/dispatch.h"
#include "seqboat/ops/ops.h"

namespace seqboat::ops {

Tensor rotary(const Tensor& x, const Tensor& positions, bool inverse) {
  return SEQBOAT_OP("rotary", Tensor(const Tensor&, const Tensor&, bool)).call(x, positions, inverse);
}

std::tuple<Tensor, Tensor> window_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& positions,
                                            const Tensor& active_cu_seqlens, const std::optional<Tensor>& bias_table, const std::string& bias,
                                            int64_t window, bool causal, const std::string& function) {
  return SEQBOAT_OP("window_attention", std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                                                   const std::optional<Tensor>&, c10::string_view, int64_t, bool, c10::string_view))
      .call(q, k, v, positions, active_cu_seqlens, bias_table, bias, window, causal, function);
}

TORCH_LIBRARY_FRAGMENT(seqboat, m) {
  m.def("rotary(Tensor x, Tensor positions, bool inverse=False) -> Tensor");
  m.def(
      "window_attention(Tensor q, Tensor k, Tensor v, Tensor positions, Tensor active_cu_seqlens, Tensor? bias_table, str bias, int window, bool "
      "causal, str function) -> (Tensor, Tensor)");
  m.def(
      "_window_attention_backward(Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor positions, Tensor active_cu_seqlens, Tensor? bias_table, "
      "str bias, int window, bool causal, str function, Tensor out, Tensor lse) -> (Tensor, Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(seqboat, Meta, m) {
  m.impl("rotary", [](const Tensor& x, const Tensor&, bool) { return contiguous_like(x); });
  m.impl("window_attention", [](const Tensor& q, const Tensor&, const Tensor& v, const Tensor&, const Tensor&, const std::optional<Tensor>&,
                                c10::string_view, int64_t, bool, c10::string_view function) {
    return std::make_tuple(contiguous_like(v), function == "softmax" ? at::empty_symint({q.sym_size(0)}, q.options()) : at::empty({0}, q.options()));
  });
  m.impl("_window_attention_backward", [](const Tensor&, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor&, const Tensor&,
                                          const std::optional<Tensor>& bias_table, c10::string_view, int64_t, bool, c10::string_view, const Tensor&,
                                          const Tensor&) {
    return std::make_tuple(contiguous_like(q), contiguous_like(k), contiguous_like(v), present(bias_table) ? contiguous_like(*bias_table) : Tensor());
  });
}

}  // namespace seqboat::ops
