#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "seqboat/data/listops.h"

namespace seqboat::data {

/// Raised when the generator gives other samples for the same options.
inline constexpr int kListopsGeneratorVersion = 1;

/// What a folder of generated ListOps holds.
struct ListopsMakeOptions {
  ListopsOptions shape;
  uint64_t seed = 0;
  int64_t train = 96000;  ///< numbers of samples
  int64_t valid = 2000;
  int64_t test = 2000;
  bool parentheses = false;  ///< the original's way of writing; same samples, and not part of what tells folders apart
  int64_t count(Split split) const { return split == Split::kTrain ? train : split == Split::kValid ? valid : test; }
};

struct ListopsProgress {
  Split split;
  std::filesystem::path file;
  int64_t done;
  int64_t total;
};

/// Called on the calling thread, every 256 samples and at each file's end. May throw to stop: finished files stay, the unfinished one leaves nothing.
using ListopsProgressCallback = std::function<void(const ListopsProgress&)>;

/// A folder's name that says what is in it, for caches: "listops-500-2000-d10-a10-seed0-96000-2000-2000".
std::string listops_folder_name(const ListopsMakeOptions& options);

/// Makes what is missing of the given splits in `folder`, and the folder itself, and returns the splits that it made. listops.json beside the files
/// tells with what options they were made. Each file appears whole or not at all, so after an interruption the same call does what is left; and
/// folders that hold all that is asked for are not written to. Error (kData) if listops.json tells of other options (both are named) or is damaged,
/// or if something is missing beside files of unknown origin (there is no listops.json): they would not fit together. A folder of unknown origin in
/// which nothing is missing is taken as it is.
std::vector<Split> ensure_listops(const std::filesystem::path& folder, const ListopsMakeOptions& options,
                                  const ListopsProgressCallback& progress = {},
                                  const std::vector<Split>& splits = {Split::kTrain, Split::kValid, Split::kTest});

/// Where generated data go when the user names no folder: $XDG_CACHE_HOME/seqboat, else ~/.cache/seqboat. Error (kFailed) without either variable.
std::filesystem::path default_cache_dir();

}  // namespace seqboat::data
