#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "ui.h"

namespace seqboat::app {

/// Whether a file or folder holds pictures of data/images.h, packed ones too: by the names of files.
bool is_image_data(const std::filesystem::path& path);

/// `data check` and `data stats` of such a path. `split` as `--split` has it, empty = the test's, else whatever there is.
int check_image_data(const std::filesystem::path& path, Reporter& reporter);
int image_stats(const std::filesystem::path& path, const std::string& split, Reporter& reporter);

/// What `data make pathfinder` was told.
struct PathfinderRequest {
  std::string out;   ///< empty = a folder in the cache, named after the settings
  std::string from;  ///< the published folders, which are packed; empty = pictures are generated
  std::optional<int64_t> size, count, train, valid, test;
  uint64_t seed = 0;
};

int make_pathfinder(const PathfinderRequest& request, Reporter& reporter);

}  // namespace seqboat::app
