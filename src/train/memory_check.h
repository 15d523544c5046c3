#pragma once

// Private to src/train.

#include "seqboat/config/recipe.h"

namespace seqboat::train {

/// Refuses a model that this machine cannot train whatever the batch: weights, gradients and both moments of the optimizer, 16 bytes a parameter,
/// exceed the physical memory. Otherwise the system would end the process without a word. Error (kResource) with both sizes and the keys that weigh
/// most. vocab_size must be known.
void check_memory(const config::ModelConfig& model);

}  // namespace seqboat::train
