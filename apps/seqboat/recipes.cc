// seqboat recipes list | show | copy
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "command.h"
#include "recipe_store.h"
#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/config/keys.h"
#include "seqboat/config/recipe.h"

namespace seqboat::app {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

int list_recipes(Reporter& reporter) {
  Json json;
  json["recipes"] = Json::array();
  std::string text;
  const std::vector<StoredRecipe> recipes = stored_recipes();
  size_t width = 0;
  for (const StoredRecipe& recipe : recipes) width = std::max(width, recipe.name.size());
  for (const StoredRecipe& recipe : recipes) {
    const std::string title = recipe_title(read_file(recipe.file));
    json["recipes"].push_back({{"name", recipe.name}, {"title", title}, {"path", recipe.file.string()}});
    text += fmt::format("{:<{}}  {}\n", recipe.name, width, title);
  }
  reporter.result(json, text);
  return 0;
}

// A name, or a file of the user's.
fs::path recipe_file(const std::string& name) {
  return fs::path(name).extension() == ".toml" ? fs::path(name) : find_recipe(name);
}

int show_recipe(const std::string& name, bool resolved, const std::vector<std::string>& overrides, Reporter& reporter) {
  const fs::path file = recipe_file(name);
  const config::Recipe recipe = config::load_recipe(file, overrides);
  Json json;
  json["name"] = name;
  json["path"] = file.string();
  json["resolved"] = config::to_json(recipe);
  reporter.result(json, resolved || !overrides.empty() ? config::to_toml(recipe) : read_file(file));
  return 0;
}

// Creates the file, never replaces one; a file that could not be written whole is taken away again.
void write_new_file(const fs::path& path, const std::string& content) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) {
    SEQBOAT_CHECK(errno != EEXIST, ErrorKind::kFailed, "{}: exists, and is left as it is", path.string());
    fail(is_out_of_space(errno) ? ErrorKind::kResource : ErrorKind::kFailed, "{}: cannot be created: {}", path.string(), std::strerror(errno));
  }
  size_t written = 0;
  int error = 0;
  while (written < content.size() && error == 0) {
    const ssize_t n = ::write(fd, content.data() + written, content.size() - written);
    if (n >= 0) {
      written += static_cast<size_t>(n);
    } else if (errno != EINTR) {
      error = errno;
    }
  }
  if (error == 0 && ::fsync(fd) != 0 && errno != EINVAL) error = errno;
  if (::close(fd) != 0 && error == 0) error = errno;
  if (error == 0) return;
  ::unlink(path.c_str());
  fail(is_out_of_space(error) ? ErrorKind::kResource : ErrorKind::kFailed, "{}: cannot be written: {}", path.string(), std::strerror(error));
}

int copy_recipe(const std::string& name, const std::string& target, Reporter& reporter) {
  const fs::path file = find_recipe(name);
  std::error_code error;
  const fs::path path = fs::is_directory(target, error) ? fs::path(target) / file.filename() : fs::path(target);
  write_new_file(path, read_file(file));
  Json json;
  json["name"] = name;
  json["path"] = path.string();
  reporter.result(json, fmt::format("{}\n", path.string()));
  return 0;
}

}  // namespace

void add_recipes(CLI::App* app, Invocation* invocation) {
  CLI::App* command = app->add_subcommand("recipes", "the recipes that come with the program");
  command->require_subcommand(1);
  command->footer(examples("seqboat recipes list", "seqboat recipes copy lra/listops-short mine.toml"));

  CLI::App* list = command->add_subcommand("list", "names and what they train");
  add_common_options(list, invocation);
  list->footer(examples("seqboat recipes list", "seqboat recipes list --json"));
  list->callback([invocation] { invocation->action = list_recipes; });

  struct Options {
    std::string name;
    std::string file;
    bool resolved = false;
    std::vector<std::string> overrides;
  };
  auto options = std::make_shared<Options>();
  CLI::App* show = command->add_subcommand("show", "a recipe's text");
  show->add_option("RECIPE", options->name, "a name of the list, or a .toml file")->required();
  show->add_flag("--resolved", options->resolved, "every key with its value, as a run directory keeps it");
  show->add_option("--set", options->overrides, "sets a key first; repeatable")->type_name("section.key=value")->allow_extra_args(false);
  add_common_options(show, invocation);
  show->footer(examples("seqboat recipes show lra/listops", "seqboat recipes show lra/listops --resolved --set model.n_layers=4"));
  show->callback([invocation, options] {
    invocation->action = [options](Reporter& reporter) { return show_recipe(options->name, options->resolved, options->overrides, reporter); };
  });

  CLI::App* copy = command->add_subcommand("copy", "copies a recipe to change it; never overwrites");
  copy->add_option("RECIPE", options->name, "a name of the list")->required();
  copy->add_option("FILE", options->file, "the new file, or a folder")->required();
  add_common_options(copy, invocation);
  copy->footer(examples("seqboat recipes copy lra/listops-short mine.toml", "seqboat recipes copy lra/listops /tmp"));
  copy->callback(
      [invocation, options] { invocation->action = [options](Reporter& reporter) { return copy_recipe(options->name, options->file, reporter); }; });

  // For docs/CONFIG.md, which a test holds to it.
  CLI::App* keys = command->add_subcommand("keys", "the table of all keys, as Markdown")->group("");
  add_common_options(keys, invocation);
  keys->footer(examples("seqboat recipes keys", "seqboat recipes keys --json"));
  keys->callback([invocation] {
    invocation->action = [](Reporter& reporter) {
      Json json;
      json["markdown"] = config::keys_markdown();
      reporter.result(json, config::keys_markdown());
      return 0;
    };
  });
}

}  // namespace seqboat::app
