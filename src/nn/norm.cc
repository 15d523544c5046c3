#include "seqboat/nn/norm.h"

#include "seqboat/ops/ops.h"

namespace seqboat::nn {
namespace {

constexpr double kMomentum = 0.1;

std::optional<torch::Tensor> optional(const torch::Tensor& t) {
  return t.defined() ? std::optional<torch::Tensor>(t) : std::nullopt;
}

}  // namespace

NormImpl::NormImpl(const std::string& kind, int64_t dim, bool affine) : kind_(kind) {
  TORCH_CHECK(kind == "layernorm" || kind == "scalenorm" || kind == "rmsnorm" || kind == "batchnorm",
              "seqboat::nn::Norm: kind must be layernorm, scalenorm, rmsnorm or batchnorm, got '", kind, "'");
  if (affine) weight = register_parameter("weight", torch::ones({kind == "scalenorm" ? 1 : dim}));
  if (affine && (kind == "layernorm" || kind == "batchnorm")) bias = register_parameter("bias", torch::zeros({dim}));
  if (kind == "batchnorm") {
    running_mean = register_buffer("running_mean", torch::zeros({dim}));
    running_var = register_buffer("running_var", torch::ones({dim}));
    num_batches_tracked = register_buffer("num_batches_tracked", torch::zeros({}, torch::kInt64));
  }
}

NormImpl::Statistics NormImpl::statistics(const torch::Tensor& x) {
  if (kind_ != "batchnorm") return {};
  if (!is_training()) return {running_mean, running_var, false};
  auto [mean, var] = ops::batch_norm_stats(x.detach());
  torch::NoGradGuard no_grad;
  const double rows = static_cast<double>(x.size(0));
  running_mean.mul_(1 - kMomentum).add_(mean * kMomentum);
  running_var.mul_(1 - kMomentum).add_(var * (kMomentum * rows / std::max(1.0, rows - 1)));
  num_batches_tracked.add_(1);
  return {mean, var, true};
}

torch::Tensor NormImpl::apply_with(const torch::Tensor& x, const Statistics& used) const {
  if (kind_ != "batchnorm") return ops::row_norm(x, optional(weight), optional(bias), kind_, kEps);
  return ops::batch_norm(x, optional(weight), optional(bias), used.mean, used.var, used.of_batch, kEps);
}

torch::Tensor NormImpl::forward(const torch::Tensor& x) {
  return apply_with(x, statistics(x));
}

}  // namespace seqboat::nn
