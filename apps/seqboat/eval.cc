// seqboat eval MODEL
#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "command.h"
#include "program_path.h"
#include "seqboat/base/error.h"
#include "seqboat/config/run_dir.h"
#include "verbs.h"

namespace seqboat::app {

void add_eval(CLI::App* app, Invocation* invocation) {
  auto request = std::make_shared<train::EvalRequest>();
  CLI::App* command = app->add_subcommand("eval", "evaluates a model: accuracy with its interval, what it activates and how far it looks");
  command->add_option("MODEL", request->model, "a model folder or a run directory")->required();
  command->add_option("--split", request->split, "train, valid or test")->check(CLI::IsMember({"train", "valid", "val", "test"}))->type_name("SPLIT");
  command->add_option("--data", request->data_dir, "folder of the data, or one file")->type_name("PATH");
  command->add_option("--set", request->overrides, "sets a key of the run's recipe; repeatable")
      ->type_name("section.key=value")
      ->allow_extra_args(false);
  auto context = std::make_shared<std::string>();
  command
      ->add_option("--context", *context,
                   "language models: bytes shown before each scored block, or stream: all of them, by carried state; default: as trained")
      ->check(CLI::Validator(
          [](std::string& text) {
            const bool digits = !text.empty() && text.size() < 10 && text.find_first_not_of("0123456789") == std::string::npos;
            return digits || text == "stream" ? std::string() : "expected a whole number from 0 on, or stream, found '" + text + "'";
          },
          ""))
      ->type_name("N|stream");
  command->add_option("--examples", request->examples, "evaluates only the first N")->check(whole_number(1))->type_name("N");
  command->add_option("--force", request->force, "decisions in the place of the model's own, with its own beside them")
      ->check(CLI::IsMember({"none", "all", "random", "inverted"}))
      ->type_name("DECISIONS");
  command->add_flag("--interventions", request->interventions, "the model's own decisions and each of those, in one table")->excludes("--force");
  command->add_option("--seed", request->seed, "of random decisions; default 0")->check(whole_number(0))->type_name("N");
  command->add_flag("--activations", request->activations, "tables of what is activated, by class and position of the tokens; with --weighted-span");
  command->add_flag("--weighted-span", request->weighted_span, "also how far attention looks by its weights, which takes longer");
  command->add_option("--window", request->window, "attention looks at so many activated tokens on a side, instead of the model's own window_size")
      ->check(whole_number(1))
      ->type_name("N");
  command->add_option("--truncation", request->truncation, "the EMA looks back so many steps, instead of the model's own truncation")
      ->check(whole_number(1))
      ->type_name("N");
  command->add_option("--items", request->items, "writes a table of what came of each sequence: item, count, correct, loss")->type_name("FILE");
  add_common_options(command, invocation);
  command->footer(examples("seqboat eval runs/first --activations", "seqboat eval runs/first --interventions --json"));
  command->callback([invocation, request, context] {
    invocation->action = [invocation, request, context](Reporter& reporter) {
      if (*context == "stream") {
        request->context = train::EvalRequest::kStreamContext;
      } else if (!context->empty()) {
        request->context = std::stoll(*context);
      }
      // What can be told without LibTorch is told first.
      config::read_model_config(config::find_model_dir(request->model));
      if (request->split == "val") request->split = "valid";
      request->threads = invocation->common.threads;
      request->stop_signal = &become_cooperative();
      auto* run = reinterpret_cast<decltype(&seqboat_run_eval)>(train_module_function("seqboat_run_eval"));
      return run(request.get(), &reporter);
    };
  });
}

}  // namespace seqboat::app
