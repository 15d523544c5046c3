#include "seqboat/data/token_classes.h"

#include <gtest/gtest.h>

#include "seqboat/data/bytes.h"
#include "seqboat/data/listops.h"

namespace seqboat::data {
namespace {

std::vector<std::string> classes_of(const std::string& text) {
  std::vector<std::string> out;
  for (const char byte : text) out.push_back(byte_class_labels().at(byte_class(token_of_byte(static_cast<uint8_t>(byte)))));
  return out;
}

TEST(TokenClasses, OfBytes) {
  EXPECT_EQ(classes_of("aZ7 \t\n\r.~\x01\x7f"), (std::vector<std::string>{"letter", "letter", "digit", "space", "space", "newline", "newline",
                                                                          "punctuation", "punctuation", "control", "control"}));
  EXPECT_EQ(classes_of("\xe2\x82\xac\xc0\xf5\xff"),
            (std::vector<std::string>{"utf8-lead", "utf8-continuation", "utf8-continuation", "other", "other", "other"}));
  for (const int64_t token : {int64_t{kEosToken}, int64_t{-1}, kByteVocabSize}) EXPECT_EQ(byte_class_labels()[byte_class(token)], "other");
}

TEST(TokenClasses, OfListops) {
  const std::vector<int32_t> expression = tokenize_listops("[MAX 2 [SM 9 8 ] [MIN 0 ] [MED 1 ] ]");
  std::vector<int64_t> tokens{kListopsCls};
  tokens.insert(tokens.end(), expression.begin(), expression.end());
  std::vector<std::string> classes, depths;
  std::vector<uint8_t> numbers(tokens.size());
  listops_depths(tokens, numbers.data());
  for (size_t i = 0; i < tokens.size(); ++i) {
    classes.push_back(listops_class_labels().at(listops_class(tokens[i])));
    depths.push_back(listops_depth_labels().at(numbers[i]));
  }
  EXPECT_EQ(classes, (std::vector<std::string>{"special", "max", "digit", "sm", "digit", "digit", "close", "min", "digit", "close", "med", "digit",
                                               "close", "close"}));
  EXPECT_EQ(depths, (std::vector<std::string>{"0", "1", "2", "2", "3", "3", "2", "2", "3", "2", "2", "3", "2", "1"}));
  EXPECT_EQ(listops_class_labels()[listops_class(1000)], "special");
}

TEST(TokenClasses, DepthsOfWhatIsNoExpression) {
  std::vector<int64_t> tokens(40, kListopsMax);
  for (const int64_t more : {kListopsClose, kListopsClose}) tokens.push_back(more);
  std::vector<uint8_t> depths(tokens.size());
  listops_depths(tokens, depths.data());
  EXPECT_EQ(listops_depth_labels().at(depths[18]), "19");
  EXPECT_EQ(listops_depth_labels().at(depths[19]), "20+");
  EXPECT_EQ(listops_depth_labels().at(depths.back()), "20+");
  const std::vector<int64_t> closed{kListopsClose, kListopsClose, kListopsDigit0};
  listops_depths(closed, depths.data());
  EXPECT_EQ(depths[1], 0);
  EXPECT_EQ(depths[2], 1);
}

}  // namespace
}  // namespace seqboat::data
