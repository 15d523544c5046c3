#include "seqboat/data/bytes.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <string_view>

#include "seqboat/base/error.h"

namespace seqboat::data {

namespace {

namespace fs = std::filesystem;

MappedFile open_bytes(const fs::path& path) {
  std::error_code error;
  SEQBOAT_CHECK(fs::is_regular_file(path, error), ErrorKind::kData, "{}: expected a file of bytes, found something else", path.string());
  MappedFile file = MappedFile::open(path);
  SEQBOAT_CHECK(file.size() > 0, ErrorKind::kData, "{}: expected at least one byte, found an empty file", path.string());
  return file;
}

std::span<const uint8_t> bytes_of(const MappedFile& file) {
  return {reinterpret_cast<const uint8_t*>(file.data()), file.size()};
}

/// Whether one of the words stands in a name with no letter beside it.
bool has_word(const std::string& name, std::span<const std::string_view> words) {
  const auto is_letter = [&](size_t i) { return i < name.size() && std::isalpha(static_cast<unsigned char>(name[i])) != 0; };
  for (const std::string_view word : words) {
    for (size_t at = name.find(word); at != std::string::npos; at = name.find(word, at + 1)) {
      if ((at == 0 || !is_letter(at - 1)) && !is_letter(at + word.size())) return true;
    }
  }
  return false;
}

}  // namespace

fs::path byte_file(const fs::path& folder, Split split) {
  static constexpr std::string_view kWords[3][2] = {{"train", "training"}, {"valid", "val"}, {"test", "testing"}};
  const auto& words = kWords[static_cast<size_t>(split)];
  std::vector<std::string> found, packed;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string(), extension = entry.path().extension().string();
    const bool is_table = extension == ".tsv" || extension == ".csv" || extension == ".json";
    if (!entry.is_regular_file(error) || is_table || name.front() == '.' || !has_word(name, words)) continue;
    const bool is_packed = extension == ".xz" || extension == ".gz" || extension == ".bz2" || extension == ".zst";
    (is_packed ? packed : found).push_back(name);
  }
  std::sort(found.begin(), found.end());
  const char* word = words[0].data();
  SEQBOAT_CHECK(!found.empty() || packed.empty(), ErrorKind::kData, "{}: its {} file, {}, is packed: unpack it first (`xz -dk` or `gunzip -k`)",
                folder.string(), word, packed.empty() ? "" : packed.front());
  SEQBOAT_CHECK(!found.empty(), ErrorKind::kData,
                "{}: expected a file for each of train, valid and test, with that word in its name, as in wiki_{}.txt; found none for {}",
                folder.string(), word, word);
  SEQBOAT_CHECK(found.size() == 1, ErrorKind::kData, "{}: expected one file with \"{}\" in its name, found {} and {}", folder.string(), word,
                found[0], found[1]);
  return folder / found[0];
}

ByteText ByteText::open(const fs::path& path, double valid_share, double test_share) {
  SEQBOAT_CHECK(valid_share >= 0 && test_share >= 0 && valid_share + test_share <= 1, ErrorKind::kConfig,
                "shares of validation and test: expected numbers from 0 on that add up to at most 1, found {} and {}", valid_share, test_share);
  std::error_code error;
  SEQBOAT_CHECK(fs::exists(path, error), ErrorKind::kData, "{}: no such file", path.string());
  ByteText out;
  if (fs::is_directory(path, error)) {
    out.is_folder_ = true;
    for (const Split split : {Split::kTrain, Split::kValid, Split::kTest}) {
      out.files_.push_back(open_bytes(byte_file(path, split)));
      out.parts_[static_cast<size_t>(split)] = bytes_of(out.files_.back());
    }
    return out;
  }
  out.files_.push_back(open_bytes(path));
  const std::span<const uint8_t> all = bytes_of(out.files_.back());
  const auto size = static_cast<double>(all.size());
  const auto test = static_cast<size_t>(std::floor(size * test_share));
  const size_t valid = std::min(static_cast<size_t>(std::floor(size * valid_share)), all.size() - test), train = all.size() - valid - test;
  out.parts_ = {all.first(train), all.subspan(train, valid), all.last(test)};
  return out;
}

int64_t ByteText::size() const {
  int64_t bytes = 0;
  for (const auto& part : parts_) bytes += static_cast<int64_t>(part.size());
  return bytes;
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
