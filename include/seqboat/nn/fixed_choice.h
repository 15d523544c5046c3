#pragma once

#include <torch/torch.h>

#include <string>

#include "seqboat/nn/packed.h"

namespace seqboat::nn {

/// Which tokens are activated where nobody looks at them: (M) uint8, a share `rate` in [0, 1] of them.
///
///   stride: token t of its sequence where floor((t + 1) rate) > floor(t rate): evenly spread, at rate 1/k every k-th.
///   random: a hash of seed, update, layer, sequence id and t below `rate`: other tokens in every layer and every update of training.
///
/// Neither depends on what stands beside a sequence or on how it is cut into chunks.
torch::Tensor fixed_choice(const std::string& kind, double rate, const PackedLayout& layout, const RandomKey& random, int64_t layer);

}  // namespace seqboat::nn
