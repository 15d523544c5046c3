#pragma once

#include <torch/torch.h>

#include "seqboat/base/philox.h"
#include "seqboat/nn/state_encoder.h"

namespace seqboat::nn {

/// Multi-head exponential moving average with damping, the state encoder of SeqBoat (and Mega).
///
/// truncated_init: normals of the initial values cut at two standard deviations, as SeqBoat has them; Mega's are whole.
///
///   p = sigma(delta), q = 1 - p sigma(alpha), K[d,l] = sqrt(1/N) sum_n p beta gamma q^l (l < truncation),   y = K * x + omega x
///
/// bidirectional: a second kernel from the parameters' second half runs backwards in time; both contain l = 0.
/// Parameters: delta, alpha, beta, gamma (D', N), D' = 2D if bidirectional else D; omega (D).
class MultiHeadEmaImpl : public StateEncoder {
 public:
  MultiHeadEmaImpl(int64_t dim, int64_t n_state, bool bidirectional, int64_t truncation, PhiloxStream& random, bool truncated_init = true);

  /// x (M, D), cu_seqlens (B+1) -> (M, D).
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& cu_seqlens) override;

  /// The causal form with a carried state: s (B, D, N) = sum_l q^l x[t-l] of everything before (without the factor p beta), and with truncation the
  /// last `truncation` inputs (B, truncation, D), oldest first. Undefined tensors = zero. Returns y and the state after the last token;
  /// the caller keeps the history.
  std::pair<torch::Tensor, torch::Tensor> forward_with_state(const torch::Tensor& x, const torch::Tensor& cu_seqlens, const torch::Tensor& state,
                                                             const torch::Tensor& history) override;

  /// q and c = sqrt(1/N) p beta gamma, each (D', N): the scan's coefficients, differentiable.
  std::pair<torch::Tensor, torch::Tensor> coefficients() const;

  int64_t truncation() const override { return truncation_; }
  std::optional<Scan> scan() const override;

  torch::Tensor delta, alpha, beta, gamma, omega;

 private:
  int64_t truncation_;
  bool bidirectional_;
};
TORCH_MODULE(MultiHeadEma);

}  // namespace seqboat::nn
