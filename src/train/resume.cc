#include "seqboat/train/resume.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

namespace seqboat::train {

void resolve(config::Recipe* recipe) {
  recipe->optim.total_steps = recipe->schedule_steps();
}

std::vector<std::string> differing_keys(const config::Recipe& run, const config::Recipe& here) {
  constexpr std::array<std::string_view, 6> kFree{"train.steps", "train.threads", "train.keep", "train.save_every", "train.log_every", "data.path"};
  const auto a = config::to_json(run), b = config::to_json(here);
  std::vector<std::string> out;
  for (const auto& [section, keys] : a.items()) {
    if (section == "expect") continue;
    for (const auto& [key, value] : keys.items()) {
      const std::string name = section + "." + key;
      if (std::find(kFree.begin(), kFree.end(), name) != kFree.end()) continue;
      const auto& other = b.at(section).at(key);
      if (value != other) out.push_back(fmt::format("{} = {}, here {}", name, value.dump(), other.dump()));
    }
  }
  return out;
}

}  // namespace seqboat::train
