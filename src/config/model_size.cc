#include "seqboat/config/model_size.h"

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

int64_t state_bytes(const ModelConfig& m) {
  const bool attends = m.attends(), transformer = m.layer == "attention";
  const int64_t kept = !attends ? 0 : m.chunk() > 0 ? m.chunk() : m.window_size + 1;
  const bool unbounded = attends && m.chunk() == 0 && (m.window_size == 0 || m.is_mega());
  if (!m.causal || unbounded) return 0;
  const int64_t encoder = transformer ? 0 : 4 * m.d_model * (m.d_state + m.truncation);
  const int64_t scores = m.chooser() == "top-share" ? 8 * (m.router_horizon - 1) : 0;
  const int64_t row = transformer ? 8 * m.d_model : 4 * (m.d_attn + m.hidden());
  return m.n_layers * (encoder + scores + kept * (row + 8));
}

}  // namespace seqboat::config
