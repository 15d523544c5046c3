#pragma once

#include <functional>
#include <string>
#include <vector>

#include "seqboat/base/error.h"
#include "seqboat/config/keys.h"

namespace seqboat::config {

/// How a check speaks: where a key was set, and by which name the user knows it.
struct CheckContext {
  std::function<std::string(const Key&)> where;
  ErrorKind kind = ErrorKind::kConfig;
  bool json_names = false;                           ///< config.json's names, not the recipe's
  std::function<bool(const Key&)> is_set = nullptr;  ///< whether a key was given; without it all were

  std::string name(const Key& key) const { return json_names ? std::string(key.json_name) : key.path(); }
  /// The value as it stands, and that nobody set it where that is so.
  std::string found(const Key& key, const Recipe& recipe) const;
};

/// The key with this C++ field.
const Key& key_of_field(std::string_view field);

/// Every bound and word of the model's keys, and what they must be together.
void check_model(const Recipe& recipe, const CheckContext& context);

/// The same of the whole recipe.
void check_recipe(const Recipe& recipe, const CheckContext& context);

/// ", did you mean X?" or "".
std::string suggestion(std::string_view word, const std::vector<std::string>& words);

}  // namespace seqboat::config
