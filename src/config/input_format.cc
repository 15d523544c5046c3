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
constexpr size_t kMostLabels = 1'000'000;

}  // namespace

Json to_json(const InputFormat& format) {
  return {{"name", format.name}, {"sample_rate", format.sample_rate}, {"frame", format.frame},
          {"gain", format.gain}, {"normalize", format.normalize},     {"labels", format.labels}};
}

InputFormat input_format_from_json(const Json& json, const std::string& where) {
  SEQBOAT_CHECK(json.is_object(), ErrorKind::kModel, "{}: data must be an object, found {}", where, json.type_name());
  static const std::vector<std::string> kNames{"name", "sample_rate", "frame", "gain", "normalize", "labels"};
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
  return out;
}

}  // namespace seqboat::config
