#include "ops/autograd/common.h"

namespace seqboat::ops {
namespace {

using AttentionGradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

struct WindowAttention : torch::autograd::Function<WindowAttention> {
  static variable_list forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& positions,
                               const Tensor& active_cu_seqlens, const std::optional<Tensor>& bias_table, std::string bias, int64_t window,
                               bool causal, std::string function) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [out, lse] = window_attention(q, k, v, positions, active_cu_seqlens, bias_table, bias, window, causal, function);
    ctx->save_for_backward({q, k, v, positions, active_cu_seqlens, bias_table.value_or(Tensor()), out, lse});
    ctx->saved_data["bias"] = bias;
    ctx->saved_data["window"] = window;
    ctx->saved_data["causal"] = causal;
    ctx->saved_data["function"] = function;
    ctx->mark_non_differentiable({lse});
    return {out, lse};
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_second_derivative("window_attention");
    const auto s = ctx->get_saved_variables();
    const std::optional<Tensor> table = s[5].defined() ? std::optional<Tensor>(s[5]) : std::nullopt;
    auto [gq, gk, gv, gtable] =
        SEQBOAT_OP("_window_attention_backward",
                   AttentionGradients(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                      const std::optional<Tensor>&, c10::string_view, int64_t, bool, c10::string_view, const Tensor&, const Tensor&))
            .call(grads[0], s[0], s[1], s[2], s[3], s[4], table, ctx->saved_data["bias"].toStringRef(), ctx->saved_data["window"].toInt(),
                  ctx->saved_data["causal"].toBool(), ctx->saved_data["function"].toStringRef(), s[6], s[7]);
    return {gq, gk, gv, Tensor(), Tensor(), gtable, Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

struct Rotary : torch::autograd::Function<Rotary> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& positions, bool inverse) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({positions});
    ctx->saved_data["inverse"] = inverse;
    return rotary(x, positions, inverse);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return {rotary(grads[0], ctx->get_saved_variables()[0], !ctx->saved_data["inverse"].toBool()), Tensor(), Tensor()};
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(seqboat, Autograd, m) {
  m.impl("window_attention",
         [](const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& positions, const Tensor& active_cu_seqlens,
            const std::optional<Tensor>& bias_table, c10::string_view bias, int64_t window, bool causal, c10::string_view function) {
           const auto out =
               WindowAttention::apply(q, k, v, positions, active_cu_seqlens, bias_table, std::string(bias), window, causal, std::string(function));
           return std::make_tuple(out[0], out[1]);
         });
  m.impl("rotary", [](const Tensor& x, const Tensor& positions, bool inverse) { return Rotary::apply(x, positions, inverse); });
}

}  // namespace seqboat::ops
