#pragma once

#include <cstdint>
#include <string_view>

namespace seqboat::data {

/// Tokens of a data set, by its data.name: what model.vocab_size is where a recipe leaves it to the data. ListOps' for a name that has no tokens of
/// its own.
int64_t vocab_size_of(std::string_view name);

}  // namespace seqboat::data
