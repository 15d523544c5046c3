#include "ops/common.h"
#include "ops/dispatch.h"
#include "seqboat/ops/ops.h"

namespace seqboat::ops {

std::tuple<Tensor, Tensor, Tensor> active_index(const Tensor& active, const Tensor& cu_seqlens) {
  return SEQBOAT_OP("active_index", std::tuple<Tensor, Tensor, Tensor>(const Tensor&, const Tensor&)).call(active, cu_seqlens);
}

Tensor compress(const Tensor& x, const Tensor& active, const Tensor& active_index) {
  return SEQBOAT_OP("compress", Tensor(const Tensor&, const Tensor&, const Tensor&)).call(x, active, active_index);
}

Tensor extract(const Tensor& h, const Tensor& active, const Tensor& active_index) {
  return SEQBOAT_OP("extract", Tensor(const Tensor&, const Tensor&, const Tensor&)).call(h, active, active_index);
}

TORCH_LIBRARY_FRAGMENT(seqboat, m) {
  // How many tokens are active depends on the data: no Meta function can tell it, which the tag says. Export and compile need a fake with an unbacked
  // size, which only Python can register.
  m.def("active_index(Tensor active, Tensor cu_seqlens) -> (Tensor, Tensor, Tensor)", {at::Tag::dynamic_output_shape});
  m.def("compress(Tensor x, Tensor active, Tensor active_index) -> Tensor");
  m.def("extract(Tensor h, Tensor active, Tensor active_index) -> Tensor");
}

TORCH_LIBRARY_IMPL(seqboat, Meta, m) {
  m.impl("compress", [](const Tensor& x, const Tensor&, const Tensor& index) {
    return at::empty_symint({index.sym_size(0), x.sym_size(1)}, x.options());
  });
  m.impl("extract", [](const Tensor& h, const Tensor& active, const Tensor&) {
    return at::empty_symint({active.sym_size(0), h.sym_size(1)}, h.options());
  });
}

}  // namespace seqboat::ops
