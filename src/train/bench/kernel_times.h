#pragma once

// Private to src/train: single operators at a model's shapes, alone.

#include <torch/torch.h>

#include <vector>

#include "seqboat/config/model_config.h"

namespace seqboat::train {

/// Milliseconds of the EMA scan of one layer over these sequences: forward, and in training backward; with the config's truncation.
double scan_ms(const config::ModelConfig& model, bool train, const torch::Tensor& cu_seqlens);

/// The same of one layer's window attention, rotation included, on the tokens that `active` (sum T) uint8 names; undefined = all. T5 buckets, which
/// the kernel does not know, are timed as no bias.
double attention_ms(const config::ModelConfig& model, bool train, const torch::Tensor& cu_seqlens, const torch::Tensor& active);

}  // namespace seqboat::train
