// seqboat bench --recipe R | --model MODEL
#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "command.h"
#include "program_path.h"
#include "recipe_store.h"
#include "seqboat/base/error.h"
#include "seqboat/config/run_dir.h"
#include "verbs.h"

namespace seqboat::app {
namespace {

namespace fs = std::filesystem;

struct BenchOptions {
  std::string recipe;
  std::string mode = "train";
  std::string batches;
  std::vector<std::string> overrides;
  train::BenchRequest request;
};

// Modes that the documentation of the field leads one to expect.
CLI::Validator not_yet() {
  return CLI::Validator(
      [](std::string& mode) {
        return mode == "decode" || mode == "prefill"
                   ? fmt::format("{} is not there yet: it comes with the streaming runtime; expected train or forward", mode)
                   : std::string();
      },
      "");
}

int bench(BenchOptions* options, const Invocation& invocation, Reporter& reporter) {
  train::BenchRequest& request = options->request;
  std::vector<std::string> overrides = options->overrides;
  request.threads = invocation.common.threads;
  if (invocation.common.threads > 0 && request.model.empty()) overrides.push_back(fmt::format("train.threads={}", invocation.common.threads));
  if (request.model.empty()) {
    const fs::path what = options->recipe;
    std::error_code error;
    const bool is_file = fs::is_regular_file(what, error) || what.extension() == ".toml";
    request.recipe = config::load_recipe(is_file ? what : find_recipe(options->recipe), overrides);
    request.recipe_name = options->recipe;
  } else {
    config::read_model_config(config::find_model_dir(request.model));  // what can be told without LibTorch is told first
    request.overrides = overrides;
  }
  request.train = options->mode == "train";
  request.listops_batch = !options->batches.empty();
  request.stop_signal = &become_cooperative();
  auto* run = reinterpret_cast<decltype(&seqboat_run_bench)>(train_module_function("seqboat_run_bench"));
  return run(&request, &reporter);
}

}  // namespace

void add_bench(CLI::App* app, Invocation* invocation) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* command = app->add_subcommand("bench", "times a model's training step or forward beside what this machine allows");
  CLI::Option* recipe =
      command->add_option("--recipe", options->recipe, "a recipe's name (bench/listops, or any of seqboat recipes list), or a .toml file")
          ->type_name("RECIPE");
  CLI::Option* model = command
                           ->add_option("--model", options->request.model,
                                        "in place of --recipe a trained one, a model folder or a run directory: on its own test data, beside itself "
                                        "with everything activated")
                           ->excludes(recipe)
                           ->type_name("MODEL");
  command->add_option("--data", options->request.data_dir, "with --model: folder of the data, or one file")->needs(model)->type_name("PATH");
  command->add_option("--mode", options->mode, "a training step, or a forward without gradients; default train")
      ->check(not_yet())
      ->check(CLI::IsMember({"train", "forward"}))
      ->type_name("MODE");
  constexpr int64_t kMost = 1'000'000'000;
  command->add_option("--batch", options->request.batch, "sequences; default: the recipe's")->check(whole_number(1, kMost))->type_name("B");
  command->add_option("--length", options->request.length, "tokens of each; default: the recipe's")
      ->check(whole_number(1, kMost))
      ->excludes(model)
      ->type_name("T");
  command
      ->add_option("--activation-rate", options->request.activation_rate, "activates this share of the tokens by a hash; default: the routers decide")
      ->check(number(0, 1))
      ->type_name("R");
  command->add_option("--batches", options->batches, "real lengths of a data set, beside a full batch of as many tokens")
      ->check(CLI::IsMember({"listops"}))
      ->excludes(model)
      ->type_name("DATA");
  command->add_flag("--phases", options->request.phases, "also where the time goes, by kind of work");
  command->add_option("--steps", options->request.steps, "steps to time; default: three seconds of them, at least five")
      ->check(whole_number(1, kMost))
      ->type_name("N");
  command->add_option("--simd", options->request.simd, "kernels run on this target (avx3, avx2, sse4, ...); default: the best of this machine")
      ->check(CLI::Validator([](std::string& name) { return name.empty() ? std::string("expected a name, found nothing") : std::string(); }, ""))
      ->type_name("TARGET");
  command->add_option("--set", options->overrides, "sets a key of the recipe; repeatable")->type_name("section.key=value")->allow_extra_args(false);
  add_common_options(command, invocation);
  command->footer(
      examples("seqboat bench --recipe bench/listops --mode train --activation-rate 0.4", "seqboat bench --model runs/first --mode forward --json"));
  command->callback([invocation, options] {
    if (options->recipe.empty() && options->request.model.empty()) throw CLI::RequiredError("--recipe or --model");
    invocation->action = [invocation, options](Reporter& reporter) { return bench(options.get(), *invocation, reporter); };
  });
}

}  // namespace seqboat::app
