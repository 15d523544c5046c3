#pragma once

// Private to src/train: every task's constructor, one line a file of this folder.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "seqboat/train/task.h"

namespace seqboat::train {

/// The number of each token's label: for Task::group_tokens.
inline std::vector<uint8_t> labels_of(const torch::Tensor& tokens, uint8_t (*label)(int64_t token)) {
  const int64_t* ids = tokens.const_data_ptr<int64_t>();
  std::vector<uint8_t> labels(static_cast<size_t>(tokens.size(0)));
  for (size_t i = 0; i < labels.size(); ++i) labels[i] = label(ids[i]);
  return labels;
}

std::unique_ptr<Task> make_bytes_task(const config::Recipe& recipe, const std::filesystem::path& data_dir);
std::unique_ptr<Task> make_image_task(const config::Recipe& recipe, const std::filesystem::path& data_dir);
std::unique_ptr<Task> make_imdb_task(const config::Recipe& recipe, const std::filesystem::path& data_dir);
std::unique_ptr<Task> make_pair_task(const config::Recipe& recipe, const std::filesystem::path& data_dir);
std::unique_ptr<Task> make_recall_task(const config::Recipe& recipe, const std::filesystem::path& data_dir);
std::unique_ptr<Task> make_listops_task(const config::Recipe& recipe, const std::filesystem::path& data_dir);
std::unique_ptr<Task> make_speech_task(const config::Recipe& recipe, const std::filesystem::path& data_dir, const data::SoundTools& tools);

}  // namespace seqboat::train
