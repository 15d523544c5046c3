#pragma once

#include <torch/torch.h>

#include "seqboat/base/philox.h"
#include "seqboat/nn/state_encoder.h"

namespace seqboat::nn {

/// Diagonal state-space model (S4D) as a state encoder: takes the place of MultiHeadEma, call for call.
///
///   A = -exp(log_a_real) + i a_imag, dt = exp(log_dt), z = dt A / 2,   d = (1 + z)/(1 - z), w = b c dt/(1 - z)   (bilinear)
///   K[ch,l] = 2 Re sum_p w d^l (l < truncation),   y = K * x + skip x
///
/// bidirectional: a second kernel from the parameters' second half runs backwards in time; both contain l = 0.
/// Parameters: log_dt (D'); log_a_real, a_imag (D', P); b, c (D', P, 2) = [re, im]; skip (D). D' = 2D if bidirectional else D. P = N/2: a mode and
/// its conjugate are two of N states.
/// Initially Re A = -1/2; a_imag = (N/pi)(N/(2p + 1) - 1) ("inverse") in the first half of the rows and pi p ("linear") in the second, which are the
/// two directions of a bidirectional encoder; log_dt uniform in [log 0.001, log 0.1]; b = 1; c a complex standard normal; skip normal, cut at +-2.
class S4dImpl : public StateEncoder {
 public:
  /// n_state is N, even.
  S4dImpl(int64_t dim, int64_t n_state, bool bidirectional, int64_t truncation, PhiloxStream& random);

  /// x (M, D), cu_seqlens (B+1) -> (M, D).
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& cu_seqlens) override;

  /// The causal form with a carried state: s (B, D, P, 2) = sum_l d^l x[t-l] of everything before (without the factor b dt/(1 - z)), and with
  /// truncation the last `truncation` inputs (B, truncation, D), oldest first. Undefined tensors = zero. Returns y and the state after the last
  /// token; the caller keeps the history.
  std::pair<torch::Tensor, torch::Tensor> forward_with_state(const torch::Tensor& x, const torch::Tensor& cu_seqlens, const torch::Tensor& state,
                                                             const torch::Tensor& history) override;

  /// d and w, each (D', P, 2): the scan's coefficients, differentiable. Computed in float64 and rounded once: what counts is how little |d| lies
  /// below 1.
  std::pair<torch::Tensor, torch::Tensor> coefficients() const;

  int64_t truncation() const override { return truncation_; }
  std::optional<Scan> scan() const override;

  torch::Tensor log_dt, log_a_real, a_imag, b, c, skip;

 private:
  int64_t truncation_;
  bool bidirectional_;
};
TORCH_MODULE(S4d);

}  // namespace seqboat::nn
