#pragma once

// Private to src/ops: how the arguments of fused operators travel through the dispatcher. Each has a struct of arguments in its public header and one
// list of its fields, FusedArguments; the operators are registered boxed, so that the list stands there alone and not in every registration.

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "ops/common.h"

namespace seqboat::ops {

/// Specialised for each struct of arguments A:
///
///   kName, kSchema            the operator and its parameters
///   for_each(a, f)            f(field) for every argument, in the schema's order
///   parameters(a)             std::tie of the tensors a gradient may flow to, in the order of the gradients that the backward returns
///   kept_row(a)               numbers kept for each row of x (only operators of one output, see below)
template <class Arguments>
struct FusedArguments;

template <class Arguments, class F>
void for_each_argument(Arguments& a, const F& f) {
  FusedArguments<std::remove_const_t<Arguments>>::for_each(a, f);
}

template <class Arguments>
auto parameters_of(Arguments& a) {
  return FusedArguments<std::remove_const_t<Arguments>>::parameters(a);
}

template <class Arguments>
void push_arguments(torch::jit::Stack* stack, const Arguments& arguments) {
  for_each_argument(arguments, [&](const auto& value) {
    if constexpr (std::is_same_v<std::decay_t<decltype(value)>, at::Tensor>) {
      value.defined() ? stack->emplace_back(value) : stack->emplace_back();
    } else {
      stack->emplace_back(value);
    }
  });
}

/// Takes as many values as there are arguments off the end of the stack.
template <class Arguments>
Arguments pop_arguments(torch::jit::Stack* stack) {
  Arguments arguments;
  size_t count = 0;
  for_each_argument(arguments, [&](const auto&) { ++count; });
  auto next = stack->end() - static_cast<std::ptrdiff_t>(count);
  for_each_argument(arguments, [&](auto& value) {
    using Value = std::decay_t<decltype(value)>;
    const c10::IValue& from = *next++;
    if constexpr (std::is_same_v<Value, at::Tensor>) {
      value = from.isNone() ? at::Tensor() : from.toTensor();
    } else if constexpr (std::is_same_v<Value, std::string>) {
      value = from.toStringRef();
    } else if constexpr (std::is_same_v<Value, bool>) {
      value = from.toBool();
    } else if constexpr (std::is_same_v<Value, double>) {
      value = from.toDouble();
    } else if constexpr (std::is_same_v<Value, int64_t>) {
      value = from.toInt();
    } else {
      value = from.toIntVector();
    }
  });
  torch::jit::drop(*stack, count);
  return arguments;
}

inline at::Tensor pop_tensor(torch::jit::Stack* stack) {
  const c10::IValue value = torch::jit::pop(*stack);
  return value.isNone() ? at::Tensor() : value.toTensor();
}

/// The gradients of a backward, room for which is like that of the parameters.
template <class Arguments>
c10::List<std::optional<at::Tensor>> gradients_like(const Arguments& arguments) {
  c10::List<std::optional<at::Tensor>> out;
  std::apply([&](const auto&... t) { (out.push_back(t.defined() ? std::optional<at::Tensor>(contiguous_like(t)) : std::nullopt), ...); },
             parameters_of(arguments));
  return out;
}

// ---- operators with one output, like x in its shape ----
//
//   foo(arguments) -> y      _foo_forward(arguments) -> (y, kept)      _foo_backward(grad_y, kept, arguments) -> gradients
//
// kept (M, kept_row), or without rows where the backward is to compute everything again (keep_inputs_only).

template <class Arguments>
void fused_meta(const c10::OperatorHandle&, torch::jit::Stack* stack) {
  torch::jit::push(*stack, contiguous_like(pop_arguments<Arguments>(stack).x));
}

template <class Arguments>
void fused_forward_meta(const c10::OperatorHandle&, torch::jit::Stack* stack) {
  const Arguments a = pop_arguments<Arguments>(stack);
  const c10::SymInt rows = a.keep_inputs_only ? c10::SymInt(0) : a.x.sym_size(0);
  torch::jit::push(*stack, contiguous_like(a.x), at::empty_symint({rows, FusedArguments<Arguments>::kept_row(a)}, a.x.options()));
}

template <class Arguments>
void fused_backward_meta(const c10::OperatorHandle&, torch::jit::Stack* stack) {
  const Arguments a = pop_arguments<Arguments>(stack);
  torch::jit::drop(*stack, 2);  // grad_y, kept
  torch::jit::push(*stack, gradients_like(a));
}

template <class Arguments>
void define_fused(torch::Library& m) {
  const std::string name = FusedArguments<Arguments>::kName, arguments = FusedArguments<Arguments>::kSchema;
  const auto define = [&](const std::string& schema) { m.def(torch::schema(schema.c_str())); };
  define(name + "(" + arguments + ") -> Tensor");
  define("_" + name + "_forward(" + arguments + ") -> (Tensor y, Tensor kept)");
  define("_" + name + "_backward(Tensor grad_y, Tensor kept, " + arguments + ") -> Tensor?[]");
}

template <class Arguments>
void implement_fused_meta(torch::Library& m) {
  const std::string name = FusedArguments<Arguments>::kName;
  m.impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<&fused_meta<Arguments>>());
  m.impl(("_" + name + "_forward").c_str(), torch::CppFunction::makeFromBoxedFunction<&fused_forward_meta<Arguments>>());
  m.impl(("_" + name + "_backward").c_str(), torch::CppFunction::makeFromBoxedFunction<&fused_backward_meta<Arguments>>());
}

/// foo(arguments) through the dispatcher.
template <class Arguments>
at::Tensor call_fused(const Arguments& arguments) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow((std::string("seqboat::") + FusedArguments<Arguments>::kName).c_str(), "");
  torch::jit::Stack stack;
  push_arguments(&stack, arguments);
  op.callBoxed(&stack);
  return stack[0].toTensor();
}

}  // namespace seqboat::ops
