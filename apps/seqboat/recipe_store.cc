#include "recipe_store.h"

#include <algorithm>
#include <cstdlib>

#include "program_path.h"
#include "seqboat/base/error.h"
#include "seqboat/base/text.h"
#include "seqboat/config/keys.h"

namespace seqboat::app {

namespace fs = std::filesystem;

fs::path recipes_dir() {
  std::error_code error;
  if (const char* named = std::getenv("SEQBOAT_RECIPES"); named != nullptr && *named != '\0') {
    SEQBOAT_CHECK(fs::is_directory(named, error), ErrorKind::kUsage, "SEQBOAT_RECIPES: {} is no folder", named);
    return named;
  }
  const fs::path here = program_dir();
  // build/<preset>/bin lies three levels below the source folder; the compiled-in path serves other build folders.
  for (const fs::path& folder : {here / "../share/seqboat/recipes", here / "../../../recipes", fs::path(SEQBOAT_RECIPES_SOURCE_DIR)}) {
    if (fs::is_directory(folder / "lra", error)) return folder.lexically_normal();
  }
  fail(ErrorKind::kFailed, "no folder of recipes found near {}; name one in SEQBOAT_RECIPES", here.string());
}

std::vector<StoredRecipe> stored_recipes() {
  const fs::path root = recipes_dir();
  std::vector<StoredRecipe> recipes;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    if (!entry.is_regular_file() || entry.path().extension() != ".toml") continue;
    recipes.push_back({entry.path().lexically_relative(root).replace_extension().generic_string(), entry.path()});
  }
  std::sort(recipes.begin(), recipes.end(), [](const StoredRecipe& a, const StoredRecipe& b) { return a.name < b.name; });
  return recipes;
}

fs::path find_recipe(const std::string& name) {
  std::vector<std::string> names;
  std::vector<std::string> last_parts;
  for (const StoredRecipe& recipe : stored_recipes()) {
    if (recipe.name == name) return recipe.file;
    names.push_back(recipe.name);
    last_parts.push_back(recipe.name.substr(recipe.name.rfind('/') + 1));
  }
  std::string near = config::nearest(name, names);
  // "listops" alone is nearer to "lra/listops" than its edit distance says.
  if (const std::string part = config::nearest(name, last_parts); !part.empty() && (near.empty() || name.find('/') == std::string::npos)) {
    near = names[static_cast<size_t>(std::find(last_parts.begin(), last_parts.end(), part) - last_parts.begin())];
  }
  fail(ErrorKind::kUsage, "unknown recipe {}{}; `seqboat recipes list` shows all", in_quotes(name),
       near.empty() ? "" : ", did you mean " + near + "?");
}

std::string recipe_title(const std::string& text) {
  const std::string line = text.substr(0, text.find('\n'));
  return line.rfind("# ", 0) == 0 ? line.substr(2) : "";
}

}  // namespace seqboat::app
