#pragma once

#include <string>

#include "seqboat/config/keys.h"

namespace seqboat::config {

/// A double so that reading gives the same bits, always recognisable as a float: "0.1", "1.0", "1e-08".
std::string double_text(double value);

/// A TOML basic string with its quotes.
std::string toml_string(std::string_view text);

/// A field's value as TOML text.
std::string value_text(ConstFieldRef value);

/// "an integer", "a string", ...: what the key takes.
std::string type_text(const Key& key);

/// What the key takes, with its bounds or words: "at least 1", "`softmax` or `relu2`". For docs and messages.
std::string allowed_text(const Key& key);

}  // namespace seqboat::config
