// seqboat data make pathfinder --from: the published folders of pictures
#include "pathfinder_import.h"

#include <fmt/format.h>
#include <png.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/base/text.h"
#include "seqboat/data/pathfinder.h"

namespace seqboat::app {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using data::Split;

constexpr std::array<Split, 3> kSplits{Split::kTrain, Split::kValid, Split::kTest};

/// A picture as a table names it.
struct Entry {
  fs::path file;
  uint8_t label = 0;
};

fs::path folder_of(const fs::path& from) {
  std::error_code error;
  SEQBOAT_CHECK(fs::is_directory(from, error), ErrorKind::kData, "{}: no such folder", from.string());
  for (const fs::path& folder : {from, from / "curv_contour_length_14"}) {
    if (fs::is_directory(folder / "metadata", error)) return folder;
  }
  fail(ErrorKind::kData, "{}: expected the folders metadata and imgs, or curv_contour_length_14 with these", from.string());
}

/// metadata/N.npy by N.
std::map<int64_t, fs::path> tables_of(const fs::path& folder) {
  std::map<int64_t, fs::path> out;
  for (const auto& entry : fs::directory_iterator(folder / "metadata")) {
    const std::string stem = entry.path().stem().string();
    int64_t number = -1;
    const auto [stop, error] = std::from_chars(stem.data(), stem.data() + stem.size(), number);
    if (error == std::errc() && stop == stem.data() + stem.size()) out.emplace(number, entry.path());
  }
  SEQBOAT_CHECK(!out.empty(), ErrorKind::kData, "{}: expected tables named by numbers (0.npy), found none", (folder / "metadata").string());
  return out;
}

std::vector<Entry> entries_of(const fs::path& folder, const fs::path& table) {
  const std::string text = read_file(table);
  SEQBOAT_CHECK(!text.starts_with("\x93NUMPY"), ErrorKind::kData, "{}: expected lines of text, as in the arena's release, found an array of NumPy's",
                table.string());
  std::vector<Entry> out;
  std::string_view rest = text;
  for (int64_t line_number = 1; !rest.empty(); ++line_number) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    std::vector<std::string_view> words;
    while (!line.empty()) {
      const size_t blank = std::min(line.find_first_of(" \t\r"), line.size());
      if (blank > 0) words.push_back(line.substr(0, blank));
      line.remove_prefix(std::min(blank + 1, line.size()));
    }
    if (words.empty()) continue;
    const std::string place = fmt::format("{}:{}", table.string(), line_number);
    SEQBOAT_CHECK(words.size() >= 4, ErrorKind::kData, "{}: expected folder, file, number, label, found {} words", place, words.size());
    SEQBOAT_CHECK(words[3] == "0" || words[3] == "1", ErrorKind::kData, "{}: label: expected 0 or 1, found {}", place, in_quotes(words[3], 40));
    out.push_back({.file = folder / words[0] / words[1], .label = static_cast<uint8_t>(words[3] == "1" ? 1 : 0)});
  }
  return out;
}

/// Appends size * size bytes of grey.
void append_picture(const fs::path& file, int64_t size, std::string* to) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  SEQBOAT_CHECK(png_image_begin_read_from_file(&image, file.c_str()) != 0, ErrorKind::kData, "{}: {}", file.string(), image.message);
  if (image.width != static_cast<png_uint_32>(size) || image.height != static_cast<png_uint_32>(size)) {
    png_image_free(&image);
    fail(ErrorKind::kData, "{}: expected {} x {} pixels, found {} x {}", file.string(), size, size, image.width, image.height);
  }
  image.format = PNG_FORMAT_GRAY;
  const size_t before = to->size();
  to->resize(before + static_cast<size_t>(size * size));
  SEQBOAT_CHECK(png_image_finish_read(&image, nullptr, to->data() + before, 0, nullptr) != 0, ErrorKind::kData, "{}: {}", file.string(),
                image.message);
}

}  // namespace

int import_pathfinder(const fs::path& from, const fs::path& out, int64_t size, Reporter& reporter) {
  const fs::path folder = folder_of(from);
  std::vector<Entry> entries;
  for (const auto& [number, table] : tables_of(folder)) {
    const std::vector<Entry> more = entries_of(folder, table);
    entries.insert(entries.end(), more.begin(), more.end());
  }
  SEQBOAT_CHECK(entries.size() >= 10, ErrorKind::kData, "{}: expected at least 10 pictures, of which a tenth validates and a tenth tests, found {}",
                folder.string(), entries.size());
  std::error_code error;
  for (const Split split : kSplits) {
    const fs::path file = data::pathfinder_file(out, size, split);
    SEQBOAT_CHECK(!fs::exists(file, error), ErrorKind::kUsage, "--out: {} is there already", file.string());
  }
  fs::create_directories(out, error);
  SEQBOAT_CHECK(!error, ErrorKind::kFailed, "{}: {}", out.string(), error.message());

  const std::atomic<int>& stop = become_cooperative();
  std::array<std::string, 3> records;
  std::array<int64_t, 3> counts{};
  for (size_t i = 0; i < entries.size(); ++i) {
    if (stop.load() != 0) {
      reporter.finish_progress();
      return 128 + stop.load();
    }
    const size_t split = i % 10 < 8 ? 0 : i % 10 - 7;
    records[split] += static_cast<char>(entries[i].label);
    append_picture(entries[i].file, size, &records[split]);
    ++counts[split];
    if (i % 256 == 0) {
      reporter.progress({"pathfinder", "pictures", static_cast<int64_t>(i), static_cast<int64_t>(entries.size()), -1, {}});
    }
  }
  reporter.finish_progress();
  Json json = {{"data", "pathfinder"}, {"path", out.string()}, {"made", Json::array()}, {"files", Json::array()}};
  std::string text;
  for (size_t i = 0; i < kSplits.size(); ++i) {
    const fs::path file = data::pathfinder_file(out, size, kSplits[i]);
    write_file_atomically(file, records[i]);
    json["made"].push_back(data::split_name(kSplits[i]));
    json["files"].push_back(file.string());
    text += fmt::format("{}  {} pictures\n", file.string(), counts[i]);
  }
  reporter.result(json, text);
  return 0;
}

}  // namespace seqboat::app
