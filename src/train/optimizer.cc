#include "seqboat/train/optimizer.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "seqboat/base/error.h"
#include "seqboat/base/text.h"
#include "seqboat/kernels/adam.h"
#include "seqboat/kernels/elementwise.h"
#include "seqboat/kernels/simd.h"
#include "seqboat/ops/phases.h"

namespace seqboat::train {
namespace {

constexpr int64_t kGrain = 1 << 15;  // elements a thread takes at least

template <class Body>
void for_type(const torch::Tensor& tensor, const Body& body) {
  if (tensor.scalar_type() == torch::kFloat64) {
    body(double{});
  } else {
    body(float{});
  }
}

/// Element-wise work: an element's bits do not depend on who computes it.
template <class Body>
void in_parallel(int64_t count, const Body& body) {
  at::parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
    kernels::FlushDenormals flush;
    body(begin, end);
  });
}

torch::Tensor gradient_of(const torch::Tensor& parameter) {
  torch::Tensor grad = parameter.grad();
  if (!grad.defined()) return grad;
  TORCH_CHECK(grad.scalar_type() == parameter.scalar_type() && grad.sizes() == parameter.sizes(), "seqboat::train: a gradient is ",
              grad.scalar_type(), " ", grad.sizes(), ", its parameter ", parameter.scalar_type(), " ", parameter.sizes());
  return grad.contiguous();
}

void multiply(const torch::Tensor& x, double factor) {
  if (factor == 1.0) return;
  for_type(x, [&](auto zero) {
    using T = decltype(zero);
    T* data = x.mutable_data_ptr<T>();
    const T f = static_cast<T>(factor);
    in_parallel(x.numel(), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) data[i] *= f;
    });
  });
}

}  // namespace

std::vector<NamedParameter> parameters_of(const torch::nn::Module& module) {
  std::vector<NamedParameter> out;
  std::set<const c10::TensorImpl*> seen;
  for (const auto& item : module.named_parameters()) {
    if (seen.insert(item.value().unsafeGetTensorImpl()).second) out.push_back({item.key(), item.value()});
  }
  return out;
}

GradientScale gradient_scale(const std::vector<NamedParameter>& parameters, double scale, double clip_norm) {
  const ops::PhaseScope phase(ops::Phase::kOptimizer);
  torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> grads;
  bool single = false;
  for (const NamedParameter& parameter : parameters) {
    torch::Tensor grad = gradient_of(parameter.tensor);
    if (!grad.defined()) continue;
    if (!grad.is_same(parameter.tensor.grad())) parameter.tensor.mutable_grad() = grad;
    single = single || grad.scalar_type() == torch::kFloat32;
    grads.push_back(std::move(grad));
  }
  std::vector<double> squares(grads.size());
  at::parallel_for(0, static_cast<int64_t>(grads.size()), 1, [&](int64_t begin, int64_t end) {
    kernels::FlushDenormals flush;
    for (int64_t i = begin; i < end; ++i) {
      for_type(grads[i], [&](auto zero) {
        using T = decltype(zero);
        squares[i] = kernels::sum_of_squares<T>(grads[i].numel(), grads[i].const_data_ptr<T>());
      });
    }
  });
  double total = 0;
  for (const double square : squares) total += square;
  double norm = std::abs(scale) * std::sqrt(total);
  if (single) norm = static_cast<double>(static_cast<float>(norm));
  const bool clips = clip_norm > 0 && std::isfinite(norm);
  return {norm, scale * (clips ? std::min(1.0, clip_norm / (norm + 1e-6)) : 1.0)};
}

double scale_and_clip_gradients(const std::vector<NamedParameter>& parameters, double scale, double clip_norm) {
  const GradientScale used = gradient_scale(parameters, scale, clip_norm);
  torch::NoGradGuard no_grad;
  for (const NamedParameter& parameter : parameters) {
    const torch::Tensor grad = gradient_of(parameter.tensor);
    if (grad.defined()) multiply(grad, used.factor);
  }
  return used.norm;
}

