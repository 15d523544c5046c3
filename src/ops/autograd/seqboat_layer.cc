#include "seqboat/ops/seqboat_layer.h"

#include "ops/autograd/fused_operator.h"
#include "ops/seqboat_layer_arguments.h"

namespace seqboat::ops {
namespace {

using torch::jit::Stack;

struct SeqBoatLayer : torch::autograd::Function<SeqBoatLayer> {
  /// parameters: parameters_of(arguments), one by one, so that autograd sees them; an absent one as nullopt.
  template <class... Parameters>
  static variable_list forward(AutogradContext* ctx, const SeqBoatLayerArguments& arguments, const Parameters&...) {
    at::AutoDispatchBelowADInplaceOrView guard;
    static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("seqboat::_seqboat_layer_forward", "");
    Stack stack;
    push_arguments(&stack, arguments);
    op.callBoxed(&stack);
    const Tensor y = stack[0].toTensor(), active = stack[1].toTensor(), probability = stack[2].toTensor();
    save_arguments(ctx, arguments, {active, stack[3].toTensor(), stack[4].toTensor()});
    ctx->mark_non_differentiable({active});
    ctx->set_materialize_grads(false);
    return {y, active, probability};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_second_derivative("seqboat_layer");
    static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("seqboat::_seqboat_layer_backward", "");
    const variable_list saved = ctx->get_saved_variables();
    const auto arguments = saved_arguments<SeqBoatLayerArguments>(ctx, saved, 3);
    Stack stack;
    const auto push_optional = [&](const Tensor& t) { t.defined() ? stack.emplace_back(t) : stack.emplace_back(); };
    push_optional(grads[0].defined() ? grads[0] : at::zeros_like(arguments.x));
    push_optional(grads[2]);
    for (size_t i = 0; i < 3; ++i) stack.emplace_back(saved[i]);
    push_arguments(&stack, arguments);
    op.callBoxed(&stack);
    return gradients_from(stack[0]);
  }
};

void layer_autograd(const c10::OperatorHandle&, Stack* stack) {
  auto arguments = pop_arguments<SeqBoatLayerArguments>(stack);
  // A graph that is being traced (torch.compile, torch.export) has to know the sizes of what it keeps, and those of chosen tokens depend on the data.
  const bool chooses = arguments.router_weight.defined() || arguments.forced.defined();
  if (chooses && arguments.x.unsafeGetTensorImpl()->is_python_dispatch()) arguments.keep_inputs_only = true;
  if (!needs_gradient(arguments)) {  // nothing is kept
    at::AutoDispatchBelowADInplaceOrView guard;
    const SeqBoatLayerResult out = seqboat_layer(arguments);
    torch::jit::push(*stack, out.y, out.active, out.probability);
    return;
  }
  const variable_list out =
      std::apply([&](const auto&... parameter) { return SeqBoatLayer::apply(arguments, optional(parameter)...); }, parameters_of(arguments));
  torch::jit::push(*stack, out[0], out[1], out[2]);
}

}  // namespace

TORCH_LIBRARY_IMPL(seqboat, Autograd, m) {
  m.impl("seqboat_layer", torch::CppFunction::makeFromBoxedFunction<&layer_autograd>());
}

}  // namespace seqboat::ops
