#pragma once

#include <torch/torch.h>

namespace seqboat::nn {

/// y = x W^T + b over packed tokens (ops::linear). Parameters: weight (out, in), bias (out), both zero until the owner fills them.
class LinearImpl : public torch::nn::Module {
 public:
  LinearImpl(int64_t in, int64_t out, bool with_bias = true);
  torch::Tensor forward(const torch::Tensor& x);

  torch::Tensor weight, bias;
};
TORCH_MODULE(Linear);

}  // namespace seqboat::nn
