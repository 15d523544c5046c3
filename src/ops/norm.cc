#include "ops/common.h"
#include "ops/dispatch.h"
#include "seqboat/ops/ops.h"

namespace seqboat::ops {

using OptionalTensor = std::optional<Tensor>;

Tensor row_norm(const Tensor& x, const OptionalTensor& weight, const OptionalTensor& bias, const std::string& kind, double eps) {
  return std::get<0>(SEQBOAT_OP("row_norm", std::tuple<Tensor, Tensor, Tensor>(const Tensor&, const OptionalTensor&, const OptionalTensor&,
                                                                               c10::string_view, double))
                         .call(x, weight, bias, kind, eps));
}

std::tuple<Tensor, Tensor> batch_norm_stats(const Tensor& x) {
  return SEQBOAT_OP("batch_norm_stats", std::tuple<Tensor, Tensor>(const Tensor&)).call(x);
}

Tensor batch_norm(const Tensor& x, const OptionalTensor& weight, const OptionalTensor& bias, const Tensor& mean, const Tensor& var, bool batch_stats,
                  double eps) {
  return SEQBOAT_OP("batch_norm", Tensor(const Tensor&, const OptionalTensor&, const OptionalTensor&, const Tensor&, const Tensor&, bool, double))
      .call(x, weight, bias, mean, var, batch_stats, eps);
}

TORCH_LIBRARY_FRAGMENT(seqboat, m) {
  m.def("row_norm(Tensor x, Tensor? weight, Tensor? bias, str kind, float eps) -> (Tensor, Tensor, Tensor)");
  m.def("_row_norm_backward(Tensor grad_y, Tensor x, Tensor? weight, Tensor mean, Tensor rstd, str kind, bool has_bias) -> (Tensor, Tensor, Tensor)");
  m.def("batch_norm_stats(Tensor x) -> (Tensor, Tensor)");
  m.def("batch_norm(Tensor x, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, bool batch_stats, float eps) -> Tensor");
  m.def(
      "_batch_norm_backward(Tensor grad_y, Tensor x, Tensor? weight, Tensor mean, Tensor var, bool batch_stats, float eps, bool has_bias) -> "
      "(Tensor, "
      "Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(seqboat, Meta, m) {
  m.impl("row_norm", [](const Tensor& x, const OptionalTensor&, const OptionalTensor&, c10::string_view kind, double) {
    const auto rows = x.sym_size(0);
    return std::make_tuple(contiguous_like(x), kind == "layernorm" ? at::empty_symint({rows}, x.options()) : at::empty({0}, x.options()),
                           at::empty_symint({rows}, x.options()));
  });
  m.impl("_row_norm_backward", [](const Tensor&, const Tensor& x, const OptionalTensor& weight, const Tensor&, const Tensor&, c10::string_view,
                                  bool has_bias) {
    return std::make_tuple(contiguous_like(x), present(weight) ? contiguous_like(*weight) : Tensor(), has_bias ? contiguous_like(*weight) : Tensor());
  });
  m.impl("batch_norm_stats", [](const Tensor& x) {
    return std::make_tuple(at::empty_symint({x.sym_size(1)}, x.options()), at::empty_symint({x.sym_size(1)}, x.options()));
  });
  m.impl("batch_norm", [](const Tensor& x, const OptionalTensor&, const OptionalTensor&, const Tensor&, const Tensor&, bool, double) {
    return contiguous_like(x);
  });
  m.impl("_batch_norm_backward",
         [](const Tensor&, const Tensor& x, const OptionalTensor& weight, const Tensor&, const Tensor&, bool, double, bool has_bias) {
           return std::make_tuple(contiguous_like(x), present(weight) ? contiguous_like(*weight) : Tensor(),
                                  has_bias ? at::empty_symint({x.sym_size(1)}, x.options()) : Tensor());
         });
}

}  // namespace seqboat::ops
