#pragma once

// Private to src/train: every task's constructor, one line a file of this folder.

#include <filesystem>
#include <memory>

#include "seqboat/train/task.h"

namespace seqboat::train {

std::unique_ptr<Task> make_bytes_task(const config::Recipe& recipe, const std::filesystem::path& data_dir);
std::unique_ptr<Task> make_imdb_task(const config::Recipe& recipe, const std::filesystem::path& data_dir);
std::unique_ptr<Task> make_listops_task(const config::Recipe& recipe, const std::filesystem::path& data_dir);

}  // namespace seqboat::train
