#include "ops/common.h"
#include "ops/dispatch.h"
#include "seqboat/ops/ops.h"

namespace seqboat::ops {

std::tuple<Tensor, Tensor> s4d_scan(const Tensor& x, const Tensor& cu_seqlens, const Tensor& d, const Tensor& w, const Tensor& skip,
                                    int64_t truncation, bool bidirectional, const std::optional<Tensor>& state,
                                    const std::optional<Tensor>& history) {
  return SEQBOAT_OP("s4d_scan", std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, int64_t, bool,
                                                           const std::optional<Tensor>&, const std::optional<Tensor>&))
      .call(x, cu_seqlens, d, w, skip, truncation, bidirectional, state, history);
}

namespace {

std::tuple<Tensor, Tensor> s4d_scan_meta(const Tensor& x, const Tensor& cu_seqlens, const Tensor& d, const Tensor&, const Tensor&, int64_t,
                                         bool bidirectional, const std::optional<Tensor>&, const std::optional<Tensor>&) {
  Tensor state =
      bidirectional ? at::empty({0}, x.options()) : at::empty_symint({cu_seqlens.sym_size(0) - 1, x.sym_size(1), d.sym_size(1), 2}, x.options());
  return {contiguous_like(x), state};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> s4d_scan_backward_meta(const Tensor&, const std::optional<Tensor>&, const Tensor& x,
                                                                                  const Tensor&, const Tensor& d, const Tensor& w, const Tensor& skip,
                                                                                  int64_t, bool, const std::optional<Tensor>& state,
                                                                                  const std::optional<Tensor>& history) {
  return {contiguous_like(x),
          contiguous_like(d),
          contiguous_like(w),
          contiguous_like(skip),
          present(state) ? contiguous_like(*state) : Tensor(),
          present(history) ? contiguous_like(*history) : Tensor()};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(seqboat, m) {
  m.def(
      "s4d_scan(Tensor x, Tensor cu_seqlens, Tensor d, Tensor w, Tensor skip, int truncation=0, bool bidirectional=False, Tensor? state=None, "
      "Tensor? history=None) -> (Tensor, Tensor)");
  m.def(
      "_s4d_scan_backward(Tensor grad_y, Tensor? grad_state, Tensor x, Tensor cu_seqlens, Tensor d, Tensor w, Tensor skip, int truncation, bool "
      "bidirectional, Tensor? state, Tensor? history) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(seqboat, Meta, m) {
  m.impl("s4d_scan", s4d_scan_meta);
  m.impl("_s4d_scan_backward", s4d_scan_backward_meta);
}

}  // namespace seqboat::ops
