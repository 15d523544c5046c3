#include "train/memory_check.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "seqboat/base/error.h"
#include "seqboat/base/machine.h"
#include "seqboat/config/model_size.h"

namespace seqboat::train {
namespace {

using config::ModelConfig;

constexpr double kBytesPerParameter = 16;

// The keys whose halving takes most away.
std::vector<std::string> heaviest_keys(const ModelConfig& model) {
  struct Size {
    const char* key;
    int64_t ModelConfig::*field;
  };
  constexpr Size kSizes[] = {{"model.d_model", &ModelConfig::d_model},         {"model.d_hidden", &ModelConfig::d_hidden},
                             {"model.d_attn", &ModelConfig::d_attn},           {"model.d_state", &ModelConfig::d_state},
                             {"model.n_layers", &ModelConfig::n_layers},       {"model.vocab_size", &ModelConfig::vocab_size},
                             {"model.ffn_dim", &ModelConfig::ffn_dim},         {"model.max_positions", &ModelConfig::max_positions},
                             {"model.window_size", &ModelConfig::window_size}, {"model.d_embedding", &ModelConfig::d_embedding},
                             {"task.classes", &ModelConfig::classes},          {"task.d_classifier", &ModelConfig::d_classifier}};
  const int64_t all = config::parameter_count(model);
  std::vector<std::pair<int64_t, std::string>> weights;
  for (const Size& size : kSizes) {
    ModelConfig half = model;
    if (half.*size.field < 2) continue;
    half.*size.field /= 2;
    const int64_t saved = all - config::parameter_count(half);
    if (saved > all / 20) weights.emplace_back(saved, fmt::format("{} = {}", size.key, model.*size.field));
  }
  std::stable_sort(weights.begin(), weights.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<std::string> out;
  for (size_t i = 0; i < std::min<size_t>(3, weights.size()); ++i) out.push_back(weights[i].second);
  return out;
}

}  // namespace

void check_memory(const ModelConfig& model) {
  const long pages = ::sysconf(_SC_PHYS_PAGES), page = ::sysconf(_SC_PAGESIZE);
  if (pages <= 0 || page <= 0) return;
  const double available = static_cast<double>(pages) * static_cast<double>(page);
  const auto parameters = static_cast<double>(config::parameter_count(model));
  if (parameters * kBytesPerParameter <= available) return;
  fail(ErrorKind::kResource,
       "out of memory: a model of {:.4g} parameters takes {:.1f} GiB to train (weights, gradients, two moments), this machine has {:.1f} GiB; the "
       "keys that weigh most are {}",
       parameters, parameters * kBytesPerParameter / (1 << 30), available / (1 << 30), fmt::join(heaviest_keys(model), ", "));
}

void check_step_memory(const ModelConfig& model, int64_t tokens, bool train) {
  const int64_t free_bytes = machine_memory().available_bytes, left = group_limits().memory_left_bytes;
  const double available = static_cast<double>(free_bytes < 0 ? left : std::min(free_bytes, left));
  const double states = train ? 4 + static_cast<double>(model.n_layers) : 4;
  double a_token = 4 * states * static_cast<double>(model.d_model) + 8 * 3;  // its id, its sequence's, its position
  if (model.task == "language-model") a_token += 4.0 * (train ? 2 : 1) * static_cast<double>(model.vocab_size);
  const double least = static_cast<double>(config::parameter_count(model)) * (train ? kBytesPerParameter : 4) + a_token * static_cast<double>(tokens);
  if (least <= available) return;
  fail(ErrorKind::kResource, "out of memory: a step of {} tokens takes {:.1f} GiB at least, and {:.1f} GiB are free: fewer or shorter sequences",
       tokens, least / (1 << 30), available / (1 << 30));
}

}  // namespace seqboat::train
