#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "seqboat/runtime/model.h"
#include "seqboat/runtime/runner.h"

namespace seqboat::runtime {

/// Packed sequences: rows cu_seqlens[b] .. cu_seqlens[b+1]-1 belong to sequence b.
struct Sequences {
  std::span<const int64_t> tokens = {};      ///< (sum T), token input
  std::span<const float> values = {};        ///< (sum T, channels), real input
  std::span<const int64_t> cu_seqlens = {};  ///< (B+1); empty = one sequence of everything
  std::span<const uint8_t> forced = {};      ///< (n_layers, sum T), as Feed::forced; empty: the routers decide
};

/// What happened in the layers, in packed order; filled where asked for.
struct ForwardTrace {
  std::vector<uint8_t> active;     ///< (n_layers, sum T), as Feed::active
  std::vector<float> probability;  ///< (n_layers, sum T), as Feed::probability
};

struct ForwardOptions {
  int64_t threads = 1;  ///< results do not depend on it
  /// kLast: one row of logits a sequence (of a classifier: its answer). kAll: one a token; of a bidirectional classifier what its head says of the
  /// encoder's output there.
  Want want = Want::kLast;
  int64_t max_tokens = 512;                    ///< causal models: rows that go through at once
  uint64_t seed = 0;                           ///< hash key of layers that choose at random
  std::span<const int64_t> sequence_ids = {};  ///< (B), likewise; empty = 0 .. B-1
  ForwardTrace* trace = nullptr;
  ForwardTrace* trace1 = nullptr;  ///< of the second documents
};

/// Whole sequences through a model of any kind: logits (rows, outputs()), rows as ForwardOptions::want says. Retrieval: the pairs of first and second
/// documents, as many of one as of the other, (B, classes). Causal models have the bits of Runner::feed(). Allocates. Errors as Runner::feed(); an
/// empty sequence is one (kData) where a logit of it is asked for.
std::vector<float> forward(const std::shared_ptr<const Model>& model, const Sequences& sequences, const ForwardOptions& options = {},
                           const Sequences* second = nullptr);

}  // namespace seqboat::runtime
