#include "ops/autograd/common.h"

namespace seqboat::ops {
namespace {

struct Router : torch::autograd::Function<Router> {
  static variable_list forward(AutogradContext* ctx, const Tensor& logits, const Tensor& log_temperature, double act_bias,
                               const std::optional<Tensor>& forced) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [active, p, probability] = router(logits, log_temperature, act_bias, forced);
    ctx->save_for_backward({logits, log_temperature, active});
    ctx->saved_data["act_bias"] = act_bias;
    ctx->mark_non_differentiable({active});
    ctx->set_materialize_grads(false);  // one of p and probability is usually not used
    return {active, p, probability};
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_second_derivative("router");
    const auto saved = ctx->get_saved_variables();
    auto [grad_logits, grad_temperature] =
        SEQBOAT_OP("_router_backward", std::tuple<Tensor, Tensor>(const std::optional<Tensor>&, const std::optional<Tensor>&, const Tensor&,
                                                                  const Tensor&, double, const Tensor&))
            .call(optional(grads[1]), optional(grads[2]), saved[0], saved[1], ctx->saved_data["act_bias"].toDouble(), saved[2]);
    return {grad_logits, grad_temperature, Tensor(), Tensor()};
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(seqboat, Autograd, m) {
  m.impl("router", [](const Tensor& logits, const Tensor& log_temperature, double act_bias, const std::optional<Tensor>& forced) {
    const auto out = Router::apply(logits, log_temperature, act_bias, forced);
    return std::make_tuple(out[0], out[1], out[2]);
  });
}

}  // namespace seqboat::ops
