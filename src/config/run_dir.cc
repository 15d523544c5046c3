#include "seqboat/config/run_dir.h"

#include <nlohmann/json.hpp>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/base/text.h"

namespace seqboat::config {

namespace fs = std::filesystem;

bool is_run_dir(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path / "config.toml", error);
}

fs::path checkpoint_named_by(const fs::path& run_dir, const std::string& pointer) {
  const fs::path file = run_dir / pointer;
  std::error_code error;
  if (!fs::is_regular_file(file, error)) return {};
  std::string name = read_file(file);
  while (!name.empty() && (name.back() == '\n' || name.back() == '\r')) name.pop_back();
  // A name and no path: a run directory from elsewhere must not lead out of itself.
  const bool is_name =
      !name.empty() && name.size() < 256 && name.find_first_of("/\\") == std::string::npos && name.find('\0') == std::string::npos && name[0] != '.';
  const fs::path folder = is_name ? run_dir / "checkpoints" / name : fs::path();
  SEQBOAT_CHECK(is_name && fs::is_directory(folder, error), ErrorKind::kModel, "{}: expected the name of a folder in {}, found {}", file.string(),
                (run_dir / "checkpoints").string(), in_quotes(name));
  return folder;
}

fs::path find_model_dir(const fs::path& path) {
  std::error_code error;
  SEQBOAT_CHECK(fs::is_directory(path, error), ErrorKind::kModel, "{}: no such folder; expected a model folder or a run directory", path.string());
  if (fs::exists(path / "config.json", error) || fs::exists(path / "model.safetensors", error)) return path;
  if (fs::exists(path / "model" / "config.json", error)) return path / "model";
  for (const char* pointer : {"best", "latest"}) {
    const fs::path folder = checkpoint_named_by(path, pointer);
    if (!folder.empty()) return folder;
  }
  fail(ErrorKind::kModel, "{}: neither a model folder (config.json, model.safetensors) nor a run directory with a checkpoint", path.string());
}

ModelConfig read_model_config(const fs::path& model_dir) {
  const fs::path file = model_dir / "config.json";
  std::error_code error;
  SEQBOAT_CHECK(fs::is_regular_file(file, error), ErrorKind::kModel, "{}: no such file", file.string());
  const std::string text = read_file(file);
  nlohmann::ordered_json json;
  try {
    json = nlohmann::ordered_json::parse(text);
  } catch (const nlohmann::json::parse_error& e) {
    fail(ErrorKind::kModel, "{}: broken JSON at byte {}{}", file.string(), e.byte, text.empty() ? ": the file is empty" : "");
  }
  return model_config_from_json(json, file.string());
}

}  // namespace seqboat::config
