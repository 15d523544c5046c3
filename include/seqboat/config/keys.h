#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "seqboat/config/recipe.h"

namespace seqboat::config {

/// A field of a Recipe, told by its type.
using FieldRef = std::variant<bool*, int64_t*, double*, std::string*, std::array<double, 2>*, std::vector<double>*>;
using ConstFieldRef =
    std::variant<const bool*, const int64_t*, const double*, const std::string*, const std::array<double, 2>*, const std::vector<double>*>;

/// What a key takes.
struct Limits {
  std::vector<std::string_view> words = {};               ///< strings: what is allowed; empty = anything
  double min = -std::numeric_limits<double>::infinity();  ///< numbers: the smallest
  double max = std::numeric_limits<double>::infinity();   ///< numbers: the largest
  bool open_min = false;                                  ///< numbers: the smallest itself is not allowed
  bool open_max = false;                                  ///< numbers: the largest itself is not allowed
};

/// One key of a recipe. Reading, printing, checking, config.json and docs/CONFIG.md all go by the one list of these, keys().
struct Key {
  const char* section;       ///< "model"
  const char* name;          ///< "d_model"
  const char* field;         ///< "model.d_model": the C++ field, from Recipe on
  FieldRef (*ref)(Recipe&);  ///< the field itself
  Limits limits;
  const char* json_name;  ///< its name in config.json; "" where it is not part of a model
  const char* doc;        ///< one line for docs/CONFIG.md
  const char* official;   ///< the official code's argument; "" = none
  const char* tensor;     ///< the tensors whose presence or shape it decides; "" = none

  std::string path() const { return std::string(section) + "." + name; }
};

/// All keys, sections together, in the order in which they are printed.
const std::vector<Key>& keys();

/// Sections in their order.
const std::vector<std::string>& sections();

ConstFieldRef field(const Key& key, const Recipe& recipe);

/// The word of the list that was probably meant, by edit distance (a swap of neighbours counts once); "" if none is near.
std::string nearest(std::string_view word, const std::vector<std::string>& words);

/// docs/CONFIG.md's tables of keys, one for each section, as Markdown.
std::string keys_markdown();

}  // namespace seqboat::config
