#include "config/values.h"

#include <fmt/format.h>

#include <cmath>

namespace seqboat::config {

std::string double_text(double value) {
  std::string text = fmt::format("{}", value);
  if (std::isfinite(value) && text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string toml_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\u{:04X}", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string value_text(ConstFieldRef value) {
  struct Print {
    std::string operator()(const bool* v) const { return *v ? "true" : "false"; }
    std::string operator()(const int64_t* v) const { return fmt::format("{}", *v); }
    std::string operator()(const double* v) const { return double_text(*v); }
    std::string operator()(const std::string* v) const { return toml_string(*v); }
    std::string operator()(const std::array<double, 2>* v) const { return fmt::format("[{}, {}]", double_text((*v)[0]), double_text((*v)[1])); }
    std::string operator()(const std::vector<double>* v) const {
      std::string out;
      for (const double number : *v) out += (out.empty() ? "" : ", ") + double_text(number);
      return "[" + out + "]";
    }
  };
  return std::visit(Print{}, value);
}

std::string type_text(const Key& key) {
  static const Recipe recipe;
  static const char* const kNames[] = {"true or false", "an integer", "a number", "a string", "a pair of numbers", "a list of numbers"};
  return kNames[field(key, recipe).index()];
}

std::string allowed_text(const Key& key) {
  if (!key.limits.words.empty()) {
    std::string text;
    for (size_t i = 0; i < key.limits.words.size(); ++i) {
      if (i > 0) text += i + 1 == key.limits.words.size() ? " or " : ", ";
      text += toml_string(key.limits.words[i]);
    }
    return text;
  }
  const auto number = [](double v) {
    return v >= 1e6 ? fmt::format("1e{:.0f}", std::log10(v)) : fmt::format("{}", v);
  };  // large bounds are powers of ten
  if (std::isfinite(key.limits.min) && std::isfinite(key.limits.max)) {
    return fmt::format("{} in {}{}, {}{}", type_text(key), key.limits.open_min ? '(' : '[', number(key.limits.min), number(key.limits.max),
                       key.limits.open_max ? ')' : ']');
  }
  if (std::isfinite(key.limits.min))
    return fmt::format("{} {} {}", type_text(key), key.limits.open_min ? "above" : "of at least", number(key.limits.min));
  return type_text(key);
}

}  // namespace seqboat::config
