#pragma once

// Private to src/ops/autograd.

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
}  // namespace seqboat::ops
