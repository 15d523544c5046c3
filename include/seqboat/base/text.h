#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace seqboat {

/// Text from outside for a message: in single quotes, on one line, ASCII only (other bytes as \xNN), and cut after max_bytes.
std::string in_quotes(std::string_view text, size_t max_bytes = 100);

}  // namespace seqboat
