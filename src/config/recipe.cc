#include "seqboat/config/recipe.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "config/check.h"
#include "config/values.h"
#include "seqboat/base/file_io.h"

namespace seqboat::config {
namespace {

const Key* find_key(std::string_view section, std::string_view name) {
  for (const Key& key : keys()) {
    if (section == key.section && name == key.name) return &key;
  }
  return nullptr;
}

// What was probably meant by an unknown key: the same name in another section before a similar one, this section before others.
std::string key_suggestion(const std::string& section, const std::string& name) {
  std::vector<std::string> here;
  std::vector<std::string> all;
  for (const Key& key : keys()) {
    if (name == key.name) return fmt::format(", did you mean {}?", key.path());
    if (section == key.section) here.emplace_back(key.name);
    all.push_back(key.path());
  }
  const std::string near = nearest(name, here);
  if (!near.empty()) return fmt::format(", did you mean {}.{}?", section, near);
  return suggestion(section + "." + name, all);
}

const Key& known_key(const std::string& section, const std::string& name, const std::string& where) {
  const bool known_section = std::find(sections().begin(), sections().end(), section) != sections().end();
  SEQBOAT_CHECK(known_section, ErrorKind::kConfig, "{}: unknown section [{}]{} The sections are {}", where, section,
                nearest(section, sections()).empty() ? "." : suggestion(section, sections()), fmt::join(sections(), ", "));
  const Key* key = find_key(section, name);
  SEQBOAT_CHECK(key != nullptr, ErrorKind::kConfig, "{}: unknown key {}.{}{}", where, section, name, key_suggestion(section, name));
  return *key;
}

std::string node_text(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return fmt::format("an array of {}", node.as_array()->size());
    case toml::node_type::string:
      return fmt::format("a string, {}", toml_string(node.as_string()->get()));
    case toml::node_type::integer:
      return fmt::format("an integer, {}", node.as_integer()->get());
    case toml::node_type::floating_point:
      return fmt::format("a number with a fraction, {}", double_text(node.as_floating_point()->get()));
    case toml::node_type::boolean:
      return node.as_boolean()->get() ? "true" : "false";
    default:
      return "a date or time";
  }
}

// Numbers may be written without a fraction.
bool as_double(const toml::node& node, double* value) {
  if (const auto* number = node.as_floating_point()) {
    *value = number->get();
    return true;
  }
  if (const auto* integer = node.as_integer()) {
    *value = static_cast<double>(integer->get());
    return true;
  }
  return false;
}

void assign(const Key& key, const toml::node& node, const std::string& where, Recipe* recipe) {
  struct Assign {
    const toml::node& node;
    bool operator()(bool* field) const { return node.is_boolean() && ((*field = node.as_boolean()->get()), true); }
    bool operator()(int64_t* field) const { return node.is_integer() && ((*field = node.as_integer()->get()), true); }
    bool operator()(double* field) const { return as_double(node, field); }
    bool operator()(std::string* field) const { return node.is_string() && ((*field = node.as_string()->get()), true); }
    bool operator()(std::vector<double>* field) const {
      const auto* array = node.as_array();
      if (array == nullptr) return false;
      field->assign(array->size(), 0.0);
      for (size_t i = 0; i < array->size(); ++i) {
        if (!as_double((*array)[i], &(*field)[i])) return false;
      }
      return true;
    }
    bool operator()(std::array<double, 2>* field) const {
      const auto* array = node.as_array();
      return array != nullptr && array->size() == 2 && as_double((*array)[0], &(*field)[0]) && as_double((*array)[1], &(*field)[1]);
    }
  };
  SEQBOAT_CHECK(std::visit(Assign{node}, key.ref(*recipe)), ErrorKind::kConfig, "{}: {} must be {}, found {}", where, key.path(), type_text(key),
                node_text(node));
}

toml::table parse(std::string_view text, const std::string& where) {
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    fail(ErrorKind::kConfig, "{}:{}:{}: {}", where, error.source().begin.line, error.source().begin.column, error.description());
  }
}

// The places at which keys were set, for messages.
using Places = std::map<const Key*, std::string>;

