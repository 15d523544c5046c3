#pragma once

// Private to src/ops/autograd.

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/common.h"
#include "ops/dispatch.h"
#include "seqboat/ops/ops.h"

namespace seqboat::ops {
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

inline std::optional<Tensor> optional(const Tensor& t) {
  return t.defined() ? std::optional<Tensor>(t) : std::nullopt;
}

/// Opens every backward that is an operator without a derivative of its own: where somebody asks for that (create_graph), an error and not a graph
/// that ends here unseen.
inline void refuse_second_derivative(const char* op) {
  TORCH_CHECK_NOT_IMPLEMENTED(!at::GradMode::is_enabled(), "seqboat::", op, ": its gradient cannot be differentiated again (create_graph)");
}
}  // namespace seqboat::ops
