#include "seqboat/base/crc32c.h"

#include <gtest/gtest.h>

#include <string>

namespace seqboat {
namespace {

// RFC 3720, appendix B.4.
TEST(Crc32c, GivesTheNumbersOfTheStandard) {
  std::string rising, falling;
  for (int i = 0; i < 32; ++i) {
    rising += static_cast<char>(i);
    falling += static_cast<char>(31 - i);
  }
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  EXPECT_EQ(crc32c(rising), 0x46DD794Eu);
  EXPECT_EQ(crc32c(falling), 0x113FDB5Cu);
  constexpr char kReadCommand[] =
      "\x01\xc0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x14\0\0\0\0\0\x04\0\0\0\0\x14\0\0\0\x18\x28\0\0\0\0\0\0\0\x02\0\0\0\0\0\0";  // and the literal's own zero
  static_assert(sizeof(kReadCommand) == 48);
  EXPECT_EQ(crc32c({kReadCommand, sizeof(kReadCommand)}), 0xD9963A56u);
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(""), 0u);
}

}  // namespace
}  // namespace seqboat
