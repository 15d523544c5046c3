#pragma once

#include <cstdint>

#include "seqboat/config/model_config.h"

namespace seqboat::config {

/// Trainable numbers of a model (buffers such as running statistics are none). vocab_size must be known for token input.
int64_t parameter_count(const ModelConfig& config);

/// Bytes of one stream's state in float32, over all layers: N D of the encoder, top-share's scores, a ring of W + 1 keys and values (mega-chunk: a
/// chunk of them) with their positions (8 bytes each), and the last `truncation` inputs. 0 for a model that cannot stream in constant memory
/// (bidirectional, or without a window).
int64_t state_bytes(const ModelConfig& config);

}  // namespace seqboat::config
