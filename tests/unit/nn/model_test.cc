#include "seqboat/nn/model.h"

#include <cmath>

#include "seqboat/base/error.h"
#include "seqboat/nn/classifier.h"
#include "seqboat/nn/embedding.h"
#include "seqboat/nn/encoder.h"
#include "support/torch_checks.h"

namespace seqboat {
namespace {

using test::close;
using test::offsets;
using test::same_bits;
using test::Tolerance;
using torch::Tensor;

config::ModelConfig small_config(const std::string& task) {
  config::ModelConfig config;
  config.task = task;
  config.vocab_size = 20;
  config.d_model = 16;
  config.d_attn = 8;
  config.d_state = 4;
  config.n_layers = 2;
  config.window_size = 6;
  config.max_positions = 64;
  config.causal = task == "language-model";
  config.classes = config.causal ? 0 : 3;
  return config;
}

nn::PackedSequences some_tokens(uint64_t seed, const std::vector<int64_t>& lengths) {
  torch::manual_seed(seed);
  nn::PackedSequences batch;
  batch.cu_seqlens = offsets(lengths);
  batch.tokens = torch::randint(0, 20, {batch.cu_seqlens[-1].item<int64_t>()}, torch::kInt64);
  return batch;
}

template <class Module>
Module& child(nn::Model& model, const std::string& name) {
  return *model.named_children()[name]->as<Module>();
}

Tensor encode(nn::Model& model, Tensor x, const Tensor& cu) {
  return child<nn::EncoderImpl>(model, "encoder").forward(x, nn::PackedLayout::make(cu, {}), {});
}

Tensor encode_tokens(nn::Model& model, const nn::PackedSequences& batch) {
  const Tensor x = child<nn::TokenEmbeddingImpl>(model, "embedding").forward(batch.tokens);
  return nn::pool(encode(model, x, batch.cu_seqlens), batch.cu_seqlens, model.config().pool);
}

TEST(Model, ClassifierIsEmbeddingEncoderPoolAndHead) {
  for (const std::string pool : {"mean", "first"}) {
    config::ModelConfig config = small_config("classification");
    config.pool = pool;
    const auto model = nn::make_model(config, 1);
    model->eval();
    const auto batch = some_tokens(1, {12, 5, 30});
    const Tensor got = model->forward(batch, nullptr, {});
    EXPECT_EQ(got.sizes(), at::IntArrayRef({3, 3}));
    EXPECT_TRUE(same_bits(got, child<nn::ClassifierImpl>(*model, "classifier").forward(encode_tokens(*model, batch), {}))) << pool;
  }
}

TEST(Model, ClassifierOfNumbers) {
  config::ModelConfig config = small_config("classification");
  config.input = "real";
  config.vocab_size = 0;
  config.channels = 2;
  config.sinusoidal = true;
  const auto model = nn::make_model(config, 1);
  model->eval();
  nn::PackedSequences batch;
  batch.values = torch::randn({17, 2});
  batch.cu_seqlens = offsets({12, 5});
  const auto layout = nn::PackedLayout::make(batch.cu_seqlens, {});
  Tensor x = child<nn::RealEmbeddingImpl>(*model, "embedding").forward(batch.values);
  x = child<nn::SinusoidalPositionsImpl>(*model, "positions").forward(x, layout.positions);
  const Tensor pooled = nn::pool(encode(*model, x, batch.cu_seqlens), batch.cu_seqlens, "mean");
  EXPECT_TRUE(same_bits(model->forward(batch, nullptr, {}), child<nn::ClassifierImpl>(*model, "classifier").forward(pooled, {})));
}

TEST(Model, RetrievalIsAClassifierOfTwoPasses) {
  for (const bool nli : {false, true}) {
    config::ModelConfig config = small_config("retrieval");
    config.nli = nli;
    const auto model = nn::make_model(config, 1);
    model->eval();
    const auto src = some_tokens(1, {12, 5, 30}), src1 = some_tokens(2, {7, 40, 1});
    const Tensor a = encode_tokens(*model, src), b = encode_tokens(*model, src1);
    const Tensor features = nli ? torch::cat({b, a, a * b, a - b}, 1) : torch::cat({b, a}, 1);
    const Tensor got = model->forward(src, &src1, {});
    EXPECT_EQ(got.sizes(), at::IntArrayRef({3, 3}));
    EXPECT_TRUE(same_bits(got, child<nn::ClassifierImpl>(*model, "classifier").forward(features, {}))) << (nli ? "NLI" : "plain");
  }
}

TEST(Model, RetrievalMovesRunningStatisticsInTwoPassesFirstSrc) {
  config::ModelConfig config = small_config("retrieval");
  config.norm = "batchnorm";
  const auto whole = nn::make_model(config, 1), right = nn::make_model(config, 1), wrong = nn::make_model(config, 1);
  const auto src = some_tokens(1, {12, 5, 30}), src1 = some_tokens(2, {7, 40, 1});
  whole->train();
  whole->forward(src, &src1, {});
  encode_tokens(*right, src);
  encode_tokens(*right, src1);
  encode_tokens(*wrong, src1);
  encode_tokens(*wrong, src);
  bool order_matters = false;
  ASSERT_GT(whole->buffers().size(), 0u);
  for (size_t i = 0; i < whole->buffers().size(); ++i) {
    EXPECT_TRUE(same_bits(whole->buffers()[i], right->buffers()[i])) << whole->named_buffers()[i].key();
    order_matters = order_matters || !torch::equal(whole->buffers()[i], wrong->buffers()[i]);
  }
  EXPECT_TRUE(order_matters);
}

TEST(Model, LanguageModelTiedToItsEmbedding) {
  config::ModelConfig config = small_config("language-model");
  config.scale_embedding = true;
  const auto model = nn::make_model(config, 1);
  model->eval();
  const auto batch = some_tokens(1, {12, 5, 30});
  auto& embedding = child<nn::TokenEmbeddingImpl>(*model, "embedding");
  EXPECT_TRUE((embedding.weight[nn::kPadToken] == 0).all().item<bool>());
  const Tensor x = encode(*model, embedding.forward(batch.tokens) * 4.0, batch.cu_seqlens);
  const Tensor got = model->forward(batch, nullptr, {}), want = torch::linear(x, embedding.weight);
  EXPECT_EQ(got.sizes(), at::IntArrayRef({47, 20}));
  const double magnitude = x.abs().max().item<double>() * embedding.weight.abs().sum(1).max().item<double>();
  EXPECT_TRUE(close(got, want, Tolerance::sum<float>(16, magnitude)));
  EXPECT_FALSE(model->named_children().contains("output"));
}

TEST(Model, LanguageModelWithItsOwnOutputAndAProjection) {
  config::ModelConfig config = small_config("language-model");
  config.tie_embedding = false;
  config.d_embedding = 10;
  const auto model = nn::make_model(config, 1);
  model->eval();
  const auto batch = some_tokens(1, {12, 5, 30});
  auto& embedding = child<nn::TokenEmbeddingImpl>(*model, "embedding");
  auto &input_proj = child<nn::LinearImpl>(*model, "input_proj"), &output = child<nn::LinearImpl>(*model, "output");
  EXPECT_EQ(embedding.weight.sizes(), at::IntArrayRef({20, 10}));
  EXPECT_EQ(input_proj.weight.sizes(), at::IntArrayRef({16, 10}));
  EXPECT_EQ(output.weight.sizes(), at::IntArrayRef({20, 16}));
  EXPECT_FALSE(input_proj.bias.defined() || output.bias.defined());
  const Tensor x = encode(*model, input_proj.forward(embedding.forward(batch.tokens)), batch.cu_seqlens);
  const double magnitude = x.abs().max().item<double>() * output.weight.abs().sum(1).max().item<double>();
  EXPECT_TRUE(close(model->forward(batch, nullptr, {}), torch::linear(x, output.weight), Tolerance::sum<float>(16, magnitude)));
}

// With the pooling of the first token, asking at the first tokens is asking for the sequences.
TEST(Model, ATokenQueryIsTheHeadAtThatToken) {
  config::ModelConfig config = small_config("classification");
  config.pool = "first";
  const auto model = nn::make_model(config, 1);
  const nn::PackedSequences batch = some_tokens(3, {5, 9, 2});
  nn::TokenQuery query{.rows = torch::tensor({0, 5, 14}, torch::kInt64), .logits = {}};
  nn::ForwardOptions options;
  options.query = &query;
  const Tensor logits = model->forward(batch, nullptr, options);
  EXPECT_TRUE(same_bits(query.logits, logits));
  query.rows = torch::tensor({15, 3}, torch::kInt64);
  EXPECT_TRUE(same_bits(model->forward(batch, nullptr, options), logits));
  EXPECT_EQ(query.logits.sizes(), (std::vector<int64_t>{2, 3}));
  EXPECT_FALSE(torch::equal(query.logits, logits.narrow(0, 0, 2)));
}

TEST(Model, RejectsABatchOfTheWrongKind) {
  const auto tokens = some_tokens(1, {4, 2}), fewer = some_tokens(1, {4});
  nn::PackedSequences numbers;
  numbers.values = torch::randn({6, 1});
  numbers.cu_seqlens = offsets({4, 2});
  config::ModelConfig real = small_config("classification");
  real.input = "real";
  real.vocab_size = 0;
  const auto classifier = nn::make_model(small_config("classification"), 1), of_numbers = nn::make_model(real, 1),
             retrieval = nn::make_model(small_config("retrieval"), 1), language = nn::make_model(small_config("language-model"), 1);
  EXPECT_C10_ERROR(classifier->forward(numbers, nullptr, {}), "the model reads tokens, but the batch holds none");
  EXPECT_C10_ERROR(of_numbers->forward(tokens, nullptr, {}), "the model reads numbers, but the batch holds none");
  EXPECT_C10_ERROR(classifier->forward(tokens, &tokens, {}), "a classifier reads one sequence, not two");
  EXPECT_C10_ERROR(language->forward(tokens, &tokens, {}), "a language model reads one sequence, not two");
  EXPECT_C10_ERROR(retrieval->forward(tokens, nullptr, {}), "retrieval reads as many second documents as first ones");
  EXPECT_C10_ERROR(retrieval->forward(tokens, &fewer, {}), "retrieval reads as many second documents as first ones");
}

TEST(Model, RefusesAnInvalidConfig) {
  const auto expect_refused = [](const config::ModelConfig& config, const std::string& part) {
    try {
      nn::make_model(config, 1);
      ADD_FAILURE() << "no error about " << part;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kConfig);
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  config::ModelConfig config = small_config("classification");
  config.classes = 1;
  expect_refused(config, "must be at least 2");
  config = small_config("classification");
  config.vocab_size = 0;
  expect_refused(config, "vocab_size must be positive");
  config = small_config("language-model");
  config.causal = false;
  expect_refused(config, "must be true for a language model");
  config = small_config("classification");
  config.norm = "groupnorm";
  expect_refused(config, "groupnorm");
}

}  // namespace
}  // namespace seqboat
