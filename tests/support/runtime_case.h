#pragma once

// What the tests of the runtime share: kinds of models, small enough to be fed token by token, and ways to feed them.

#include <cstring>
#include <functional>
#include <ostream>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "seqboat/runtime/forward.h"
#include "seqboat/runtime/model.h"
#include "seqboat/runtime/runner.h"
#include "seqboat/runtime/state.h"

namespace seqboat::test {

struct RuntimeCase {
  const char* name;
  void (*change)(config::ModelConfig&);
};
inline std::ostream& operator<<(std::ostream& out, const RuntimeCase& of) {
  return out << of.name;
}

/// A causal language model whose widths are no multiple of any vector.
inline config::ModelConfig causal_model() {
  config::ModelConfig c;
  c.task = "language-model";
  c.causal = true;
  c.vocab_size = 30;
  c.d_model = 20;
  c.d_attn = 6;
  c.d_hidden = 24;
  c.d_state = 4;
  c.n_layers = 2;
  c.window_size = 5;
  c.max_positions = 40;
  return c;
}

/// Every kind of layer, encoder, norm, position, attention function, router, head and input that a causal model may have.
inline const std::vector<RuntimeCase>& causal_cases() {
  using C = config::ModelConfig;
  static const std::vector<RuntimeCase> cases{
      {"SeqBoat", [](C&) {}},
      {"Rotary", [](C& c) { c.position = "rotary", c.prenorm = true, c.final_norm_affine = false, c.scale_embedding = true; }},
      {"Local", [](C& c) { c.position = "local", c.attention = "relu2", c.norm = "scalenorm", c.window_size = 70; }},
      {"T5", [](C& c) { c.position = "t5", c.attention = "laplace", c.norm = "rmsnorm", c.prenorm = true, c.window_size = 90; }},
      {"Relu2", [](C& c) { c.attention = "relu2", c.norm = "batchnorm", c.ffn_dim = 28; }},
      {"BatchNormFirst", [](C& c) { c.norm = "batchnorm", c.prenorm = true, c.attention = "laplace", c.ffn_dim = 28; }},
      {"NoAffine", [](C& c) { c.norm_affine = false, c.window_size = 64; }},
      {"Truncated", [](C& c) { c.truncation = 17, c.window_size = 1; }},
      {"S4dEncoder", [](C& c) { c.encoder = "s4d"; }},
      {"S4dTruncated", [](C& c) { c.encoder = "s4d", c.truncation = 40, c.prenorm = true; }},
      {"NoWindow", [](C& c) { c.window_size = 0, c.position = "rotary"; }},
      {"NoWindowRelu2", [](C& c) { c.window_size = 0, c.attention = "relu2"; }},
      {"Sigmoid", [](C& c) { c.router = "sigmoid-threshold", c.router_threshold = 0.45; }},
      {"GumbelSoft", [](C& c) { c.router = "gumbel-soft"; }},
      {"GumbelHard", [](C& c) { c.router = "gumbel-hard"; }},
      {"TopShare", [](C& c) { c.router = "top-share", c.rates = {0.3}, c.router_horizon = 20; }},
      {"TopShareOfOne", [](C& c) { c.router = "top-share", c.rates = {0.3}, c.router_horizon = 1; }},
      {"Always", [](C& c) { c.router = "always"; }},
      {"Never", [](C& c) { c.router = "never"; }},
      {"RouterBias", [](C& c) { c.router_bias = 0.7; }},
      {"Full", [](C& c) { c.layer = "seqboat-full"; }},
      {"Random", [](C& c) { c.layer = "seqboat-random", c.rates = {0.3}; }},
      {"Stride",
       [](C& c) {
         c.layer = "seqboat-stride", c.rates = {0.25, 1.0};
       }},
      {"Ema", [](C& c) { c.layer = "ema", c.prenorm = true; }},
      {"S4d", [](C& c) { c.layer = "s4d", c.ffn_dim = 12; }},
      {"MegaChunk", [](C& c) { c.layer = "mega-chunk", c.chunk_size = 70; }},
      {"MegaChunkRotary", [](C& c) { c.layer = "mega-chunk", c.position = "rotary", c.prenorm = true, c.attention = "relu2", c.ffn_dim = -1; }},
      {"MegaChunkS4d", [](C& c) { c.layer = "mega-chunk", c.encoder = "s4d", c.attention = "laplace", c.window_size = 64; }},
      {"Mega", [](C& c) { c.layer = "mega", c.max_positions = 700; }},
      {"MegaRotary", [](C& c) { c.layer = "mega", c.position = "rotary", c.attention = "laplace"; }},
      {"Attention", [](C& c) { c.layer = "attention", c.n_heads = 2, c.norm = "rmsnorm"; }},
      {"FullAttention", [](C& c) { c.layer = "attention", c.n_heads = 5, c.window_size = 0; }},
      {"Untied", [](C& c) { c.tie_embedding = false, c.d_embedding = 12, c.scale_embedding = true; }},
      {"Sinusoidal", [](C& c) { c.sinusoidal = true, c.embedding_norm = true; }},
      {"Classifier", [](C& c) { c.task = "classification", c.classes = 7, c.vocab_size = 0, c.input = "real", c.channels = 3, c.sinusoidal = true; }},
      {"FirstToken", [](C& c) { c.task = "classification", c.classes = 7, c.pool = "first", c.classifier_layers = 2; }},
      {"NoHiddenLayer", [](C& c) { c.task = "classification", c.classes = 70, c.classifier_layers = 0; }},
  };
  return cases;
}

/// Input of one stream, tokens or values as the model reads.
struct StreamInput {
  std::vector<int64_t> tokens;
  std::vector<float> values;
  int64_t count = 0;
  int64_t channels = 1;
  bool real = false;

