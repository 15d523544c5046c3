#pragma once

#include <torch/torch.h>

#include "seqboat/base/philox.h"
#include "seqboat/nn/linear.h"

namespace seqboat::nn {

/// The paper's latent configurator for one sub-module: a linear map of the token's state to two logits and a tempered softmax (kernels/router.h).
/// Parameters: proj.weight (2, D) and proj.bias (2) (rows 0 and 1 of the official hx_proj; row 1 = active), log_temperature (1), initially
/// ln(temperature_init sqrt(D)).
class SmaRouterImpl : public torch::nn::Module {
 public:
  SmaRouterImpl(int64_t dim, double temperature_init, double act_bias, PhiloxStream& random);

  struct Decision {
    torch::Tensor active;       ///< (M) uint8
    torch::Tensor p;            ///< (M) confidence of active tokens, else 0; differentiable
    torch::Tensor probability;  ///< (M) P(active)
    torch::Tensor logits;       ///< (M, 2)
  };
  /// m (M, D); forced (M) uint8 or undefined.
  Decision forward(const torch::Tensor& m, const torch::Tensor& forced);

  Linear proj{nullptr};
  torch::Tensor log_temperature;

  double act_bias() const { return act_bias_; }

 private:
  double act_bias_;
};
TORCH_MODULE(SmaRouter);

}  // namespace seqboat::nn
