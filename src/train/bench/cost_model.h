#pragma once

// Private to src/train: what a step costs at least, in operations and bytes, and the time that a machine needs for it. Formulas alone; nothing is
// measured here.

#include <cstdint>
#include <vector>

#include "seqboat/config/model_config.h"

namespace seqboat::train {

/// What one layer activates in a step.
struct LayerWork {
  double active = 0;  ///< n: activated tokens of all sequences
  double pairs = 0;   ///< n Kq: pairs of a query and a key that it sees; Kq is their mean over the queries
};

/// Query-key pairs of one sequence with `active` activated tokens: every query sees those at most W before it (causal: and itself, W + 1 keys) or
/// on either side (2 W + 1 keys), and fewer at the ends. window 0 = all.
double attention_pairs(int64_t active, int64_t window, bool causal);
/// The same where a sequence of so many tokens attends within chunks, the last one shorter; chunk 0 = one.
double chunked_pairs(int64_t tokens, int64_t chunk, bool causal);

/// (rows, in) x (in, out), in `layers` layers.
struct Product {
  double rows = 0;
  int64_t in = 0;
  int64_t out = 0;
  double layers = 1;
  double flops() const { return 2 * rows * static_cast<double>(in) * static_cast<double>(out) * layers; }
};

/// The matrix products of a forward. Skip path and router are one product, D -> D + 2, of all tokens; queries, keys and values D -> Z + 2 H and the
/// way back H -> D are of the activated ones (their mean over the layers). Mega: D -> H, D -> Z + H + 2 D and H -> D of all tokens; a Transformer:
/// D -> 3 D and D -> D. Then feed-forward, input projections and a language model's output. The
/// classifier, which works once a sequence, is left out.
std::vector<Product> forward_products(const config::ModelConfig& model, double tokens, const std::vector<LayerWork>& layers);

/// With M tokens, n of them active in a layer, r = n / M, Kq keys a query sees; per layer:
///
///              forward                                   training adds
///   products   2 M D (D+2) + 2 n (D (Z+2H) + H D)        twice that
///   attention  n Kq (2 (Z+H) + 24)                       n Kq (2 (3Z+2H) + 30)
///   scan       4 N M D a direction                       12 N M D a direction
///   bytes      4 M (5D + r (2 (Z+2H) + 2H + 2D))         4 M (9D + r (4 (Z+2H) + 4H + 4D))
///
/// and training 28 bytes a parameter for the optimizer. In Mega's place of Z + 2H stands what is projected there, Z + 2H + 2D; a Transformer has 3 D
/// there, H = D, every head's pairs with widths of D / heads, and no scan. The scan is counted without truncation, which costs a multiply-add more a
/// state.
struct StepCost {
  double product_flops = 0;
  double attention_flops = 0;
  double scan_flops = 0;
  double bytes = 0;            ///< least traffic of fused passes
  double optimizer_bytes = 0;  ///< weights, gradients and both moments, read and written
};
StepCost step_cost(const config::ModelConfig& model, bool train, double tokens, const std::vector<LayerWork>& layers, double parameters);

/// What the machine does at best, with the threads of the step.
struct MachineRates {
  double gemm_gflops = 0;  ///< a large float32 product
  double fma_gflops = 0;   ///< multiply-adds without memory
  double triad_l2_gbs = 0;
  double triad_64mb_gbs = 0;
  double triad_dram_gbs = 0;
};

/// The least time of a step, everything at the machine's best and one after the other: products and attention at the large GEMM's rate, the scan
/// at the multiply-add peak, the bytes at the 64 MB triad's rate, the optimizer's at that of memory.
double limit_ms(const StepCost& cost, const MachineRates& machine);

}  // namespace seqboat::train
