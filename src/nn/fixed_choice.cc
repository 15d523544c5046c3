#include "seqboat/nn/fixed_choice.h"

#include <cmath>

#include "seqboat/base/philox.h"

namespace seqboat::nn {
namespace {

bool at_stride(double rate, int64_t time) {
  return std::floor(static_cast<double>(time + 1) * rate) > std::floor(static_cast<double>(time) * rate);
}

bool at_random(double rate, const RandomKey& random, int64_t layer, int64_t sequence, int64_t time) {
  // The update is part of the key, so that the counter holds what lies within one.
  const uint64_t seed = random.seed + 0x9E3779B97F4A7C15ULL * (random.update + 1);
  const auto low = [](uint64_t v) { return static_cast<uint32_t>(v); };
  const auto high = [](uint64_t v) { return static_cast<uint32_t>(v >> 32); };
  constexpr uint64_t kChoiceStream = 0x63686f6963650000;
  const uint64_t where = kChoiceStream + static_cast<uint64_t>(layer);
  const auto words = philox4x32({low(static_cast<uint64_t>(time)), high(static_cast<uint64_t>(time)) ^ high(where),
                                 low(static_cast<uint64_t>(sequence)), high(static_cast<uint64_t>(sequence)) ^ low(where)},
                                {low(seed), high(seed)});
  return static_cast<double>(words[0]) < rate * 4294967296.0;
}

}  // namespace

torch::Tensor fixed_choice(const std::string& kind, double rate, const PackedLayout& layout, const RandomKey& random, int64_t layer) {
  TORCH_CHECK(kind == "stride" || kind == "random", "seqboat: the choice must be stride or random, got '", kind, "'");
  TORCH_CHECK(rate >= 0 && rate <= 1, "seqboat: the rate of a fixed choice must lie in [0, 1], got ", rate);
  const int64_t tokens = layout.positions.size(0);
  const int64_t* times = layout.positions.const_data_ptr<int64_t>();
  const int64_t* sequences = layout.sequence_ids.const_data_ptr<int64_t>();
  torch::Tensor active = torch::empty({tokens}, torch::kUInt8);
  uint8_t* out = active.mutable_data_ptr<uint8_t>();
  for (int64_t i = 0; i < tokens; ++i) out[i] = kind == "stride" ? at_stride(rate, times[i]) : at_random(rate, random, layer, sequences[i], times[i]);
  return active;
}

}  // namespace seqboat::nn
