#include "ops/common.h"
#include "ops/dispatch.h"
#include "seqboat/ops/ops.h"

namespace seqboat::ops {

Tensor activation(const Tensor& x, const std::string& function) {
  return SEQBOAT_OP("activation", Tensor(const Tensor&, c10::string_view)).call(x, function);
}

TORCH_LIBRARY_FRAGMENT(seqboat, m) {
  m.def("activation(Tensor x, str function) -> Tensor");
  m.def("_activation_backward(Tensor grad_y, Tensor x, str function) -> Tensor");
}

TORCH_LIBRARY_IMPL(seqboat, Meta, m) {
  m.impl("activation", [](const Tensor& x, c10::string_view) { return contiguous_like(x); });
  m.impl("_activation_backward", [](const Tensor&, const Tensor& x, c10::string_view) { return contiguous_like(x); });
}

}  // namespace seqboat::ops
