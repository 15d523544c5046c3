#include "train/bench/cost_model.h"

namespace seqboat::train {

std::vector<Product> forward_products(const config::ModelConfig& model, double tokens, const std::vector<LayerWork>& layers) {
  const auto count = static_cast<double>(layers.size());
  double active = 0;
  for (const LayerWork& layer : layers) active += layer.active;
  active = count > 0 ? active / count : 0;
  std::vector<Product> products = config::outer_products(model, tokens);
  for (Product product : config::layer_products(model, tokens, active)) {
    product.layers = count;
    products.push_back(product);
  }
  return products;
}

StepCost step_cost(const config::ModelConfig& model, bool train, double tokens, const std::vector<LayerWork>& layers, double parameters) {
  const auto d = static_cast<double>(model.d_model);
  const auto [keys, values, heads, projected] = config::attention_widths(model);
  const double attended = heads * values;
  StepCost cost;
  for (const Product& product : forward_products(model, tokens, layers)) cost.product_flops += product.flops() * (train ? 3 : 1);
  for (const LayerWork& layer : layers) {
    cost.attention_flops += config::attention_flops(model, layer.pairs);
    cost.bytes += 4 * (tokens * 5 * d + layer.active * (2 * projected + 2 * attended + 2 * d));
    if (!train) continue;
    cost.attention_flops += layer.pairs * heads * (2 * (3 * keys + 2 * values) + 30);
    cost.bytes += 4 * (tokens * 9 * d + layer.active * (4 * projected + 4 * attended + 4 * d));
  }
  // EMA's backward carries its state and the derivative of that, sums both up and leads the gradient back: three forwards. S4D's, whose numbers are
  // parts of complex ones, is 19 to 6 (src/kernels/cpu/s4d_scan.cc).
  const double whole = model.state_encoder() == "s4d" ? 25.0 / 6 : 4;
  cost.scan_flops = static_cast<double>(layers.size()) * (train ? whole : 1) * config::scan_flops(model, tokens, /*truncated=*/false);
  if (train) cost.optimizer_bytes = 28 * parameters;
  return cost;
}

double limit_ms(const StepCost& cost, const MachineRates& machine) {
  // 1e6 operations a millisecond make one GF/s, and so it is with bytes.
  return ((cost.product_flops + cost.attention_flops) / machine.gemm_gflops + cost.scan_flops / machine.fma_gflops +
          cost.bytes / machine.triad_64mb_gbs + cost.optimizer_bytes / machine.triad_dram_gbs) /
         1e6;
}

}  // namespace seqboat::train
