#include "ops/autograd/common.h"

namespace seqboat::ops {
namespace {

using EmaGradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

struct EmaScan : torch::autograd::Function<EmaScan> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor& cu_seqlens, const Tensor& q, const Tensor& c, const Tensor& omega,
                               int64_t truncation, bool bidirectional, const std::optional<Tensor>& state, const std::optional<Tensor>& history) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({x, cu_seqlens, q, c, omega, state.value_or(Tensor()), history.value_or(Tensor())});
    ctx->saved_data["truncation"] = truncation;
    ctx->saved_data["bidirectional"] = bidirectional;
    ctx->set_materialize_grads(false);
    auto [y, state_out] = ema_scan(x, cu_seqlens, q, c, omega, truncation, bidirectional, state, history);
    return {y, state_out};
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_second_derivative("ema_scan");
    const auto saved = ctx->get_saved_variables();
    const auto optional = [](const Tensor& t) { return t.defined() ? std::optional<Tensor>(t) : std::nullopt; };
    const Tensor grad_y = grads[0].defined() ? grads[0] : at::zeros_like(saved[0]);
    auto [gx, gq, gc, gomega, gstate, ghistory] =
        SEQBOAT_OP("_ema_scan_backward",
                   EmaGradients(const Tensor&, const std::optional<Tensor>&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                const Tensor&, int64_t, bool, const std::optional<Tensor>&, const std::optional<Tensor>&))
            .call(grad_y, optional(grads[1]), saved[0], saved[1], saved[2], saved[3], saved[4], ctx->saved_data["truncation"].toInt(),
                  ctx->saved_data["bidirectional"].toBool(), optional(saved[5]), optional(saved[6]));
    return {gx, Tensor(), gq, gc, gomega, Tensor(), Tensor(), gstate, ghistory};
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(seqboat, Autograd, m) {
  m.impl("ema_scan", [](const Tensor& x, const Tensor& cu_seqlens, const Tensor& q, const Tensor& c, const Tensor& omega, int64_t truncation,
                        bool bidirectional, const std::optional<Tensor>& state, const std::optional<Tensor>& history) {
    const auto out = EmaScan::apply(x, cu_seqlens, q, c, omega, truncation, bidirectional, state, history);
    return std::make_tuple(out[0], out[1]);
  });
}

}  // namespace seqboat::ops
