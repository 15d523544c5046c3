// The program `seqboat`: parses the command line, carries out the verb, and turns what goes wrong into one line and an exit code (docs/CLI.md).
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <new>

#include "command.h"
#include "seqboat/base/error.h"
#include "seqboat/base/text.h"

namespace seqboat::app {

void add_common_options(CLI::App* command, Invocation* invocation) {
  CommonOptions& common = invocation->common;
  command->add_flag("--json", common.json, "the result as one JSON object on stdout");
  command->add_flag("-q,--quiet", common.quiet, "no progress and no log lines; warnings, errors and results remain");
  command->add_option("--threads", common.threads, "threads to work with; 0 = all cores, as far as they are of use")
      ->check(whole_number(0, 4096))
      ->type_name("N");
}

CLI::Validator whole_number(int64_t least, int64_t most) {
  const auto check = [least, most](std::string& text) -> std::string {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc() && end == text.data() + text.size() && value >= least && value <= most) return "";
    const std::string bounds = most == INT64_MAX ? fmt::format("of at least {}", least) : fmt::format("from {} to {}", least, most);
    return fmt::format("expected a whole number {}, found {}", bounds, in_quotes(text));
  };
  return CLI::Validator(check, "");
}

CLI::Validator number(double least, double most) {
  const auto check = [least, most](std::string& text) -> std::string {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (!text.empty() && end == text.c_str() + text.size() && value >= least && value <= most) return "";
    return fmt::format("expected a number from {} to {}, found {}", least, most, in_quotes(text));
  };
  return CLI::Validator(check, "");
}

std::string examples(const std::string& first, const std::string& second) {
  return "Examples:\n  " + first + "\n  " + second;
}

namespace {

// Long options of a verb, for the nearest one to a misspelt option.
std::vector<std::string> option_names(const CLI::App* command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command->get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back(fmt::format("--{}", name));
  }
  return names;
}

// The verb that the command line chose, and its name in full.
std::pair<const CLI::App*, std::string> chosen_command(const CLI::App& app) {
  const CLI::App* command = &app;
  std::string path = app.get_name();
  while (!command->get_subcommands().empty()) {
    command = command->get_subcommands().front();
    path += " " + command->get_name();
  }
  return {command, path};
}

// CLI11's messages span lines and name no remedy: ours do.
std::string usage_message(const CLI::App& app, const CLI::ParseError& error) {
  const auto [command, path] = chosen_command(app);
  const std::vector<std::string> subcommands = subcommand_names(command);
  for (const std::string& word : app.remaining()) {
    const std::string name = word.substr(0, word.find('='));
    if (name == "--json" || name == "--quiet" || name == "-q" || name == "--threads")
      return fmt::format("{} stands behind the verb: {} VERB {}; see `{} --help`", name, app.get_name(), name, app.get_name());
  }
  for (const std::string& word : command->remaining()) {
    if (word.size() > 1 && word[0] == '-') {
      const std::string name = word.substr(0, word.find('='));
      return fmt::format("unknown option {}{}", in_quotes(word), remedy(name, option_names(command), path));
    }
    if (!subcommands.empty()) return fmt::format("unknown verb '{} {}'{}", path, word, remedy(word, subcommands, path));
    return fmt::format("unexpected argument {}; see `{} --help`", in_quotes(word), path);
  }
  if (!subcommands.empty()) return fmt::format("{}: expected {}; see `{} --help`", path, fmt::join(subcommands, ", "), path);
  std::string message = error.what();
  message = message.substr(0, message.find('\n'));
  return fmt::format("{}; see `{} --help`", message, path);
}

int run(int argc, char** argv) {
  Invocation invocation;
  invocation.command_line.assign(argv, argv + argc);

  CLI::App app("SeqBoat: sequence models that activate attention only where it pays.", "seqboat");
  app.set_version_flag("--version", SEQBOAT_VERSION, "the version");
  app.require_subcommand(0, 1);
  app.footer(examples("seqboat recipes list", "seqboat train lra/listops-short --out runs/first"));
  add_train(&app, &invocation);
  add_eval(&app, &invocation);
  add_generate(&app, &invocation);
  add_stream(&app, &invocation);
  add_bench(&app, &invocation);
  add_quantize(&app, &invocation);
  add_inspect(&app, &invocation);
  add_recipes(&app, &invocation);
  add_data(&app, &invocation);
  add_doctor(&app, &invocation);
  add_completion(&app, &invocation);
  add_help(&app, &invocation);
  add_version(&app, &invocation);

  if (argc > 1 && argv[1][0] != '-') {
    const std::vector<std::string> verbs = subcommand_names(&app);
    const bool known = std::find(verbs.begin(), verbs.end(), argv[1]) != verbs.end();
    SEQBOAT_CHECK(known, ErrorKind::kUsage, "unknown verb {}{}", in_quotes(argv[1]), remedy(argv[1], verbs, "seqboat"));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    const auto [command, path] = chosen_command(app);
    write_stdout(help_text(command, path));
    return 0;
  } catch (const CLI::CallForVersion& version) {
    write_stdout(std::string(version.what()) + "\n");
    return 0;
  } catch (const CLI::ParseError& error) {
    fail(ErrorKind::kUsage, "{}", usage_message(app, error));
  }
  if (!invocation.action) {
    write_stderr(help_text(&app, app.get_name()));
    return exit_code(ErrorKind::kUsage);
  }
  ConsoleReporter reporter(invocation.common);
  return invocation.action(reporter);
}

}  // namespace
}  // namespace seqboat::app

int main(int argc, char** argv) {
  using seqboat::ErrorKind;
  using seqboat::exit_code;
  seqboat::app::prepare_streams();
  seqboat::app::install_signal_handlers();
  try {
    return seqboat::app::run(argc, argv);
  } catch (const seqboat::Error& error) {
    seqboat::app::print_error(error.what());
    return exit_code(error.kind());
  } catch (const std::bad_alloc&) {
    seqboat::app::print_error("out of memory");
    return exit_code(ErrorKind::kResource);
  } catch (const std::exception& error) {
    seqboat::app::print_error(error.what());
    return exit_code(ErrorKind::kFailed);
  }
}
