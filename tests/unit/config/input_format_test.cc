#include "seqboat/config/input_format.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "seqboat/base/error.h"
#include "seqboat/config/model_config.h"
#include "unit/base/temp_dir.h"

namespace seqboat::config {
namespace {

using Json = nlohmann::ordered_json;
using test::expect_error;

ModelConfig sound_model() {
  ModelConfig config;
  config.input = "real";
  config.channels = 80;
  config.d_model = 8;
  config.d_attn = 4;
  config.n_layers = 1;
  config.classes = 2;
  config.data = {.name = "fsdd", .sample_rate = 8000, .frame = 80, .gain = 0.1, .normalize = "none", .labels = {"no", "yes \"\n"}};
  return config;
}

TEST(InputFormat, ComesBackWithTheModel) {
  const ModelConfig config = sound_model();
  const Json json = Json::parse(to_json(config).dump());
  EXPECT_EQ(json.at("data").at("frame"), 80);
  EXPECT_EQ(model_config_from_json(json, "x").data, config.data);
}

TEST(InputFormat, ModelsThatHaveNothingToSayStayAsTheyWere) {
  ModelConfig config = sound_model();
  config.data = {};
  const Json json = to_json(config);
  EXPECT_FALSE(json.contains("data"));
  EXPECT_TRUE(model_config_from_json(json, "x").data.empty());
}

TEST(InputFormat, WhatIsWrongIsNamed) {
  const auto expect_bad = [](const char* key, const Json& value, std::vector<std::string> pieces) {
    Json json = to_json(sound_model());
    if (value.is_discarded()) {
      json["data"].erase(key);
    } else if (*key == '\0') {
      json["data"] = value;
    } else {
      json["data"][key] = value;
    }
    pieces.emplace_back("file.json");
    expect_error(ErrorKind::kModel, pieces, [&] { model_config_from_json(json, "file.json"); });
  };
  expect_bad("", 3, {"data must be an object"});
  expect_bad("frames", 80, {"unknown key data.frames", "did you mean frame?"});
  expect_bad("labels", Json(Json::value_t::discarded), {"data.labels is missing"});
  expect_bad("name", "", {"data.name"});
  expect_bad("name", 7, {"data.name must be a string", "7"});
  expect_bad("sample_rate", -1, {"data.sample_rate", "-1"});
  expect_bad("sample_rate", 8000.5, {"data.sample_rate must be an integer"});
  expect_bad("sample_rate", UINT64_MAX, {"data.sample_rate"});
  expect_bad("frame", 81, {"data.frame must be the channels of real input, 80", "found 81"});
  expect_bad("gain", 0, {"data.gain", "above 0"});
  expect_bad("gain", "loud", {"data.gain must be a number"});
  expect_bad("normalize", "mean", {"data.normalize", "time-index", "'mean'"});
  expect_bad("labels", Json::array({"a"}), {"2 classes", "found 1"});
  expect_bad("labels", Json::array({"a", 1}), {"data.labels must be a list of strings"});
  Json json = to_json(sound_model());
  json["input"] = "tokens";
  json["vocab_size"] = 5;
  expect_error(ErrorKind::kModel, {"data.frame"}, [&] { model_config_from_json(json, "x"); });
}

}  // namespace
}  // namespace seqboat::config
