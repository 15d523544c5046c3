#include "seqboat/data/imdb.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <tuple>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/base/text.h"

namespace seqboat::data {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMostStars = 10;

bool is_file(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

bool is_folder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

std::optional<int64_t> number_of(std::string_view text) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  // No sign, no leading zeros: then equal numbers are equal words, in both forms.
  const bool plain = !text.empty() && text[0] >= '0' && text[0] <= '9' && (text.size() == 1 || text[0] != '0');
  if (!plain || error != std::errc() || stop != end) return std::nullopt;
  return value;
}

bool is_kept(int64_t id, ImdbPart part) {
  return part == ImdbPart::kAll || (id % 10 == 9) == (part == ImdbPart::kTenth);
}

/// A review beside the place that it is from, for messages.
struct Found {
  ImdbReview review;
  std::string place;
};

void check_rating(const ImdbReview& review, const std::string& place, bool check) {
  SEQBOAT_CHECK(review.rating >= 1 && review.rating <= kMostStars, ErrorKind::kData, "{}: rating: expected 1 to {}, found {}", place, kMostStars,
                review.rating);
  const bool fits = review.label == 0 ? review.rating <= 4 : review.rating >= 7;
  SEQBOAT_CHECK(!check || fits, ErrorKind::kData, "{}: rating: expected {} for label {}, found {}", place, review.label == 0 ? "1 to 4" : "7 to 10",
                review.label, review.rating);
}

std::vector<Found> read_file_form(const fs::path& path, ImdbPart part, bool check) {
  const std::string where = path.string();
  const std::string extension = path.extension().string();
  SEQBOAT_CHECK(extension != ".xz", ErrorKind::kData, "{}: expected the unpacked file: run xz -dk {}", where, where);
  SEQBOAT_CHECK(extension != ".gz" && extension != ".tgz", ErrorKind::kData,
                "{}: expected what is in the archive: run tar xzf {}, and name the folder aclImdb", where, where);
  MappedFile file;
  try {
    file = MappedFile::open(path);
  } catch (const Error& error) {
    throw Error(ErrorKind::kData, error.what());
  }
  SEQBOAT_CHECK(file.size() > 0, ErrorKind::kData, "{}: the file is empty: expected lines of label, id, rating and text", where);

  std::vector<Found> found;
  std::string_view rest(file.data(), file.size());
  for (int64_t line_number = 1; !rest.empty(); ++line_number) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    const std::string place = fmt::format("{}:{}", where, line_number);

    const int64_t columns = 1 + std::count(line.begin(), line.end(), '\t');
    SEQBOAT_CHECK(columns == 4, ErrorKind::kData, "{}: expected 4 columns (label, id, rating and text, a tab between them), found {}{}", place,
                  columns, line.empty() ? " (the line is empty)" : "");
    std::string_view cells[3];
    for (std::string_view& cell : cells) {
      cell = line.substr(0, line.find('\t'));
      line.remove_prefix(cell.size() + 1);
    }
    SEQBOAT_CHECK(cells[0] == "0" || cells[0] == "1", ErrorKind::kData, "{}: label: expected 0 or 1, found {}", place, in_quotes(cells[0], 40));
    const auto id = number_of(cells[1]), rating = number_of(cells[2]);
    SEQBOAT_CHECK(id, ErrorKind::kData, "{}: id: expected a number from 0 on, found {}", place, in_quotes(cells[1], 40));
    SEQBOAT_CHECK(rating, ErrorKind::kData, "{}: rating: expected 1 to {}, found {}", place, kMostStars, in_quotes(cells[2], 40));
    SEQBOAT_CHECK(!line.empty(), ErrorKind::kData, "{}: text: expected at least one byte, found none", place);
    Found item{.review = {.id = *id, .label = cells[0] == "1", .rating = *rating, .text = {}}, .place = place};
    check_rating(item.review, place, check);
    if (is_kept(*id, part)) {
      item.review.text = line;
      // A CR in the middle of a line is what CRLF files and careless conversions leave.
      std::replace(item.review.text.begin(), item.review.text.end(), '\r', ' ');
    }
    found.push_back(std::move(item));
  }
  return found;
}

/// Without the texts: which files are read is decided when all are known.
std::vector<Found> read_folder_form(const fs::path& folder, bool check) {
  std::vector<Found> found;
  for (int64_t label = 0; label < kImdbClasses; ++label) {
    const fs::path inner = folder / (label == 0 ? "neg" : "pos");
    SEQBOAT_CHECK(is_folder(inner), ErrorKind::kData, "{}: no such folder: expected neg and pos, with files ID_RATING.txt, in {}", inner.string(),
                  folder.string());
    const size_t before = found.size();
    std::error_code error;
    for (fs::directory_iterator entry(inner, error), end; !error && entry != end; entry.increment(error)) {
      const std::string name = entry->path().filename().string();
      if (name.starts_with('.')) continue;
      const std::string_view stem = std::string_view(name).substr(0, name.find_last_of('.'));
      const size_t line = std::min(stem.find('_'), stem.size());
      const auto id = number_of(stem.substr(0, line)), rating = number_of(stem.substr(std::min(line + 1, stem.size())));
      SEQBOAT_CHECK(id && rating && name.ends_with(".txt"), ErrorKind::kData, "{}: expected files named ID_RATING.txt (12_7.txt), found {}",
                    inner.string(), in_quotes(name));
      found.push_back({.review = {.id = *id, .label = label, .rating = *rating, .text = {}}, .place = entry->path().string()});
      check_rating(found.back().review, found.back().place, check);
    }
    SEQBOAT_CHECK(!error, ErrorKind::kData, "{}: cannot be read: {}", inner.string(), error.message());
    SEQBOAT_CHECK(found.size() > before, ErrorKind::kData, "{}: expected files named ID_RATING.txt, found none", inner.string());
  }
  return found;
}

