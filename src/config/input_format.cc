#include "seqboat/config/input_format.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "config/check.h"
#include "seqboat/base/text.h"

namespace seqboat::config {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMostRate = 1'000'000;
constexpr int64_t kMostFrame = 65536;
constexpr int64_t kMostSide = 65536;
constexpr int64_t kMostSeed = 1'000'000'000'000'000;
constexpr size_t kMostLabels = 1'000'000;

ImageFormat image_from_json(const Json& json, const std::string& where) {
  SEQBOAT_CHECK(json.is_object(), ErrorKind::kModel, "{}: data.image must be an object, found {}", where, json.type_name());
  static const std::vector<std::string> kNames{"height", "width", "mean", "std", "permutation_seed"};
  for (const auto& [name, value] : json.items()) {
    SEQBOAT_CHECK(std::find(kNames.begin(), kNames.end(), name) != kNames.end(), ErrorKind::kModel, "{}: unknown key data.image.{}{}", where, name,
                  suggestion(name, kNames));
  }
  const auto number = [&](const char* name, double least, double most, bool whole) {
    const auto found = json.find(name);
    SEQBOAT_CHECK(found != json.end(), ErrorKind::kModel, "{}: key data.image.{} is missing", where, name);
    const bool good = found->is_number() && (!whole || found->is_number_integer()) && found->get<double>() >= least && found->get<double>() <= most;
    SEQBOAT_CHECK(good, ErrorKind::kModel, "{}: data.image.{} must be {} in [{}, {}], found {}", where, name, whole ? "an integer" : "a number",
                  least, most, in_quotes(found->dump(-1, ' ', false, Json::error_handler_t::replace), 60));
    return found->get<double>();
  };
  ImageFormat out;
  out.height = static_cast<int64_t>(number("height", 1, kMostSide, true));
  out.width = static_cast<int64_t>(number("width", 1, kMostSide, true));
  out.mean = number("mean", -1e6, 1e6, false);
  out.std = number("std", 0, 1e6, false);
  SEQBOAT_CHECK(out.std > 0, ErrorKind::kModel, "{}: data.image.std must be above 0, found {}", where, out.std);
  out.permutation_seed = static_cast<int64_t>(number("permutation_seed", 0, kMostSeed, true));
  return out;
}

}  // namespace

Json to_json(const InputFormat& format) {
  Json out = {{"name", format.name}, {"sample_rate", format.sample_rate}, {"frame", format.frame},
              {"gain", format.gain}, {"normalize", format.normalize},     {"labels", format.labels}};
  if (format.image) {
    const ImageFormat& image = *format.image;
    out["image"] = {
        {"height", image.height}, {"width", image.width}, {"mean", image.mean}, {"std", image.std}, {"permutation_seed", image.permutation_seed}};
  }
  return out;
}

InputFormat input_format_from_json(const Json& json, const std::string& where) {
  SEQBOAT_CHECK(json.is_object(), ErrorKind::kModel, "{}: data must be an object, found {}", where, json.type_name());
  static const std::vector<std::string> kNames{"name", "sample_rate", "frame", "gain", "normalize", "labels", "image"};
  for (const auto& [name, value] : json.items()) {
    SEQBOAT_CHECK(std::find(kNames.begin(), kNames.end(), name) != kNames.end(), ErrorKind::kModel, "{}: unknown key data.{}{}", where, name,
                  suggestion(name, kNames));
  }
  const auto value = [&](const char* name, bool (Json::*is)() const noexcept, const char* what) -> const Json& {
    const auto found = json.find(name);
    SEQBOAT_CHECK(found != json.end(), ErrorKind::kModel, "{}: key data.{} is missing", where, name);
    SEQBOAT_CHECK(((*found).*is)(), ErrorKind::kModel, "{}: data.{} must be {}, found {}", where, name, what,
                  in_quotes(found->dump(-1, ' ', false, Json::error_handler_t::replace), 60));
    return *found;
  };
  const auto whole = [&](const char* name, int64_t most) {
    const Json& number = value(name, &Json::is_number_integer, "an integer");
    const bool fits = !number.is_number_unsigned() || number.get<uint64_t>() <= static_cast<uint64_t>(most);
    SEQBOAT_CHECK(fits && number.get<int64_t>() >= 0 && number.get<int64_t>() <= most, ErrorKind::kModel,
                  "{}: data.{} must be an integer in [0, {}], found {}", where, name, most, number.dump());
    return number.get<int64_t>();
  };
  InputFormat out;
  out.name = value("name", &Json::is_string, "a string").get<std::string>();
  SEQBOAT_CHECK(!out.name.empty(), ErrorKind::kModel, "{}: data.name must be the name of a data set, found nothing", where);
  out.sample_rate = whole("sample_rate", kMostRate);
  out.frame = whole("frame", kMostFrame);
  out.gain = value("gain", &Json::is_number, "a number").get<double>();
  SEQBOAT_CHECK(std::isfinite(out.gain) && out.gain > 0, ErrorKind::kModel, "{}: data.gain must be a number above 0, found {}", where, out.gain);
  out.normalize = value("normalize", &Json::is_string, "a string").get<std::string>();
  SEQBOAT_CHECK(out.normalize == "none" || out.normalize == "time-index", ErrorKind::kModel,
                "{}: data.normalize must be \"none\" or \"time-index\", found {}", where, in_quotes(out.normalize));
  const Json& labels = value("labels", &Json::is_array, "a list of strings");
  SEQBOAT_CHECK(labels.size() <= kMostLabels, ErrorKind::kModel, "{}: data.labels must have at most {} names, found {}", where, kMostLabels,
                labels.size());
  for (const Json& label : labels) {
    SEQBOAT_CHECK(label.is_string(), ErrorKind::kModel, "{}: data.labels must be a list of strings, found {} in it", where, label.type_name());
    out.labels.push_back(label.get<std::string>());
  }
  if (const auto image = json.find("image"); image != json.end()) out.image = image_from_json(*image, where);
  return out;
}

}  // namespace seqboat::config
