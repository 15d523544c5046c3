#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "ui.h"

namespace seqboat::app {

/// `data make pathfinder --from`: the published folders of Pathfinder, packed as `data make pathfinder` would have written them.
///
///   from/metadata/N.npy     lines of text, with the columns: folder, file, number, label (0 or 1), ... a blank between them
///   from/imgs/N/*.png       grey pictures of size x size
///
/// `from` may also be the folder above, which has curv_contour_length_14, the arena's task. Pictures are taken in the order of the tables (by number)
/// and lines; of each ten the ninth validates and the tenth tests. Error (kData) with file, line, expected and found.
int import_pathfinder(const std::filesystem::path& from, const std::filesystem::path& out, int64_t size, Reporter& reporter);

}  // namespace seqboat::app
