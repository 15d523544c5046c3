#pragma once

// Private to src/ops/cpu: what the glue of fused operators shares: checks, and from tensors to plain pointers.

#include <cmath>
#include <string>
#include <vector>

#include "ops/cpu/norm_view.h"
#include "ops/fused_operator.h"
#include "seqboat/kernels/dropout.h"

namespace seqboat::ops {

/// The same arguments, every tensor contiguous.
template <class Arguments>
Arguments contiguous_arguments(Arguments a) {
  for_each_argument(a, [](auto& value) {
    if constexpr (std::is_same_v<std::decay_t<decltype(value)>, at::Tensor>) {
      if (value.defined()) value = value.contiguous();
    }
  });
  return a;
}

template <class T>
const T* data(const at::Tensor& t) {
  return t.defined() ? t.const_data_ptr<T>() : nullptr;
}

inline void check_shape(const char* op, const char* name, const at::Tensor& t, at::IntArrayRef shape, at::ScalarType dtype) {
  TORCH_CHECK(t.defined() && t.sizes() == shape && t.scalar_type() == dtype, "seqboat::", op, ": ", name, " must be ", shape, " ", dtype, ", got ",
              t.defined() ? t.sizes() : at::IntArrayRef(), " ", t.defined() ? toString(t.scalar_type()) : "nothing");
}

/// The arguments that begin with norm_, and norm.
template <class Arguments>
void check_norm_arguments(const char* op, const Arguments& a, bool prenorm) {
  const int64_t d = a.x.size(1);
  const auto dtype = a.x.scalar_type();
  const bool batch_norm = a.norm == "batchnorm";
  TORCH_CHECK(batch_norm || a.norm == "layernorm" || a.norm == "scalenorm" || a.norm == "rmsnorm", "seqboat::", op,
              ": norm must be layernorm, scalenorm, rmsnorm or batchnorm, got '", a.norm, "'");
  TORCH_CHECK(!batch_norm || prenorm, "seqboat::", op, ": batchnorm must come first (prenorm): the statistics of a last one are not known before");
  if (a.norm_weight.defined()) check_shape(op, "norm_weight", a.norm_weight, {a.norm == "scalenorm" ? 1 : d}, dtype);
  TORCH_CHECK(!a.norm_bias.defined() || a.norm == "layernorm" || a.norm == "batchnorm", "seqboat::", op, ": ", a.norm, " has no bias");
  if (a.norm_bias.defined()) check_shape(op, "norm_bias", a.norm_bias, {d}, dtype);
  if (batch_norm) {
    check_shape(op, "norm_mean", a.norm_mean, {d}, dtype);
    check_shape(op, "norm_var", a.norm_var, {d}, dtype);
  }
}

template <class Arguments>
void check_dropout_arguments(const char* op, const Arguments& a) {
  TORCH_CHECK(a.dropout >= 0 && a.dropout < 1, "seqboat::", op, ": dropout must lie in [0, 1), got ", a.dropout);
  TORCH_CHECK(a.random.size() == 5, "seqboat::", op, ": random must hold seed, update, micro-batch, layer and site, got ", a.random.size(),
              " numbers");
}

/// rstd: storage for batch norm's 1 / sqrt(var + eps). The arguments are contiguous and outlive the view.
template <class T, class Arguments>
NormView<T> make_norm_view(const Arguments& a, std::vector<T>* rstd) {
  NormView<T> v{};
  v.kind = a.norm == "scalenorm" ? kernels::RowNorm::kScaleNorm : a.norm == "rmsnorm" ? kernels::RowNorm::kRmsNorm : kernels::RowNorm::kLayerNorm;
  v.is_batch = a.norm == "batchnorm";
  v.batch_stats = a.batch_stats;
  v.eps = a.eps;
  v.dim = a.x.size(1);
  v.weight = data<T>(a.norm_weight);
  v.bias = data<T>(a.norm_bias);
  v.mean = data<T>(a.norm_mean);
  if (v.is_batch) {
    for (int64_t j = 0; j < v.dim; ++j) rstd->push_back(static_cast<T>(1.0 / std::sqrt(static_cast<double>(data<T>(a.norm_var)[j]) + a.eps)));
    v.rstd = rstd->data();
  }
  return v;
}

inline kernels::DropoutKey dropout_key(const std::vector<int64_t>& random) {
  return {static_cast<uint64_t>(random[0]), static_cast<uint64_t>(random[1]), static_cast<uint32_t>(random[2]), static_cast<uint32_t>(random[3]),
          static_cast<uint32_t>(random[4])};
}

/// Room for the gradients of all parameters, in their order, and their pointers one after the other (nullptr where the argument is absent).
class GradientTensors {
 public:
  template <class Arguments>
  explicit GradientTensors(const Arguments& a) : tensors_(gradients_like(a)) {}

  template <class T>
  T* next() {
    const std::optional<at::Tensor> grad = tensors_.get(next_++);
    return grad.has_value() ? grad->mutable_data_ptr<T>() : nullptr;
  }
  c10::List<std::optional<at::Tensor>> tensors() const { return tensors_; }

 private:
  c10::List<std::optional<at::Tensor>> tensors_;
  size_t next_ = 0;
};

// ---- operators with one output ----

struct FusedResult {
  at::Tensor y, kept;
};

/// What an operator of one output does on the CPU: specialised for each.
template <class Arguments>
struct FusedKernels {
  /// The arguments as given. keeps: kept is (M, kept_row), else without rows.
  static FusedResult forward(const Arguments& given, bool keeps);
  /// The arguments contiguous; kept has rows.
  static c10::List<std::optional<at::Tensor>> backward(const at::Tensor& grad_y, const at::Tensor& kept, const Arguments& a);
};

template <class Arguments>
void fused_cpu(const c10::OperatorHandle&, torch::jit::Stack* stack) {
  torch::jit::push(*stack, FusedKernels<Arguments>::forward(pop_arguments<Arguments>(stack), false).y);
}

template <class Arguments>
void fused_forward_cpu(const c10::OperatorHandle&, torch::jit::Stack* stack) {
  const Arguments arguments = pop_arguments<Arguments>(stack);
  const FusedResult out = FusedKernels<Arguments>::forward(arguments, !arguments.keep_inputs_only);
  torch::jit::push(*stack, out.y, out.kept);
}

template <class Arguments>
void fused_backward_cpu(const c10::OperatorHandle&, torch::jit::Stack* stack) {
  const Arguments a = contiguous_arguments(pop_arguments<Arguments>(stack));
  at::Tensor kept = pop_tensor(stack);
  const at::Tensor grad_y = pop_tensor(stack).contiguous();
  if (kept.size(0) < a.x.size(0)) kept = FusedKernels<Arguments>::forward(a, true).kept;  // only the inputs were kept
  torch::jit::push(*stack, FusedKernels<Arguments>::backward(grad_y, kept.contiguous(), a));
}

template <class Arguments>
void implement_fused_cpu(torch::Library& m) {
  const std::string name = FusedArguments<Arguments>::kName;
  m.impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<&fused_cpu<Arguments>>());
  m.impl(("_" + name + "_forward").c_str(), torch::CppFunction::makeFromBoxedFunction<&fused_forward_cpu<Arguments>>());
  m.impl(("_" + name + "_backward").c_str(), torch::CppFunction::makeFromBoxedFunction<&fused_backward_cpu<Arguments>>());
}

}  // namespace seqboat::ops