void apply_table(const toml::table& table, const std::string& where, Recipe* recipe, Places* places) {
  const auto place = [&](uint32_t line) { return fmt::format("{}:{}", where, line); };
  // By line, so that the first fault of the file is the one that is named.
  struct Item {
    uint32_t line;
    std::string section;
    std::string name;
    const toml::node* node;
  };
  std::vector<Item> items;
  for (const auto& [section, node] : table) {
    const uint32_t line = section.source().begin.line;
    const toml::table* inner = node.as_table();
    if (inner == nullptr) {
      items.push_back({line, std::string(section.str()), "", &node});
      continue;
    }
    if (inner->empty()) items.push_back({line, std::string(section.str()), "", nullptr});
    for (const auto& [name, value] : *inner) items.push_back({name.source().begin.line, std::string(section.str()), std::string(name.str()), &value});
  }
  std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.line < b.line; });

  for (const Item& item : items) {
    const std::string here = place(item.line);
    if (item.name.empty()) {
      const bool section_known = std::find(sections().begin(), sections().end(), item.section) != sections().end();
      if (item.node != nullptr) {
        SEQBOAT_CHECK(!section_known, ErrorKind::kConfig, "{}: [{}] must be a section, found {}", here, item.section, node_text(*item.node));
        fail(ErrorKind::kConfig, "{}: key {} stands outside a section{}", here, item.section, key_suggestion("", item.section));
      }
      SEQBOAT_CHECK(section_known, ErrorKind::kConfig, "{}: unknown section [{}]{}", here, item.section, suggestion(item.section, sections()));
      continue;
    }
    const Key& key = known_key(item.section, item.name, here);
    assign(key, *item.node, here, recipe);
    (*places)[&key] = here;
  }
}

void apply_override(const std::string& text, Recipe* recipe, Places* places) {
  std::string where = fmt::format("--set {}", text);
  std::replace_if(
      where.begin(), where.end(), [](unsigned char c) { return c < 0x20; }, '?');  // a message is one line
  const size_t equals = text.find('=');
  const size_t dot = text.find('.');
  SEQBOAT_CHECK(equals != std::string::npos && dot < equals, ErrorKind::kConfig, "{}: expected section.key=value", where);
  const auto trim = [](std::string s) {
    s.erase(0, s.find_first_not_of(" \t"));
    s.erase(s.find_last_not_of(" \t") + 1);
    return s;
  };
  const Key& key = known_key(trim(text.substr(0, dot)), trim(text.substr(dot + 1, equals - dot - 1)), where);
  std::string value = trim(text.substr(equals + 1));
  // Strings need no quotes on a command line.
  const bool is_string = std::holds_alternative<std::string*>(key.ref(*recipe));
  const bool has_quotes = value.size() >= 2 && (value.front() == '"' || value.front() == '\'') && value.back() == value.front();
  if (is_string && !has_quotes) value = toml_string(value);

  toml::table table;
  try {
    table = toml::parse("value = " + value);
  } catch (const toml::parse_error&) {
    fail(ErrorKind::kConfig, "{}: {} must be {}, found {}", where, key.path(), type_text(key), value.empty() ? "nothing" : value);
  }
  SEQBOAT_CHECK(table.size() == 1 && table.contains("value"), ErrorKind::kConfig, "{}: expected one value", where);
  assign(key, *table.get("value"), where, recipe);
  (*places)[&key] = where;
}

}  // namespace

void ModelConfig::validate(const std::string& where) const {
  Recipe recipe;
  recipe.model = *this;
  check_model(recipe, {[&](const Key&) { return where; }});
}

void Recipe::validate(const std::string& where) const {
  check_recipe(*this, {[&](const Key&) { return where; }});
}

Recipe recipe_from_toml(std::string_view text, const std::string& where, const std::vector<std::string>& overrides) {
  Recipe recipe;
  Places places;
  apply_table(parse(text, where), where, &recipe, &places);
  for (const std::string& override_text : overrides) apply_override(override_text, &recipe, &places);
  CheckContext context;
  context.is_set = [&](const Key& key) { return places.count(&key) != 0; };
  context.where = [&](const Key& key) { return context.is_set(key) ? places.at(&key) : where; };
  check_recipe(recipe, context);
  return recipe;
}

Recipe load_recipe(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  SEQBOAT_CHECK(std::filesystem::is_regular_file(path), ErrorKind::kUsage, "{}: no such recipe file", path.string());
  return recipe_from_toml(read_file(path), path.string(), overrides);
}

std::string to_toml(const Recipe& recipe) {
  std::string text;
  for (const std::string& section : sections()) {
    text += fmt::format("{}[{}]\n", text.empty() ? "" : "\n", section);
    for (const Key& key : keys()) {
      if (section == key.section) text += fmt::format("{} = {}\n", key.name, value_text(field(key, recipe)));
    }
  }
  return text;
}

nlohmann::ordered_json to_json(const Recipe& recipe) {
  nlohmann::ordered_json json;
  for (const Key& key : keys()) {
    std::visit([&](auto* value) { json[key.section][key.name] = *value; }, field(key, recipe));
  }
  return json;
}

}  // namespace seqboat::config
