// seqboat data check | stats for film reviews
#include "imdb_data.h"

#include <fmt/format.h>

#include <array>
#include <map>
#include <nlohmann/json.hpp>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/data/imdb.h"
#include "seqboat/data/listops_stats.h"

namespace seqboat::app {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using data::Split;

constexpr int64_t kWhole = int64_t{1} << 40;  // bytes of a text, none of which is cut
constexpr int64_t kArenaLength = 4000;        // where the arena cuts

int64_t positive_of(const std::vector<data::ImdbReview>& reviews) {
  int64_t positive = 0;
  for (const auto& review : reviews) positive += review.label;
  return positive;
}

}  // namespace

bool is_imdb(const fs::path& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) {
    for (const bool test : {false, true}) {
      if (!data::find_imdb(path, test).empty() || fs::exists(data::imdb_file(path, test).string() + ".xz", error)) return true;
    }
    return fs::exists(path / "aclImdb_v1.tar.gz", error);
  }
  const std::string name = path.filename().string();
  if (name.starts_with("imdb_") || name.starts_with("aclImdb")) return true;
  if (!fs::is_regular_file(path, error)) return false;
  const MappedFile file = MappedFile::open(path);
  return file.size() >= 2 && (file.data()[0] == '0' || file.data()[0] == '1') && file.data()[1] == '\t';
}

int check_imdb(const fs::path& path, Reporter& reporter) {
  std::vector<fs::path> sources;
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    sources = {path};
  } else {
    for (const bool test : {false, true}) {
      if (fs::path source = data::find_imdb(path, test); !source.empty()) sources.push_back(std::move(source));
    }
    if (sources.empty()) data::require_imdb(path, false);  // names what is missing
  }
  Json json;
  json["ok"] = true;
  json["files"] = Json::array();
  std::string text;
  for (const fs::path& source : sources) {
    reporter.log("checking " + source.string());
    const auto reviews = data::read_imdb_reviews(source, data::ImdbPart::kAll, true);
    int64_t bytes = 0;
    for (const auto& review : reviews) bytes += static_cast<int64_t>(review.text.size());
    const auto samples = static_cast<int64_t>(reviews.size()), positive = positive_of(reviews);
    json["files"].push_back(
        {{"path", source.string()}, {"samples", samples}, {"tokens", bytes}, {"negative", samples - positive}, {"positive", positive}});
    text += fmt::format("{}  {} samples ({} negative, {} positive), {} bytes, every label agrees with its rating\n", source.string(), samples,
                        samples - positive, positive, bytes);
  }
  reporter.result(json, text);
  return 0;
}

int imdb_stats(const fs::path& path, const std::string& split_name, Reporter& reporter) {
  std::error_code error;
  const bool is_folder = fs::is_directory(path, error);
  SEQBOAT_CHECK(is_folder || split_name.empty(), ErrorKind::kUsage, "--split chooses from a folder, and {} is a file", path.string());
  fs::path source;
  data::ImdbPart part = data::ImdbPart::kAll;
  if (!split_name.empty()) {
    const Split split = data::parse_split(split_name);
    source = data::require_imdb(path, split == Split::kTest);
    if (split != Split::kTest) part = split == Split::kTrain ? data::ImdbPart::kNineTenths : data::ImdbPart::kTenth;
  } else {
    source = data::find_imdb(path, true);
    if (source.empty()) source = data::require_imdb(path, false);
  }
  reporter.log("reading " + source.string());
  const auto reviews = data::read_imdb_reviews(source, part);
  SEQBOAT_CHECK(!reviews.empty(), ErrorKind::kData, "{}: the {} split holds no review", source.string(), split_name);
  const data::LengthStats length = data::length_stats(data::imdb_dataset(reviews, kWhole));
  const auto samples = static_cast<int64_t>(reviews.size()), positive = positive_of(reviews);
  std::map<int64_t, int64_t> ratings;
  int64_t longer = 0;
  for (const auto& review : reviews) {
    ++ratings[review.rating];
    longer += static_cast<int64_t>(review.text.size()) > kArenaLength ? 1 : 0;
  }

  Json json = {{"path", source.string()}, {"length", length.to_json()}, {"labels", {samples - positive, positive}}, {"ratings", Json::object()}};
  for (const auto& [rating, count] : ratings) json["ratings"][std::to_string(rating)] = count;
  json["longer_than_4000"] = longer;

  const auto percent = [&](int64_t count) { return 100.0 * static_cast<double>(count) / static_cast<double>(samples); };
  std::string text = fmt::format("{}\nsamples    {}, {} bytes\n", source.string(), samples, length.tokens);
  text += fmt::format("length     {} to {}, mean {:.1f}", length.min, length.max, length.mean);
  for (const auto& [share, value] : length.percentiles) text += fmt::format(", {}% {}", share, value);
  text += fmt::format("\n           {} ({:.1f}%) longer than {} bytes, where the Long Range Arena cuts\n", longer, percent(longer), kArenaLength);
  text += fmt::format("labels     against {:.1f}%  for {:.1f}%\nratings   ", percent(samples - positive), percent(positive));
  for (const auto& [rating, count] : ratings) text += fmt::format(" {}: {:.1f}%", rating, percent(count));
  reporter.result(json, text + "\n");
  return 0;
}

}  // namespace seqboat::app
