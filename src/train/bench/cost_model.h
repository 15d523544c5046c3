#pragma once

// Private to src/train: what a step costs at least, in operations and bytes, and the time that a machine needs for it. Formulas alone; nothing is
// measured here.

#include <cstdint>
#include <vector>

#include "seqboat/config/flops.h"
#include "seqboat/config/model_config.h"

namespace seqboat::train {

using config::attention_pairs;
using config::LayerWork;
using config::Product;

/// The matrix products of a forward (config/flops.h), those of the activated tokens with their mean over the layers.
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
