#include <torch/library.h>

#include "ops/common.h"
#include "seqboat/kernels/elementwise.h"

namespace seqboat::ops {
namespace {

using at::Tensor;
using kernels::Activation;

constexpr int64_t kGrain = 16384;

Activation parse_activation(c10::string_view function) {
  if (function == "silu") return Activation::kSilu;
  if (function == "gelu") return Activation::kGelu;
  if (function == "relu2") return Activation::kRelu2;
  if (function == "laplace") return Activation::kLaplace;
  if (function == "sigmoid") return Activation::kSigmoid;
  TORCH_CHECK(false, "seqboat::activation: function must be silu, gelu, relu2, laplace or sigmoid, got '", function, "'");
}

Tensor activation_cpu(const Tensor& x, c10::string_view function) {
  const PhaseScope phase(Phase::kElementwise);
  check_floating("activation", "x", x);
  const Activation f = parse_activation(function);
  const Tensor xc = x.contiguous();
  Tensor y = at::empty_like(xc);
  SEQBOAT_DISPATCH(x, "seqboat::activation", [&] {
    const auto* from = xc.const_data_ptr<scalar_t>();
    auto* to = y.mutable_data_ptr<scalar_t>();
    parallel_for(xc.numel(), kGrain,
                 [&](int64_t begin, int64_t end) { kernels::activation_fwd<scalar_t>(f, end - begin, from + begin, to + begin); });
  });
  return y;
}

Tensor activation_backward_cpu(const Tensor& grad_y, const Tensor& x, c10::string_view function) {
  const PhaseScope phase(Phase::kElementwise);
  const Activation f = parse_activation(function);
  const Tensor gy = grad_y.contiguous(), xc = x.contiguous();
  Tensor gx = at::empty_like(xc);
  SEQBOAT_DISPATCH(x, "seqboat::_activation_backward", [&] {
    const auto* from = xc.const_data_ptr<scalar_t>();
    const auto* grad = gy.const_data_ptr<scalar_t>();
    auto* to = gx.mutable_data_ptr<scalar_t>();
    parallel_for(xc.numel(), kGrain,
                 [&](int64_t begin, int64_t end) { kernels::activation_bwd<scalar_t>(f, end - begin, from + begin, grad + begin, to + begin); });
  });
  return gx;
}

}  // namespace

TORCH_LIBRARY_IMPL(seqboat, CPU, m) {
  m.impl("activation", activation_cpu);
  m.impl("_activation_backward", activation_backward_cpu);
}

}  // namespace seqboat::ops
