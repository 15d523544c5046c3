#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "seqboat/data/bytes.h"
#include "seqboat/data/dataset.h"

/// Text classification of the Long Range Arena: whether a film's review is for or against it, from the bytes of its text. The reviews are those of
/// the Large Movie Review Dataset v1.0 (aclImdb): 25,000 to train on and 25,000 to test on, half of each positive.
namespace seqboat::data {

/// Byte b is token kFirstFreeToken + b (bytes.h), after the four specials; <CLS> is the last entry, as the task's reference places it.
inline constexpr int32_t kImdbCls = static_cast<int32_t>(kByteVocabSize);
inline constexpr int32_t kImdbVocabSize = kImdbCls + 1;
inline constexpr int kImdbClasses = 2;  ///< 0 = against, 1 = for

struct ImdbReview {
  int64_t id = 0;      ///< no two of a file have label and id in common
  int64_t label = 0;   ///< 0 or 1
  int64_t rating = 0;  ///< 1 to 10 stars
  std::string text;    ///< bytes, at least one, without tab, CR and LF: each of those became one blank
};

/// Which reviews of the training or of the test data are kept.
enum class ImdbPart {
  kAll,
  kNineTenths,  ///< those that kTenth leaves
  kTenth,       ///< those whose id ends in 9
};

struct ImdbReadOptions {
  int64_t max_length = 4000;  ///< bytes after which a text is cut; >= 1
  bool validate_on_test =
      false;           ///< train on all training reviews and validate on the test's, as the arena does; else a tenth of the former is held out
  bool check = false;  ///< also compare each label with its rating: 1 to 4 stars are against, 7 to 10 for, and no others occur
};

/// DIR/imdb_{train,test}.tsv, the compact form.
std::filesystem::path imdb_file(const std::filesystem::path& folder, bool test);

/// The training or the test data at `where`, of which one form is enough; the first of these that is there:
///   where                    if it is a file: the compact form, whatever it is called
///   where/imdb_train.tsv     the compact form
///   where/train/             the original's folders: {neg,pos}/ID_RATING.txt
///   where/aclImdb/train/
/// Empty if there are none. Writes nothing and unpacks nothing.
std::filesystem::path find_imdb(const std::filesystem::path& where, bool test);

/// The same; where there are none, Error (kData) that says what was looked for and how to come by it (the command, if only a packed form is there).
std::filesystem::path require_imdb(const std::filesystem::path& where, bool test);

/// Reads a file of the compact form, or a folder with neg/ and pos/. The compact form has one review a line, LF or CRLF:
///   label<TAB>id<TAB>rating<TAB>text
/// Both forms of the same data give the same reviews in the same order: by id, and of one id the negative one first. (In the order of the files all
/// negative ones would come first, and any prefix would be of one label.) Text need not be UTF-8. In the folders, names that begin with a dot are
/// passed over.
///
/// Error (kData) with file, line, expected and found: missing, empty, no reviews, number of columns, label, id or rating that is none, a text without
/// bytes, a file's name that is not ID_RATING.txt, a review that comes twice, with `check` a label that its rating contradicts.
std::vector<ImdbReview> read_imdb_reviews(const std::filesystem::path& source, ImdbPart part = ImdbPart::kAll, bool check = false);

/// As tokens: the first max_length bytes of each text.
SequenceDataset imdb_dataset(const std::vector<ImdbReview>& reviews, int64_t max_length);

/// A split of the data at `where`; of a single file all of it, whatever the split. Errors as require_imdb and read_imdb_reviews, and (kData) if the
/// split holds no review.
SequenceDataset read_imdb(const std::filesystem::path& where, Split split, const ImdbReadOptions& options = {});

}  // namespace seqboat::data
