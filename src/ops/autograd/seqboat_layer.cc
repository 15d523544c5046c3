#include "seqboat/ops/seqboat_layer.h"

#include "ops/autograd/common.h"
#include "ops/layer_arguments.h"

namespace seqboat::ops {
namespace {

using torch::jit::Stack;

struct SeqBoatLayer : torch::autograd::Function<SeqBoatLayer> {
  /// parameters: layer_parameters(arguments), one by one, so that autograd sees them; an absent one as nullopt.
  template <class... Parameters>
  static variable_list forward(AutogradContext* ctx, const SeqBoatLayerArguments& arguments, const Parameters&...) {
    at::AutoDispatchBelowADInplaceOrView guard;
    static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("seqboat::_seqboat_layer_forward", "");
    Stack stack;
    push_arguments(&stack, arguments);
    op.callBoxed(&stack);
    const Tensor y = stack[0].toTensor(), active = stack[1].toTensor(), probability = stack[2].toTensor();
    variable_list saved = {active, stack[3].toTensor(), stack[4].toTensor()};
    for_each_argument(arguments, [&](const auto& value) {
      if constexpr (std::is_same_v<std::decay_t<decltype(value)>, Tensor>) saved.push_back(value);
    });
    ctx->save_for_backward(std::move(saved));
    for_each_argument(arguments, [&](const auto& value) {
      if constexpr (!std::is_same_v<std::decay_t<decltype(value)>, Tensor>) ctx->saved_data[std::to_string(ctx->saved_data.size())] = value;
    });
    ctx->mark_non_differentiable({active});
    ctx->set_materialize_grads(false);
    return {y, active, probability};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_second_derivative("seqboat_layer");
    static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("seqboat::_seqboat_layer_backward", "");
    const variable_list saved = ctx->get_saved_variables();
    SeqBoatLayerArguments arguments;
    size_t tensor = 3, other = 0;
    for_each_argument(arguments, [&](auto& value) {
      using Value = std::decay_t<decltype(value)>;
      if constexpr (std::is_same_v<Value, Tensor>) {
        value = saved[tensor++];
      } else {
        const c10::IValue& from = ctx->saved_data[std::to_string(other++)];
        if constexpr (std::is_same_v<Value, std::vector<int64_t>>) {
          value = from.toIntVector();
        } else {
          value = from.to<Value>();
        }
      }
    });
    Stack stack;
    const auto push_optional = [&](const Tensor& t) { t.defined() ? stack.emplace_back(t) : stack.emplace_back(); };
    push_optional(grads[0].defined() ? grads[0] : at::zeros_like(arguments.x));
    push_optional(grads[2]);
    for (size_t i = 0; i < 3; ++i) stack.emplace_back(saved[i]);
    push_arguments(&stack, arguments);
    op.callBoxed(&stack);
    variable_list out(1);  // the struct of arguments has no gradient
    for (const c10::IValue& grad : stack[0].toListRef()) out.push_back(grad.isNone() ? Tensor() : grad.toTensor());
    return out;
  }
};

void layer_autograd(const c10::OperatorHandle&, Stack* stack) {
  SeqBoatLayerArguments arguments = pop_arguments(stack);
  // A graph that is being traced (torch.compile, torch.export) has to know the sizes of what it keeps, and those of chosen tokens depend on the data.
  const bool chooses = arguments.router_weight.defined() || arguments.forced.defined();
  if (chooses && arguments.x.unsafeGetTensorImpl()->is_python_dispatch()) arguments.keep_inputs_only = true;
  const auto parameters = layer_parameters(arguments);
  const bool needs_gradient =
      at::GradMode::is_enabled() && std::apply([](const auto&... t) { return ((t.defined() && t.requires_grad()) || ...); }, parameters);
  if (!needs_gradient) {  // nothing is kept
    at::AutoDispatchBelowADInplaceOrView guard;
    const SeqBoatLayerResult out = seqboat_layer(arguments);
    torch::jit::push(*stack, out.y, out.active, out.probability);
    return;
  }
  const variable_list out = std::apply([&](const auto&... parameter) { return SeqBoatLayer::apply(arguments, optional(parameter)...); }, parameters);
  torch::jit::push(*stack, out[0], out[1], out[2]);
}

}  // namespace

TORCH_LIBRARY_IMPL(seqboat, Autograd, m) {
  m.impl("seqboat_layer", torch::CppFunction::makeFromBoxedFunction<&layer_autograd>());
}

}  // namespace seqboat::ops
