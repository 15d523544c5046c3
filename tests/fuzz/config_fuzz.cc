// Any text as a config.json: refused with an Error, or a config that comes back the same from its own text and whose facts can be told.

#include <nlohmann/json.hpp>
#include <string_view>

#include "fuzz_case.h"
#include "seqboat/config/model_size.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace config = seqboat::config;
  const auto json = nlohmann::ordered_json::parse(std::string_view(reinterpret_cast<const char*>(data), size), nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return 0;
  try {
    const config::ModelConfig model = config::model_config_from_json(json, "input");
    const auto again = config::to_json(model);
    seqboat::fuzz::demand(config::to_json(config::model_config_from_json(again, "again")) == again);
    if (model.n_layers <= 100) seqboat::runtime::tensor_specs(model);
  } catch (const seqboat::Error&) {
  }
  return 0;
}
