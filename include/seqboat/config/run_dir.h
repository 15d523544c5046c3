#pragma once

#include <filesystem>

#include "seqboat/config/model_config.h"

/// Where the parts of a run directory and of a model folder are (docs/CLI.md, "Files").
namespace seqboat::config {

/// Whether the folder holds a run: it has a config.toml.
bool is_run_dir(const std::filesystem::path& path);

/// A folder with config.json and model.safetensors: `path` itself, or of a run directory model/, else the checkpoint that `best` names, else the one
/// that `latest` names. Error (kModel) that says what was looked for.
std::filesystem::path find_model_dir(const std::filesystem::path& path);

/// The folder that RUN/best or RUN/latest names (`pointer` = "best" | "latest"), or an empty path where there is no such file. Error (kModel) for a
/// file that names no folder of RUN/checkpoints.
std::filesystem::path checkpoint_named_by(const std::filesystem::path& run_dir, const std::string& pointer);

/// MODEL_DIR/config.json. Error (kModel) for a missing or broken file, with the byte offset.
ModelConfig read_model_config(const std::filesystem::path& model_dir);

}  // namespace seqboat::config
