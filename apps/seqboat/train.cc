// seqboat train RECIPE | RUN_DIR
#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "command.h"
#include "program_path.h"
#include "recipe_store.h"
#include "seqboat/base/error.h"
#include "seqboat/base/text.h"
#include "seqboat/config/run_dir.h"
#include "verbs.h"

namespace seqboat::app {
namespace {

namespace fs = std::filesystem;

struct TrainOptions {
  std::string what;
  std::vector<std::string> overrides;
  std::string out;
  std::string data;
  int64_t steps = 0;
  double minutes = 0;
  bool dry_run = false;
};

train::TrainRequest make_request(const TrainOptions& options, const Invocation& invocation) {
  train::TrainRequest request;
  std::vector<std::string> overrides = options.overrides;
  // The options are shorthands for keys, and later ones count.
  if (options.steps > 0) overrides.push_back(fmt::format("train.steps={}", options.steps));
  if (invocation.common.threads > 0) overrides.push_back(fmt::format("train.threads={}", invocation.common.threads));

  const fs::path what = options.what;
  std::error_code error;
  if (config::is_run_dir(what)) {
    SEQBOAT_CHECK(options.out.empty(), ErrorKind::kUsage, "{} is a run directory and goes on where it stands: leave --out away", options.what);
    request.resume = true;
    request.run_dir = what;
    request.recipe_name = options.what;
    request.recipe = config::load_recipe(what / "config.toml", overrides);
  } else {
    // A file before a name before an empty folder: "lra" may be all three.
    const bool is_file = fs::is_regular_file(what, error) || what.extension() == ".toml";
    if (!is_file && fs::is_directory(what, error)) fail(ErrorKind::kModel, "{}: no run directory (it has no config.toml)", options.what);
    const fs::path file = is_file ? what : find_recipe(options.what);
    request.recipe = config::load_recipe(file, overrides);
    request.recipe_name = options.what;
    request.run_dir = options.out.empty() ? fs::path("runs") / (is_file ? what.stem() : what) : fs::path(options.out);
    SEQBOAT_CHECK(!fs::exists(request.run_dir, error) || fs::is_directory(request.run_dir, error), ErrorKind::kUsage,
                  "--out {}: exists and is no folder", request.run_dir.string());
  }
  request.data_dir = options.data;
  request.minutes = options.minutes;
  request.dry_run = options.dry_run;
  request.overrides = overrides;
  request.command_line = invocation.command_line;
  request.version = SEQBOAT_VERSION;
  request.stop_signal = &become_cooperative();
  return request;
}

}  // namespace

void add_train(CLI::App* app, Invocation* invocation) {
  auto options = std::make_shared<TrainOptions>();
  CLI::App* command = app->add_subcommand("train", "trains by a recipe, or goes on where a run stopped");
  command->add_option("RECIPE|RUN_DIR", options->what, "a recipe's name (seqboat recipes list), a .toml file, or the folder of a run to go on with")
      ->required();
  command->add_option("--set", options->overrides, "sets a key of the recipe; repeatable")->type_name("section.key=value")->allow_extra_args(false);
  command->add_option("--out", options->out, "run directory to write; default: runs/<recipe>")->type_name("RUN_DIR");
  command->add_option("--data", options->data, "folder of the data (bytes: the file), taken as they are; generated data are made there if missing")
      ->type_name("PATH");
  command->add_option("--steps", options->steps, "updates, short for --set train.steps=N")->check(whole_number(1))->type_name("N");
  command->add_option("--minutes", options->minutes, "stops after so long, with a checkpoint to go on from")
      ->check(number(0.001, 1e6))
      ->type_name("M");
  command->add_flag("--dry-run", options->dry_run, "two updates; reports sizes, time and memory; writes nothing");
  add_common_options(command, invocation);
  command->footer(examples("seqboat train lra/listops-short --out runs/first", "seqboat train runs/first --minutes 10"));
  command->callback([invocation, options] {
    invocation->action = [invocation, options](Reporter& reporter) {
      const train::TrainRequest request = make_request(*options, *invocation);
      auto* run = reinterpret_cast<decltype(&seqboat_run_train)>(train_module_function("seqboat_run_train"));
      return run(&request, &reporter);
    };
  });
}

}  // namespace seqboat::app
