#include "ops/autograd/common.h"

namespace seqboat::ops {
namespace {

using OptionalTensor = std::optional<Tensor>;
using Triple = std::tuple<Tensor, Tensor, Tensor>;

struct RowNormFunction : torch::autograd::Function<RowNormFunction> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const OptionalTensor& weight, const OptionalTensor& bias, std::string kind,
                               double eps) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [y, mean, rstd] = SEQBOAT_OP("row_norm", Triple(const Tensor&, const OptionalTensor&, const OptionalTensor&, c10::string_view, double))
                               .call(x, weight, bias, kind, eps);
    ctx->save_for_backward({x, weight.value_or(Tensor()), mean, rstd});
    ctx->saved_data["kind"] = kind;
    ctx->saved_data["has_bias"] = present(bias);
    ctx->mark_non_differentiable({mean, rstd});
    return {y, mean, rstd};
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_second_derivative("row_norm");
    const auto s = ctx->get_saved_variables();
    auto [gx, gw, gb] =
        SEQBOAT_OP("_row_norm_backward",
                   Triple(const Tensor&, const Tensor&, const OptionalTensor&, const Tensor&, const Tensor&, c10::string_view, bool))
            .call(grads[0], s[0], optional(s[1]), s[2], s[3], ctx->saved_data["kind"].toStringRef(), ctx->saved_data["has_bias"].toBool());
    return {gx, gw, gb, Tensor(), Tensor()};
  }
};

struct BatchNormFunction : torch::autograd::Function<BatchNormFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const OptionalTensor& weight, const OptionalTensor& bias, const Tensor& mean,
                        const Tensor& var, bool batch_stats, double eps) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({x, weight.value_or(Tensor()), mean, var});
    ctx->saved_data["batch_stats"] = batch_stats;
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["has_bias"] = present(bias);
    return ops::batch_norm(x, weight, bias, mean, var, batch_stats, eps);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_second_derivative("batch_norm");
    const auto s = ctx->get_saved_variables();
    auto [gx, gw, gb] = SEQBOAT_OP("_batch_norm_backward",
                                   Triple(const Tensor&, const Tensor&, const OptionalTensor&, const Tensor&, const Tensor&, bool, double, bool))
                            .call(grads[0], s[0], optional(s[1]), s[2], s[3], ctx->saved_data["batch_stats"].toBool(),
                                  ctx->saved_data["eps"].toDouble(), ctx->saved_data["has_bias"].toBool());
    return {gx, gw, gb, Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(seqboat, Autograd, m) {
  m.impl("row_norm", [](const Tensor& x, const OptionalTensor& weight, const OptionalTensor& bias, c10::string_view kind, double eps) {
    const auto out = RowNormFunction::apply(x, weight, bias, std::string(kind), eps);
    return std::make_tuple(out[0], out[1], out[2]);
  });
  m.impl("batch_norm", [](const Tensor& x, const OptionalTensor& weight, const OptionalTensor& bias, const Tensor& mean, const Tensor& var,
                          bool batch_stats, double eps) { return BatchNormFunction::apply(x, weight, bias, mean, var, batch_stats, eps); });
}

}  // namespace seqboat::ops
