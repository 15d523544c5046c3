#include "seqboat/train/router_penalty.h"

#include <numeric>

namespace seqboat::train {

RouterPenalty router_penalty(const std::vector<nn::LayerTrace>& traces, int64_t n_layers, double target_rate, double weight, int64_t sample_size) {
  RouterPenalty out;
  for (int64_t layer = 0; layer < n_layers; ++layer) {
    int64_t active = 0, tokens = 0;
    for (size_t i = static_cast<size_t>(layer); i < traces.size(); i += static_cast<size_t>(n_layers)) {
      const torch::Tensor& flags = traces[i].active;
      TORCH_CHECK(flags.defined(), "seqboat::train::router_penalty: layer ", layer, " has no router");
      const uint8_t* data = flags.const_data_ptr<uint8_t>();
      active += std::accumulate(data, data + flags.numel(), int64_t{0});
      tokens += flags.numel();
    }
    if (tokens == 0) continue;
    const double gap = static_cast<double>(active) / static_cast<double>(tokens) - target_rate;
    out.value += weight * gap * gap;
    const double slope = 2 * weight * gap * static_cast<double>(sample_size) / static_cast<double>(tokens);
    if (slope == 0) continue;
    for (size_t i = static_cast<size_t>(layer); i < traces.size(); i += static_cast<size_t>(n_layers)) {
      // Only the gradient of this is used, which is the constant `slope`: the sum's own rounding, and its order, do not matter.
      const torch::Tensor pull = traces[i].probability.sum() * slope;
      out.pull = out.pull.defined() ? out.pull + pull : pull;
    }
  }
  return out;
}

}  // namespace seqboat::train
