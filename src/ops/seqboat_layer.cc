#include "seqboat/ops/seqboat_layer.h"

#include "ops/seqboat_layer_arguments.h"

namespace seqboat::ops {
namespace {

using torch::jit::Stack;

/// y, active, probability: what every backend gives for these arguments.
void push_result_shapes(Stack* stack, const SeqBoatLayerArguments& a) {
  const auto tokens_if = [&](bool condition) { return condition ? a.x.sym_size(0) : c10::SymInt(0); };
  const auto decided = tokens_if(a.router_weight.defined() || a.forced.defined()), routed = tokens_if(a.router_weight.defined());
  torch::jit::push(*stack, contiguous_like(a.x), at::empty_symint({decided}, a.x.options().dtype(at::kByte)),
                   at::empty_symint({routed}, a.x.options()));
}

void layer_meta(const c10::OperatorHandle&, Stack* stack) {
  push_result_shapes(stack, pop_arguments<SeqBoatLayerArguments>(stack));
}

void layer_backward_meta(const c10::OperatorHandle&, Stack* stack) {
  const SeqBoatLayerArguments arguments = pop_arguments<SeqBoatLayerArguments>(stack);
  torch::jit::drop(*stack, 5);  // the gradients and what was kept
  torch::jit::push(*stack, gradients_like(arguments));
}

}  // namespace

SeqBoatLayerResult seqboat_layer(const SeqBoatLayerArguments& arguments) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("seqboat::seqboat_layer", "");
  Stack stack;
  push_arguments(&stack, arguments);
  op.callBoxed(&stack);
  return {stack[0].toTensor(), stack[1].toTensor(), stack[2].toTensor()};
}

TORCH_LIBRARY_FRAGMENT(seqboat, m) {
  const std::string arguments = FusedArguments<SeqBoatLayerArguments>::kSchema;
  const auto define = [&](const std::string& schema, const std::vector<at::Tag>& tags) { m.def(torch::schema(schema.c_str()), tags); };
  define("seqboat_layer(" + arguments + ") -> (Tensor y, Tensor active, Tensor probability)", {});
  // What is kept of the active tokens depends on the data in its size.
  define("_seqboat_layer_forward(" + arguments + ") -> (Tensor y, Tensor active, Tensor probability, Tensor kept_tokens, Tensor kept_active)",
         {at::Tag::dynamic_output_shape});
  define("_seqboat_layer_backward(Tensor grad_y, Tensor? grad_probability, Tensor active, Tensor kept_tokens, Tensor kept_active, " + arguments +
             ") -> Tensor?[]",
         {});
}

TORCH_LIBRARY_IMPL(seqboat, Meta, m) {
  m.impl("seqboat_layer", torch::CppFunction::makeFromBoxedFunction<&layer_meta>());
  m.impl("_seqboat_layer_backward", torch::CppFunction::makeFromBoxedFunction<&layer_backward_meta>());
}

}  // namespace seqboat::ops
