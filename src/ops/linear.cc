#include "ops/common.h"
#include "ops/dispatch.h"
#include "seqboat/ops/ops.h"

namespace seqboat::ops {

Tensor linear(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
  return SEQBOAT_OP("linear", Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&)).call(x, weight, bias);
}

namespace {

Tensor linear_meta(const Tensor& x, const Tensor& weight, const std::optional<Tensor>&) {
  return at::empty_symint({x.sym_size(0), weight.sym_size(0)}, x.options());
}

std::tuple<Tensor, Tensor, Tensor> linear_backward_meta(const Tensor& grad_y, const Tensor& x, const Tensor& weight, std::array<bool, 3> mask) {
  return {mask[0] ? contiguous_like(x) : Tensor(), mask[1] ? contiguous_like(weight) : Tensor(),
          mask[2] ? at::empty_symint({weight.sym_size(0)}, grad_y.options()) : Tensor()};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(seqboat, m) {
  m.def("linear(Tensor x, Tensor weight, Tensor? bias=None) -> Tensor");
  m.def("_linear_backward(Tensor grad_y, Tensor x, Tensor weight, bool[3] mask) -> (Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(seqboat, Meta, m) {
  m.impl("linear", linear_meta);
  m.impl("_linear_backward", linear_backward_meta);
}

}  // namespace seqboat::ops
