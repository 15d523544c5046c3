#include "seqboat/data/token_classes.h"

#include <algorithm>
#include <array>

#include "seqboat/data/bytes.h"
#include "seqboat/data/listops.h"

namespace seqboat::data {
namespace {

enum ListopsClass : uint8_t { kSpecial, kMin, kMax, kMed, kSum, kListopsDigit, kClose };
enum ByteClass : uint8_t { kLetter, kDigit, kSpace, kNewline, kPunctuation, kControl, kUtf8Lead, kUtf8Continuation, kOther };

constexpr int64_t kMostDepth = 20;

ByteClass class_of_byte(int byte) {
  if ((byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z')) return kLetter;
  if (byte >= '0' && byte <= '9') return kDigit;
  if (byte == ' ' || byte == '\t') return kSpace;
  if (byte == '\n' || byte == '\r') return kNewline;
  if (byte < 0x20 || byte == 0x7F) return kControl;
  if (byte < 0x80) return kPunctuation;
  if (byte < 0xC0) return kUtf8Continuation;
  return byte >= 0xC2 && byte <= 0xF4 ? kUtf8Lead : kOther;
}

}  // namespace

const std::vector<std::string>& listops_class_labels() {
  static const std::vector<std::string> labels{"special", "min", "max", "med", "sm", "digit", "close"};
  return labels;
}

uint8_t listops_class(int64_t token) {
  if (token >= kListopsMin && token <= kListopsSum) return static_cast<uint8_t>(kMin + token - kListopsMin);
  if (token == kListopsClose) return kClose;
  return token >= kListopsDigit0 && token < kListopsDigit0 + 10 ? kListopsDigit : kSpecial;
}

const std::vector<std::string>& listops_depth_labels() {
  static const std::vector<std::string> labels = [] {
    std::vector<std::string> out;
    for (int64_t depth = 0; depth < kMostDepth; ++depth) out.push_back(std::to_string(depth));
    out.push_back(std::to_string(kMostDepth) + "+");
    return out;
  }();
  return labels;
}

void listops_depths(std::span<const int64_t> tokens, uint8_t* depths) {
  int64_t open = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const uint8_t what = listops_class(tokens[i]);
    int64_t depth = 0;
    if (what == kClose) {
      depth = open;
      open = std::max<int64_t>(0, open - 1);
    } else if (what != kSpecial) {
      depth = open + 1;
      open += what == kListopsDigit ? 0 : 1;
    }
    depths[i] = static_cast<uint8_t>(std::min(depth, kMostDepth));
  }
}

const std::vector<std::string>& byte_class_labels() {
  static const std::vector<std::string> labels{"letter", "digit", "space", "newline", "punctuation", "control", "utf8-lead", "utf8-continuation",
                                               "other"};
  return labels;
}

uint8_t byte_class(int64_t token) {
  static const std::array<uint8_t, 256> table = [] {
    std::array<uint8_t, 256> out{};
    for (int byte = 0; byte < 256; ++byte) out[static_cast<size_t>(byte)] = class_of_byte(byte);
    return out;
  }();
  const int64_t byte = token - token_of_byte(0);
  return byte >= 0 && byte < 256 ? table[static_cast<size_t>(byte)] : static_cast<uint8_t>(kOther);
}

}  // namespace seqboat::data
