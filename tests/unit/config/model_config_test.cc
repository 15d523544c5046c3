#include "seqboat/config/model_config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "seqboat/base/error.h"
#include "seqboat/config/flops.h"
#include "seqboat/config/model_size.h"

namespace seqboat::config {
namespace {

using Json = nlohmann::ordered_json;

ModelConfig listops() {
  ModelConfig m;
  m.vocab_size = 22;
  m.d_model = 80;
  m.d_hidden = 160;
  m.d_attn = 64;
  m.n_layers = 6;
  m.window_size = 128;
  m.truncation = 1024;
  m.max_positions = 2002;
  m.classes = 10;
  return m;
}

void expect_refused(const Json& json, const std::string& part) {
  try {
    model_config_from_json(json, "config.json");
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kModel);
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    EXPECT_EQ(std::string(error.what()).rfind("config.json: ", 0), 0u) << error.what();
    return;
  }
  ADD_FAILURE() << "accepted: " << json;
}

TEST(ModelConfig, JsonRoundTrip) {
  ModelConfig m = listops();
  m.dropout = 0.1;
  m.position = "local";
  const Json json = to_json(m);
  EXPECT_EQ(json.begin().key(), "layer");
  EXPECT_EQ(json["router"], "tempered-softmax");
  EXPECT_EQ(json["d_model"], 80);
  EXPECT_EQ(to_json(model_config_from_json(Json::parse(json.dump()), "config.json")), json);
}

TEST(ModelConfig, JsonKeysStandInTheOrderOfTheFields) {
  const std::vector<std::string> want = {"layer",
                                         "encoder",
                                         "input",
                                         "vocab_size",
                                         "channels",
                                         "d_model",
                                         "d_hidden",
                                         "d_attn",
                                         "d_state",
                                         "n_layers",
                                         "window_size",
                                         "chunk_size",
                                         "n_heads",
                                         "truncation",
                                         "causal",
                                         "attention",
                                         "position",
                                         "max_positions",
                                         "norm",
                                         "norm_affine",
                                         "prenorm",
                                         "final_norm_affine",
                                         "embedding_norm",
                                         "sinusoidal",
                                         "d_embedding",
                                         "scale_embedding",
                                         "tie_embedding",
                                         "dropout",
                                         "ffn_dim",
                                         "router",
                                         "temperature_init",
                                         "router_bias",
                                         "router_temperature",
                                         "router_threshold",
                                         "router_horizon",
                                         "rates",
                                         "task",
                                         "classes",
                                         "pool",
                                         "nli",
                                         "classifier_layers",
                                         "d_classifier"};
  std::vector<std::string> got;
  const Json json = to_json(listops());
  for (const auto& [name, value] : json.items()) got.push_back(name);
  EXPECT_EQ(got, want);
}

TEST(ModelConfig, BadJsonIsAModelThatDoesNotFit) {
  expect_refused(Json::array(), "expected a JSON object");
  Json json = to_json(listops());
  json["d_modle"] = 3;
  expect_refused(json, "unknown key d_modle, did you mean d_model?");
  json = to_json(listops());
  json.erase("d_attn");
  expect_refused(json, "key d_attn is missing");
  json = to_json(listops());
  json["d_model"] = 80.5;
  expect_refused(json, "d_model must be an integer, found 80.5");
  json["d_model"] = 18446744073709551615u;
  expect_refused(json, "d_model must be an integer");
  json["d_model"] = "80";
  expect_refused(json, "found \"80\"");
  json["d_model"] = -1;
  expect_refused(json, "d_model");
  json = to_json(listops());
  json["temperature_init"] = 0;
  expect_refused(json, "temperature_init");
  json["temperature_init"] = nullptr;
  expect_refused(json, "temperature_init must be a number, found null");
}

TEST(ModelConfig, ValidateIsAConfigError) {
  ModelConfig m = listops();
  m.validate("here");
  m.d_attn = 63;
  m.position = "rotary";
  try {
    m.validate("here");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kConfig);
    EXPECT_STREQ(error.what(), "here: model.d_attn must be even where model.position is \"rotary\", found 63");
  }
}

