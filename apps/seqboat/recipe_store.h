#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace seqboat::app {

/// A recipe that comes with the program: "lra/listops" and its file.
struct StoredRecipe {
  std::string name;
  std::filesystem::path file;
};

/// All of them by name. They lie in the folder that SEQBOAT_RECIPES names, else in the first of these that there is: ../share/seqboat/recipes beside
/// the program's folder, recipes/ of the source folder that it was built from.
std::vector<StoredRecipe> stored_recipes();

/// The file of a stored recipe. Error (kUsage) with the nearest name.
std::filesystem::path find_recipe(const std::string& name);

/// The line that says what a recipe is: the first of its opening comment.
std::string recipe_title(const std::string& text);

}  // namespace seqboat::app
