#pragma once

#include <filesystem>
#include <string>

#include "ui.h"

namespace seqboat::app {

/// Whether a file or folder holds the film reviews of data/imdb.h, packed ones too: a folder by what is in it, a file by its name or its first bytes.
bool is_imdb(const std::filesystem::path& path);

/// `data check` and `data stats` of such a path. `split` as `--split` has it, empty = the test's, else whatever there is.
int check_imdb(const std::filesystem::path& path, Reporter& reporter);
int imdb_stats(const std::filesystem::path& path, const std::string& split, Reporter& reporter);

}  // namespace seqboat::app
