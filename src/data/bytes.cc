#include "seqboat/data/bytes.h"

#include <algorithm>
#include <cmath>

#include "seqboat/base/error.h"

namespace seqboat::data {

ByteFile ByteFile::open(const std::filesystem::path& path, double valid_share, double test_share) {
  SEQBOAT_CHECK(valid_share >= 0 && test_share >= 0 && valid_share + test_share <= 1, ErrorKind::kConfig,
                "shares of validation and test: expected numbers from 0 on that add up to at most 1, found {} and {}", valid_share, test_share);
  std::error_code error;
  SEQBOAT_CHECK(std::filesystem::exists(path, error), ErrorKind::kData, "{}: no such file", path.string());
  SEQBOAT_CHECK(std::filesystem::is_regular_file(path, error), ErrorKind::kData, "{}: expected a file of bytes, found a folder or something else",
                path.string());
  ByteFile out;
  out.file_ = MappedFile::open(path);
  SEQBOAT_CHECK(out.file_.size() > 0, ErrorKind::kData, "{}: expected at least one byte, found an empty file", path.string());
  const auto size = static_cast<double>(out.file_.size());
  out.test_ = static_cast<int64_t>(std::floor(size * test_share));
  out.valid_ = std::min(static_cast<int64_t>(std::floor(size * valid_share)), out.size() - out.test_);
  return out;
}

std::span<const uint8_t> ByteFile::part(Split split) const {
  const auto* bytes = reinterpret_cast<const uint8_t*>(file_.data());
  const std::span<const uint8_t> all(bytes, file_.size());
  const auto train = static_cast<size_t>(size() - valid_ - test_), valid = static_cast<size_t>(valid_), test = static_cast<size_t>(test_);
  switch (split) {
    case Split::kTrain:
      return all.first(train);
    case Split::kValid:
      return all.subspan(train, valid);
    case Split::kTest:
      return all.last(test);
  }
  return {};
}

ByteBlocks::ByteBlocks(std::span<const uint8_t> part, int64_t block, int64_t context, bool whole_only)
    : part_(part), block_(block), context_(context) {
  SEQBOAT_DCHECK(block > 0 && context >= 0);
  const auto size = static_cast<int64_t>(part.size());
  for (int64_t begin = 0; begin < size; begin += block) {
    const int64_t scored = std::min(block, size - begin);
    if (whole_only && scored < block) break;
    offsets_.push_back(offsets_.back() + std::min(begin, context) + scored);
  }
}

int64_t ByteBlocks::context(int64_t i) const {
  return std::min(i * block_, context_);
}

void ByteBlocks::append(int64_t i, std::vector<int64_t>* source, std::vector<int64_t>* target) const {
  SEQBOAT_DCHECK(i >= 0 && i < size());
  const int64_t first_scored = i * block_, begin = first_scored - context(i),
                end = begin + offsets_[static_cast<size_t>(i) + 1] - offsets_[static_cast<size_t>(i)];
  for (int64_t t = begin; t < end; ++t) {
    source->push_back(t > 0 ? token_of_byte(part_[static_cast<size_t>(t) - 1]) : int64_t{kEosToken});
    target->push_back(t >= first_scored ? token_of_byte(part_[static_cast<size_t>(t)]) : int64_t{-1});
  }
}

}  // namespace seqboat::data
