#pragma once

#include <cstdint>

namespace seqboat::nn {

/// The places of a layer where dropout acts: part of the key of its random numbers, so never renumber. At most 8 (PackedLayout::pass multiplies).
enum DropoutSite : int64_t {
  kDropoutState = 0,        ///< on m = SiLU(EMA)
  kDropoutAttention = 1,    ///< on the unit's output (bidirectional)
  kDropoutOutput = 2,       ///< on skip + attention (causal)
  kDropoutFeedForward = 3,  ///< on the output of the feed-forward block
  kDropoutEmbedding = 4,    ///< on the embedding (layer -1)
  kDropoutClassifier = 5,   ///< on the classifier's hidden layers (layer = its number)
};

}  // namespace seqboat::nn
