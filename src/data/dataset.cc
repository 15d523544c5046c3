#include "seqboat/data/dataset.h"

#include "seqboat/base/error.h"
#include "seqboat/base/text.h"

namespace seqboat::data {

const char* split_name(Split split) {
  switch (split) {
    case Split::kTrain:
      return "train";
    case Split::kValid:
      return "val";
    case Split::kTest:
      return "test";
  }
  return "?";
}

Split parse_split(std::string_view name) {
  if (name == "train") return Split::kTrain;
  if (name == "val" || name == "valid" || name == "validation") return Split::kValid;
  if (name == "test") return Split::kTest;
  fail(ErrorKind::kUsage, "split: expected train, val or test, found {}", in_quotes(name));
}

void SequenceDataset::append(std::span<const int32_t> sequence_tokens, int64_t label) {
  tokens.insert(tokens.end(), sequence_tokens.begin(), sequence_tokens.end());
  offsets.push_back(static_cast<int64_t>(tokens.size()));
  labels.push_back(label);
}

void SequenceDataset::prepend(int32_t token) {
  // In place from the back: sequence i moves up by i + 1.
  const int64_t n = size();
  tokens.resize(tokens.size() + static_cast<size_t>(n));
  for (int64_t i = n - 1; i >= 0; --i) {
    for (int64_t t = offsets[i + 1] - 1; t >= offsets[i]; --t) tokens[t + i + 1] = tokens[t];
    tokens[offsets[i] + i] = token;
  }
  for (int64_t i = 0; i <= n; ++i) offsets[i] += i;
}

}  // namespace seqboat::data
