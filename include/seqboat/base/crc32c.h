#pragma once

#include <cstdint>
#include <string_view>

namespace seqboat {

/// CRC-32C (Castagnoli) as in RFC 3720: reflected, polynomial 0x1EDC6F41, first value and last exclusive-or all ones. A table, a byte at a time: for
/// records of a log, not for gigabytes.
uint32_t crc32c(std::string_view bytes) noexcept;

}  // namespace seqboat
