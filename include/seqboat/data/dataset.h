#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace seqboat::data {

/// Token ids that every vocabulary begins with: <s>, <pad>, </s>, <unk>. Nothing here is ever padded; <pad> keeps its place for the sake of
/// models trained elsewhere.
inline constexpr int32_t kBosToken = 0;
inline constexpr int32_t kPadToken = 1;
inline constexpr int32_t kEosToken = 2;
inline constexpr int32_t kUnkToken = 3;
inline constexpr int32_t kFirstFreeToken = 4;

enum class Split { kTrain, kValid, kTest };

const char* split_name(Split split);       ///< "train", "val", "test"
Split parse_split(std::string_view name);  ///< also "valid" and "validation"; Error (kUsage) for anything else

/// Labelled sequences, packed: sequence i is tokens[offsets[i]] .. tokens[offsets[i + 1] - 1].
struct SequenceDataset {
  std::vector<int32_t> tokens;
  std::vector<int64_t> offsets = {0};  ///< size() + 1, offsets[0] == 0, non-decreasing
  std::vector<int64_t> labels;         ///< size()

  int64_t size() const { return static_cast<int64_t>(labels.size()); }
  int64_t length(int64_t i) const { return offsets[i + 1] - offsets[i]; }
  std::span<const int32_t> sequence(int64_t i) const { return {tokens.data() + offsets[i], static_cast<size_t>(length(i))}; }

  void append(std::span<const int32_t> sequence_tokens, int64_t label);
  /// Puts a token before every sequence, as pooling by the first token wants it.
  void prepend(int32_t token);
};

}  // namespace seqboat::data
