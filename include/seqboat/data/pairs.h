#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "seqboat/base/file_io.h"
#include "seqboat/data/bytes.h"
#include "seqboat/data/dataset.h"

/// Pairs of documents, related or not, by their bytes: retrieval of the Long Range Arena (whether one paper of the ACL Anthology Network cites the
/// other), or any text whose stretches are paired.
namespace seqboat::data {

/// Byte b is token kFirstFreeToken + b (bytes.h); <CLS> is the last entry.
inline constexpr int32_t kPairsCls = static_cast<int32_t>(kByteVocabSize);
inline constexpr int32_t kPairsVocabSize = kPairsCls + 1;
inline constexpr int kPairsClasses = 2;  ///< 0 = unrelated, 1 = related

struct DocumentPair {
  std::span<const uint8_t> first, second;  ///< at least one byte each
  int64_t label = 0;
};

/// Pairs whose bytes lie in mapped files; copies share them.
class PairDataset {
 public:
  int64_t size() const { return static_cast<int64_t>(pairs_.size()); }
  const DocumentPair& pair(int64_t i) const { return pairs_[static_cast<size_t>(i)]; }

 private:
  friend PairDataset read_pair_file(const std::filesystem::path& path, int64_t max_length);
  std::vector<DocumentPair> pairs_;
  std::vector<MappedFile> owners_;
};

/// Reads a table of pairs, one a line, LF or CRLF, in one of two forms:
///
///   label<TAB>id<TAB>id<TAB>text<TAB>text      as the arena's release has them: label 0 or 1, also 0.0 or 1.0; no line of names
///   label<TAB>off1<TAB>off2                    after a first line with just these words: two stretches of `stretch` = 4,000 bytes at these offsets
///   of the
///                                              text beside the table that holds the same split (byte_file() of bytes.h)
///
/// Documents are cut after max_length bytes (>= 1). Error (kData) with file, line, expected and found: missing, packed (.xz, .gz: with the command
/// that unpacks it), empty, number of columns, a label, an offset beyond the text, a document without bytes.
PairDataset read_pair_file(const std::filesystem::path& path, int64_t max_length);

/// The table of a split in a folder, in the first of these forms that is there; empty if none. A file is every split.
///   new_aan_pairs.{train,eval,test}.tsv, also in tsv_data/ and lra_release/lra_release/tsv_data/
///   match_{train,valid,test}.tsv
std::filesystem::path find_pairs(const std::filesystem::path& where, Split split);

/// A split. Errors of read_pair_file, and (kData) that names what was looked for and how to come by it.
PairDataset read_pairs(const std::filesystem::path& where, Split split, int64_t max_length);

}  // namespace seqboat::data
