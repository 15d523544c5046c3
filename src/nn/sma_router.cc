#include "seqboat/nn/sma_router.h"

#include <cmath>

#include "seqboat/nn/initialization.h"
#include "seqboat/ops/ops.h"

namespace seqboat::nn {

SmaRouterImpl::SmaRouterImpl(int64_t dim, double temperature_init, double act_bias, PhiloxStream& random)
    : act_bias_(static_cast<double>(static_cast<float>(act_bias))) {  // the official constant is rounded to float32
  proj = register_module("proj", Linear(dim, 2));
  fill_truncated_normal(proj->weight, 0.02, random);
  log_temperature = register_parameter("log_temperature", torch::full({1}, std::log(temperature_init * std::sqrt(static_cast<double>(dim)))));
}

SmaRouterImpl::Decision SmaRouterImpl::forward(const torch::Tensor& m, const torch::Tensor& forced) {
  const torch::Tensor logits = proj(m);
  auto [active, p, probability] =
      ops::router(logits, log_temperature, act_bias_, forced.defined() ? std::optional<torch::Tensor>(forced) : std::nullopt);
  return {active, p, probability, logits};
}

}  // namespace seqboat::nn
