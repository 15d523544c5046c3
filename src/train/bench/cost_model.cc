#include "train/bench/cost_model.h"

#include <algorithm>

namespace seqboat::train {
namespace {

/// What the cost of a layer's attention depends on.
struct AttentionWidths {
  double keys;       ///< of one head
  double values;     ///< of one head
  double heads;      ///< each token's
  double projected;  ///< what the projections before it make of a token
};

AttentionWidths attention_widths(const config::ModelConfig& model) {
  const auto d = static_cast<double>(model.d_model), z = static_cast<double>(model.d_attn), h = static_cast<double>(model.hidden());
  if (model.layer == "attention") {
    const auto heads = static_cast<double>(model.heads());
    return {d / heads, d / heads, heads, 3 * d};
  }
  return {z, h, 1, model.is_mega() ? z + 2 * h + 2 * d : z + 2 * h};
}

}  // namespace

double chunked_pairs(int64_t tokens, int64_t chunk, bool causal) {
  const auto block = [&](int64_t n) { return attention_pairs(n, 0, causal); };
  if (chunk == 0) return block(tokens);
  return static_cast<double>(tokens / chunk) * block(chunk) + block(tokens % chunk);
}

double attention_pairs(int64_t active, int64_t window, bool causal) {
  const auto n = static_cast<double>(active);
  const double side = window > 0 ? std::min(static_cast<double>(window), std::max(0.0, n - 1)) : std::max(0.0, n - 1);
  // Of the n (side + 1) keys on one side, itself included, the first `side` queries miss side, side - 1, ... 1.
  const double one_side = n * (side + 1) - side * (side + 1) / 2;
  return causal ? one_side : 2 * one_side - n;
}

std::vector<Product> forward_products(const config::ModelConfig& model, double tokens, const std::vector<LayerWork>& layers) {
  const int64_t d = model.d_model, z = model.d_attn, h = model.hidden();
  const auto count = static_cast<double>(layers.size());
  double active = 0;
  for (const LayerWork& layer : layers) active += layer.active;
  active = count > 0 ? active / count : 0;

  std::vector<Product> products;
  if (model.input == "real") products.push_back({tokens, model.channels, d, 1});
  if (model.d_embedding > 0 && model.d_embedding != d) products.push_back({tokens, model.d_embedding, d, 1});
  if (model.layer == "attention") {
    products.push_back({tokens, d, 3 * d, count});
    products.push_back({tokens, d, d, count});
  } else if (model.is_mega()) {
    products.push_back({tokens, d, h, count});
    products.push_back({tokens, d, z + h + 2 * d, count});
    products.push_back({tokens, h, d, count});
  } else {
    products.push_back({tokens, d, d + model.router_logits(), count});
    if (model.has_unit()) {
      products.push_back({active, d, z + 2 * h, count});
      products.push_back({active, h, d, count});
    }
  }
  if (model.feed_forward() > 0) {
    products.push_back({tokens, d, model.feed_forward(), count});
    products.push_back({tokens, model.feed_forward(), d, count});
  }
  if (model.task == "language-model") products.push_back({tokens, d, model.vocab_size, 1});
  return products;
}

StepCost step_cost(const config::ModelConfig& model, bool train, double tokens, const std::vector<LayerWork>& layers, double parameters) {
  const auto d = static_cast<double>(model.d_model);
  const auto [keys, values, heads, projected] = attention_widths(model);
  const double attended = heads * values, directions = model.causal ? 1 : 2;
  StepCost cost;
  for (const Product& product : forward_products(model, tokens, layers)) cost.product_flops += product.flops() * (train ? 3 : 1);
  for (const LayerWork& layer : layers) {
    cost.attention_flops += layer.pairs * heads * (2 * (keys + values) + 24);
    cost.bytes += 4 * (tokens * 5 * d + layer.active * (2 * projected + 2 * attended + 2 * d));
    if (!train) continue;
    cost.attention_flops += layer.pairs * heads * (2 * (3 * keys + 2 * values) + 30);
    cost.bytes += 4 * (tokens * 9 * d + layer.active * (4 * projected + 4 * attended + 4 * d));
  }
  // Multiply-adds of a state number, twice: EMA's is decayed and read, in training carried twice more with its derivative, summed up and led back.
  // S4D's numbers are parts of complex ones (src/kernels/cpu/s4d_scan.cc: 6 a mode forward, 19 backward).
  const bool is_s4d = model.state_encoder() == "s4d";
  const double scan = is_s4d ? (train ? 25 : 6) : (train ? 16 : 4);
  if (model.layer != "attention")
    cost.scan_flops = static_cast<double>(layers.size()) * directions * scan * static_cast<double>(model.d_state) * tokens * d;
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
