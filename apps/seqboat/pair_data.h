#pragma once

#include <filesystem>
#include <string>

#include "ui.h"

namespace seqboat::app {

/// Whether a file or folder holds the pairs of documents of data/pairs.h, packed ones too, by the tables' names or their first line.
bool is_pair_data(const std::filesystem::path& path);

/// `data check` and `data stats` of such a path. `split` as `--split` has it, empty = the test's, else whatever there is.
int check_pair_data(const std::filesystem::path& path, Reporter& reporter);
int pair_stats(const std::filesystem::path& path, const std::string& split, Reporter& reporter);

}  // namespace seqboat::app
