// seqboat data check | stats for pairs of documents
#include "pair_data.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/data/listops_stats.h"
#include "seqboat/data/pairs.h"

namespace seqboat::app {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using data::Split;

constexpr Split kSplits[] = {Split::kTrain, Split::kValid, Split::kTest};
constexpr int64_t kWhole = int64_t{1} << 40;  // bytes of a document, none of which is cut
constexpr int64_t kArenaLength = 4000;        // where the arena cuts

int64_t related_of(const data::PairDataset& pairs) {
  int64_t related = 0;
  for (int64_t i = 0; i < pairs.size(); ++i) related += pairs.pair(i).label;
  return related;
}

/// The documents one after the other, first and second: what length_stats() looks at.
data::SequenceDataset documents_of(const data::PairDataset& pairs) {
  data::SequenceDataset out;
  for (int64_t i = 0; i < pairs.size(); ++i) {
    for (const auto& document : {pairs.pair(i).first, pairs.pair(i).second}) {
      out.offsets.push_back(out.offsets.back() + static_cast<int64_t>(document.size()));
      out.labels.push_back(pairs.pair(i).label);
    }
  }
  return out;
}

}  // namespace

bool is_pair_data(const fs::path& path) {
  std::error_code error;
  const auto is_name = [](const std::string& name) {
    return name.starts_with("new_aan_pairs.") || (name.starts_with("match_") && name.find(".tsv") != std::string::npos);
  };
  if (!fs::is_directory(path, error)) return is_name(path.filename().string());
  for (const Split split : kSplits) {
    if (!data::find_pairs(path, split).empty()) return true;
  }
  for (fs::directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error)) {
    if (entry->is_regular_file(error) && is_name(entry->path().filename().string())) return true;
  }
  return false;
}

int check_pair_data(const fs::path& path, Reporter& reporter) {
  std::vector<fs::path> sources;
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    sources = {path};
  } else {
    for (const Split split : kSplits) {
      if (fs::path source = data::find_pairs(path, split); !source.empty()) sources.push_back(std::move(source));
    }
    if (sources.empty()) data::read_pairs(path, Split::kTrain, kWhole);  // names what is missing
  }
  Json json;
  json["ok"] = true;
  json["files"] = Json::array();
  std::string text;
  for (const fs::path& source : sources) {
    reporter.log("checking " + source.string());
    const data::PairDataset pairs = data::read_pair_file(source, kWhole);
    const int64_t related = related_of(pairs), tokens = documents_of(pairs).offsets.back();
    json["files"].push_back(
        {{"path", source.string()}, {"samples", pairs.size()}, {"tokens", tokens}, {"unrelated", pairs.size() - related}, {"related", related}});
    text +=
        fmt::format("{}  {} pairs ({} unrelated, {} related), {} bytes\n", source.string(), pairs.size(), pairs.size() - related, related, tokens);
  }
  reporter.result(json, text);
  return 0;
}

int pair_stats(const fs::path& path, const std::string& split_name, Reporter& reporter) {
  std::error_code error;
  const bool is_folder = fs::is_directory(path, error);
  SEQBOAT_CHECK(is_folder || split_name.empty(), ErrorKind::kUsage, "--split chooses from a folder, and {} is a file", path.string());
  fs::path source = path;
  if (is_folder) {
    source.clear();
    for (const Split split : {Split::kTest, Split::kValid, Split::kTrain}) {
      if (source.empty() && (split_name.empty() || data::parse_split(split_name) == split)) source = data::find_pairs(path, split);
    }
    if (source.empty()) data::read_pairs(path, split_name.empty() ? Split::kTest : data::parse_split(split_name), kWhole);  // names what is missing
  }
  reporter.log("reading " + source.string());
  const data::PairDataset pairs = data::read_pair_file(source, kWhole);
  const data::SequenceDataset documents = documents_of(pairs);
  const data::LengthStats length = data::length_stats(documents);
  const int64_t related = related_of(pairs);
  int64_t longer = 0;
  for (int64_t i = 0; i < documents.size(); ++i) longer += documents.length(i) > kArenaLength ? 1 : 0;
  const Json json = {
      {"path", source.string()}, {"length", length.to_json()}, {"labels", {pairs.size() - related, related}}, {"longer_than_4000", longer}};
  const auto percent = [](int64_t count, int64_t of) { return 100.0 * static_cast<double>(count) / static_cast<double>(of); };
  std::string text = fmt::format("{}\npairs      {}, {} bytes\n", source.string(), pairs.size(), length.tokens);
  text += fmt::format("length     {} to {} a document, mean {:.1f}", length.min, length.max, length.mean);
  for (const auto& [share, value] : length.percentiles) text += fmt::format(", {}% {}", share, value);
  text += fmt::format("\n           {} ({:.1f}%) longer than {} bytes, where the Long Range Arena cuts\n", longer, percent(longer, documents.size()),
                      kArenaLength);
  text +=
      fmt::format("labels     unrelated {:.1f}%  related {:.1f}%\n", percent(pairs.size() - related, pairs.size()), percent(related, pairs.size()));
  reporter.result(json, text);
  return 0;
}

}  // namespace seqboat::app
