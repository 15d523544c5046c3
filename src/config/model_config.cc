#include "seqboat/config/model_config.h"

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "config/check.h"
#include "config/values.h"

namespace seqboat::config {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kDataSection = "data";

bool is_model_key(const Key& key) {
  return *key.json_name != '\0';
}

bool assign(const Json& json, FieldRef field) {
  struct Assign {
    const Json& json;
    bool operator()(bool* field) const { return json.is_boolean() && ((*field = json.get<bool>()), true); }
    bool operator()(int64_t* field) const {
      // An unsigned number past the signed range would wrap around.
      if (!json.is_number_integer() || (json.is_number_unsigned() && json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))) return false;
      *field = json.get<int64_t>();
      return true;
    }
    bool operator()(double* field) const { return json.is_number() && ((*field = json.get<double>()), true); }
    bool operator()(std::string* field) const { return json.is_string() && ((*field = json.get<std::string>()), true); }
    bool operator()(std::array<double, 2>*) const { return false; }
    bool operator()(std::vector<double>* field) const {
      if (!json.is_array()) return false;
      field->clear();
      for (const Json& number : json) {
        if (!number.is_number()) return false;
        field->push_back(number.get<double>());
      }
      return true;
    }
  };
  return std::visit(Assign{json}, field);
}

std::string shown(const Json& json) {
  const std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  return text.size() <= 60 ? text : text.substr(0, 57) + "...";
}

}  // namespace

std::string ModelConfig::chooser() const {
  if (!has_unit()) return "never";
  if (layer == "seqboat") return router;
  return layer == "seqboat-full" ? "always" : layer.substr(std::string("seqboat-").size());
}

bool ModelConfig::uses_router() const {
  const std::string kind = chooser();
  return kind != "always" && kind != "never" && kind != "random" && kind != "stride";
}

int64_t ModelConfig::feed_forward() const {
  if (ffn_dim != 0) return std::max<int64_t>(0, ffn_dim);
  return is_mega() ? hidden() : layer == "attention" ? 4 * d_model : 0;
}

int64_t ModelConfig::heads() const {
  if (n_heads > 0) return n_heads;
  constexpr int64_t kUsualWidth = 64;
  int64_t best = d_model;
  for (int64_t width = 2; width <= d_model; width += 2) {
    if (d_model % width == 0 && std::abs(width - kUsualWidth) < std::abs(best - kUsualWidth)) best = width;
  }
  return d_model / best;
}

Json to_json(const ModelConfig& config) {
  Recipe recipe;
  recipe.model = config;
  Json json;
  for (const Key& key : keys()) {
    if (is_model_key(key)) std::visit([&](auto* value) { json[key.json_name] = *value; }, field(key, recipe));
  }
  if (!config.data.empty()) json[kDataSection] = to_json(config.data);
  return json;
}

ModelConfig model_config_from_json(const Json& json, const std::string& where) {
  SEQBOAT_CHECK(json.is_object(), ErrorKind::kModel, "{}: expected a JSON object of the model's keys, found {}", where, json.type_name());
  std::vector<std::string> names;
  for (const Key& key : keys()) {
    if (is_model_key(key)) names.emplace_back(key.json_name);
  }
  names.emplace_back(kDataSection);
  for (const auto& [name, value] : json.items()) {
    SEQBOAT_CHECK(std::find(names.begin(), names.end(), name) != names.end(), ErrorKind::kModel, "{}: unknown key {}{}", where, name,
                  suggestion(name, names));
  }
  Recipe recipe;
  for (const Key& key : keys()) {
    if (!is_model_key(key)) continue;
    const auto value = json.find(key.json_name);
    // Models that were written before a key was there go on as they were: with its default.
    static constexpr std::string_view kCameLater[] = {"chunk_size", "n_heads", "rates", "router_temperature", "router_threshold", "router_horizon"};
    if (value == json.end() && std::find(std::begin(kCameLater), std::end(kCameLater), key.json_name) != std::end(kCameLater)) continue;
    SEQBOAT_CHECK(value != json.end(), ErrorKind::kModel, "{}: key {} is missing", where, key.json_name);
    SEQBOAT_CHECK(assign(*value, key.ref(recipe)), ErrorKind::kModel, "{}: {} must be {}, found {}", where, key.json_name, type_text(key),
                  shown(*value));
  }
  check_model(recipe, {[&](const Key&) { return where; }, ErrorKind::kModel, /*json_names=*/true});
  if (const auto data = json.find(kDataSection); data != json.end()) {
    recipe.model.data = input_format_from_json(*data, where);
    const InputFormat& format = recipe.model.data;
    const ModelConfig& model = recipe.model;
    SEQBOAT_CHECK(format.frame == 0 || (model.input == "real" && model.channels == format.frame), ErrorKind::kModel,
                  "{}: data.frame must be the channels of real input, {}, found {}", where, model.input == "real" ? model.channels : 0, format.frame);
    SEQBOAT_CHECK(!format.image || (model.input == "real" && model.channels == 1), ErrorKind::kModel,
                  "{}: data.image goes with real input of one channel, found {} of {}", where, model.input, model.channels);
    SEQBOAT_CHECK(format.labels.empty() || static_cast<int64_t>(format.labels.size()) == model.classes, ErrorKind::kModel,
                  "{}: data.labels must name {} classes, found {} names", where, model.classes, format.labels.size());
  }
  return recipe.model;
}

}  // namespace seqboat::config
