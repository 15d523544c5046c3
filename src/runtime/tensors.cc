// What a model consists of: names, shapes and order of the training library's modules (docs/CONFIG.md).

#include <cmath>

#include "seqboat/base/error.h"
#include "seqboat/runtime/model.h"

namespace seqboat::runtime {
namespace {

using config::ModelConfig;

class Specs {
 public:
  explicit Specs(const ModelConfig& config) : c_(config) {}

  std::vector<TensorSpec> all() {
    const int64_t d = c_.d_model, d_embedding = c_.d_embedding > 0 ? c_.d_embedding : d;
    if (c_.input == "real") {
      vector("embedding.weight", {d, c_.channels});
      vector("embedding.bias", {d});
    } else {
      matrix("embedding", c_.vocab_size, d_embedding, false);
      if (d_embedding != d) matrix("input_proj", d, d_embedding, false);
    }
    if (c_.sinusoidal) {
      vector("positions.scale", {1});
      buffers_.push_back({"positions.inv_freq", {d / 2}});
    }
    if (c_.embedding_norm) norm("embedding_norm.", c_.norm_affine);
    for (int64_t i = 0; i < c_.n_layers; ++i) block("encoder.layers." + std::to_string(i) + ".");
    if (c_.norm_first()) norm("encoder.final_norm.", c_.final_norm_affine);
    if (c_.task == "language-model") {
      if (!c_.tie_embedding) matrix("output", c_.vocab_size, d, false);
    } else {
      int64_t features = d;
      if (c_.task == "retrieval") features *= c_.nli ? 4 : 2;
      for (int64_t i = 0; i < c_.classifier_layers; ++i) {
        matrix("classifier.hidden." + std::to_string(i), c_.classifier_width(), features);
        features = c_.classifier_width();
      }
      matrix("classifier.out", c_.classes, features, false);
    }
    specs_.insert(specs_.end(), buffers_.begin(), buffers_.end());
    return std::move(specs_);
  }

 private:
  void vector(const std::string& name, std::vector<int64_t> shape) { specs_.push_back({name, std::move(shape)}); }

  void matrix(const std::string& name, int64_t out, int64_t in, bool bias = true) {
    specs_.push_back({name + ".weight", {out, in}, DType::kF32, true});
    if (bias) vector(name + ".bias", {out});
  }

  void norm(const std::string& prefix, bool affine) {
    const int64_t d = c_.d_model;
    if (affine) vector(prefix + "weight", {c_.norm == "scalenorm" ? 1 : d});
    if (affine && (c_.norm == "layernorm" || c_.norm == "batchnorm")) vector(prefix + "bias", {d});
    if (c_.norm != "batchnorm") return;
    buffers_.push_back({prefix + "running_mean", {d}});
    buffers_.push_back({prefix + "running_var", {d}});
    buffers_.push_back({prefix + "num_batches_tracked", {}, DType::kI64});
  }

  void encoder(const std::string& layer) {
    const int64_t d = c_.d_model, rows = c_.causal ? d : 2 * d, n = c_.d_state;
    if (c_.state_encoder() == "s4d") {
      const std::string prefix = layer + "s4d.";
      vector(prefix + "log_dt", {rows});
      vector(prefix + "log_a_real", {rows, n / 2});
      vector(prefix + "a_imag", {rows, n / 2});
      vector(prefix + "b", {rows, n / 2, 2});
      vector(prefix + "c", {rows, n / 2, 2});
      vector(prefix + "skip", {d});
    } else {
      for (const char* name : {"delta", "alpha", "beta", "gamma"}) vector(layer + "ema." + name, {rows, n});
      vector(layer + "ema.omega", {d});
    }
  }

  void block(const std::string& prefix) {
    const std::string layer = prefix + "layer.";
    const int64_t d = c_.d_model, h = c_.hidden(), z = c_.d_attn;
    if (c_.layer == "attention") {
      norm(layer + "norm.", c_.norm_affine);
      matrix(layer + "in_proj", 3 * d, d);
      matrix(layer + "out_proj", d, d);
    } else if (c_.is_mega()) {
      vector(layer + "qk_gamma", {2, z});
      vector(layer + "qk_beta", {2, z});
      norm(layer + "norm.", c_.norm_affine);
      encoder(layer);
      matrix(layer + "v_proj", h, d);
      matrix(layer + "in_proj", z + h + 2 * d, d);
      matrix(layer + "out_proj", d, h);
      if (c_.position == "rotary") {
        vector(layer + "position.alpha", {z});
        vector(layer + "position.beta", {z});
      } else {
        vector(layer + "position.table", {2 * (c_.chunk() > 0 ? c_.chunk() : c_.max_positions) - 1});
      }
    } else {
      norm(layer + "norm.", c_.norm_affine);
      encoder(layer);
      if (c_.chooser() == "tempered-softmax") vector(layer + "router.log_temperature", {1});
      if (c_.uses_router()) {
        vector(layer + "router.proj.weight", {c_.router_logits(), d});
        vector(layer + "router.proj.bias", {c_.router_logits()});
      }
      matrix(layer + "skip_proj", d, d);
      if (c_.has_unit()) unit(layer + "attention.");
    }
    const int64_t f = c_.feed_forward();
    if (f == 0) return;
    norm(prefix + "ffn.norm.", c_.norm_affine);
    matrix(prefix + "ffn.fc1", f, d);
    matrix(prefix + "ffn.fc2", d, f);
  }

  void unit(const std::string& prefix) {
    const int64_t d = c_.d_model, h = c_.hidden(), z = c_.d_attn;
    vector(prefix + "qk_gamma", {2, z});
    vector(prefix + "qk_beta", {2, z});
    matrix(prefix + "in_proj", z + 2 * h, d);
    matrix(prefix + "out_proj", d, h);
    if (c_.position == "simple") vector(prefix + "position.table", {2 * c_.max_positions - 1});
    if (c_.position == "local") vector(prefix + "position.table", {6 * c_.window_size - 1});
    if (c_.position == "t5") vector(prefix + "position.table", {32});
  }

  const ModelConfig& c_;
  std::vector<TensorSpec> specs_, buffers_;
};

}  // namespace

std::vector<TensorSpec> tensor_specs(const ModelConfig& config) {
  SEQBOAT_CHECK(config.input != "tokens" || config.vocab_size > 0, ErrorKind::kConfig, "model: vocab_size must be positive for token input, found {}",
                config.vocab_size);
  return Specs(config).all();
}

}  // namespace seqboat::runtime
