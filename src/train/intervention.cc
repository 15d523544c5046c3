#include "seqboat/train/intervention.h"

#include <algorithm>
#include <utility>

#include "seqboat/base/error.h"
#include "seqboat/base/philox.h"

namespace seqboat::train {
namespace {

/// Of each sequence as many tokens as are active, those whose hashes are the smallest.
torch::Tensor random_choice(const torch::Tensor& active, const InterventionKey& key) {
  constexpr uint64_t kRandomChoice = 0x696e747276;  // sets these numbers apart from others that the same seed is the key of
  const auto low = [](uint64_t v) { return static_cast<uint32_t>(v); };
  const auto high = [](uint64_t v) { return static_cast<uint32_t>(v >> 32); };
  const uint64_t where = kRandomChoice ^ (static_cast<uint64_t>(key.layer) * 2 + static_cast<uint64_t>(key.pass));
  torch::Tensor chosen = torch::zeros_like(active);
  const uint8_t* own = active.const_data_ptr<uint8_t>();
  uint8_t* out = chosen.mutable_data_ptr<uint8_t>();
  const int64_t* offsets = key.cu_seqlens.const_data_ptr<int64_t>();
  const int64_t* ids = key.sequence_ids.const_data_ptr<int64_t>();
  std::vector<std::pair<uint64_t, int64_t>> order;
  for (int64_t b = 0; b + 1 < key.cu_seqlens.size(0); ++b) {
    order.clear();
    int64_t count = 0;
    for (int64_t row = offsets[b]; row < offsets[b + 1]; ++row) {
      count += own[row] != 0 ? 1 : 0;
      const auto time = static_cast<uint64_t>(row - offsets[b]), sequence = static_cast<uint64_t>(ids[b]);
      const auto words =
          philox4x32({low(time), high(time) ^ high(where), low(sequence), high(sequence) ^ low(where)}, {low(key.seed), high(key.seed)});
      order.emplace_back(static_cast<uint64_t>(words[0]) << 32 | words[1], row);
    }
    std::nth_element(order.begin(), order.begin() + count, order.end());
    for (int64_t i = 0; i < count; ++i) out[order[static_cast<size_t>(i)].second] = 1;
  }
  return chosen;
}

}  // namespace

const char* intervention_word(Intervention intervention) {
  switch (intervention) {
    case Intervention::kNone:
      return "none";
    case Intervention::kAll:
      return "all";
    case Intervention::kRandom:
      return "random";
    case Intervention::kInverted:
      return "inverted";
  }
  return "";
}

Intervention parse_intervention(std::string_view word) {
  for (const Intervention intervention : kInterventions) {
    if (word == intervention_word(intervention)) return intervention;
  }
  fail(ErrorKind::kUsage, "--force: expected none, all, random or inverted, found '{}'", word);
}

torch::Tensor intervene(Intervention intervention, const torch::Tensor& active, const InterventionKey& key) {
  switch (intervention) {
    case Intervention::kNone:
      return torch::zeros_like(active);
    case Intervention::kAll:
      return torch::ones_like(active);
    case Intervention::kRandom:
      return random_choice(active, key);
    case Intervention::kInverted:
      return 1 - active;
  }
  return active;
}

}  // namespace seqboat::train
