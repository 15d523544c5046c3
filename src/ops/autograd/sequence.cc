#include "ops/autograd/common.h"

namespace seqboat::ops {
namespace {

struct SegmentSum : torch::autograd::Function<SegmentSum> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& cu_seqlens, bool mean) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({cu_seqlens});
    ctx->saved_data["mean"] = mean;
    ctx->saved_data["tokens"] = x.sym_size(0);
    return ops::segment_sum(x, cu_seqlens, mean);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_second_derivative("segment_sum");
    return {SEQBOAT_OP("_segment_sum_backward", Tensor(const Tensor&, const Tensor&, bool, c10::SymInt))
                .call(grads[0], ctx->get_saved_variables()[0], ctx->saved_data["mean"].toBool(), ctx->saved_data["tokens"].toSymInt()),
            Tensor(), Tensor()};
  }
};

struct Embedding : torch::autograd::Function<Embedding> {
  static Tensor forward(AutogradContext* ctx, const Tensor& weight, const Tensor& tokens) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({tokens});
    ctx->saved_data["vocab"] = weight.sym_size(0);
    return ops::embedding(weight, tokens);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_second_derivative("embedding");
    return {SEQBOAT_OP("_embedding_backward", Tensor(const Tensor&, const Tensor&, c10::SymInt))
                .call(grads[0], ctx->get_saved_variables()[0], ctx->saved_data["vocab"].toSymInt()),
            Tensor()};
  }
};

// The mask is made again in the backward: nothing but its keys is kept.
struct Dropout : torch::autograd::Function<Dropout> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, double p, int64_t seed, int64_t update, int64_t micro_batch, int64_t layer,
                        int64_t site, const Tensor& sequence_ids, const Tensor& positions) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({sequence_ids, positions});
    ctx->saved_data["p"] = p;
    ctx->saved_data["key"] = std::vector<int64_t>{seed, update, micro_batch, layer, site};
    return ops::dropout(x, p, seed, update, micro_batch, layer, site, sequence_ids, positions);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto key = ctx->saved_data["key"].toIntVector();
    variable_list result(9);
    result[0] = ops::dropout(grads[0], ctx->saved_data["p"].toDouble(), key[0], key[1], key[2], key[3], key[4], saved[0], saved[1]);
    return result;
  }
};

struct CrossEntropySum : torch::autograd::Function<CrossEntropySum> {
  static variable_list forward(AutogradContext* ctx, const Tensor& logits, const Tensor& targets) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [loss, log_probs] = SEQBOAT_OP("cross_entropy_sum", std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&)).call(logits, targets);
    ctx->save_for_backward({log_probs, targets});
    ctx->mark_non_differentiable({log_probs});
    return {loss, log_probs};
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_second_derivative("cross_entropy_sum");
    const auto saved = ctx->get_saved_variables();
    return {SEQBOAT_OP("_cross_entropy_backward", Tensor(const Tensor&, const Tensor&, const Tensor&)).call(grads[0], saved[0], saved[1]), Tensor()};
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(seqboat, Autograd, m) {
  m.impl("segment_sum", [](const Tensor& x, const Tensor& cu_seqlens, bool mean) { return SegmentSum::apply(x, cu_seqlens, mean); });
  m.impl("embedding", [](const Tensor& weight, const Tensor& tokens) { return Embedding::apply(weight, tokens); });
  m.impl("dropout",
         [](const Tensor& x, double p, int64_t seed, int64_t update, int64_t micro_batch, int64_t layer, int64_t site, const Tensor& sequence_ids,
            const Tensor& positions) { return Dropout::apply(x, p, seed, update, micro_batch, layer, site, sequence_ids, positions); });
  m.impl("cross_entropy_sum", [](const Tensor& logits, const Tensor& targets) {
    const auto out = CrossEntropySum::apply(logits, targets);
    return std::make_tuple(out[0], out[1]);
  });
}

}  // namespace seqboat::ops
