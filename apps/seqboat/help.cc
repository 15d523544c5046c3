// seqboat help [VERB...], and the text of every --help
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "command.h"
#include "seqboat/base/error.h"
#include "seqboat/base/text.h"
#include "seqboat/config/keys.h"

namespace seqboat::app {
namespace {

constexpr size_t kColumns = 100;
constexpr size_t kIndent = 30;  // where CLI11 puts what an option or a verb does

// Cuts lines at spaces; what is left goes on below the column of the descriptions. Examples stay whole: they are there to be copied.
std::string wrapped(const std::string& text) {
  std::string out;
  bool in_examples = false;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    in_examples = in_examples || line == "Examples:";
    const std::string indent(line.rfind("  ", 0) == 0 ? kIndent : 0, ' ');
    while (!in_examples && line.size() > kColumns) {
      const size_t cut = line.rfind(' ', kColumns);
      if (cut == std::string::npos || cut <= line.find_first_not_of(' ') || cut < indent.size()) break;
      out += line.substr(0, line.find_last_not_of(' ', cut) + 1) + "\n";
      line = indent + line.substr(cut + 1);
    }
    out += line + "\n";
  }
  return out;
}

}  // namespace

std::vector<std::string> subcommand_names(const CLI::App* command) {
  std::vector<std::string> names;
  for (const CLI::App* inner : command->get_subcommands([](const CLI::App* app) { return !app->get_group().empty(); }))
    names.push_back(inner->get_name());
  return names;
}

std::string remedy(const std::string& word, const std::vector<std::string>& words, const std::string& path) {
  const std::string near = config::nearest(word, words);
  return near.empty() ? fmt::format("; see `{} --help`", path) : fmt::format(", did you mean {}? See `{} --help`", near, path);
}

std::string help_text(const CLI::App* command, const std::string& path) {
  // Not command->help(), which turns to the verb that was chosen: within `seqboat help` that is `help` itself.
  return wrapped(command->get_formatter()->make_help(command, path, CLI::AppFormatMode::Normal));
}

void add_help(CLI::App* app, Invocation* invocation) {
  auto words = std::make_shared<std::vector<std::string>>();
  CLI::App* command = app->add_subcommand("help", "what a verb does and takes: the same as VERB --help");
  command->add_option("VERB", *words, "a verb, or a verb and the one within it");
  add_common_options(command, invocation);
  command->footer(examples("seqboat help train", "seqboat help recipes show"));
  command->callback([app, invocation, words] {
    invocation->action = [app, words](Reporter& reporter) {
      const CLI::App* found = app;
      std::string path = app->get_name();
      for (const std::string& word : *words) {
        const auto named = found->get_subcommands([&word](const CLI::App* inner) { return inner->get_name() == word; });
        SEQBOAT_CHECK(!named.empty(), ErrorKind::kUsage, "unknown verb {}{}", in_quotes(path + " " + word),
                      remedy(word, subcommand_names(found), path));
        found = named.front();
        path += " " + word;
      }
      nlohmann::ordered_json json;
      json["verb"] = fmt::format("{}", fmt::join(*words, " "));
      json["text"] = help_text(found, path);
      reporter.result(json, json["text"].get<std::string>());
      return 0;
    };
  });
}

}  // namespace seqboat::app