// Mega's published recipes (feed-forward of width H, the defaults of a layer), full and in chunks of 128.
TEST(ModelSize, ParameterCountsOfMega) {
  const auto counts = [](ModelConfig m) {
    m.layer = "mega";
    const int64_t full = parameter_count(m);
    m.layer = "mega-chunk";
    m.chunk_size = 128;
    return std::pair{full, parameter_count(m)};
  };
  ModelConfig m = listops();
  EXPECT_EQ(counts(m), (std::pair<int64_t, int64_t>{602418, 579930}));
  m.vocab_size = 262;
  m.d_model = 128;
  m.d_hidden = 256;
  m.n_layers = 4;
  m.max_positions = 4002;
  m.norm = "scalenorm";
  m.classes = 2;
  EXPECT_EQ(counts(m), (std::pair<int64_t, int64_t>{990740, 959748}));
  m.vocab_size = 102;
  m.n_layers = 6;
  m.task = "retrieval";
  EXPECT_EQ(counts(m), (std::pair<int64_t, int64_t>{1464862, 1418374}));
  m = listops();
  m.input = "real";
  m.vocab_size = 0;
  m.d_model = 160;
  m.d_hidden = 320;
  m.d_attn = 96;
  m.n_layers = 8;
  m.max_positions = 1024;
  m.norm = "batchnorm";
  m.prenorm = true;
  EXPECT_EQ(counts(m), (std::pair<int64_t, int64_t>{2839096, 2824760}));
}

