#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "seqboat/base/file_io.h"
#include "seqboat/data/dataset.h"

/// Any file as a text of bytes, for language models.
namespace seqboat::data {

/// Byte b is token kFirstFreeToken + b, after the specials that every vocabulary begins with.
inline constexpr int64_t kByteVocabSize = kFirstFreeToken + 256;
constexpr int64_t token_of_byte(uint8_t byte) {
  return kFirstFreeToken + byte;
}

/// A text of bytes, memory-mapped, in three parts: train, valid, test. A folder has a file for each (byte_file()); of one file the held-out tail is
/// the last two.
///
///   | train                                   | valid            | test            |      test: floor(size * test_share) bytes,
///   0                                         size - v - t       size - t          size  valid: floor(size * valid_share) before them
class ByteText {
 public:
  /// Shares in [0, 1], together at most 1; they are those of a single file. Error (kData) naming the path for a file that is missing, no regular
  /// file, or empty, and for a folder without a file for each part.
  static ByteText open(const std::filesystem::path& path, double valid_share, double test_share);
  std::span<const uint8_t> part(Split split) const { return parts_[static_cast<size_t>(split)]; }
  int64_t size() const;                          ///< of all parts
  bool is_folder() const { return is_folder_; }  ///< whether the parts are files of their own

 private:
  std::vector<MappedFile> files_;
  std::array<std::span<const uint8_t>, 3> parts_;
  bool is_folder_ = false;
};

/// The file of a folder that holds a split of a text: the one regular file in whose name "train", "valid" (or "val"), "test" stands as a word of its
/// own, as in wiki100_train.txt or test.bin; tables (.tsv, .csv, .json) beside it are none. Error (kData) naming the folder if there is none or more
/// than one.
std::filesystem::path byte_file(const std::filesystem::path& folder, Split split);

/// How a part is cut into blocks to predict. Block i scores the bytes [i block, (i+1) block), the last one what is left, and is shown up to `context`
/// bytes before them. A model reads each byte's predecessor, so it reads one byte further back than it scores; before the very first byte stands
/// </s>.
///
///   bytes        a b c d e f g h i j        block 4, context 2
///   block 1          . . e f g h            scored e f g h; shown c d; reads (b) c d e f g
class ByteBlocks {
 public:
  /// block > 0, context >= 0. whole_only leaves out a last block that is not whole.
  ByteBlocks(std::span<const uint8_t> part, int64_t block, int64_t context, bool whole_only = false);

  int64_t size() const { return static_cast<int64_t>(offsets_.size()) - 1; }
  /// (size() + 1) offsets of the lengths that a model reads: context and block.
  std::span<const int64_t> offsets() const { return offsets_; }
  int64_t context(int64_t i) const;  ///< bytes shown before block i

  /// Appends what the model reads and what it is to say, as tokens; a target that is not scored (the context's) is -1.
  void append(int64_t i, std::vector<int64_t>* source, std::vector<int64_t>* target) const;

 private:
  std::span<const uint8_t> part_;
  int64_t block_, context_;
  std::vector<int64_t> offsets_{0};
};

}  // namespace seqboat::data
