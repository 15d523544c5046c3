#pragma once

// Private to src/ops/autograd: fused operators as autograd functions.

#include <string>

#include "ops/autograd/common.h"
#include "ops/fused_operator.h"

namespace seqboat::ops {

/// Saves the arguments for the backward, their tensors behind those of `first`.
template <class Arguments>
void save_arguments(AutogradContext* ctx, const Arguments& arguments, variable_list first) {
  for_each_argument(arguments, [&](const auto& value) {
    if constexpr (std::is_same_v<std::decay_t<decltype(value)>, Tensor>) first.push_back(value);
  });
  ctx->save_for_backward(std::move(first));
  for_each_argument(arguments, [&](const auto& value) {
    if constexpr (!std::is_same_v<std::decay_t<decltype(value)>, Tensor>) ctx->saved_data[std::to_string(ctx->saved_data.size())] = value;
  });
}

/// saved: ctx->get_saved_variables(), of which the arguments' tensors begin at number `tensor`.
template <class Arguments>
Arguments saved_arguments(AutogradContext* ctx, const variable_list& saved, size_t tensor) {
  Arguments arguments;
  size_t other = 0;
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
  return arguments;
}

template <class Arguments>
bool needs_gradient(const Arguments& arguments) {
  return at::GradMode::is_enabled() &&
         std::apply([](const auto&... t) { return ((t.defined() && t.requires_grad()) || ...); }, parameters_of(arguments));
}

/// Gradients of forward's inputs from what a backward operator returned: the struct of arguments, which comes first, has none.
inline variable_list gradients_from(const c10::IValue& list) {
  variable_list out(1);
  for (const c10::IValue& grad : list.toListRef()) out.push_back(grad.isNone() ? Tensor() : grad.toTensor());
  return out;
}

/// An operator of one output (fused_operator.h).
template <class Arguments>
struct FusedFunction : torch::autograd::Function<FusedFunction<Arguments>> {
  static c10::OperatorHandle op(const char* suffix) {
    const std::string name = std::string("seqboat::_") + FusedArguments<Arguments>::kName + suffix;
    return c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(), "");
  }

  /// parameters: parameters_of(arguments), one by one, so that autograd sees them; an absent one as nullopt.
  template <class... Parameters>
  static Tensor forward(AutogradContext* ctx, const Arguments& arguments, const Parameters&...) {
    at::AutoDispatchBelowADInplaceOrView guard;
    static const auto forward_op = op("_forward");
    torch::jit::Stack stack;
    push_arguments(&stack, arguments);
    forward_op.callBoxed(&stack);
    save_arguments(ctx, arguments, {stack[1].toTensor()});
    return stack[0].toTensor();
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_second_derivative(FusedArguments<Arguments>::kName);
    static const auto backward_op = op("_backward");
    const variable_list saved = ctx->get_saved_variables();
    torch::jit::Stack stack;
    torch::jit::push(stack, grads[0], saved[0]);
    push_arguments(&stack, saved_arguments<Arguments>(ctx, saved, 1));
    backward_op.callBoxed(&stack);
    return gradients_from(stack[0]);
  }
};

template <class Arguments>
void fused_autograd(const c10::OperatorHandle&, torch::jit::Stack* stack) {
  const Arguments arguments = pop_arguments<Arguments>(stack);
  if (!needs_gradient(arguments)) {  // nothing is kept
    at::AutoDispatchBelowADInplaceOrView guard;
    torch::jit::push(*stack, call_fused(arguments));
    return;
  }
  torch::jit::push(*stack, std::apply([&](const auto&... parameter) { return FusedFunction<Arguments>::apply(arguments, optional(parameter)...); },
                                      parameters_of(arguments)));
}

template <class Arguments>
void implement_fused_autograd(torch::Library& m) {
  m.impl(FusedArguments<Arguments>::kName, torch::CppFunction::makeFromBoxedFunction<&fused_autograd<Arguments>>());
}

}  // namespace seqboat::ops