/// The text of a review's own file, as the compact form would have it.
std::string text_of_file(const std::string& path) {
  std::string text;
  try {
    text = read_file(path);
  } catch (const Error& error) {
    throw Error(ErrorKind::kData, error.what());
  }
  SEQBOAT_CHECK(!text.empty(), ErrorKind::kData, "{}: text: expected at least one byte, found an empty file", path);
  for (char& byte : text) {
    if (byte == '\t' || byte == '\r' || byte == '\n') byte = ' ';
  }
  return text;
}

}  // namespace

fs::path imdb_file(const fs::path& folder, bool test) {
  return folder / (test ? "imdb_test.tsv" : "imdb_train.tsv");
}

fs::path find_imdb(const fs::path& where, bool test) {
  const char* name = test ? "test" : "train";
  if (is_file(where)) return where;
  if (const fs::path file = imdb_file(where, test); is_file(file)) return file;
  for (const fs::path& folder : {where / name, where / "aclImdb" / name}) {
    if (is_folder(folder)) return folder;
  }
  return {};
}

fs::path require_imdb(const fs::path& where, bool test) {
  if (fs::path source = find_imdb(where, test); !source.empty()) return source;
  const fs::path file = imdb_file(where, test), packed = file.string() + ".xz", archive = where / "aclImdb_v1.tar.gz";
  SEQBOAT_CHECK(!is_file(packed), ErrorKind::kData, "{}: no such file, but a packed one beside it: run xz -dk {}", file.string(), packed.string());
  SEQBOAT_CHECK(!is_file(archive), ErrorKind::kData, "{}: no reviews, but the archive that holds them: run tar xzf {} -C {}", where.string(),
                archive.string(), where.string());
  fail(ErrorKind::kData,
       "{}: {}: expected {} or the folder {}/ with neg/ and pos/. Get the Large Movie Review Dataset v1.0 (aclImdb_v1.tar.gz, from "
       "ai.stanford.edu/~amaas/data/sentiment), unpack it, and name the folder aclImdb with --data DIR",
       where.string(), is_folder(where) ? "no film reviews" : "no such folder", file.filename().string(), test ? "test" : "train");
}

std::vector<ImdbReview> read_imdb_reviews(const fs::path& source, ImdbPart part, bool check) {
  const bool by_folders = is_folder(source);
  std::vector<Found> found = by_folders ? read_folder_form(source, check) : read_file_form(source, part, check);
  const auto key = [](const Found& item) { return std::tuple(item.review.id, item.review.label); };
  // Stable, so that of two equal ones the message names the later line as the second.
  std::stable_sort(found.begin(), found.end(), [&](const Found& a, const Found& b) { return key(a) < key(b); });
  std::vector<ImdbReview> reviews;
  for (size_t i = 0; i < found.size(); ++i) {
    ImdbReview& review = found[i].review;
    SEQBOAT_CHECK(i == 0 || key(found[i - 1]) != key(found[i]), ErrorKind::kData, "{}: expected one review of id {} and label {}, found another: {}",
                  found[i].place, review.id, review.label, found[i - 1].place);
    if (!is_kept(review.id, part)) continue;
    if (by_folders) review.text = text_of_file(found[i].place);
    reviews.push_back(std::move(review));
  }
  return reviews;
}

SequenceDataset imdb_dataset(const std::vector<ImdbReview>& reviews, int64_t max_length) {
  SEQBOAT_DCHECK(max_length >= 1);
  SequenceDataset dataset;
  const auto kept = [&](const ImdbReview& review) { return std::min(review.text.size(), static_cast<size_t>(max_length)); };
  size_t total = 0;
  for (const ImdbReview& review : reviews) total += kept(review);
  dataset.tokens.reserve(total);
  for (const ImdbReview& review : reviews) {
    for (const char byte : std::string_view(review.text).substr(0, kept(review))) {
      dataset.tokens.push_back(static_cast<int32_t>(token_of_byte(static_cast<uint8_t>(byte))));
    }
    dataset.offsets.push_back(static_cast<int64_t>(dataset.tokens.size()));
    dataset.labels.push_back(review.label);
  }
  return dataset;
}

SequenceDataset read_imdb(const fs::path& where, Split split, const ImdbReadOptions& options) {
  const bool test = split == Split::kTest || (split == Split::kValid && options.validate_on_test);
  const fs::path source = require_imdb(where, test);
  const bool whole = test || options.validate_on_test || source == where;
  const ImdbPart part = whole ? ImdbPart::kAll : split == Split::kTrain ? ImdbPart::kNineTenths : ImdbPart::kTenth;
  const std::vector<ImdbReview> reviews = read_imdb_reviews(source, part, options.check);
  SEQBOAT_CHECK(!reviews.empty(), ErrorKind::kData, "{}: expected reviews {} in 9, found none", source.string(),
                split == Split::kValid ? "to validate on, whose id ends" : "to train on, whose id does not end");
  return imdb_dataset(reviews, options.max_length);
}

}  // namespace seqboat::data
