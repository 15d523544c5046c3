#include "seqboat/data/listops_cache.h"

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <system_error>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/base/text.h"

namespace seqboat::data {
namespace {

constexpr int64_t kProgressEvery = 256;

nlohmann::ordered_json meta_of(const ListopsMakeOptions& options) {
  return {{"format", "seqboat-listops"},
          {"generator_version", kListopsGeneratorVersion},
          {"seed", options.seed},
          {"min_length", options.shape.min_length},
          {"max_length", options.shape.max_length},
          {"max_depth", options.shape.max_depth},
          {"max_args", options.shape.max_args},
          {"train", options.train},
          {"val", options.valid},
          {"test", options.test}};
}

bool is_there(const std::filesystem::path& path) {
  std::error_code error;
  const bool found = std::filesystem::exists(path, error);
  SEQBOAT_CHECK(!error || error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory, ErrorKind::kFailed,
                "{}: cannot be examined: {}", path.string(), error.message());
  return found;
}

std::string one_line(const nlohmann::ordered_json& meta) {
  std::string text;
  for (const auto& [key, value] : meta.items()) {
    if (key != "format") text += fmt::format("{}{} {}", text.empty() ? "" : ", ", key, value.dump());
  }
  return text;
}

void check_meta(const std::filesystem::path& path, const nlohmann::ordered_json& wanted) {
  std::string text;
  try {
    text = read_file(path);
  } catch (const Error& error) {
    throw Error(ErrorKind::kData, error.what());
  }
  // A few hundred bytes of our own; anything large or nested is not, and is not parsed.
  nlohmann::ordered_json found;
  bool readable = text.size() < 10000;
  if (readable) {
    found = nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
    readable = found.is_object();
    for (const auto& [key, value] : wanted.items())
      readable = readable && found.contains(key) && found[key].is_number_integer() == value.is_number_integer();
  }
  SEQBOAT_CHECK(
      readable && found["format"] == wanted["format"], ErrorKind::kData,
      "{}: expected what the generator wrote about this folder's ListOps, found something else: give another folder, or remove the file and the data",
      path.string());
  for (const auto& [key, value] : wanted.items()) {
    SEQBOAT_CHECK(found[key] == value, ErrorKind::kData,
                  "{}: the folder holds ListOps of other options: {} is {} there, asked for is {} (there: {}; asked for: {}): give another folder",
                  path.parent_path().string(), key, found[key].dump(), value.dump(), one_line(found), one_line(wanted));
  }
}

void make_file(const std::filesystem::path& path, const ListopsMakeOptions& options, Split split, const ListopsProgressCallback& progress) {
  AtomicFileWriter writer(path);
  writer.append("Source\tTarget\n");
  std::vector<int32_t> tokens;
  const int64_t total = options.count(split);
  for (int64_t i = 0; i < total; ++i) {
    const int64_t label = generate_listops(options.shape, options.seed, split, i, &tokens);
    writer.append(listops_text(tokens, options.parentheses));
    const char end[3] = {'\t', static_cast<char>('0' + label), '\n'};
    writer.append({end, sizeof end});
    if (progress && (i + 1 == total || (i + 1) % kProgressEvery == 0)) progress({split, path, i + 1, total});
  }
  writer.commit();
}

}  // namespace

std::string listops_folder_name(const ListopsMakeOptions& options) {
  return fmt::format("listops-{}-{}-d{}-a{}-seed{}-{}-{}-{}", options.shape.min_length, options.shape.max_length, options.shape.max_depth,
                     options.shape.max_args, options.seed, options.train, options.valid, options.test);
}

std::vector<Split> ensure_listops(const std::filesystem::path& folder, const ListopsMakeOptions& options, const ListopsProgressCallback& progress,
                                  const std::vector<Split>& splits) {
  options.shape.validate();
  for (Split split : {Split::kTrain, Split::kValid, Split::kTest}) {
    SEQBOAT_CHECK(options.count(split) >= 1, ErrorKind::kConfig, "ListOps: {} samples: expected 1 or more, found {}", split_name(split),
                  options.count(split));
  }
  const nlohmann::ordered_json meta = meta_of(options);
  const std::filesystem::path meta_path = folder / "listops.json";
  const bool has_meta = is_there(meta_path);
  if (has_meta) check_meta(meta_path, meta);

  std::vector<Split> missing;
  std::string present;
  for (Split split : {Split::kTrain, Split::kValid, Split::kTest}) {
    const std::filesystem::path file = listops_file(folder, split);
    if (is_there(file)) {
      present += fmt::format("{}{}", present.empty() ? "" : ", ", file.filename().string());
    } else if (std::find(splits.begin(), splits.end(), split) != splits.end()) {
      missing.push_back(split);
    }
  }
  if (missing.empty()) return missing;
  SEQBOAT_CHECK(has_meta || present.empty(), ErrorKind::kData,
                "{}: {} is missing beside {} of unknown origin (there is no listops.json), and what would be made may not fit: give another folder, "
                "or add the file",
                folder.string(), listops_file(folder, missing[0]).filename().string(), present);

  std::error_code error;
  std::filesystem::create_directories(folder, error);
  SEQBOAT_CHECK(!error, error == std::errc::no_space_on_device ? ErrorKind::kResource : ErrorKind::kFailed, "{}: the folder cannot be made: {}",
                folder.string(), error.message());
  // First what is going to be here, then the files: whatever interrupts this, the next call knows what it finds.
  if (!has_meta) write_file_atomically(meta_path, meta.dump(2) + "\n");
  for (Split split : missing) make_file(listops_file(folder, split), options, split, progress);
  return missing;
}

std::filesystem::path default_cache_dir() {
  // As the XDG base directory rules have it: a relative path in the variable is to be ignored.
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && cache[0] == '/') return std::filesystem::path(cache) / "seqboat";
  const char* home = std::getenv("HOME");
  SEQBOAT_CHECK(home != nullptr && home[0] != '\0', ErrorKind::kFailed,
                "no folder for generated data: neither XDG_CACHE_HOME nor HOME is set; give one with --data");
  return std::filesystem::path(home) / ".cache" / "seqboat";
}

}  // namespace seqboat::data
