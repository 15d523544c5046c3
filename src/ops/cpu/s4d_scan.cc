#include "seqboat/kernels/s4d_scan.h"

#include <torch/library.h>

#include "ops/common.h"
#include "ops/cpu/scan_tasks.h"
#include "ops/cpu/scratch.h"
#include "seqboat/kernels/elementwise.h"

namespace seqboat::ops {
namespace {

using at::Tensor;
using kernels::ScanDirection;

void check_s4d_scan(const Tensor& x, const Tensor& cu_seqlens, const Tensor& d, const Tensor& w, const Tensor& skip, int64_t truncation,
                    bool bidirectional, const std::optional<Tensor>& state, const std::optional<Tensor>& history) {
  check_floating("s4d_scan", "x", x);
  check_matrix("s4d_scan", "x", x);
  check_offsets("s4d_scan", cu_seqlens, x.size(0));
  const int64_t dim = x.size(1), rows = bidirectional ? 2 * dim : dim, batch = cu_seqlens.size(0) - 1;
  TORCH_CHECK(d.dim() == 3 && d.size(0) == rows && d.size(1) > 0 && d.size(2) == 2 && d.sizes() == w.sizes(), "seqboat::s4d_scan: d and w must be (",
              rows, ", P, 2), got ", d.sizes(), " and ", w.sizes());
  TORCH_CHECK(skip.dim() == 1 && skip.size(0) == dim, "seqboat::s4d_scan: skip must be (", dim, "), got ", skip.sizes());
  for (const Tensor* t : {&d, &w, &skip}) check_same_dtype("s4d_scan", "d, w and skip", *t, x);
  TORCH_CHECK(truncation >= 0, "seqboat::s4d_scan: truncation must be 0 (none) or positive, got ", truncation);
  TORCH_CHECK(!bidirectional || (!present(state) && !present(history)), "seqboat::s4d_scan: a bidirectional scan carries no state");
  if (present(state))
    TORCH_CHECK(state->sizes() == at::IntArrayRef({batch, dim, d.size(1), 2}) && state->scalar_type() == x.scalar_type(),
                "seqboat::s4d_scan: state must be (", batch, ", ", dim, ", ", d.size(1), ", 2) ", x.scalar_type(), ", got ", state->sizes());
  if (present(history))
    TORCH_CHECK(truncation > 0 && history->sizes() == at::IntArrayRef({batch, truncation, dim}) && history->scalar_type() == x.scalar_type(),
                "seqboat::s4d_scan: history must be (", batch, ", ", truncation, ", ", dim, ") and needs a truncation, got ", history->sizes());
}

/// Contiguous arguments of one call, as the kernels take them. The second half of d and w runs backwards.
template <class T>
struct S4dArguments {
  S4dArguments(const Tensor& cu_seqlens, const Tensor& d_in, const Tensor& w_in, const Tensor& skip_in, int64_t truncation, bool both,
               const std::optional<Tensor>& state_in, const std::optional<Tensor>& history_in)
      : ahead{cu_seqlens.size(0) - 1, cu_seqlens.const_data_ptr<int64_t>(), skip_in.size(0), d_in.size(1), truncation, ScanDirection::kForward},
        back{ahead},
        bidirectional(both),
        d(d_in.const_data_ptr<T>()),
        w(w_in.const_data_ptr<T>()),
        skip(skip_in.const_data_ptr<T>()),
        state(data_or_null<T>(state_in)),
        history(data_or_null<T>(history_in)) {
    back.direction = ScanDirection::kReverse;
  }
  /// Numbers in the d of one direction.
  int64_t half() const { return ahead.channels * ahead.n_modes * 2; }

