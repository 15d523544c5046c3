#include "seqboat/config/flops.h"

#include <algorithm>

namespace seqboat::config {
namespace {

double sum(const std::vector<Product>& products) {
  double flops = 0;
  for (const Product& product : products) flops += product.flops();
  return flops;
}

}  // namespace

Flops& Flops::operator+=(const Flops& other) {
  products += other.products;
  attention += other.attention;
  scan += other.scan;
  return *this;
}

double attention_pairs(int64_t active, int64_t window, bool causal) {
  const auto n = static_cast<double>(active);
  const double side = window > 0 ? std::min(static_cast<double>(window), std::max(0.0, n - 1)) : std::max(0.0, n - 1);
  // Of the n (side + 1) keys on one side, itself included, the first `side` queries miss side, side - 1, ... 1.
  const double one_side = n * (side + 1) - side * (side + 1) / 2;
  return causal ? one_side : 2 * one_side - n;
}

double chunked_pairs(int64_t tokens, int64_t chunk, bool causal) {
  const auto block = [&](int64_t n) { return attention_pairs(n, 0, causal); };
  if (chunk == 0) return block(tokens);
  return static_cast<double>(tokens / chunk) * block(chunk) + block(tokens % chunk);
}

double layer_pairs(const ModelConfig& model, int64_t tokens, int64_t active) {
  if (model.is_mega()) return chunked_pairs(tokens, model.chunk(), model.causal);
  return attention_pairs(active, model.window_size, model.causal);
}

std::vector<Product> layer_products(const ModelConfig& model, double tokens, double active) {
  const int64_t d = model.d_model, z = model.d_attn, h = model.hidden();
  std::vector<Product> products;
  if (model.layer == "attention") {
    products.push_back({tokens, d, 3 * d});
    products.push_back({tokens, d, d});
  } else if (model.is_mega()) {
    products.push_back({tokens, d, h});
    products.push_back({tokens, d, z + h + 2 * d});
    products.push_back({tokens, h, d});
  } else {
    products.push_back({tokens, d, d + model.router_logits()});
    if (model.has_unit()) {
      products.push_back({active, d, z + 2 * h});
      products.push_back({active, h, d});
    }
  }
  if (model.feed_forward() > 0) {
    products.push_back({tokens, d, model.feed_forward()});
    products.push_back({tokens, model.feed_forward(), d});
  }
  return products;
}

std::vector<Product> outer_products(const ModelConfig& model, double tokens) {
  const int64_t d = model.d_model;
  std::vector<Product> products;
  if (model.input == "real") products.push_back({tokens, model.channels, d});
  if (model.d_embedding > 0 && model.d_embedding != d) products.push_back({tokens, model.d_embedding, d});
  if (model.task == "language-model") products.push_back({tokens, d, model.vocab_size});
  return products;
}

AttentionWidths attention_widths(const ModelConfig& model) {
  const auto d = static_cast<double>(model.d_model), z = static_cast<double>(model.d_attn), h = static_cast<double>(model.hidden());
  if (model.layer == "attention") {
    const auto heads = static_cast<double>(model.heads());
    return {d / heads, d / heads, heads, 3 * d};
  }
  return {z, h, 1, model.is_mega() ? z + 2 * h + 2 * d : z + 2 * h};
}

double attention_flops(const ModelConfig& model, double pairs) {
  const AttentionWidths widths = attention_widths(model);
  return pairs * widths.heads * (2 * (widths.keys + widths.values) + 24);
}

double scan_flops(const ModelConfig& model, double tokens, bool truncated) {
  if (model.layer == "attention") return 0;
  // A number of the state is decayed and read; of a complex one both parts meet both of their factor.
  const int64_t each = (model.state_encoder() == "s4d" ? 6 : 4) + (truncated ? 2 : 0);
  return static_cast<double>(model.causal ? each : 2 * each) * static_cast<double>(model.d_state) * tokens * static_cast<double>(model.d_model);
}

Flops layer_flops(const ModelConfig& model, double tokens, const LayerWork& work, bool truncated) {
  Flops flops;
  flops.products = sum(layer_products(model, tokens, work.active));
  flops.attention = attention_flops(model, work.pairs);
  flops.scan = scan_flops(model, tokens, truncated);
  return flops;
}

Flops flops_per_token(const ModelConfig& m, double activation_rate, int64_t length) {
  // What attends: the share that is activated, or everything.
  const double rate = m.chooses() ? activation_rate : m.attends() ? 1.0 : 0.0;
  const double active = rate * static_cast<double>(length);
  double keys_seen = m.causal ? (active + 1) / 2 : active;
  if (m.window_size > 0 && !m.is_mega()) keys_seen = std::min(active, static_cast<double>((m.causal ? 1 : 2) * m.window_size + 1));
  if (m.chunk() > 0) {
    const double block = std::min(static_cast<double>(m.chunk()), static_cast<double>(length));
    keys_seen = m.causal ? (block + 1) / 2 : block;
  }
  const bool truncated = m.truncation > 0 && m.truncation < length;
  const Flops layer = layer_flops(m, 1, {.active = rate, .pairs = rate * keys_seen}, truncated);
  const auto layers = static_cast<double>(m.n_layers);
  return {.products = layers * layer.products + sum(outer_products(m, 1)), .attention = layers * layer.attention, .scan = layers * layer.scan};
}

}  // namespace seqboat::config
