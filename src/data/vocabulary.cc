#include "seqboat/data/vocabulary.h"

#include "seqboat/data/bytes.h"
#include "seqboat/data/imdb.h"
#include "seqboat/data/listops.h"
#include "seqboat/data/pairs.h"
#include "seqboat/data/recall.h"

namespace seqboat::data {

int64_t vocab_size_of(std::string_view name) {
  if (name == "bytes") return kByteVocabSize;
  if (name == "imdb") return kImdbVocabSize;
  if (name == "pairs") return kPairsVocabSize;
  if (is_recall_form(name)) return kRecallVocabSize;
  return kListopsVocabSize;
}

}  // namespace seqboat::data
