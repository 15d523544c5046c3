// seqboat completion bash | zsh | fish: scripts that are made from the command line's own description, so that they cannot drift apart from it.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "command.h"
#include "seqboat/config/keys.h"

namespace seqboat::app {
namespace {

/// What may stand in one place of a command line.
struct Place {
  std::string name;                ///< as the help calls it: "RECIPE|RUN_DIR", "N"
  std::vector<std::string> words;  ///< fixed words
  bool recipes = false;            ///< names of `seqboat recipes list`, and recipe files
  bool folders = false;
  bool files = false;
  bool keys = false;  ///< section.key=value
};

struct Option {
  std::vector<std::string> names;  ///< with their dashes, the long ones first
  std::string what;
  bool takes_value = false;
  bool repeatable = false;
  Place value;
};

struct Command {
  std::string path;  ///< "seqboat data make"
  std::string name;  ///< "make"
  std::string what;
  std::vector<Option> options;
  std::vector<Place> positionals;
  std::vector<Command> inner;
};

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(at, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

// `type` is CLI11's: a word, and behind it the description of a check, which lists the words that it takes: "SPLIT:{train,valid}".
Place make_place(const std::string& name, const std::string& type) {
  Place place;
  place.name = name;
  const size_t open = type.find('{');
  const size_t close = type.find('}');
  if (open != std::string::npos && close != std::string::npos && open < close) place.words = split(type.substr(open + 1, close - open - 1), ',');
  for (const std::string& part : split(name, '|')) {
    place.recipes = place.recipes || part == "RECIPE";
    place.folders = place.folders || part == "DIR" || part == "RUN_DIR" || part == "MODEL";
    place.files = place.files || part == "FILE" || part == "PATH";
    place.keys = place.keys || part == "section.key=value";
  }
  return place;
}

Command describe(const CLI::App* app, const std::string& path) {
  Command command;
  command.path = path;
  command.name = app->get_name();
  command.what = app->get_description();
  for (const CLI::Option* option : app->get_options()) {
    if (option->get_group().empty()) continue;
    const std::string type = option->get_type_name();
    if (!option->nonpositional()) {
      command.positionals.push_back(make_place(option->get_name(), type));
      continue;
    }
    Option described;
    for (const std::string& name : option->get_lnames()) described.names.push_back("--" + name);
    for (const std::string& name : option->get_snames()) described.names.push_back("-" + name);
    described.what = option->get_description();
    described.takes_value = option->get_items_expected_max() > 0;
    described.repeatable = described.takes_value && option->get_items_expected_max() > 1;
    if (described.takes_value) described.value = make_place(type.substr(0, type.find(':')), type);
    command.options.push_back(described);
  }
  for (const CLI::App* inner : app->get_subcommands([](const CLI::App* any) { return !any->get_group().empty(); })) {
    command.inner.push_back(describe(inner, path + " " + inner->get_name()));
  }
  return command;
}

std::vector<std::string> inner_names(const Command& command) {
  std::vector<std::string> names;
  for (const Command& inner : command.inner) names.push_back(inner.name);
  return names;
}

// `help` takes the names of verbs.
void name_verbs(Command* program) {
  const std::vector<std::string> verbs = inner_names(*program);
  for (Command& command : program->inner) {
    for (Place& place : command.positionals) {
      if (place.name == "VERB") place.words = verbs;
    }
  }
}

template <class Visit>
void for_each(const Command& command, const Visit& visit) {
  visit(command);
  for (const Command& inner : command.inner) for_each(inner, visit);
}

// The recipe keys, and the words that a key takes where they are fixed.
struct KeyWords {
  std::string key;
  std::vector<std::string> words;
};
std::vector<KeyWords> key_words() {
  config::Recipe recipe;
  std::vector<KeyWords> list;
  for (const config::Key& key : config::keys()) {
    KeyWords entry{key.path(), {}};
    for (const std::string_view word : key.limits.words) {
      if (!word.empty()) entry.words.emplace_back(word);
    }
    if (std::holds_alternative<bool*>(key.ref(recipe))) entry.words = {"true", "false"};
    list.push_back(entry);
  }
  return list;
}

std::string replaced(std::string text, const std::string& what, const std::string& with) {
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + with.size())) text.replace(at, what.size(), with);
  return text;
}

// A word for bash and zsh, between single quotes.
std::string shell_quoted(const std::string& text) {
  return "'" + replaced(text, "'", "'\\''") + "'";
}

// One for fish, where a backslash counts within single quotes, too.
std::string fish_quoted(const std::string& text) {
  return "'" + replaced(replaced(text, "\\", "\\\\"), "'", "\\'") + "'";
}

std::string joined(const std::vector<std::string>& words) {
  return fmt::format("{}", fmt::join(words, " "));
}

// --- bash

// What bash_body knows how to offer: fixed words, and kinds that begin with @.
std::string bash_place(const Place& place) {
  std::vector<std::string> parts = place.words;
  if (place.recipes) parts.emplace_back("@recipes");
  if (place.keys) parts.emplace_back("@keys");
  if (place.folders && !place.files && !place.recipes) parts.emplace_back("@folders");
  if (place.files || place.recipes) parts.emplace_back("@files");
  return joined(parts);
}

constexpr const char* kBashHead = R"sh(#   for this shell:    source <(seqboat completion bash)
#   for every new one: put that line into ~/.bashrc; or, where the package bash-completion is installed, write the script to
#                      ~/.local/share/bash-completion/completions/seqboat

)sh";

