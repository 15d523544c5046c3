#include "train/metrics_log.h"

#include <nlohmann/json.hpp>

#include "seqboat/base/file_io.h"

namespace seqboat::train {

void MetricsLog::open(const std::filesystem::path& file, int64_t step, bool validated) {
  std::error_code error;
  if (std::filesystem::exists(file, error)) {
    const std::string text = read_file(file);
    size_t kept = 0;
    for (size_t end; (end = text.find('\n', kept)) != std::string::npos; kept = end + 1) {
      const auto line =
          nlohmann::json::parse(text.begin() + static_cast<std::ptrdiff_t>(kept), text.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
      if (!line.is_object() || !line.contains("step") || !line["step"].is_number_integer()) break;
      const int64_t at = line["step"];
      if (at > step || (at == step && line.contains("split") && !validated)) break;
    }
    if (kept < text.size()) write_file_atomically(file, std::string_view(text).substr(0, kept));
  }
  file_.open(file);
}

void MetricsLog::append(const nlohmann::ordered_json& line) {
  file_.append(line.dump());
}

}  // namespace seqboat::train
