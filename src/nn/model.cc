#include "seqboat/nn/model.h"

#include <cmath>

#include "seqboat/base/error.h"
#include "seqboat/nn/classifier.h"
#include "seqboat/nn/dropout_sites.h"
#include "seqboat/nn/embedding.h"
#include "seqboat/nn/encoder.h"
#include "seqboat/nn/initialization.h"
#include "seqboat/nn/model_state.h"
#include "seqboat/ops/ops.h"

namespace seqboat::nn {
namespace {

using config::ModelConfig;
using torch::Tensor;

/// Embedding, positions, encoder: what every model shares. The parts are registered in the model itself.
struct Trunk {
  TokenEmbedding tokens{nullptr};
  RealEmbedding values{nullptr};
  Linear input_proj{nullptr};
  SinusoidalPositions positions{nullptr};
  Norm embedding_norm{nullptr};
  Encoder encoder{nullptr};

  template <class Register>
  void build(const ModelConfig& config, PhiloxStream& random, const Register& add) {
    const int64_t d_embedding = config.d_embedding > 0 ? config.d_embedding : config.d_model;
    if (config.input == "real") {
      values = add("embedding", RealEmbedding(config.channels, config.d_model, random));
    } else {
      tokens = add("embedding", TokenEmbedding(config.vocab_size, d_embedding, config.task == "language-model", random));
      if (d_embedding != config.d_model) {
        input_proj = add("input_proj", Linear(d_embedding, config.d_model, false));
        fill_xavier_uniform(input_proj->weight, random);
      }
    }
    if (config.sinusoidal) positions = add("positions", SinusoidalPositions(config.d_model));
    if (config.embedding_norm) embedding_norm = add("embedding_norm", Norm(config.norm, config.d_model, config.norm_affine));
    encoder = add("encoder", Encoder(config, random));
  }

  Tensor forward(const ModelConfig& config, bool training, const PackedSequences& input, const PackedLayout& layout, const ForwardOptions& options) {
    Tensor x;
    if (values) {
      TORCH_CHECK(input.values.defined(), "seqboat: the model reads numbers, but the batch holds none");
      x = values(input.values);
    } else {
      TORCH_CHECK(input.tokens.defined(), "seqboat: the model reads tokens, but the batch holds none");
      x = tokens(input.tokens);
      if (config.scale_embedding) x = x * std::sqrt(static_cast<double>(config.d_model));
      if (input_proj) x = input_proj(x);
    }
    if (positions) x = positions(x, layout.positions);
    if (embedding_norm) x = embedding_norm(x);
    x = dropout(x, config.dropout, training, options.random, layout, -1, kDropoutEmbedding);
    return encoder(x, layout, options);
  }
};

class ClassifierModel : public Model {
 public:
  ClassifierModel(const ModelConfig& config, PhiloxStream& random) : Model(config) {
    trunk_.build(config, random, [this](const char* name, auto module) { return register_module(name, module); });
    int64_t features = config.d_model;
    if (config.task == "retrieval") features *= config.nli ? 4 : 2;
    classifier_ = register_module("classifier",
                                  Classifier(features, config.classifier_width(), config.classifier_layers, config.classes, config.dropout, random));
  }

  Tensor forward(const PackedSequences& src, const PackedSequences* src1, const ForwardOptions& options) override {
    TORCH_CHECK(options.state == nullptr, "seqboat: a classifier carries no state from batch to batch");
    if (config().task != "retrieval") {
      TORCH_CHECK(src1 == nullptr, "seqboat: a classifier reads one sequence, not two");
      return classifier_(encode(src, options, 0), options.random);
    }
    TORCH_CHECK(src1 != nullptr && src1->batch() == src.batch(), "seqboat: retrieval reads as many second documents as first ones");
    // Two passes, src first: the running statistics of a batch norm move in this order.
    const Tensor a = encode(src, options, 0), b = encode(*src1, options, 1);
    return classifier_(config().nli ? torch::cat({b, a, a * b, a - b}, 1) : torch::cat({b, a}, 1), options.random);
  }

 private:
  Tensor encode(const PackedSequences& input, const ForwardOptions& options, int64_t pass) {
    const PackedLayout layout = PackedLayout::make(input.cu_seqlens, options.random, pass);
    const Tensor x = trunk_.forward(config(), is_training(), input, layout, options);
    if (options.query != nullptr && pass == 0) {
      RandomKey random = options.random;
      random.sequence_ids = layout.sequence_ids.index_select(0, options.query->rows);
      options.query->logits = classifier_(x.index_select(0, options.query->rows), random);
    }
    return pool(x, layout.cu_seqlens, config().pool);
  }

  Trunk trunk_;
  Classifier classifier_{nullptr};
};

class LanguageModel : public Model {
 public:
  LanguageModel(const ModelConfig& config, PhiloxStream& random) : Model(config) {
    trunk_.build(config, random, [this](const char* name, auto module) { return register_module(name, module); });
    if (!config.tie_embedding) {
      output_ = register_module("output", Linear(config.d_model, config.vocab_size, false));
      fill_normal(output_->weight, 1.0 / std::sqrt(static_cast<double>(config.d_model)), random);
    }
  }

  Tensor forward(const PackedSequences& src, const PackedSequences* src1, const ForwardOptions& options) override {
    TORCH_CHECK(src1 == nullptr, "seqboat: a language model reads one sequence, not two");
    ModelState* state = options.state;
    if (state != nullptr) {
      ModelState::check_can_carry(config());
      state->layers.resize(static_cast<size_t>(config().n_layers));
    }
    const PackedLayout layout = PackedLayout::make(src.cu_seqlens, options.random, 0, state != nullptr ? state->time : Tensor());
    const Tensor x = trunk_.forward(config(), is_training(), src, layout, options);
    if (state != nullptr) {
      const Tensor lengths = src.cu_seqlens.diff();
      state->time = state->time.defined() ? state->time + lengths : lengths;
    }
    return output_ ? output_(x) : ops::linear(x, trunk_.tokens->weight, std::nullopt);
  }

 private:
  Trunk trunk_;
  Linear output_{nullptr};
};

}  // namespace

std::shared_ptr<Model> make_model(const ModelConfig& config, uint64_t seed) {
  config.validate("model");
  SEQBOAT_CHECK(config.input != "tokens" || config.vocab_size > 0, ErrorKind::kConfig, "model: vocab_size must be positive for token input, got {}",
                config.vocab_size);
  SEQBOAT_CHECK(config.input != "real" || config.channels > 0, ErrorKind::kConfig, "model: channels must be positive for real input, got {}",
                config.channels);
  constexpr uint64_t kInitializationStream = 1;
  PhiloxStream random(seed, kInitializationStream);
  if (config.task == "language-model") return std::make_shared<LanguageModel>(config, random);
  return std::make_shared<ClassifierModel>(config, random);
}

}  // namespace seqboat::nn
