#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <vector>

#include "seqboat/nn/packed.h"

namespace seqboat::train {

/// Draws the routers towards a share of activated tokens.
///
///   penalty = weight * sum over layers of (a - target_rate)^2,      a = activated tokens of the layer / its tokens, over one micro-batch
///
/// a is a count and has no gradient; the mean of P(active) over the tokens stands in for it (straight through), so a token's logits get
///   d penalty / d u = 2 weight (a - target_rate) / tokens * dP/du:
/// all tokens are pushed down while the layer activates too many and up while too few, those nearest to the decision most. With the penalty on, a
/// gradient depends on what else is in the micro-batch, through a.
struct RouterPenalty {
  double value = 0;    ///< of the penalty
  torch::Tensor pull;  ///< a scalar to add to the summed loss before its backward: its gradient is sample_size * d penalty. Undefined = none
};

/// traces: those of one forward with ForwardOptions::router_gradients, one an encoder pass and layer; passes of the same layer count together.
/// sample_size: what the summed loss is divided by later.
RouterPenalty router_penalty(const std::vector<nn::LayerTrace>& traces, int64_t n_layers, double target_rate, double weight, int64_t sample_size);

}  // namespace seqboat::train
