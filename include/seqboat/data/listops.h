#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "seqboat/data/dataset.h"

/// ListOps of the Long Range Arena: the value (0..9) of a nested list expression over digits.
///
///   [MAX 2 9 [MIN 4 7 ] 0 ]    = 9
///
/// [MIN and [MAX are what they say; [MED is the median, with an even number of arguments the mean of the two middle ones, rounded down; [SM is the
/// sum modulo 10. Every operator takes at least one argument.
namespace seqboat::data {

/// Token ids: the four specials, then these. <CLS> is the last entry, as the task's reference places it.
inline constexpr int32_t kListopsMin = 4;
inline constexpr int32_t kListopsMax = 5;
inline constexpr int32_t kListopsMed = 6;
inline constexpr int32_t kListopsSum = 7;
inline constexpr int32_t kListopsClose = 8;
inline constexpr int32_t kListopsDigit0 = 9;  ///< digit d has id 9 + d
inline constexpr int32_t kListopsCls = 19;
inline constexpr int32_t kListopsVocabSize = 20;
inline constexpr int kListopsClasses = 10;
inline constexpr int kListopsOperators = 4;  ///< operator number = id - kListopsMin

/// All 20 entries by id.
const std::array<std::string_view, kListopsVocabSize>& listops_vocabulary();

/// Which trees are kept. A node at depth 1 (the root) .. max_depth - 1 is an operator with probability 1/4, one of the four with 2..max_args
/// arguments, all equally likely; else, and always at max_depth, it is a digit. A tree is kept if min_length < length < max_length, both exclusive,
/// where length counts the tokens: digits, and two for each operator.
struct ListopsOptions {
  int64_t min_length = 500;
  int64_t max_length = 2000;
  int64_t max_depth = 10;
  int64_t max_args = 10;

  static ListopsOptions lra() { return {}; }
  static ListopsOptions small() { return {50, 250, 5, 10}; }  ///< listops-short
  friend bool operator==(const ListopsOptions&, const ListopsOptions&) = default;
  /// Error (kConfig) naming the option if no tree can satisfy them.
  void validate() const;
};

/// Sample `index` of a split. A function of its arguments alone, so samples can be made in any order, by any number of threads. Writes the tokens and
/// returns the label. Error (kConfig) if the options are so narrow that no tree turns up in fifty million nodes.
/// Two samples are equal only by chance: with lengths over 50, less than once in 10^30.
int64_t generate_listops(const ListopsOptions& options, uint64_t seed, Split split, int64_t index, std::vector<int32_t>* tokens);

/// Samples [first, first + count).
SequenceDataset generate_listops(const ListopsOptions& options, uint64_t seed, Split split, int64_t first, int64_t count);

/// The value of an expression; a leading <CLS> is passed over. Error (kData) that names the place if it is malformed: an operator without arguments,
/// a bracket too many or too few, more than one expression, none at all, a token that is not of the
/// language, or more than a million operators within each other.
int64_t evaluate_listops(std::span<const int32_t> tokens);

/// Where one comes to know a value on the way through an expression.
struct ListopsStep {
  int64_t position;  ///< of the token, a leading <CLS> counted
  int64_t value;     ///< 0..9
  friend bool operator==(const ListopsStep&, const ListopsStep&) = default;
};
/// The values that a calculation by hand goes through, in the order of the tokens: at an operator and at its bracket the value of the two and what is
/// between, at a digit the value of its operator over the arguments up to here.
///
///   [MAX 2 [SM 9 8 3 ] 1 ]
///     2  2   0 9 7 0 0 2 2          9 = 9, 7 = (9 + 8) mod 10, 0 = (9 + 8 + 3) mod 10;  2 = max(2, 0, 1)
///
/// Error (kData) as evaluate_listops. A bare digit is its own value.
std::vector<ListopsStep> listops_steps(std::span<const int32_t> tokens);

/// Text to tokens, separated by blanks; "(" and ")", which the original files hold, are dropped. Error (kData) naming an unknown word and its place.
/// The expression as such is not looked at.
std::vector<int32_t> tokenize_listops(std::string_view text);

/// Tokens to text. With parentheses it is the original form, a binary tree of pairs: "( ( ( [MAX 2 ) 9 ) ] )"; this needs a well-formed expression
/// (Error, kData). A leading <CLS> is passed over.
std::string listops_text(std::span<const int32_t> tokens, bool parentheses = false);

struct ListopsReadOptions {
  bool check = false;  ///< also compare each label with the evaluator's
};

/// Reads a file with the header Source<TAB>Target and one sample a line, with or without parentheses, line ends LF or CRLF. Error (kData) with file,
/// line, expected and found: file missing or empty, wrong header, no samples, number of columns, unknown word, malformed expression, label not 0..9,
/// with `check` a wrong label.
SequenceDataset read_listops_tsv(const std::filesystem::path& path, const ListopsReadOptions& options = {});

/// Writes such a file, whole or not at all (base/file_io.h).
void write_listops_tsv(const std::filesystem::path& path, const SequenceDataset& dataset, bool parentheses = false);

/// DIR/basic_{train,val,test}.tsv
std::filesystem::path listops_file(const std::filesystem::path& folder, Split split);

/// Reads a split from a folder, or the file itself if `path` is one.
SequenceDataset read_listops(const std::filesystem::path& path, Split split, const ListopsReadOptions& options = {});

}  // namespace seqboat::data
