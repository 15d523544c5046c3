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

/// The folder that SEQBOAT_RECIPES names, else the first of these that there is: ../share/seqboat/recipes beside the program's folder, recipes/ of
/// the source folder that it was built from. Error if there is none.
std::filesystem::path recipes_dir();

/// All recipes of that folder by name.
std::vector<StoredRecipe> stored_recipes();

/// The file of a stored recipe. Error (kUsage) with the nearest name.
std::filesystem::path find_recipe(const std::string& name);

/// The line that says what a recipe is: the first of its opening comment.
std::string recipe_title(const std::string& text);

}  // namespace seqboat::app