TEST(ModelConfig, KeysOfALayerKindThatMustGoTogether) {
  const auto refused = [](const char* part, void (*change)(ModelConfig&)) {
    ModelConfig m = listops();
    change(m);
    try {
      m.validate("here");
      ADD_FAILURE() << "no error about " << part;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  refused("model.layer must be", [](ModelConfig& m) { m.layer = "mega-chunks"; });
  refused("model.position must be \"simple\" or \"rotary\" for mega", [](ModelConfig& m) { m.layer = "mega", m.position = "local"; });
  refused("model.chunk_size or model.window_size must be at least 1", [](ModelConfig& m) { m.layer = "mega-chunk", m.window_size = 0; });
  refused("model.chunk_size must be 0 unless", [](ModelConfig& m) { m.chunk_size = 4; });
  refused("model.n_heads must be 0 unless", [](ModelConfig& m) { m.n_heads = 4; });
  refused("heads of an even width", [](ModelConfig& m) { m.layer = "attention", m.n_heads = 3; });
  refused("router.rates must have one number, or one for each of the 6 layers", [](ModelConfig& m) {
    m.layer = "seqboat-stride", m.rates = {.1, .2};
  });
  refused("router.rates must have one number", [](ModelConfig& m) { m.layer = "seqboat-stride", m.rates = {}; });
  refused("router.rates must be", [](ModelConfig& m) { m.layer = "seqboat-random", m.rates = {1.5}; });
  refused("router.rates must keep its default unless", [](ModelConfig& m) { m.rates = {.25}; });
}

TEST(ModelConfig, KeysThatCameLaterMayBeMissing) {
  auto json = to_json(listops());
  for (const char* name : {"chunk_size", "n_heads", "rates"}) json.erase(name);
  EXPECT_EQ(to_json(model_config_from_json(json, "here")), to_json(listops()));
}

TEST(ModelConfig, ListsGoThroughJson) {
  ModelConfig m = listops();
  m.layer = "seqboat-stride";
  m.rates = {.1, .2, .3, .4, .5, 1};
  auto json = to_json(m);
  EXPECT_EQ(model_config_from_json(json, "here").rates, m.rates);
  for (const auto& [name, bad] : {std::pair{"a word", nlohmann::ordered_json("x")}, {"a word inside", nlohmann::ordered_json({.1, "x"})}}) {
    json["rates"] = bad;
    EXPECT_THROW(model_config_from_json(json, "here"), Error) << name;
  }
}

TEST(ModelConfig, HeadsAreNextTo64) {
  ModelConfig m;
  m.layer = "attention";
  const std::pair<int64_t, int64_t> widths[] = {{80, 80}, {128, 64}, {160, 80}, {60, 60}, {512, 64}, {20, 20}, {74, 74}};
  for (const auto& [d, width] : widths) {
    m.d_model = d;
    EXPECT_EQ(d / m.heads(), width) << d;
  }
}

// The published recipes' parameter counts, from the official models.
TEST(ModelSize, ParameterCountsOfTheOfficialModels) {
  EXPECT_EQ(parameter_count(listops()), 408516);

  ModelConfig text = listops();
  text.vocab_size = 262;
  text.d_model = 128;
  text.d_hidden = 256;
  text.n_layers = 4;
  text.max_positions = 4002;
  text.position = "local";
  text.norm = "scalenorm";
  text.classes = 2;
  EXPECT_EQ(parameter_count(text), 633100);

  ModelConfig retrieval = text;
  retrieval.vocab_size = 102;
  retrieval.n_layers = 6;
  retrieval.position = "simple";
  retrieval.task = "retrieval";
  retrieval.nli = true;
  EXPECT_EQ(parameter_count(retrieval), 1037354);

  ModelConfig image = listops();
  image.input = "real";
  image.vocab_size = 0;
  image.d_model = 160;
  image.d_hidden = 320;
  image.d_attn = 96;
  image.n_layers = 8;
  image.max_positions = 1024;
  image.norm = "batchnorm";
  image.prenorm = true;
  image.sinusoidal = true;
  EXPECT_EQ(parameter_count(image), 1810001);

  ModelConfig pathfinder = image;
  pathfinder.d_model = 128;
  pathfinder.d_hidden = 256;
  pathfinder.d_attn = 64;
  pathfinder.n_layers = 6;
  pathfinder.classes = 2;
  EXPECT_EQ(parameter_count(pathfinder), 892301);

  ModelConfig pathx = pathfinder;
  pathx.n_layers = 4;
  pathx.max_positions = 16384;
  EXPECT_EQ(parameter_count(pathx), 729097);

  ModelConfig speech = pathfinder;
  speech.d_model = 60;
  speech.d_hidden = 120;
  speech.d_attn = 30;
  speech.n_layers = 8;
  speech.position = "local";
  speech.classes = 10;
  EXPECT_EQ(parameter_count(speech), 298841);

  ModelConfig enwik8;
  enwik8.task = "language-model";
  enwik8.causal = true;
  enwik8.vocab_size = 208;
  enwik8.d_model = 616;
  enwik8.d_attn = 128;
  enwik8.n_layers = 14;
  enwik8.window_size = 1024;
  enwik8.position = "rotary";
  enwik8.prenorm = true;
  enwik8.final_norm_affine = false;
  enwik8.validate("enwik8");
  EXPECT_NEAR(static_cast<double>(parameter_count(enwik8)), 39.07e6, 0.005e6);
}

TEST(ModelSize, FlopsPerTokenByHand) {
  const ModelConfig m = listops();
  // Long sequence, half activated: a query sees 257 keys; two directions of sixteen states, truncated.
  const Flops flops = flops_per_token(m, 0.5, 4096);
  EXPECT_DOUBLE_EQ(flops.products, 6 * (2 * 80 * 82 + 80 * (64 + 320) + 160 * 80));
  EXPECT_DOUBLE_EQ(flops.attention, 6 * 0.5 * 257 * (2 * (64 + 160) + 24));
  EXPECT_DOUBLE_EQ(flops.scan, 6 * 2 * (64 + 32) * 80);
  // Nothing activated costs no attention; a short sequence sees only itself.
  EXPECT_EQ(flops_per_token(m, 0, 4096).attention, 0);
  EXPECT_DOUBLE_EQ(flops_per_token(m, 1, 100).attention, 6.0 * 100 * (2 * (64 + 160) + 24));
  EXPECT_DOUBLE_EQ(flops_per_token(m, 1, 100).scan, 6 * 2 * 64 * 80);
}

TEST(ModelSize, StateBytesOfTheStreamingExample) {
  ModelConfig lm;
  lm.causal = true;
  lm.d_model = 512;
  lm.d_attn = 128;
  lm.n_layers = 12;
  lm.window_size = 1024;
  EXPECT_EQ(state_bytes(lm), 12 * (4 * 512 * 16 + 1025 * (4 * (128 + 1024) + 8)));
  lm.truncation = 2048;
  EXPECT_EQ(state_bytes(lm), 12 * (4 * 512 * 16 + 1025 * (4 * (128 + 1024) + 8) + 4 * 512 * 2048));
  lm.causal = false;
  EXPECT_EQ(state_bytes(lm), 0);
}

}  // namespace
}  // namespace seqboat::config
