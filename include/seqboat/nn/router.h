#pragma once

#include <torch/torch.h>

#include <memory>
#include <string>

#include "seqboat/base/philox.h"
#include "seqboat/nn/linear.h"
#include "seqboat/nn/packed.h"

/// Routers: who decides, token by token, whether a sub-module is activated.
namespace seqboat::nn {

struct RouterDecision {
  torch::Tensor active;       ///< (M) uint8; undefined: every token is activated
  torch::Tensor p;            ///< (M) confidence that weighs the sub-module's output, differentiable; 0 where inactive; undefined: 1
  torch::Tensor probability;  ///< (M) P(active) of every token, differentiable; undefined for who does not learn
  torch::Tensor logits;       ///< (M, 2), or (M, 1) scores; likewise
};

/// Where a router is asked.
struct RouterCall {
  const PackedLayout& layout;
  const RandomKey& random;           ///< key of those that draw
  int64_t layer = 0;                 ///< number in the stack, and among the layer's sub-modules
  int64_t module = 0;                ///
  torch::Tensor forced = {};         ///< (M) uint8: decides in the router's place (confidence stays the router's); or undefined
  torch::Tensor* carried = nullptr;  ///< what a router that remembers keeps from chunk to chunk; nullptr: the sequences begin and end here
};

class Router : public torch::nn::Module {
 public:
  /// state (M, D) -> decisions. A token's depends on its own sequence alone.
  virtual RouterDecision forward(const torch::Tensor& state, const RouterCall& call) = 0;
};

struct RouterOptions {
  std::string kind = "tempered-softmax";  ///< one of the words below
  double temperature_init = 0.3;          ///< tempered-softmax: initial temperature / sqrt(D)
  double bias = 0.0;                      ///< tempered-softmax: added to the inactive logit
  double temperature = 1.0;               ///< gumbel-soft, gumbel-hard: tau, constant
  double threshold = 0.5;                 ///< sigmoid-threshold, in (0, 1)
  double rate = 0.5;                      ///< top-share, random, stride: share of tokens
  int64_t horizon = 256;                  ///< top-share: scores that a token's is ranked among
};

/// kind:
///   tempered-softmax   the paper's, TemperedSoftmaxRouter
///   sigmoid-threshold  P = sigma(u), active where u > ln(threshold / (1 - threshold)), confidence P
///   gumbel-soft        two logits; in training both get Gumbel noise, the larger one decides, confidence is the softmax's share at temperature tau;
///   gumbel-hard          hard: confidence 1 with the gradient of the soft one (straight through). In evaluation no noise and confidence 1
///   top-share          a score u a token; active where fewer than rate * n of the last n scores of its sequence, its own among them, are at least as
///                        high as its own and earlier, or higher; n = horizon, or as many as there are. Causal, in any layer. Confidence sigma(u)
///   always, never, random, stride   confidence 1 (fixed_choice.h)
std::shared_ptr<Router> make_router(const RouterOptions& options, int64_t dim, PhiloxStream& random);

/// The paper's latent configurator for one sub-module: a linear map of the token's state to two logits and a tempered softmax (kernels/router.h).
/// Parameters: proj.weight (2, D) and proj.bias (2) (rows 0 and 1 of the official hx_proj; row 1 = active), log_temperature (1), initially
/// ln(temperature_init sqrt(D)).
class TemperedSoftmaxRouterImpl : public Router {
 public:
  TemperedSoftmaxRouterImpl(int64_t dim, double temperature_init, double act_bias, PhiloxStream& random);

  RouterDecision forward(const torch::Tensor& state, const RouterCall& call) override;
  /// forced (M) uint8 or undefined.
  RouterDecision decide(const torch::Tensor& state, const torch::Tensor& forced);

  Linear proj{nullptr};
  torch::Tensor log_temperature;

  double act_bias() const { return act_bias_; }

 private:
  double act_bias_;
};
TORCH_MODULE(TemperedSoftmaxRouter);

/// Weights of one or two options by straight-through Gumbel: soft = softmax((logits + noise) / temperature), of one option sigma((logit + noise) /
/// temperature). hard: 1 for the larger (of equals the first; one option: above a half), else 0, with the gradient of the soft ones.
/// logits (M, 1 or 2); noise like logits, standard Gumbel numbers -ln(-ln u), or undefined: none.
torch::Tensor gumbel_weights(const torch::Tensor& logits, const torch::Tensor& noise, double temperature, bool hard);

}  // namespace seqboat::nn
