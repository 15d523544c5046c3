#include "ops/common.h"
#include "ops/dispatch.h"
#include "seqboat/ops/ops.h"

namespace seqboat::ops {

std::tuple<Tensor, Tensor, Tensor> router(const Tensor& logits, const Tensor& log_temperature, double act_bias, const std::optional<Tensor>& forced) {
  return SEQBOAT_OP("router", std::tuple<Tensor, Tensor, Tensor>(const Tensor&, const Tensor&, double, const std::optional<Tensor>&))
      .call(logits, log_temperature, act_bias, forced);
}

TORCH_LIBRARY_FRAGMENT(seqboat, m) {
  m.def("router(Tensor logits, Tensor log_temperature, float act_bias=0.0, Tensor? forced=None) -> (Tensor, Tensor, Tensor)");
  m.def(
      "_router_backward(Tensor? grad_p, Tensor? grad_probability, Tensor logits, Tensor log_temperature, float act_bias, Tensor active) -> (Tensor, "
      "Tensor)");
}

TORCH_LIBRARY_IMPL(seqboat, Meta, m) {
  m.impl("router", [](const Tensor& logits, const Tensor&, double, const std::optional<Tensor>&) {
    const auto rows = logits.sym_size(0);
    return std::make_tuple(at::empty_symint({rows}, logits.options().dtype(at::kByte)), at::empty_symint({rows}, logits.options()),
                           at::empty_symint({rows}, logits.options()));
  });
  m.impl("_router_backward", [](const std::optional<Tensor>&, const std::optional<Tensor>&, const Tensor& logits, const Tensor& log_temperature,
                                double, const Tensor&) { return std::make_tuple(contiguous_like(logits), contiguous_like(log_temperature)); });
}

}  // namespace seqboat::ops