  StreamInput(const runtime::Model& model, int64_t n, uint64_t seed) : count(n), channels(model.channels()), real(model.config().input == "real") {
    std::mt19937_64 random(seed);
    for (int64_t i = 0; i < n && !real; ++i) tokens.push_back(static_cast<int64_t>(random() % static_cast<uint64_t>(model.config().vocab_size)));
    for (int64_t i = 0; i < n * channels && real; ++i) values.push_back(static_cast<float>(static_cast<double>(random() % 2000) / 1000.0 - 1.0));
  }
  std::span<const int64_t> tokens_of(int64_t begin, int64_t n) const {
    return real ? std::span<const int64_t>() : std::span(tokens).subspan(static_cast<size_t>(begin), static_cast<size_t>(n));
  }
  std::span<const float> values_of(int64_t begin, int64_t n) const {
    return real ? std::span(values).subspan(static_cast<size_t>(begin * channels), static_cast<size_t>(n * channels)) : std::span<const float>();
  }
};

/// Decisions of every layer for n tokens at about this rate.
inline std::vector<uint8_t> forced_decisions(int64_t layers, int64_t n, double rate, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint8_t> out;
  for (int64_t i = 0; i < layers * n; ++i) out.push_back(static_cast<double>(random() % 1000) < rate * 1000 ? 1 : 0);
  return out;
}

/// (layers, n) of a longer (layers, count) from column `begin` on.
template <class T>
std::vector<T> columns(const std::vector<T>& all, int64_t layers, int64_t count, int64_t begin, int64_t n) {
  std::vector<T> out;
  for (int64_t layer = 0; layer < layers && !all.empty(); ++layer)
    out.insert(out.end(), all.begin() + layer * count + begin, all.begin() + layer * count + begin + n);
  return out;
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

/// Row and column of the first difference, for messages.
inline std::string first_difference(const std::vector<float>& a, const std::vector<float>& b, int64_t width) {
  if (a.size() != b.size()) return "sizes " + std::to_string(a.size()) + " and " + std::to_string(b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0)
      return "row " + std::to_string(static_cast<int64_t>(i) / width) + ", output " + std::to_string(static_cast<int64_t>(i) % width) + ": " +
             std::to_string(a[i]) + " and " + std::to_string(b[i]);
  }
  return "none";
}

}  // namespace seqboat::test
