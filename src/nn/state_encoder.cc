#include "seqboat/nn/state_encoder.h"

namespace seqboat::nn {

std::pair<torch::Tensor, torch::Tensor> StateEncoder::forward_with_state(const torch::Tensor&, const torch::Tensor&, const torch::Tensor&,
                                                                         const torch::Tensor&) {
  TORCH_CHECK(false, "seqboat::nn::StateEncoder: this encoder carries no state from chunk to chunk");
}

}  // namespace seqboat::nn
