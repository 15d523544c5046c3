#include "seqboat/data/pairs.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <string_view>

#include "seqboat/base/error.h"
#include "seqboat/base/text.h"

namespace seqboat::data {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kOffsetsHeader = "label\toff1\toff2";
constexpr int64_t kStretch = 4000;  // bytes of a document that is told by its offset

constexpr const char* kSource =
    "Get the Long Range Arena's release (lra_release.gz, named at github.com/google-research/long-range-arena), unpack it, and name its folder with "
    "--data "
    "DIR; or make pairs of your own: docs/RUNS.md has the form";

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

MappedFile open_table(const fs::path& path) {
  const std::string extension = path.extension().string(), where = path.string();
  SEQBOAT_CHECK(extension != ".xz" && extension != ".gz", ErrorKind::kData, "{}: expected the unpacked file: run {} {}", where,
                extension == ".xz" ? "xz -dk" : "gunzip -k", where);
  SEQBOAT_CHECK(is_there(path), ErrorKind::kData, "{}: no such file", where);
  MappedFile file = MappedFile::open(path);
  SEQBOAT_CHECK(file.size() > 0, ErrorKind::kData, "{}: the file is empty: expected lines of pairs", where);
  return file;
}

std::span<const uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::vector<std::string_view> columns_of(std::string_view line) {
  std::vector<std::string_view> out;
  for (size_t begin = 0; begin <= line.size();) {
    const size_t end = std::min(line.find('\t', begin), line.size());
    out.push_back(line.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

/// The text that a table of offsets tells of: beside it, of the split that the table's own name says.
fs::path text_beside(const fs::path& table) {
  const std::string name = table.filename().string();
  for (const Split split : {Split::kTrain, Split::kValid, Split::kTest}) {
    const std::string word = split == Split::kValid ? "val" : split_name(split);
    if (name.find(word) != std::string::npos) return byte_file(fs::absolute(table).parent_path(), split);
  }
  fail(ErrorKind::kData, "{}: offsets into which text? Expected train, valid or test in the table's name, and a text with the same word beside it",
       table.string());
}

}  // namespace

PairDataset read_pair_file(const fs::path& path, int64_t max_length) {
  SEQBOAT_DCHECK(max_length >= 1);
  PairDataset out;
  out.owners_.push_back(open_table(path));
  const std::string where = path.string();
  std::string_view rest(out.owners_[0].data(), out.owners_[0].size());
  const std::string_view head = rest.substr(0, rest.find_first_of("\r\n"));
  const bool by_offset = head == kOffsetsHeader;
  std::string_view text;
  if (by_offset) {
    out.owners_.push_back(MappedFile::open(text_beside(path)));
    text = {out.owners_[1].data(), out.owners_[1].size()};
  }
  const size_t most = static_cast<size_t>(max_length), expected = by_offset ? 3 : 5;
  const auto stretch_at = [&](std::string_view word, const std::string& place, const char* column) {
    int64_t offset = -1;
    const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), offset);
    const auto last = static_cast<int64_t>(text.size()) - kStretch;
    SEQBOAT_CHECK(error == std::errc() && stop == word.data() + word.size() && offset >= 0 && offset <= last, ErrorKind::kData,
                  "{}: {}: expected an offset from 0 to {}, where {} bytes are left, found {}", place, column, last, kStretch, in_quotes(word, 40));
    return text.substr(static_cast<size_t>(offset), std::min(most, static_cast<size_t>(kStretch)));
  };
  for (int64_t line_number = 1; !rest.empty(); ++line_number) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (by_offset && line_number == 1) continue;
    const std::string place = fmt::format("{}:{}", where, line_number);
    const std::vector<std::string_view> cells = columns_of(line);
    SEQBOAT_CHECK(cells.size() == expected, ErrorKind::kData, "{}: expected {} columns ({}, a tab between them), found {}", place, expected,
                  by_offset ? "label, off1, off2" : "label, two ids, two texts", cells.size());
    const bool zero = cells[0] == "0" || cells[0] == "0.0", one = cells[0] == "1" || cells[0] == "1.0";
    SEQBOAT_CHECK(zero || one, ErrorKind::kData, "{}: label: expected 0 or 1, found {}", place, in_quotes(cells[0], 40));
    DocumentPair pair{.first = {}, .second = {}, .label = one ? 1 : 0};
    if (by_offset) {
      pair.first = bytes_of(stretch_at(cells[1], place, "off1"));
      pair.second = bytes_of(stretch_at(cells[2], place, "off2"));
    } else {
      SEQBOAT_CHECK(!cells[3].empty() && !cells[4].empty(), ErrorKind::kData, "{}: {} text: expected at least one byte, found none", place,
                    cells[3].empty() ? "first" : "second");
      pair.first = bytes_of(cells[3].substr(0, most));
      pair.second = bytes_of(cells[4].substr(0, most));
    }
    out.pairs_.push_back(pair);
  }
  SEQBOAT_CHECK(!out.pairs_.empty(), ErrorKind::kData, "{}: expected lines of pairs after the first, found none", where);
  return out;
}

namespace {

std::vector<fs::path> candidates(const fs::path& where, Split split) {
  const std::string arena = fmt::format("new_aan_pairs.{}.tsv", split == Split::kValid ? "eval" : split_name(split));
  return {where / arena, where / "tsv_data" / arena, where / "lra_release" / "lra_release" / "tsv_data" / arena,
          where / fmt::format("match_{}.tsv", split == Split::kValid ? "valid" : split_name(split))};
}

}  // namespace

fs::path find_pairs(const fs::path& where, Split split) {
  if (is_there(where)) return where;
  for (const fs::path& path : candidates(where, split)) {
    if (is_there(path)) return path;
  }
  return {};
}

PairDataset read_pairs(const fs::path& where, Split split, int64_t max_length) {
  if (const fs::path path = find_pairs(where, split); !path.empty()) return read_pair_file(path, max_length);
  std::error_code error;
  SEQBOAT_CHECK(fs::is_directory(where, error), ErrorKind::kData, "{}: no such file or folder. {}", where.string(), kSource);
  const std::vector<fs::path> wanted = candidates(where, split);
  for (const fs::path& path : wanted) {
    for (const char* extension : {".xz", ".gz"}) {
      const fs::path packed = path.string() + extension;
      if (is_there(packed)) open_table(packed);  // which says how it is unpacked
    }
  }
  fail(ErrorKind::kData, "{}: no pairs to {} on: expected {} or {}. {}", where.string(), split == Split::kTrain ? "train" : split_name(split),
       wanted.front().filename().string(), wanted.back().filename().string(), kSource);
}

}  // namespace seqboat::data
