#include <torch/library.h>

#include "ops/common.h"
#include "ops/cpu/ema_passes.h"
#include "ops/cpu/scratch.h"

namespace seqboat::ops {
namespace {

using at::Tensor;

void check_ema_scan(const Tensor& x, const Tensor& cu_seqlens, const Tensor& q, const Tensor& c, const Tensor& omega, int64_t truncation,
                    bool bidirectional, const std::optional<Tensor>& state, const std::optional<Tensor>& history) {
  check_floating("ema_scan", "x", x);
  check_matrix("ema_scan", "x", x);
  check_offsets("ema_scan", cu_seqlens, x.size(0));
  const int64_t d = x.size(1), rows = bidirectional ? 2 * d : d, batch = cu_seqlens.size(0) - 1;
  TORCH_CHECK(q.dim() == 2 && q.size(0) == rows && q.sizes() == c.sizes(), "seqboat::ema_scan: q and c must be (", rows, ", N), got ", q.sizes(),
              " and ", c.sizes());
  TORCH_CHECK(omega.dim() == 1 && omega.size(0) == d, "seqboat::ema_scan: omega must be (", d, "), got ", omega.sizes());
  for (const Tensor* t : {&q, &c, &omega}) check_same_dtype("ema_scan", "q, c and omega", *t, x);
  TORCH_CHECK(truncation >= 0, "seqboat::ema_scan: truncation must be 0 (none) or positive, got ", truncation);
  TORCH_CHECK(!bidirectional || (!present(state) && !present(history)), "seqboat::ema_scan: a bidirectional scan carries no state");
  if (present(state))
    TORCH_CHECK(state->sizes() == at::IntArrayRef({batch, d, q.size(1)}) && state->scalar_type() == x.scalar_type(),
                "seqboat::ema_scan: state must be (", batch, ", ", d, ", ", q.size(1), ") ", x.scalar_type(), ", got ", state->sizes());
  if (present(history))
    TORCH_CHECK(truncation > 0 && history->sizes() == at::IntArrayRef({batch, truncation, d}) && history->scalar_type() == x.scalar_type(),
                "seqboat::ema_scan: history must be (", batch, ", ", truncation, ", ", d, ") and needs a truncation, got ", history->sizes());
}

template <class T>
EmaArguments<T> make_arguments(const Tensor& cu_seqlens, const Tensor& q, const Tensor& c, const Tensor& omega, int64_t truncation,
                               bool bidirectional, const std::optional<Tensor>& state, const std::optional<Tensor>& history) {
  return {.batch = cu_seqlens.size(0) - 1,
          .cu_seqlens = cu_seqlens.const_data_ptr<int64_t>(),
          .channels = omega.size(0),
          .n_state = q.size(1),
          .truncation = truncation,
          .bidirectional = bidirectional,
          .q = q.const_data_ptr<T>(),
          .c = c.const_data_ptr<T>(),
          .omega = omega.const_data_ptr<T>(),
          .state = data_or_null<T>(state),
          .history = data_or_null<T>(history)};
}

std::tuple<Tensor, Tensor> ema_scan_cpu(const Tensor& x, const Tensor& cu_seqlens, const Tensor& q, const Tensor& c, const Tensor& omega,
                                        int64_t truncation, bool bidirectional, const std::optional<Tensor>& state,
                                        const std::optional<Tensor>& history) {
  const PhaseScope phase(Phase::kEma);
  check_ema_scan(x, cu_seqlens, q, c, omega, truncation, bidirectional, state, history);
  const Tensor xc = x.contiguous(), qc = q.contiguous(), cc = c.contiguous(), oc = omega.contiguous();
  const auto state_in = contiguous(state), past = contiguous(history);
  const int64_t d = x.size(1), n = q.size(1), batch = cu_seqlens.size(0) - 1;
  Tensor y = at::empty_like(xc);
  Tensor state_out = bidirectional ? at::empty({0}, x.options()) : at::empty({batch, d, n}, x.options());
  SEQBOAT_DISPATCH(x, "seqboat::ema_scan", [&] {
    ema_forward<scalar_t>(make_arguments<scalar_t>(cu_seqlens, qc, cc, oc, truncation, bidirectional, state_in, past), xc.const_data_ptr<scalar_t>(),
                          y.mutable_data_ptr<scalar_t>(), bidirectional ? nullptr : state_out.mutable_data_ptr<scalar_t>());
  });
  return {y, state_out};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> ema_scan_backward_cpu(const Tensor& grad_y, const std::optional<Tensor>& grad_state,
                                                                                 const Tensor& x, const Tensor& cu_seqlens, const Tensor& q,
                                                                                 const Tensor& c, const Tensor& omega, int64_t truncation,
                                                                                 bool bidirectional, const std::optional<Tensor>& state,
                                                                                 const std::optional<Tensor>& history) {
  const PhaseScope phase(Phase::kEma);
  check_ema_scan(x, cu_seqlens, q, c, omega, truncation, bidirectional, state, history);
  const Tensor gy = grad_y.contiguous(), xc = x.contiguous(), qc = q.contiguous(), cc = c.contiguous(), oc = omega.contiguous();
  const auto state_in = contiguous(state), past = contiguous(history);
  auto gstate = contiguous(grad_state);
  if (bidirectional) gstate.reset();
  Tensor gx = at::empty_like(xc), gq = at::empty_like(qc), gc = at::empty_like(cc), gomega = at::empty_like(oc);
  Tensor gstate_in = present(state) ? at::empty_like(*state_in) : Tensor();
  Tensor gpast = present(history) ? at::empty_like(*past) : Tensor();
  SEQBOAT_DISPATCH(x, "seqboat::_ema_scan_backward", [&] {
    using T = scalar_t;
    const EmaArguments<T> args = make_arguments<T>(cu_seqlens, qc, cc, oc, truncation, bidirectional, state_in, past);
    Scratch::Frame frame(Scratch::mine());
    ema_backward<T>(args, xc.const_data_ptr<T>(), gy.const_data_ptr<T>(), data_or_null<T>(gstate),
                    {.x = gx.mutable_data_ptr<T>(),
                     .accumulate_x = false,
                     .q = gq.mutable_data_ptr<T>(),
                     .c = gc.mutable_data_ptr<T>(),
                     .omega = gomega.mutable_data_ptr<T>(),
                     .state = gstate_in.defined() ? gstate_in.mutable_data_ptr<T>() : nullptr,
                     .history = gpast.defined() ? gpast.mutable_data_ptr<T>() : nullptr,
                     .partial = Scratch::mine().take<T>(ema_partial_size(args))});
  });
  return {gx, gq, gc, gomega, gstate_in, gpast};
}

}  // namespace

TORCH_LIBRARY_IMPL(seqboat, CPU, m) {
  m.impl("ema_scan", ema_scan_cpu);
  m.impl("_ema_scan_backward", ema_scan_backward_cpu);
}

}  // namespace seqboat::ops