constexpr const char* kBashBody = R"sh(
_seqboat_recipes() {
    local name rest
    REPLY=
    while read -r name rest; do REPLY+=" $name"; done < <("$1" recipes list 2>/dev/null)
}

_seqboat() {
    local IFS=$' \t\n' REPLY= line=$COMP_LINE word path=seqboat wants= count=0 options=1 i prefix= place= key
    local -a words=()
    COMPREPLY=()

    # bash cuts words at "=" and ":" as well: those with no blank between them belong together.
    for word in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        if [[ ${#words[@]} -eq 0 || $line == [[:blank:]]* ]]; then
            words+=("$word")
        else
            words[${#words[@]}-1]+=$word
        fi
        line=${line#"${line%%[![:blank:]]*}"}
        line=${line#"$word"}
    done
    local last=$((${#words[@]} - 1)) program=${words[0]/#\~\//$HOME/}
    local cur=${words[last]}

    # The verb, the verb within it, and how many arguments stand before the cursor.
    for ((i = 1; i < last; i++)); do
        word=${words[i]}
        if [[ -n $wants ]]; then
            wants=
        elif [[ $options == 1 && $word == -- ]]; then
            options=0
        elif [[ $options == 1 && $word == -* ]]; then
            if [[ $word != *=* ]] && _seqboat_value "$path $word"; then wants=$word; fi
        elif ((count == 0)) && _seqboat_verbs "$path" && [[ " $REPLY " == *" $word "* ]]; then
            path+=" $word"
        else
            count=$((count + 1))
        fi
    done

    if [[ -n $wants ]]; then
        _seqboat_value "$path $wants" && place=$REPLY
    elif [[ $options == 1 && $cur == --*=* ]]; then
        prefix=${cur%%=*}=
        _seqboat_value "$path ${cur%%=*}" && place=$REPLY
    elif [[ $options == 1 && $cur == -* ]]; then
        _seqboat_options "$path" && place=$REPLY
    elif ((count == 0)) && _seqboat_verbs "$path"; then
        place=$REPLY
    else
        _seqboat_positional "$path $count" && place=$REPLY
    fi

    local list= files=0 folders=0
    for word in $place; do
        case $word in
            @recipes) _seqboat_recipes "$program"; list+=" $REPLY" ;;
            @keys)
                key=${cur#"$prefix"}
                if [[ $key == *=* ]]; then
                    _seqboat_key_words "${key%%=*}"
                    for word in $REPLY; do list+=" ${key%%=*}=$word"; done
                else
                    _seqboat_keys
                    list+=" $REPLY"
                fi ;;
            @files) files=1 ;;
            @folders) folders=1 ;;
            *) list+=" $word" ;;
        esac
    done
    for word in $list; do
        if [[ $prefix$word == "$cur"* ]]; then COMPREPLY+=("$prefix$word"); fi
    done

    # A key wants its value at once. Files and folders are readline's own business: it knows of quotes and of ~.
    if ((${#COMPREPLY[@]} > 0)) && [[ ${COMPREPLY[0]} == *= ]]; then compopt -o nospace 2>/dev/null; fi
    if ((folders)); then compopt -o dirnames 2>/dev/null; fi
    if ((files && ${#COMPREPLY[@]} == 0)); then compopt -o default 2>/dev/null; fi
    if ((files && ${#COMPREPLY[@]} > 0)); then compopt -o plusdirs 2>/dev/null; fi

    # Only what stands behind the last "=" is replaced where bash cuts words there.
    if [[ $COMP_WORDBREAKS == *=* && $cur == *=* ]]; then
        word=${cur%"${cur##*=}"}
        for i in "${!COMPREPLY[@]}"; do COMPREPLY[i]=${COMPREPLY[i]#"$word"}; done
    fi
    return 0
}
complete -F _seqboat seqboat
)sh";

// A function that puts the words of a table into REPLY, and fails where there are none.
std::string bash_table(const std::string& name, const std::vector<std::pair<std::string, std::string>>& rows) {
  std::string text = name + "() {\n    case $1 in\n";
  for (const auto& [key, words] : rows) text += fmt::format("        {}) REPLY={} ;;\n", shell_quoted(key), shell_quoted(words));
  return text + "        *) REPLY=; return 1 ;;\n    esac\n}\n";
}

std::string bash_script(const Command& program) {
  std::vector<std::pair<std::string, std::string>> verbs, options, values, positionals, keys;
  for_each(program, [&](const Command& command) {
    if (!command.inner.empty()) verbs.emplace_back(command.path, joined(inner_names(command)));
    std::vector<std::string> names;
    for (const Option& option : command.options) {
      for (const std::string& name : option.names) {
        names.push_back(name);
        if (option.takes_value) values.emplace_back(command.path + " " + name, bash_place(option.value));
      }
    }
    options.emplace_back(command.path, joined(names));
    for (size_t i = 0; i < command.positionals.size(); ++i) {
      positionals.emplace_back(fmt::format("{} {}", command.path, i), bash_place(command.positionals[i]));
    }
  });
  std::string all_keys;
  for (const KeyWords& key : key_words()) {
    all_keys += (all_keys.empty() ? "" : " ") + key.key + "=";
    if (!key.words.empty()) keys.emplace_back(key.key, joined(key.words));
  }
  return fmt::format("# Completion of seqboat {} in bash, made by `seqboat completion bash`.\n", SEQBOAT_VERSION) + kBashHead +
         "# Tables: the verbs of a command, its options, what an option takes (@ = a kind), what its arguments are.\n" +
         bash_table("_seqboat_verbs", verbs) + bash_table("_seqboat_options", options) + bash_table("_seqboat_value", values) +
         bash_table("_seqboat_positional", positionals) + bash_table("_seqboat_key_words", keys) +
         "_seqboat_keys() {\n    REPLY=" + shell_quoted(all_keys) + "\n}\n" + kBashBody;
}

// --- zsh

// Text within a specification of _arguments, whose fields end at colons and brackets.
std::string zsh_text(const std::string& text) {
  std::string out;
  for (const char ch : text) {
    if (ch == ':' || ch == '[' || ch == ']' || ch == '\\') out += '\\';
    out += ch;
  }
  return out;
}

std::string zsh_action(const Place& place) {
  if (!place.words.empty()) return "(" + joined(place.words) + ")";
  if (place.recipes) return place.folders ? "_seqboat_recipe_or_run" : "_seqboat_recipe_or_file";
  if (place.keys) return "_seqboat_key";
  if (place.files) return "_files";
  if (place.folders) return "_files -/";
  return " ";
}

std::string zsh_option(const Option& option) {
  const std::string what = "[" + zsh_text(option.what) + "]";
  std::string value;
  if (option.takes_value) value = ":" + zsh_text(option.value.name) + ":" + zsh_action(option.value);
  const std::string begin = option.repeatable ? "'*'" : option.names.size() > 1 ? "'(" + joined(option.names) + ")'" : "";
  std::vector<std::string> names = option.names;
  for (std::string& name : names) {
    if (option.takes_value) name += name.rfind("--", 0) == 0 ? "=" : "+";
  }
  const std::string name = names.size() > 1 ? fmt::format("{{{}}}", fmt::join(names, ",")) : names.front();
  return begin + name + shell_quoted(what + value);
}

std::string zsh_function(const Command& command) {
  return replaced("_" + command.path, " ", "__");
}

constexpr const char* kZshHead = R"sh(#   for this shell, after compinit: source <(seqboat completion zsh)
#   for every new one: seqboat completion zsh > DIR/_seqboat, where DIR is a folder of $fpath that ~/.zshrc names before it calls compinit:
#       fpath=(~/.zsh/completions $fpath); autoload -Uz compinit; compinit

)sh";

constexpr const char* kZshHelpers = R"sh(_seqboat_recipe() {
  local -a lines names
  lines=(${(f)"$(_call_program recipes ${(q)seqboat_program} recipes list 2>/dev/null)"})
  names=(${lines%% *})
  _wanted recipes expl recipe compadd -a names
}
_seqboat_recipe_or_file() {
  _alternative 'recipes:recipe:_seqboat_recipe' 'files:recipe file:_files -g "*.toml(-.)"'
}
_seqboat_recipe_or_run() {
  _alternative 'recipes:recipe:_seqboat_recipe' 'files:recipe file:_files -g "*.toml(-.)"' 'runs:run directory:_files -/'
}
)sh";

constexpr const char* kZshTail = R"sh(
_seqboat() {
  local seqboat_program=${~words[1]}
  __seqboat_complete "$@"
}

# Called by compinit from a file of $fpath, or sourced.
if [[ ${funcstack[1]} == _seqboat ]]; then
  _seqboat "$@"
elif (( $+functions[compdef] )); then
  compdef _seqboat seqboat
fi
)sh";

std::string zsh_script(const Command& program) {
  std::string text = fmt::format("#compdef seqboat\n# Completion of seqboat {} in zsh, made by `seqboat completion zsh`.\n", SEQBOAT_VERSION);
  text += kZshHead;
  text += kZshHelpers;

  // A key, then its value: fixed words where it has them.
  text += "_seqboat_key() {\n  local -a keys=(";
  std::string values;
  for (const KeyWords& key : key_words()) {
    text += "\n    " + shell_quoted(key.key);
    if (!key.words.empty()) values += fmt::format("      {}) names=({}) ;;\n", key.key, joined(key.words));
  }
  text += "\n  )\n  if compset -P 1 '*='; then\n    local -a names\n    case ${${IPREFIX%=}##*=} in\n" + values +
          "    esac\n    _wanted values expl value compadd -a names\n  else\n    _wanted keys expl key compadd -S= -a keys\n  fi\n}\n";

  for_each(program, [&](const Command& command) {
    const std::string name = command.inner.empty() || command.path != program.path ? zsh_function(command) : "__seqboat_complete";
    text += fmt::format("\n{}() {{\n", name);
    const bool nested = !command.inner.empty();
    if (nested) text += "  local context state state_descr line\n  typeset -A opt_args\n";
    text += nested ? "  _arguments -C" : "  _arguments -s -S";
    for (const Option& option : command.options) text += " \\\n    " + zsh_option(option);
    for (size_t i = 0; i < command.positionals.size(); ++i) {
      const Place& place = command.positionals[i];
      text += " \\\n    " + shell_quoted(fmt::format("{}:{}:{}", i + 1, zsh_text(place.name), zsh_action(place)));
    }
    if (!nested) {
      text += "\n}\n";
      return;
    }
    text += " \\\n    '1:verb:->verb' \\\n    '*::argument:->argument' && return\n  case $state in\n    verb)\n      local -a verbs=(\n";
    for (const Command& inner : command.inner) text += "        " + shell_quoted(inner.name + ":" + replaced(inner.what, ":", "\\:")) + "\n";
    text += "      )\n      _describe -t verbs verb verbs ;;\n    argument)\n      case $line[1] in\n";
    for (const Command& inner : command.inner) text += fmt::format("        {}) {} ;;\n", inner.name, zsh_function(inner));
    text += "      esac ;;\n  esac\n}\n";
  });
  return text + kZshTail;
}

// --- fish

constexpr const char* kFishHead = R"sh(#   for this shell:    seqboat completion fish | source
#   for every new one: seqboat completion fish > ~/.config/fish/completions/seqboat.fish

)sh";

constexpr const char* kFishHelpers = R"sh(
# Prints the command before the cursor ("seqboat data make") and the number of its arguments there.
function __seqboat_where
    set -l words (commandline -opc)
    set -l path seqboat
    set -l count 0
    set -l wants 0
    for word in $words[2..-1]
        if test $wants = 1
            set wants 0
        else if string match -q -- '-*' $word
            if contains -- "$path $word" $__seqboat_valued
                set wants 1
            end
        else if test $count = 0; and contains -- "$path $word" $__seqboat_commands
            set path "$path $word"
        else
            set count (math $count + 1)
        end
    end
    echo $path
    echo $count
end

# Whether the cursor stands within that command; with a second argument, at the argument of that number.
function __seqboat_at
    set -l where (__seqboat_where)
    test "$where[1]" = "$argv[1]"; or return 1
    test (count $argv) -lt 2; or test "$where[2]" = "$argv[2]"
end

function __seqboat_recipes
    set -l program (string replace -r '^~/' "$HOME/" -- (commandline -opc)[1])
    $program recipes list 2>/dev/null | string replace -r '^(\S+)\s+' '$1\t'
end

complete -c seqboat -f
)sh";

std::string fish_place(const Place& place) {
  std::string text;
  if (!place.words.empty()) text += " -a " + fish_quoted(joined(place.words));
  if (place.recipes) text += " -a '(__seqboat_recipes)'";
  if (place.keys) text += " -a '$__seqboat_keys'";
  if (place.folders && !place.files && !place.recipes) text += " -a '(__fish_complete_directories)'";
  if (place.files || place.recipes) text += " -F";
  return text;
}

std::string fish_script(const Command& program) {
  std::vector<std::string> commands, valued, keys;
  std::string rules;
  for_each(program, [&](const Command& command) {
    const std::string here = " -n " + fish_quoted("__seqboat_at \"" + command.path + "\"");
    for (const Command& inner : command.inner) {
      commands.push_back(fish_quoted(inner.path));
      rules += fmt::format("complete -c seqboat -n {} -a {} -d {}\n", fish_quoted("__seqboat_at \"" + command.path + "\" 0"), inner.name,
                           fish_quoted(inner.what));
    }
    for (size_t i = 0; i < command.positionals.size(); ++i) {
      const std::string place = fish_place(command.positionals[i]);
      if (!place.empty())
        rules += fmt::format("complete -c seqboat -n {}{}\n", fish_quoted(fmt::format("__seqboat_at \"{}\" {}", command.path, i)), place);
    }
    for (const Option& option : command.options) {
      std::string names;
      for (const std::string& name : option.names) {
        names += name.rfind("--", 0) == 0 ? " -l " + name.substr(2) : " -s " + name.substr(1);
        if (option.takes_value) valued.push_back(fish_quoted(command.path + " " + name));
      }
      const std::string value = option.takes_value ? (option.value.files ? " -r" : " -x") + fish_place(option.value) : "";
      rules += "complete -c seqboat" + here + names + " -d " + fish_quoted(option.what) + value + "\n";
    }
  });
  for (const KeyWords& key : key_words()) {
    if (key.words.empty()) keys.push_back(key.key + "=");
    for (const std::string& word : key.words) keys.push_back(key.key + "=" + word);
  }
  return fmt::format("# Completion of seqboat {} in fish, made by `seqboat completion fish`.\n", SEQBOAT_VERSION) + kFishHead +
         "set -g __seqboat_commands " + joined(commands) + "\nset -g __seqboat_valued " + joined(valued) + "\nset -g __seqboat_keys " + joined(keys) +
         "\n" + kFishHelpers + rules;
}

}  // namespace

void add_completion(CLI::App* app, Invocation* invocation) {
  auto shell = std::make_shared<std::string>();
  CLI::App* command = app->add_subcommand("completion", "prints a script that completes verbs, options and recipes in a shell");
  command->add_option("SHELL", *shell, "whose script; its first lines say how to install it")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  add_common_options(command, invocation);
  command->footer(examples("seqboat completion bash", "seqboat completion fish > ~/.config/fish/completions/seqboat.fish"));
  command->callback([app, invocation, shell] {
    invocation->action = [app, shell](Reporter& reporter) {
      Command program = describe(app, app->get_name());
      name_verbs(&program);
      const std::string script = *shell == "bash" ? bash_script(program) : *shell == "zsh" ? zsh_script(program) : fish_script(program);
      reporter.result({{"shell", *shell}, {"script", script}}, script);
      return 0;
    };
  });
}

}  // namespace seqboat::app
