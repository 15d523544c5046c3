#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <system_error>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/data/pathfinder.h"

namespace seqboat::data {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr int64_t kProgressEvery = 256;
constexpr Split kSplits[] = {Split::kTrain, Split::kValid, Split::kTest};

Json meta_of(const PathfinderMakeOptions& options) {
  return {{"format", "seqboat-pathfinder"},
          {"generator_version", kPathfinderGeneratorVersion},
          {"size", options.size},
          {"seed", options.seed},
          {"train", options.train},
          {"val", options.valid},
          {"test", options.test}};
}

bool is_there(const fs::path& path) {
  std::error_code error;
  const bool found = fs::exists(path, error);
  SEQBOAT_CHECK(!error || error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory, ErrorKind::kFailed,
                "{}: cannot be examined: {}", path.string(), error.message());
  return found;
}

void check_meta(const fs::path& path, const Json& wanted) {
  std::string text;
  try {
    text = read_file(path);
  } catch (const Error& error) {
    throw Error(ErrorKind::kData, error.what());
  }
  // Some hundred bytes of our own; anything large is not, and is not parsed.
  const Json found = text.size() < 10000 ? Json::parse(text, nullptr, /*allow_exceptions=*/false) : Json();
  SEQBOAT_CHECK(found.is_object() && found.value("format", Json()) == wanted["format"], ErrorKind::kData,
                "{}: expected what the generator wrote about this folder's Pathfinder, found something else: give another folder, or remove the file "
                "and the data",
                path.string());
  for (const auto& [key, value] : wanted.items()) {
    const Json there = found.value(key, Json());
    SEQBOAT_CHECK(there == value, ErrorKind::kData,
                  "{}: the folder holds Pathfinder of other options: {} is {} there, asked for is {}: give another folder",
                  path.parent_path().string(), key, there.dump(-1, ' ', false, Json::error_handler_t::replace), value.dump());
  }
}

void make_file(const fs::path& path, const PathfinderMakeOptions& options, Split split, const PathfinderProgressCallback& progress) {
  AtomicFileWriter writer(path);
  PathfinderGenerator generator(PathfinderOptions::lra(options.size), options.seed);
  std::string record(static_cast<size_t>(options.size * options.size + 1), '\0');
  const int64_t total = options.count(split);
  for (int64_t i = 0; i < total; ++i) {
    record[0] = static_cast<char>(generator.make(split, i, reinterpret_cast<uint8_t*>(record.data() + 1)));
    writer.append(record);
    if (progress && (i + 1 == total || (i + 1) % kProgressEvery == 0)) progress({split, i + 1, total});
  }
  writer.commit();
}

}  // namespace

std::string pathfinder_folder_name(const PathfinderMakeOptions& options) {
  return fmt::format("pathfinder{}-seed{}-{}-{}-{}", options.size, options.seed, options.train, options.valid, options.test);
}

fs::path pathfinder_file(const fs::path& folder, int64_t size, Split split) {
  return folder / fmt::format("pathfinder{}_{}.bin", size, split_name(split));
}

std::vector<Split> ensure_pathfinder(const fs::path& folder, const PathfinderMakeOptions& options, const PathfinderProgressCallback& progress,
                                     const std::vector<Split>& splits) {
  PathfinderOptions::lra(options.size);  // refuses other sizes
  for (const Split split : kSplits) {
    SEQBOAT_CHECK(options.count(split) >= 1, ErrorKind::kConfig, "Pathfinder: {} pictures: expected 1 or more, found {}", split_name(split),
                  options.count(split));
  }
  const Json meta = meta_of(options);
  const fs::path meta_path = folder / "pathfinder.json";
  const bool has_meta = is_there(meta_path);
  if (has_meta) check_meta(meta_path, meta);

  std::vector<Split> missing;
  std::string present;
  for (const Split split : kSplits) {
    const fs::path file = pathfinder_file(folder, options.size, split);
    if (is_there(file)) {
      present += fmt::format("{}{}", present.empty() ? "" : ", ", file.filename().string());
    } else if (std::find(splits.begin(), splits.end(), split) != splits.end()) {
      missing.push_back(split);
    }
  }
  if (missing.empty()) return missing;
  SEQBOAT_CHECK(
      has_meta || present.empty(), ErrorKind::kData,
      "{}: {} is missing beside {} of unknown origin (there is no pathfinder.json), and what would be made may not fit: give another folder, "
      "or add the file",
      folder.string(), pathfinder_file(folder, options.size, missing[0]).filename().string(), present);

  std::error_code error;
  fs::create_directories(folder, error);
  SEQBOAT_CHECK(!error, error == std::errc::no_space_on_device ? ErrorKind::kResource : ErrorKind::kFailed, "{}: the folder cannot be made: {}",
                folder.string(), error.message());
  // First what is going to be here, then the files: whatever interrupts this, the next call knows what it finds.
  if (!has_meta) write_file_atomically(meta_path, meta.dump(2) + "\n");
  for (const Split split : missing) make_file(pathfinder_file(folder, options.size, split), options, split, progress);
  return missing;
}

}  // namespace seqboat::data
