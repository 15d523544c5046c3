#pragma once

// Private to src/train.

#include "seqboat/config/recipe.h"

namespace seqboat::train {

/// Refuses a model that this machine cannot train whatever the batch: weights, gradients and both moments of the optimizer, 16 bytes a parameter,
/// exceed the physical memory. Otherwise the system would end the process without a word. Error (kResource) with both sizes and the keys that weigh
/// most. vocab_size must be known.
void check_memory(const config::ModelConfig& model);

/// Refuses a batch that this process cannot hold whatever is done to save memory: the weights (in training with gradients and moments), a layer's few
/// tensors of (tokens, D), in training one of each layer, and a language model's logits, against the memory that is free. Error (kResource) that
/// says what it takes at least and what there is. What it lets pass may still be too much.
void check_step_memory(const config::ModelConfig& model, int64_t tokens, bool train);

}  // namespace seqboat::train