Optimizer::Optimizer(std::vector<NamedParameter> parameters, const OptimizerOptions& options)
    : parameters_(std::move(parameters)), options_(options) {
  for (const NamedParameter& parameter : parameters_) {
    const torch::Tensor& tensor = parameter.tensor;
    TORCH_CHECK(
        tensor.is_contiguous() && tensor.device().is_cpu() && (tensor.scalar_type() == torch::kFloat32 || tensor.scalar_type() == torch::kFloat64),
        "seqboat::train::Optimizer: ", parameter.name, " must be contiguous float32 or float64 on the CPU, got ", tensor.scalar_type(), " ",
        tensor.sizes());
    exp_avg_.push_back(torch::zeros_like(tensor.detach()));
    exp_avg_sq_.push_back(torch::zeros_like(tensor.detach()));
  }
}

void Optimizer::zero_grad() {
  const ops::PhaseScope phase(ops::Phase::kOptimizer);
  for (const NamedParameter& parameter : parameters_) parameter.tensor.mutable_grad().reset();
}

std::vector<NamedParameter> Optimizer::state() const {
  std::vector<NamedParameter> out;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    out.push_back({"exp_avg." + parameters_[i].name, exp_avg_[i]});
    out.push_back({"exp_avg_sq." + parameters_[i].name, exp_avg_sq_[i]});
  }
  return out;
}

void Optimizer::step(double lr, double gradient_factor) {
  const ops::PhaseScope phase(ops::Phase::kOptimizer);
  torch::NoGradGuard no_grad;
  ++steps_;
  const Factors f = factors(lr, steps_);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const torch::Tensor& parameter = parameters_[i].tensor;
    const torch::Tensor grad = gradient_of(parameter);
    for_type(parameter, [&](auto zero) {
      using T = decltype(zero);
      T* p = parameter.mutable_data_ptr<T>();
      T* m = exp_avg_[i].mutable_data_ptr<T>();
      T* v = exp_avg_sq_[i].mutable_data_ptr<T>();
      const T* g = grad.defined() ? grad.const_data_ptr<T>() : nullptr;
      const kernels::AdamFactors<T> factors_of_type{.b1 = static_cast<T>(options_.betas[0]),
                                                    .one_minus_b1 = static_cast<T>(1.0 - options_.betas[0]),
                                                    .b2 = static_cast<T>(options_.betas[1]),
                                                    .one_minus_b2 = static_cast<T>(1.0 - options_.betas[1]),
                                                    .eps = static_cast<T>(options_.eps),
                                                    .decay = static_cast<T>(f.decay),
                                                    .rate = static_cast<T>(f.rate),
                                                    .adaptive = f.adaptive,
                                                    .gradient = static_cast<T>(gradient_factor)};
      in_parallel(parameter.numel(), [&](int64_t begin, int64_t end) {
        kernels::adam_step(factors_of_type, end - begin, g == nullptr ? nullptr : g + begin, m + begin, v + begin, p + begin);
      });
    });
  }
}

Optimizer::Factors Adam::factors(double lr, int64_t t) const {
  const auto& [b1, b2] = options().betas;
  const double n = static_cast<double>(t);
  return {.decay = lr * options().weight_decay, .rate = lr * std::sqrt(1.0 - std::pow(b2, n)) / (1.0 - std::pow(b1, n)), .adaptive = true};
}

Optimizer::Factors RAdam::factors(double lr, int64_t t) const {
  const auto& [b1, b2] = options().betas;
  const double n = static_cast<double>(t);
  const double b2_t = std::pow(b2, n), bias = 1.0 - std::pow(b1, n);
  const double rho_inf = 2.0 / (1.0 - b2) - 1.0;
  const double rho = rho_inf - 2.0 * n * b2_t / (1.0 - b2_t);
  Factors out{.decay = lr * options().weight_decay, .rate = lr / bias, .adaptive = rho >= 5.0};
  if (out.adaptive) {
    out.rate = lr * std::sqrt((1.0 - b2_t) * (rho - 4.0) / (rho_inf - 4.0) * (rho - 2.0) / rho * rho_inf / (rho_inf - 2.0)) / bias;
  }
  return out;
}

std::unique_ptr<Optimizer> make_optimizer(const config::OptimConfig& config, std::vector<NamedParameter> parameters) {
  const OptimizerOptions options{.betas = config.betas, .eps = config.eps, .weight_decay = config.weight_decay};
  if (config.name == "adam") return std::make_unique<Adam>(std::move(parameters), options);
  if (config.name == "radam") return std::make_unique<RAdam>(std::move(parameters), options);
  fail(ErrorKind::kConfig, "optim.name: expected adam or radam, found {}", in_quotes(config.name));
}

}  // namespace seqboat::train
