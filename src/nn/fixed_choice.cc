#include "seqboat/nn/fixed_choice.h"

#include <cmath>

#include "nn/token_random.h"

namespace seqboat::nn {
namespace {

bool at_stride(double rate, int64_t time) {
  return std::floor(static_cast<double>(time + 1) * rate) > std::floor(static_cast<double>(time) * rate);
}

bool at_random(double rate, const RandomKey& random, int64_t layer, int64_t sequence, int64_t time) {
  constexpr uint64_t kChoiceStream = 0x63686f6963650000;
  return static_cast<double>(token_words(random, kChoiceStream, layer, sequence, time)[0]) < rate * 4294967296.0;
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
