#include "seqboat/kernels/router.h"

#include <torch/library.h>

#include "ops/common.h"

namespace seqboat::ops {
namespace {

using at::Tensor;

constexpr int64_t kTokenBlock = 8192;  // fixed, so that the temperature's gradient is summed in the same order at any thread count

void check_router(const Tensor& logits, const Tensor& log_temperature) {
  check_floating("router", "logits", logits);
  TORCH_CHECK(logits.dim() == 2 && logits.size(1) == 2, "seqboat::router: logits must be (tokens, 2), got ", logits.sizes());
  check_same_dtype("router", "log_temperature", log_temperature, logits);
  TORCH_CHECK(log_temperature.numel() == 1, "seqboat::router: log_temperature must hold one number, got ", log_temperature.sizes());
}

std::tuple<Tensor, Tensor, Tensor> router_cpu(const Tensor& logits, const Tensor& log_temperature, double act_bias,
                                              const std::optional<Tensor>& forced) {
  const PhaseScope phase(Phase::kRouter);
  check_router(logits, log_temperature);
  const int64_t tokens = logits.size(0);
  if (present(forced))
    TORCH_CHECK(forced->dim() == 1 && forced->size(0) == tokens && forced->scalar_type() == at::kByte, "seqboat::router: forced must be (", tokens,
                ") uint8, got ", forced->sizes(), " ", forced->scalar_type());
  const auto decided = contiguous(forced);
  const Tensor u = logits.stride(1) == 1 ? logits : logits.contiguous();
  Tensor active = at::empty({tokens}, logits.options().dtype(at::kByte));
  Tensor p = at::empty({tokens}, logits.options()), probability = at::empty({tokens}, logits.options());
  SEQBOAT_DISPATCH(logits, "seqboat::router", [&] {
    const auto temperature = *log_temperature.const_data_ptr<scalar_t>();
    const uint8_t* forced_data = decided ? decided->const_data_ptr<uint8_t>() : nullptr;
    parallel_for(tokens, kTokenBlock, [&](int64_t begin, int64_t end) {
      kernels::router_fwd<scalar_t>(end - begin, u.stride(0), u.const_data_ptr<scalar_t>() + begin * u.stride(0), static_cast<scalar_t>(act_bias),
                                    temperature, forced_data ? forced_data + begin : nullptr, active.mutable_data_ptr<uint8_t>() + begin,
                                    p.mutable_data_ptr<scalar_t>() + begin, probability.mutable_data_ptr<scalar_t>() + begin);
    });
  });
  return {active, p, probability};
}

std::tuple<Tensor, Tensor> router_backward_cpu(const std::optional<Tensor>& grad_p, const std::optional<Tensor>& grad_probability,
                                               const Tensor& logits, const Tensor& log_temperature, double act_bias, const Tensor& active) {
  const PhaseScope phase(Phase::kRouter);
  check_router(logits, log_temperature);
  const int64_t tokens = logits.size(0), blocks = (tokens + kTokenBlock - 1) / kTokenBlock;
  const auto gp = contiguous(grad_p), gprobability = contiguous(grad_probability);
  const Tensor u = logits.stride(1) == 1 ? logits : logits.contiguous();
  Tensor grad_logits = at::empty({tokens, 2}, logits.options()), grad_temperature = at::empty_like(log_temperature);
  std::vector<double> partial(static_cast<size_t>(blocks), 0.0);
  SEQBOAT_DISPATCH(logits, "seqboat::_router_backward", [&] {
    const auto temperature = *log_temperature.const_data_ptr<scalar_t>();
    const auto* gp_data = data_or_null<scalar_t>(gp);
    const auto* gprobability_data = data_or_null<scalar_t>(gprobability);
    parallel_for(blocks, 1, [&](int64_t first, int64_t last) {
      for (int64_t block = first; block < last; ++block) {
        const int64_t begin = block * kTokenBlock, end = std::min(begin + kTokenBlock, tokens);
        partial[static_cast<size_t>(block)] = kernels::router_bwd<scalar_t>(
            end - begin, u.stride(0), u.const_data_ptr<scalar_t>() + begin * u.stride(0), static_cast<scalar_t>(act_bias), temperature,
            active.const_data_ptr<uint8_t>() + begin, gp_data ? gp_data + begin : nullptr, gprobability_data ? gprobability_data + begin : nullptr, 2,
            grad_logits.mutable_data_ptr<scalar_t>() + begin * 2);
      }
    });
    double sum = 0;
    for (const double term : partial) sum += term;
    *grad_temperature.mutable_data_ptr<scalar_t>() = static_cast<scalar_t>(sum);
  });
  return {grad_logits, grad_temperature};
}

}  // namespace

TORCH_LIBRARY_IMPL(seqboat, CPU, m) {
  m.impl("router", router_cpu);
  m.impl("_router_backward", router_backward_cpu);
}

}  // namespace seqboat::ops
