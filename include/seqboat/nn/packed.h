#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <vector>

namespace seqboat::nn {

/// Packed sequences: rows cu_seqlens[b] .. cu_seqlens[b+1]-1 belong to sequence b. No padding anywhere.
struct PackedSequences {
  torch::Tensor tokens;      ///< (sum T) int64, for token input
  torch::Tensor values;      ///< (sum T, channels) floating, for real input
  torch::Tensor cu_seqlens;  ///< (B+1) int64
  int64_t batch() const { return cu_seqlens.size(0) - 1; }
};

/// Keys of the counter-based random numbers of one forward (dropout). Masks depend on these, the layer, the site, the sequence's id and the
/// position in the sequence, never on how sequences are packed.
struct RandomKey {
  uint64_t seed = 0;
  uint64_t update = 0;
  uint64_t micro_batch = 0;
  torch::Tensor sequence_ids;  ///< (B) int64; undefined = 0 .. B-1
};

/// What one sub-module of a layer did.
struct ModuleTrace {
  std::string name;
  torch::Tensor active;       ///< (sum T) uint8
  torch::Tensor probability;  ///< (sum T) P(active) of every token; undefined where nothing is learned
};

/// What one layer did, recorded when asked for, in packed order. The six from ema_out on are filled only with ForwardOptions::intermediates.
struct LayerTrace {
  torch::Tensor active;       ///< (sum T) uint8; undefined without a router
  torch::Tensor probability;  ///< (sum T) P(active) of every token
  torch::Tensor logits;       ///< (sum T, 2), before the router's bias
  torch::Tensor ema_out;      ///< (sum T, D), before SiLU
  torch::Tensor q, k, v;      ///< (K, Z), (K, Z), (K, H) as passed to the attention, before scaling and rotation
  torch::Tensor attention;    ///< (K, H), before the reset gate and the output projection
  torch::Tensor reset;        ///< (M, H) Mega's reset gate
  /// (K) float64, only with ForwardOptions::distances: how far the weights of each activated token reach (attention_distances.h), the mean over
  /// heads.
  torch::Tensor distances;
  std::vector<ModuleTrace> modules;  ///< of SparseModularActivation, in order; others have one, told by active and probability
};

struct ModelState;

/// Asks a classifier for its logits at single tokens, beside those of whole sequences: what its head says of the encoder's output there.
struct TokenQuery {
  torch::Tensor rows;    ///< (R) int64, packed rows of the first document
  torch::Tensor logits;  ///< (R, classes), written by the forward
};

struct ForwardOptions {
  RandomKey random;
  std::vector<torch::Tensor> forced_active;   ///< per layer (sum T) uint8 or undefined; empty = the routers decide
  std::vector<torch::Tensor> forced_active1;  ///< the same for the second document of a pair; empty = as forced_active
  std::vector<LayerTrace>* trace = nullptr;   ///< one entry a layer is appended (retrieval: a pass after the other)
  bool intermediates = false;
  bool distances = false;  ///< the traces tell how far attention reaches; costs another two passes of attention, in float64
  /// The traces' probabilities keep their gradient: for a penalty on how much is activated.
  bool router_gradients = false;
  /// A token's probability also gets the gradient of being attended to, straight through: its value counts as  v (1 + p - p'),  p' = p without a
  /// gradient. The result has the same bits; layers then go by their composite.
  bool memory_gradients = false;
  /// Causal language models: the sequences go on where this state stands (model_state.h), and it is moved to their ends. nullptr: they begin.
  ModelState* state = nullptr;
  /// In training a layer keeps its input alone for the backward, which computes the rest again: less memory for time.
  bool recompute = false;
  TokenQuery* query = nullptr;  ///< classifiers; nullptr: only whole sequences
};

/// What every layer of a forward needs to know of the packing, computed once.
struct PackedLayout {
  torch::Tensor cu_seqlens;    ///< (B+1) int64
  torch::Tensor positions;     ///< (sum T) int64: time within the sequence
  torch::Tensor sequence_ids;  ///< (sum T) int64: id of each row's sequence
  int64_t pass = 0;            ///< which tower of a two-tower model: its dropout differs

  /// begin (B) int64: time of each sequence's first row; undefined = 0.
  static PackedLayout make(const torch::Tensor& cu_seqlens, const RandomKey& random, int64_t pass = 0, const torch::Tensor& begin = {});
};

/// What options.forced_active says of a layer in this pass, or an undefined tensor.
torch::Tensor forced_decisions(const ForwardOptions& options, const PackedLayout& layout, int64_t layer);

/// The numbers that key a dropout: seed, update, micro-batch, layer + 1, site within the model. layer < 0: outside the layers.
std::vector<int64_t> dropout_key(const RandomKey& random, const PackedLayout& layout, int64_t layer, int64_t site);

/// Dropout with the keys of `random`; the identity unless training and p > 0. layer < 0: outside the layers.
torch::Tensor dropout(const torch::Tensor& x, double p, bool training, const RandomKey& random, const PackedLayout& layout, int64_t layer,
                      int64_t site);

}  // namespace seqboat::nn
