// Any text as a recipe: refused with an Error, or a recipe that comes back the same from its own text.

#include <string_view>

#include "fuzz_case.h"
#include "seqboat/config/recipe.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace config = seqboat::config;
  try {
    const config::Recipe recipe = config::recipe_from_toml(std::string_view(reinterpret_cast<const char*>(data), size), "input");
    const std::string text = config::to_toml(recipe);
    seqboat::fuzz::demand(config::to_toml(config::recipe_from_toml(text, "again")) == text);
  } catch (const seqboat::Error&) {
  }
  return 0;
}