  kernels::S4dScanShape ahead, back;
  bool bidirectional;
  const T *d, *w, *skip, *state, *history;
};

std::tuple<Tensor, Tensor> s4d_scan_cpu(const Tensor& x, const Tensor& cu_seqlens, const Tensor& d, const Tensor& w, const Tensor& skip,
                                        int64_t truncation, bool bidirectional, const std::optional<Tensor>& state,
                                        const std::optional<Tensor>& history) {
  const PhaseScope phase(Phase::kEma);
  check_s4d_scan(x, cu_seqlens, d, w, skip, truncation, bidirectional, state, history);
  const Tensor xc = x.contiguous(), dc = d.contiguous(), wc = w.contiguous(), sc = skip.contiguous();
  const auto state_in = contiguous(state), past = contiguous(history);
  Tensor y = at::empty_like(xc);
  Tensor state_out = bidirectional ? at::empty({0}, x.options()) : at::empty({cu_seqlens.size(0) - 1, x.size(1), d.size(1), 2}, x.options());
  SEQBOAT_DISPATCH(x, "seqboat::s4d_scan", [&] {
    using T = scalar_t;
    const S4dArguments<T> args(cu_seqlens, dc, wc, sc, truncation, bidirectional, state_in, past);
    const T* from = xc.const_data_ptr<T>();
    T* to = y.mutable_data_ptr<T>();
    T* last = bidirectional ? nullptr : state_out.mutable_data_ptr<T>();
    for_each_scan_task(args.ahead.batch, args.ahead.channels, [&](const kernels::ScanRange& range) {
      kernels::s4d_scan_fwd<T>(args.ahead, range, from, args.d, args.w, args.skip, args.state, args.history, to, false, last);
      if (bidirectional)
        kernels::s4d_scan_fwd<T>(args.back, range, from, args.d + args.half(), args.w + args.half(), nullptr, nullptr, nullptr, to, true, nullptr);
    });
  });
  return {y, state_out};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> s4d_scan_backward_cpu(const Tensor& grad_y, const std::optional<Tensor>& grad_state,
                                                                                 const Tensor& x, const Tensor& cu_seqlens, const Tensor& d,
                                                                                 const Tensor& w, const Tensor& skip, int64_t truncation,
                                                                                 bool bidirectional, const std::optional<Tensor>& state,
                                                                                 const std::optional<Tensor>& history) {
  const PhaseScope phase(Phase::kEma);
  check_s4d_scan(x, cu_seqlens, d, w, skip, truncation, bidirectional, state, history);
  const Tensor gy = grad_y.contiguous(), xc = x.contiguous(), dc = d.contiguous(), wc = w.contiguous(), sc = skip.contiguous();
  const auto state_in = contiguous(state), past = contiguous(history);
  auto gstate = contiguous(grad_state);
  if (bidirectional) gstate.reset();
  Tensor gx = at::empty_like(xc), gd = at::empty_like(dc), gw = at::empty_like(wc), gskip = at::empty_like(sc);
  Tensor gstate_in = present(state) ? at::empty_like(*state_in) : Tensor();
  Tensor gpast = present(history) ? at::empty_like(*past) : Tensor();
  SEQBOAT_DISPATCH(x, "seqboat::_s4d_scan_backward", [&] {
    using T = scalar_t;
    const S4dArguments<T> args(cu_seqlens, dc, wc, sc, truncation, bidirectional, state_in, past);
    const int64_t batch = args.ahead.batch, channels = args.ahead.channels, half = args.half(), part = batch * half;
    const int64_t directions = bidirectional ? 2 : 1;
    // Partial results of each sequence, added in order of the sequences: the same bits at any thread count.
    Scratch::Frame frame(Scratch::mine());
    T* dd = Scratch::mine().take<T>(2 * directions * part + batch * channels);
    T* dw = dd + directions * part;
    T* dskip = dw + directions * part;
    const T *from = xc.const_data_ptr<T>(), *dy = gy.const_data_ptr<T>(), *dstate = data_or_null<T>(gstate);
    T* dx = gx.mutable_data_ptr<T>();
    T* dstate_in = gstate_in.defined() ? gstate_in.mutable_data_ptr<T>() : nullptr;
    T* dpast = gpast.defined() ? gpast.mutable_data_ptr<T>() : nullptr;
    for_each_scan_task(batch, channels, [&](const kernels::ScanRange& range) {
      kernels::s4d_scan_bwd_params<T>(args.ahead, range, from, args.d, args.w, args.state, args.history, dy, dstate, dd, dw, dskip);
      kernels::s4d_scan_bwd_input<T>(args.ahead, range, args.d, args.w, args.skip, dy, dstate, dx, false, dstate_in, dpast);
      if (!bidirectional) return;
      const T *d_back = args.d + half, *w_back = args.w + half;
      kernels::s4d_scan_bwd_params<T>(args.back, range, from, d_back, w_back, nullptr, nullptr, dy, nullptr, dd + part, dw + part, nullptr);
      kernels::s4d_scan_bwd_input<T>(args.back, range, d_back, w_back, nullptr, dy, nullptr, dx, true, nullptr, nullptr);
    });
    for (int64_t direction = 0; direction < directions; ++direction) {
      kernels::column_sum<T>(batch, half, half, 0, half, dd + direction * part, gd.mutable_data_ptr<T>() + direction * half);
      kernels::column_sum<T>(batch, half, half, 0, half, dw + direction * part, gw.mutable_data_ptr<T>() + direction * half);
    }
    kernels::column_sum<T>(batch, channels, channels, 0, channels, dskip, gskip.mutable_data_ptr<T>());
  });
  return {gx, gd, gw, gskip, gstate_in, gpast};
}

}  // namespace

TORCH_LIBRARY_IMPL(seqboat, CPU, m) {
  m.impl("s4d_scan", s4d_scan_cpu);
  m.impl("_s4d_scan_backward", s4d_scan_backward_cpu);
}

}  // namespace seqboat::ops
