#include "ops/autograd/common.h"

namespace seqboat::ops {
namespace {

using S4dGradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

struct S4dScan : torch::autograd::Function<S4dScan> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor& cu_seqlens, const Tensor& d, const Tensor& w, const Tensor& skip,
                               int64_t truncation, bool bidirectional, const std::optional<Tensor>& state, const std::optional<Tensor>& history) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({x, cu_seqlens, d, w, skip, state.value_or(Tensor()), history.value_or(Tensor())});
    ctx->saved_data["truncation"] = truncation;
    ctx->saved_data["bidirectional"] = bidirectional;
    ctx->set_materialize_grads(false);
    auto [y, state_out] = s4d_scan(x, cu_seqlens, d, w, skip, truncation, bidirectional, state, history);
    return {y, state_out};
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_second_derivative("s4d_scan");
    const auto saved = ctx->get_saved_variables();
    const Tensor grad_y = grads[0].defined() ? grads[0] : at::zeros_like(saved[0]);
    auto [gx, gd, gw, gskip, gstate, ghistory] =
        SEQBOAT_OP("_s4d_scan_backward",
                   S4dGradients(const Tensor&, const std::optional<Tensor>&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                const Tensor&, int64_t, bool, const std::optional<Tensor>&, const std::optional<Tensor>&))
            .call(grad_y, optional(grads[1]), saved[0], saved[1], saved[2], saved[3], saved[4], ctx->saved_data["truncation"].toInt(),
                  ctx->saved_data["bidirectional"].toBool(), optional(saved[5]), optional(saved[6]));
    return {gx, Tensor(), gd, gw, gskip, Tensor(), Tensor(), gstate, ghistory};
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(seqboat, Autograd, m) {
  m.impl("s4d_scan", [](const Tensor& x, const Tensor& cu_seqlens, const Tensor& d, const Tensor& w, const Tensor& skip, int64_t truncation,
                        bool bidirectional, const std::optional<Tensor>& state, const std::optional<Tensor>& history) {
    const auto out = S4dScan::apply(x, cu_seqlens, d, w, skip, truncation, bidirectional, state, history);
    return std::make_tuple(out[0], out[1]);
  });
}

}  // namespace seqboat::ops
