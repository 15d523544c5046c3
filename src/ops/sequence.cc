#include "ops/common.h"
#include "ops/dispatch.h"
#include "seqboat/ops/ops.h"

// What happens at the two ends of a model: embedding, dropout, pooling, loss.
namespace seqboat::ops {

Tensor segment_sum(const Tensor& x, const Tensor& cu_seqlens, bool mean) {
  return SEQBOAT_OP("segment_sum", Tensor(const Tensor&, const Tensor&, bool)).call(x, cu_seqlens, mean);
}

Tensor embedding(const Tensor& weight, const Tensor& tokens) {
  return SEQBOAT_OP("embedding", Tensor(const Tensor&, const Tensor&)).call(weight, tokens);
}

Tensor dropout(const Tensor& x, double p, int64_t seed, int64_t update, int64_t micro_batch, int64_t layer, int64_t site, const Tensor& sequence_ids,
               const Tensor& positions) {
  return SEQBOAT_OP("dropout", Tensor(const Tensor&, double, int64_t, int64_t, int64_t, int64_t, int64_t, const Tensor&, const Tensor&))
      .call(x, p, seed, update, micro_batch, layer, site, sequence_ids, positions);
}

Tensor cross_entropy_sum(const Tensor& logits, const Tensor& targets) {
  return std::get<0>(SEQBOAT_OP("cross_entropy_sum", std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&)).call(logits, targets));
}

TORCH_LIBRARY_FRAGMENT(seqboat, m) {
  m.def("segment_sum(Tensor x, Tensor cu_seqlens, bool mean) -> Tensor");
  m.def("_segment_sum_backward(Tensor grad_y, Tensor cu_seqlens, bool mean, SymInt tokens) -> Tensor");
  m.def("embedding(Tensor weight, Tensor tokens) -> Tensor");
  m.def("_embedding_backward(Tensor grad_y, Tensor tokens, SymInt vocab) -> Tensor");
  m.def("dropout(Tensor x, float p, int seed, int update, int micro_batch, int layer, int site, Tensor sequence_ids, Tensor positions) -> Tensor");
  m.def("cross_entropy_sum(Tensor logits, Tensor targets) -> (Tensor, Tensor)");
  m.def("_cross_entropy_backward(Tensor grad_loss, Tensor log_probs, Tensor targets) -> Tensor");
}

TORCH_LIBRARY_IMPL(seqboat, Meta, m) {
  m.impl("segment_sum", [](const Tensor& x, const Tensor& cu_seqlens, bool) {
    return at::empty_symint({cu_seqlens.sym_size(0) - 1, x.sym_size(1)}, x.options());
  });
  m.impl("_segment_sum_backward", [](const Tensor& grad_y, const Tensor&, bool, c10::SymInt tokens) {
    return at::empty_symint({tokens, grad_y.sym_size(1)}, grad_y.options());
  });
  m.impl("embedding", [](const Tensor& weight, const Tensor& tokens) {
    return at::empty_symint({tokens.sym_size(0), weight.sym_size(1)}, weight.options());
  });
  m.impl("_embedding_backward", [](const Tensor& grad_y, const Tensor&, c10::SymInt vocab) {
    return at::empty_symint({vocab, grad_y.sym_size(1)}, grad_y.options());
  });
  m.impl("dropout",
         [](const Tensor& x, double, int64_t, int64_t, int64_t, int64_t, int64_t, const Tensor&, const Tensor&) { return contiguous_like(x); });
  m.impl("cross_entropy_sum",
         [](const Tensor& logits, const Tensor&) { return std::make_tuple(at::empty({1}, logits.options()), contiguous_like(logits)); });
  m.impl("_cross_entropy_backward", [](const Tensor&, const Tensor& log_probs, const Tensor&) { return contiguous_like(log_probs); });
}

}  // namespace seqboat::ops
