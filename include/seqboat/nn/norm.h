#pragma once

#include <torch/torch.h>

#include <string>

namespace seqboat::nn {

/// layernorm | scalenorm | rmsnorm over each token, batchnorm over all real tokens of the batch per channel (training) or its running statistics.
/// Formulas: kernels/norm.h; eps 1e-5. Parameters: weight (D; scalenorm: 1), bias (D; layernorm and batchnorm); batchnorm buffers running_mean,
/// running_var (D; momentum 0.1, unbiased), num_batches_tracked.
class NormImpl : public torch::nn::Module {
 public:
  NormImpl(const std::string& kind, int64_t dim, bool affine = true);
  torch::Tensor forward(const torch::Tensor& x);  ///< (M, D) -> (M, D)

  /// What batchnorm takes off and divides by: in training the mean and biased variance of x (then the running statistics have moved), else the
  /// running ones. Undefined for the other kinds.
  struct Statistics {
    torch::Tensor mean, var;
    bool of_batch = false;
  };
  Statistics statistics(const torch::Tensor& x);
  /// forward, given statistics(x): moves nothing.
  torch::Tensor apply_with(const torch::Tensor& x, const Statistics& used) const;

  static constexpr double kEps = 1e-5;
  const std::string& kind() const { return kind_; }

  torch::Tensor weight, bias, running_mean, running_var, num_batches_tracked;

 private:
  std::string kind_;
};
TORCH_MODULE(Norm);

}  // namespace seqboat::nn
