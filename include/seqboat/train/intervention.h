#pragma once

#include <torch/torch.h>

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace seqboat::train {

/// What is activated in the place of what a trained model decides, to see what its decisions are worth. Each starts from the decisions of the
/// undisturbed forward over the same sequences, in which every router sees the stream that it was trained on. So the random choice costs exactly what
/// the model's own does, layer by layer and sequence by sequence, and the inverted one activates exactly the rest. (Deciding again on the disturbed
/// stream would change the rates from the second layer on, and mix the choice of tokens with how many there are.)
enum class Intervention {
  kNone,      ///< nothing is activated: the layers are encoder and skip path
  kAll,       ///< every token is activated
  kRandom,    ///< as many tokens of each sequence and layer as the model activates there, chosen by a hash
  kInverted,  ///< what the model leaves out
};
inline constexpr std::array<Intervention, 4> kInterventions{Intervention::kNone, Intervention::kAll, Intervention::kRandom, Intervention::kInverted};

/// "none", "all", "random", "inverted"; the other way round Error (kUsage) for anything else.
const char* intervention_word(Intervention intervention);
Intervention parse_intervention(std::string_view word);

/// Which sequences, and what random choices depend on, beside the time within the sequence: not on how sequences are packed.
struct InterventionKey {
  uint64_t seed = 0;
  int64_t layer = 0;
  int64_t pass = 0;            ///< 1: the second document of a pair
  torch::Tensor cu_seqlens;    ///< (B+1) int64
  torch::Tensor sequence_ids;  ///< (B) int64
};

/// The decisions (sum T) uint8 in the place of `active` (sum T) uint8.
torch::Tensor intervene(Intervention intervention, const torch::Tensor& active, const InterventionKey& key);

}  // namespace seqboat::train
