#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "ui.h"

namespace seqboat::app {

/// What the command line came to: filled by CLI11's callbacks, carried out by main.
struct Invocation {
  CommonOptions common;
  std::vector<std::string> command_line;
  std::function<int(Reporter&)> action;  ///< returns the exit code
};

/// --json, --quiet, --threads: every verb has them.
void add_common_options(CLI::App* command, Invocation* invocation);

/// Checks of options, with messages that name the bounds.
CLI::Validator whole_number(int64_t least, int64_t most = INT64_MAX);
CLI::Validator number(double least, double most);

/// Two runnable lines below the help of a verb.
std::string examples(const std::string& first, const std::string& second);

/// The verbs within a command that are shown; hidden ones are left out.
std::vector<std::string> subcommand_names(const CLI::App* command);

/// The end of a message about an unknown word: ", did you mean X? See `path --help`", or only the last part.
std::string remedy(const std::string& word, const std::vector<std::string>& words, const std::string& path);

/// The help of a command, in lines of at most 100 columns (examples stay whole). `path` is its name in full: "seqboat recipes show".
std::string help_text(const CLI::App* command, const std::string& path);

// One function a verb, each in the file of its name.
void add_train(CLI::App* app, Invocation* invocation);
void add_eval(CLI::App* app, Invocation* invocation);
void add_generate(CLI::App* app, Invocation* invocation);
void add_stream(CLI::App* app, Invocation* invocation);
void add_bench(CLI::App* app, Invocation* invocation);
void add_quantize(CLI::App* app, Invocation* invocation);
void add_inspect(CLI::App* app, Invocation* invocation);
void add_recipes(CLI::App* app, Invocation* invocation);
void add_data(CLI::App* app, Invocation* invocation);
void add_doctor(CLI::App* app, Invocation* invocation);
void add_completion(CLI::App* app, Invocation* invocation);
void add_help(CLI::App* app, Invocation* invocation);
void add_version(CLI::App* app, Invocation* invocation);

}  // namespace seqboat::app
