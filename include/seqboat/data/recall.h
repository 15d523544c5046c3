#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seqboat/data/dataset.h"

/// Recall over distance, generated: pairs of a key and a value lie among filler, and where a key comes again its value is asked for. The filler tells
/// nothing, so whoever answers has kept the pairs, or looks back at them.
///
///   mqar      K V K V K V . . . . K . . K . . . K .      all pairs first; then, anywhere in the rest, every key once more, in another order
///   needle    . . K V . . . K V . . . . . . K V . K K K    the pairs anywhere; at the end every key once more, in another order
///
/// "Multi-query associative recall" is after Arora et al., Zoology (arXiv 2312.04927); their queries lie by a power law, ours evenly.
namespace seqboat::data {

/// Raised when the same options give other sequences.
inline constexpr int kRecallGeneratorVersion = 1;

inline constexpr int64_t kRecallFillers = 16;
inline constexpr int64_t kRecallKeys = 64;
inline constexpr int64_t kRecallValues = 64;
/// Tokens, after the specials that every vocabulary begins with: fillers, keys, values.
inline constexpr int32_t kRecallFirstKey = kFirstFreeToken + kRecallFillers;
inline constexpr int32_t kRecallFirstValue = kRecallFirstKey + kRecallKeys;
inline constexpr int64_t kRecallVocabSize = kRecallFirstValue + kRecallValues;

enum class RecallForm { kNeedle, kMqar };

const char* recall_form_name(RecallForm form);        ///< "needle", "mqar"
RecallForm parse_recall_form(std::string_view name);  ///< Error (kConfig) for anything else
bool is_recall_form(std::string_view name);           ///< whether parse_recall_form() takes it
constexpr int64_t shortest_recall(int64_t pairs) {    ///< tokens of the shortest sequence with so many pairs
  return 3 * pairs;
}

struct RecallOptions {
  RecallForm form = RecallForm::kMqar;
  int64_t pairs = 16;     ///< 1 .. kRecallKeys, with a different key each
  int64_t length = 1024;  ///< tokens of a sequence to validate or test on, and of the longest to train on
  /// Training sequences have from no filler to as much as makes `length`, as many between n and 2n of it as between 2n and 4n; else all have
  /// `length`.
  bool vary_length = false;
  uint64_t seed = 0;
};

/// What is asked at a token, and the answer.
struct RecallQuestion {
  int64_t position = 0;
  int32_t answer = 0;  ///< a value's token
  friend bool operator==(const RecallQuestion&, const RecallQuestion&) = default;
};

struct RecallExample {
  std::vector<int32_t> tokens;
  std::vector<RecallQuestion> questions;  ///< by position
};

/// Example `index` of a split follows from options, split and index alone.
class RecallGenerator {
 public:
  /// Error (kConfig) for options that make no sequence.
  explicit RecallGenerator(const RecallOptions& options);
  const RecallOptions& options() const { return options_; }
  int64_t length(Split split, int64_t index) const;
  RecallExample make(Split split, int64_t index) const;

 private:
  RecallOptions options_;
};

/// What a classification of the tokens tells apart: label names, and the label of a token.
std::vector<std::string> recall_class_labels();
uint8_t recall_class(int64_t token);

}  // namespace seqboat::data
