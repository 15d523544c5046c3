#include "ops/autograd/common.h"

namespace seqboat::ops {
namespace {

// Compress and extract are each other's adjoint, so each is the other's backward.
struct Compress : torch::autograd::Function<Compress> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& active, const Tensor& index) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({active, index});
    return compress(x, active, index);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    return {extract(grads[0], saved[0], saved[1]), Tensor(), Tensor()};
  }
};

struct Extract : torch::autograd::Function<Extract> {
  static Tensor forward(AutogradContext* ctx, const Tensor& h, const Tensor& active, const Tensor& index) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({active, index});
    return extract(h, active, index);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    return {compress(grads[0], saved[0], saved[1]), Tensor(), Tensor()};
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(seqboat, Autograd, m) {
  m.impl("compress", [](const Tensor& x, const Tensor& active, const Tensor& index) { return Compress::apply(x, active, index); });
  m.impl("extract", [](const Tensor& h, const Tensor& active, const Tensor& index) { return Extract::apply(h, active, index); });
}

}  // namespace seqboat::ops
