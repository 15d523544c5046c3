#include "seqboat/base/text.h"

#include <gtest/gtest.h>

namespace seqboat {
namespace {

TEST(InQuotes, StaysOneShortAsciiLine) {
  EXPECT_EQ(in_quotes(""), "''");
  EXPECT_EQ(in_quotes("plain text"), "'plain text'");
  EXPECT_EQ(in_quotes("a\nb\xc3\xa9"), "'a\\x0ab\\xc3\\xa9'");
  EXPECT_EQ(in_quotes("abcdef", 3), "'abc...' (6 bytes)");
  EXPECT_EQ(in_quotes("abc", 3), "'abc'");
}

}  // namespace
}  // namespace seqboat
