#pragma once

#include <torch/torch.h>

#include <string>
#include <vector>

#include "seqboat/base/philox.h"
#include "seqboat/nn/linear.h"
#include "seqboat/nn/packed.h"

namespace seqboat::nn {

/// One vector a sequence: "mean" over its tokens, or the "first" token. x (M, D) -> (B, D). Every sequence must have a token for "first".
torch::Tensor pool(const torch::Tensor& x, const torch::Tensor& cu_seqlens, const std::string& kind);

/// `layers` times GELU(dropout(Linear)), then a Linear without bias to the classes. Weights Xavier-uniform, biases 0.
/// Parameters: hidden.<i>.{weight, bias}, out.weight (classes, width).
class ClassifierImpl : public torch::nn::Module {
 public:
  ClassifierImpl(int64_t in, int64_t width, int64_t layers, int64_t classes, double dropout, PhiloxStream& random);
  torch::Tensor forward(torch::Tensor features, const RandomKey& random);  ///< (B, in) -> (B, classes)

  std::vector<Linear> hidden;
  Linear out{nullptr};

 private:
  double dropout_;
};
TORCH_MODULE(Classifier);

}  // namespace seqboat::nn
