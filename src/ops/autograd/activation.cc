#include "ops/autograd/common.h"

namespace seqboat::ops {
namespace {

struct ActivationFunction : torch::autograd::Function<ActivationFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, std::string function) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({x});
    ctx->saved_data["function"] = function;
    return activation(x, function);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_second_derivative("activation");
    const Tensor x = ctx->get_saved_variables()[0];
    const std::string function = ctx->saved_data["function"].toStringRef();
    return {SEQBOAT_OP("_activation_backward", Tensor(const Tensor&, const Tensor&, c10::string_view)).call(grads[0], x, function), Tensor()};
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(seqboat, Autograd, m) {
  m.impl("activation", [](const Tensor& x, c10::string_view function) { return ActivationFunction::apply(x, std::string(function)); });
}

}  // namespace seqboat::ops
