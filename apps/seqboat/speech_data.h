#pragma once

#include <filesystem>
#include <string>

#include "ui.h"

namespace seqboat::app {

/// Whether a folder holds the spoken words of data/speech.h, packed ones too: by its names.
bool is_speech(const std::filesystem::path& path);

/// `data check` and `data stats` of such a folder. `split` as `--split` has it, empty = the test's.
int check_speech(const std::filesystem::path& path, Reporter& reporter);
int speech_stats(const std::filesystem::path& path, const std::string& split, Reporter& reporter);

}  // namespace seqboat::app
