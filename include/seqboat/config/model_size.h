#pragma once

#include <cstdint>

#include "seqboat/config/model_config.h"

namespace seqboat::config {

/// Trainable numbers of a model (buffers such as running statistics are none). vocab_size must be known for token input.
int64_t parameter_count(const ModelConfig& config);

/// Forward floating-point operations for one token, a multiply-add counted as two. `activation_rate` in [0, 1] is the share of activated tokens,
/// `length` the sequence's: it bounds what a query can see. With r the rate, per layer:
///   products   2 D (D + 2) + 2 r (D (Z + 2 H) + H D)            (without router: 2 D D; one of a single score: 2 D (D + 1))
///   attention  r Kq (2 (Z + H) + 24), Kq = keys a query sees: W + 1 causal, 2 W + 1 bidirectional, at most r * length; half of that without
///              a window in a causal model
///   scan       4 N D a direction, S4D 6 N D; 2 N D more where a truncation shorter than the sequence is set
///   feed-forward 4 D F
/// Without a unit r = 0, without anybody who chooses r = 1. Mega: products 2 D (Z + 2 H + 2 D) + 2 H D, Kq = the tokens of a chunk (causal: half of
/// them); a Transformer: products 8 D D, attention heads Kq (4 D / heads + 24), no scan.
/// and once: the input projection of real input, the embedding's projection, the output matrix of a language model. The classifier, which works
/// once a sequence, is left out, as are norms and element-wise work.
struct Flops {
  double products = 0;
  double attention = 0;
  double scan = 0;
  double total() const { return products + attention + scan; }
};
Flops flops_per_token(const ModelConfig& config, double activation_rate, int64_t length);

/// Bytes of one stream's state in float32, over all layers: N D of the encoder, top-share's scores, a ring of W + 1 keys and values (mega-chunk: a
/// chunk of them) with their positions (8 bytes each), and the last `truncation` inputs. 0 for a model that cannot stream in constant memory
/// (bidirectional, or without a window).
int64_t state_bytes(const ModelConfig& config);

}  // namespace seqboat::config
