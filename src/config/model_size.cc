#include "seqboat/config/model_size.h"

#include <algorithm>

namespace seqboat::config {
namespace {

int64_t norm_parameters(const ModelConfig& m, bool affine) {
  if (!affine) return 0;
  if (m.norm == "scalenorm") return 1;
  return m.norm == "rmsnorm" ? m.d_model : 2 * m.d_model;
}

int64_t linear(int64_t in, int64_t out) {
  return (in + 1) * out;
}

int64_t layer_parameters(const ModelConfig& m) {
  const int64_t d = m.d_model;
  const int64_t h = m.hidden();
  const int64_t z = m.d_attn;
  const int64_t norm = norm_parameters(m, m.norm_affine), f = m.feed_forward();
  const int64_t ffn = f > 0 ? norm + linear(d, f) + linear(f, d) : 0;
  if (m.layer == "attention") return norm + linear(d, 3 * d) + linear(d, d) + ffn;
  // Of each direction: EMA's delta, alpha, beta, gamma, or S4D's complex b and c, both parts of its A, and step; then what a token gives itself.
  const int64_t directions = m.causal ? d : 2 * d;
  const int64_t encoder = (m.state_encoder() == "s4d" ? directions * (3 * m.d_state + 1) : directions * 4 * m.d_state) + d;
  if (m.is_mega()) {
    const int64_t reach = m.chunk() > 0 ? m.chunk() : m.max_positions, position = m.position == "rotary" ? 2 * z : 2 * reach - 1;
    return norm + encoder + linear(d, h) + linear(d, z + h + 2 * d) + linear(h, d) + 4 * z + position + ffn;
  }
  if (!m.has_unit()) return norm + encoder + linear(d, d) + ffn;
  const int64_t temperature = m.chooser() == "tempered-softmax" ? 1 : 0,
                router = m.router_logits() > 0 ? linear(d, m.router_logits()) + temperature : 0;
  const int64_t attention = linear(d, d) + linear(d, z + 2 * h) + linear(h, d) + 4 * z;
  int64_t position = 0;
  if (m.position == "simple") position = 2 * m.max_positions - 1;
  if (m.position == "local") position = 6 * m.window_size - 1;
  if (m.position == "t5") position = 32;
  return norm + encoder + router + attention + position + ffn;
}

}  // namespace

int64_t parameter_count(const ModelConfig& m) {
  const int64_t d = m.d_model;
  const int64_t d_embedding = m.d_embedding > 0 ? m.d_embedding : d;
  int64_t count = m.input == "real" ? (m.channels + 1) * d : m.vocab_size * d_embedding;
  if (d_embedding != d) count += d_embedding * d;
  if (m.sinusoidal) count += 1;
  if (m.embedding_norm) count += norm_parameters(m, m.norm_affine);
  count += m.n_layers * layer_parameters(m);
  if (m.norm_first()) count += norm_parameters(m, m.final_norm_affine);
  if (m.task == "language-model") return count + (m.tie_embedding ? 0 : m.vocab_size * d);

  int64_t features = d;
  if (m.task == "retrieval") features *= m.nli ? 4 : 2;
  for (int64_t i = 0; i < m.classifier_layers; ++i) {
    count += linear(features, m.classifier_width());
    features = m.classifier_width();
  }
  return count + features * m.classes;
}

Flops flops_per_token(const ModelConfig& m, double activation_rate, int64_t length) {
  const auto d = static_cast<double>(m.d_model);
  const auto h = static_cast<double>(m.hidden());
  const auto z = static_cast<double>(m.d_attn);
  // What attends: the share that is activated, or everything.
  const bool everything = m.chooser() == "always" || m.is_mega() || m.layer == "attention";
  const double rate = m.chooses() ? activation_rate : everything ? 1.0 : 0.0;
  const double active = rate * static_cast<double>(length);
  double keys_seen = m.causal ? (active + 1) / 2 : active;
  if (m.window_size > 0) keys_seen = std::min(active, static_cast<double>((m.causal ? 1 : 2) * m.window_size + 1));
  if (m.chunk() > 0) {
    const double block = std::min(static_cast<double>(m.chunk()), static_cast<double>(length));
    keys_seen = m.causal ? (block + 1) / 2 : block;
  }
  const double directions = m.causal ? 1 : 2;
  const bool truncated = m.truncation > 0 && m.truncation < length;

  const auto layers = static_cast<double>(m.n_layers);
  Flops flops;
  double heads = 1, per_pair = 2 * (z + h) + 24;
  if (m.layer == "attention") {
    heads = static_cast<double>(m.heads());
    per_pair = 4 * d / heads + 24;
    flops.products = 2 * d * 4 * d;
  } else if (m.is_mega()) {
    flops.products = 2 * d * (z + 2 * h + 2 * d) + 2 * h * d;
  } else {
    flops.products = 2 * d * (d + static_cast<double>(m.router_logits())) + 2 * rate * (d * (z + 2 * h) + h * d);
  }
  flops.products = layers * (flops.products + 4 * d * static_cast<double>(m.feed_forward()));
  flops.attention = layers * rate * keys_seen * heads * per_pair;
  // Numbers of a state, multiplied and added once for the state and once for the output; complex ones meet both parts of their factor.
  const double scan = m.state_encoder() == "s4d" ? 6 : 4;
  if (m.layer != "attention") flops.scan = layers * directions * (truncated ? scan + 2 : scan) * static_cast<double>(m.d_state) * d;
  if (m.input == "real") flops.products += 2 * static_cast<double>(m.channels) * d;
  if (m.d_embedding > 0 && m.d_embedding != m.d_model) flops.products += 2 * static_cast<double>(m.d_embedding) * d;
  if (m.task == "language-model") flops.products += 2 * d * static_cast<double>(m.vocab_size);
  return flops;
}

int64_t state_bytes(const ModelConfig& m) {
  const bool attends = m.chooser() != "never" || m.is_mega() || m.layer == "attention", transformer = m.layer == "attention";
  const int64_t kept = !attends ? 0 : m.chunk() > 0 ? m.chunk() : m.window_size + 1;
  const bool unbounded = attends && m.chunk() == 0 && (m.window_size == 0 || m.is_mega());
  if (!m.causal || unbounded) return 0;
  const int64_t encoder = transformer ? 0 : 4 * m.d_model * (m.d_state + m.truncation);
  const int64_t scores = m.chooser() == "top-share" ? 8 * (m.router_horizon - 1) : 0;
  const int64_t row = transformer ? 8 * m.d_model : 4 * (m.d_attn + m.hidden());
  return m.n_layers * (encoder + scores + kept * (row + 8));
}

}  // namespace seqboat::config
