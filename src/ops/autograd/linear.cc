#include "ops/autograd/common.h"

namespace seqboat::ops {
namespace {

struct Linear : torch::autograd::Function<Linear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({x, weight});
    ctx->saved_data["has_bias"] = present(bias);
    return ops::linear(x, weight, bias);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_second_derivative("linear");
    const auto saved = ctx->get_saved_variables();
    const std::array<bool, 3> mask{ctx->needs_input_grad(0), ctx->needs_input_grad(1),
                                   ctx->saved_data["has_bias"].toBool() && ctx->needs_input_grad(2)};
    auto [gx, gw, gb] =
        SEQBOAT_OP("_linear_backward", std::tuple<Tensor, Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, std::array<bool, 3>))
            .call(grads[0], saved[0], saved[1], mask);
    return {gx, gw, gb};
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(seqboat, Autograd, m) {
  m.impl("linear", [](const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) { return Linear::apply(x, weight, bias); });
}

}  // namespace seqboat::ops
