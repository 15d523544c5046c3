// seqboat bench --recipe R | --model MODEL: in two modules, that with LibTorch and the streaming runtime
#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "bench_runtime.h"
#include "command.h"
#include "program_path.h"
#include "runtime_model.h"
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
  RuntimeBenchOptions runtime;
};

// Options that belong to the streaming runtime's modes, or to LibTorch's.
void check_mode(const BenchOptions& options, const CLI::App& command) {
  const bool on_runtime = options.mode == "decode" || options.mode == "prefill";
  static const std::vector<std::string> kRuntime{"--context", "--type", "--ring"}, kTraining{"--data", "--batches", "--phases"};
  for (const std::string& name : on_runtime ? kTraining : kRuntime) {
    SEQBOAT_CHECK(command.count(name) == 0, ErrorKind::kUsage, "{} goes with --mode {}, not with {}", name,
                  on_runtime ? "train or forward" : "decode or prefill", options.mode);
  }
  SEQBOAT_CHECK(on_runtime || options.request.model.empty() || options.request.length == 0, ErrorKind::kUsage,
                "--length: with --model and --mode {} the sequences are those of its data", options.mode);
}

int bench(BenchOptions* options, const Invocation& invocation, Reporter& reporter) {
  train::BenchRequest& request = options->request;
  if (options->mode == "decode" || options->mode == "prefill") {
    RuntimeBenchOptions& runtime = options->runtime;
    runtime.recipe = options->recipe;
    runtime.model = request.model.string();
    runtime.overrides = options->overrides;
    runtime.prefill = options->mode == "prefill";
    runtime.streams = request.batch;
    runtime.length = request.length;
    runtime.steps = request.steps;
    runtime.activation_rate = request.activation_rate;
    runtime.simd = request.simd;
    return bench_runtime(runtime, invocation.common, reporter);
  }
  std::vector<std::string> overrides = options->overrides;
  request.threads = invocation.common.threads;
  if (invocation.common.threads > 0 && request.model.empty()) overrides.push_back(fmt::format("train.threads={}", invocation.common.threads));
  if (request.model.empty()) {
    request.recipe = config::load_recipe(recipe_file(options->recipe), overrides);
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
  CLI::App* command = app->add_subcommand("bench", "times a model: a step of training or a forward beside what this machine allows, or a stream");
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
  command
      ->add_option("--mode", options->mode,
                   "a training step, a forward without gradients, or of the streaming runtime a token at a time or many at once; default train")
      ->check(CLI::IsMember({"train", "forward", "decode", "prefill"}))
      ->type_name("MODE");
  constexpr int64_t kMost = 1'000'000'000;
  command->add_option("--batch,--streams", options->request.batch, "sequences; default: the recipe's, of decode and prefill 1")
      ->check(whole_number(1, kMost))
      ->type_name("B");
  command->add_option("--length", options->request.length, "tokens of each; default: the recipe's")->check(whole_number(1, kMost))->type_name("T");
  command->add_option("--context", options->runtime.context, "decode and prefill: tokens that each stream has seen before; default 1024")
      ->check(whole_number(0, kMost))
      ->type_name("N");
  command->add_option("--type", options->runtime.type, "decode and prefill: numbers that a recipe's random weights are stored in; default float32")
      ->check(CLI::IsMember({"float32", "bf16", "int8"}))
      ->type_name("TYPE");
  add_ring_option(command, &options->runtime.ring);
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
      examples("seqboat bench --recipe bench/listops --mode train --activation-rate 0.4", "seqboat bench --recipe bench/lm --mode decode --json"));
  command->callback([invocation, options, command] {
    if (options->recipe.empty() && options->request.model.empty()) throw CLI::RequiredError("--recipe or --model");
    check_mode(*options, *command);
    invocation->action = [invocation, options](Reporter& reporter) { return bench(options.get(), *invocation, reporter); };
  });
}

}  // namespace seqboat::app
