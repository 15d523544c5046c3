#include "seqboat/base/text.h"

#include <fmt/format.h>

#include <algorithm>

namespace seqboat {

std::string in_quotes(std::string_view text, size_t max_bytes) {
  std::string result = "'";
  for (size_t i = 0; i < std::min(text.size(), max_bytes); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x20 || byte >= 0x7f) {
      result += fmt::format("\\x{:02x}", byte);
    } else {
      result += text[i];
    }
  }
  return result + (text.size() > max_bytes ? fmt::format("...' ({} bytes)", text.size()) : "'");
}

}  // namespace seqboat
