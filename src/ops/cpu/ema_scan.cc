#include "seqboat/kernels/ema_scan.h"

#include <torch/library.h>

#include "ops/common.h"
#include "seqboat/kernels/elementwise.h"

namespace seqboat::ops {
namespace {

using at::Tensor;
using kernels::EmaScanRange;
using kernels::EmaScanShape;
using kernels::ScanDirection;

// One task is one sequence of this many channels: two AVX-512 vectors, one cache line a row in float32 twice.
constexpr int64_t kChannelBlock = 32;

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

/// Runs f(range) over all sequences and channel blocks.
template <class F>
void for_each_task(int64_t batch, int64_t channels, const F& f) {
  const int64_t blocks = (channels + kChannelBlock - 1) / kChannelBlock;
  parallel_for(batch * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t b = task / blocks, channel = task % blocks * kChannelBlock;
      f(EmaScanRange{b, b + 1, channel, std::min(channel + kChannelBlock, channels)});
    }
  });
}

EmaScanShape make_shape(const Tensor& x, const Tensor& cu_seqlens, const Tensor& q, int64_t truncation, ScanDirection direction) {
  return {cu_seqlens.size(0) - 1, cu_seqlens.const_data_ptr<int64_t>(), x.size(1), q.size(1), truncation, direction};
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
    const auto* xp = xc.const_data_ptr<scalar_t>();
    const auto* qp = qc.const_data_ptr<scalar_t>();
    const auto* cp = cc.const_data_ptr<scalar_t>();
    auto* yp = y.mutable_data_ptr<scalar_t>();
    const EmaScanShape ahead = make_shape(x, cu_seqlens, q, truncation, ScanDirection::kForward);
    const EmaScanShape back = make_shape(x, cu_seqlens, q, truncation, ScanDirection::kReverse);
    for_each_task(batch, d, [&](const EmaScanRange& range) {
      kernels::ema_scan_fwd<scalar_t>(ahead, range, xp, qp, cp, oc.const_data_ptr<scalar_t>(), data_or_null<scalar_t>(state_in),
                                      data_or_null<scalar_t>(past), yp, false, bidirectional ? nullptr : state_out.mutable_data_ptr<scalar_t>());
      if (bidirectional) kernels::ema_scan_fwd<scalar_t>(back, range, xp, qp + d * n, cp + d * n, nullptr, nullptr, nullptr, yp, true, nullptr);
    });
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
  const int64_t d = x.size(1), n = q.size(1), batch = cu_seqlens.size(0) - 1, directions = bidirectional ? 2 : 1;
  Tensor gx = at::empty_like(xc), gq = at::empty_like(qc), gc = at::empty_like(cc), gomega = at::empty_like(oc);
  Tensor gstate_in = present(state) ? at::empty_like(*state_in) : Tensor();
  Tensor gpast = present(history) ? at::empty_like(*past) : Tensor();
  // Per-sequence partial results, added in order of the sequence below: the same bits at any thread count.
  Tensor pq = at::empty({directions, batch, d * n}, x.options()), pc = at::empty({directions, batch, d * n}, x.options());
  Tensor po = at::empty({batch, d}, x.options());
  SEQBOAT_DISPATCH(x, "seqboat::_ema_scan_backward", [&] {
    using T = scalar_t;
    const T* xp = xc.const_data_ptr<T>();
    const T* qp = qc.const_data_ptr<T>();
    const T* cp = cc.const_data_ptr<T>();
    const T* op = oc.const_data_ptr<T>();
    const T* gp = gy.const_data_ptr<T>();
    T* gxp = gx.mutable_data_ptr<T>();
    T* pqp = pq.mutable_data_ptr<T>();
    T* pcp = pc.mutable_data_ptr<T>();
    const EmaScanShape ahead = make_shape(x, cu_seqlens, q, truncation, ScanDirection::kForward);
    const EmaScanShape back = make_shape(x, cu_seqlens, q, truncation, ScanDirection::kReverse);
    for_each_task(batch, d, [&](const EmaScanRange& range) {
      kernels::ema_scan_bwd_params<T>(ahead, range, xp, qp, cp, data_or_null<T>(state_in), data_or_null<T>(past), gp, data_or_null<T>(gstate), pqp,
                                      pcp, po.mutable_data_ptr<T>());
      kernels::ema_scan_bwd_input<T>(ahead, range, qp, cp, op, gp, data_or_null<T>(gstate), gxp, false,
                                     gstate_in.defined() ? gstate_in.mutable_data_ptr<T>() : nullptr,
                                     gpast.defined() ? gpast.mutable_data_ptr<T>() : nullptr);
      if (bidirectional) {
        kernels::ema_scan_bwd_params<T>(back, range, xp, qp + d * n, cp + d * n, nullptr, nullptr, gp, nullptr, pqp + batch * d * n,
                                        pcp + batch * d * n, nullptr);
        kernels::ema_scan_bwd_input<T>(back, range, qp + d * n, cp + d * n, nullptr, gp, nullptr, gxp, true, nullptr, nullptr);
      }
    });
    for (int64_t direction = 0; direction < directions; ++direction) {
      const int64_t part = direction * batch * d * n, whole = direction * d * n;
      kernels::column_sum<T>(batch, d * n, d * n, 0, d * n, pqp + part, gq.mutable_data_ptr<T>() + whole);
      kernels::column_sum<T>(batch, d * n, d * n, 0, d * n, pcp + part, gc.mutable_data_ptr<T>() + whole);
    }
    kernels::column_sum<T>(batch, d, d, 0, d, po.const_data_ptr<T>(), gomega.mutable_data_ptr<T>());
  });
  return {gx, gq, gc, gomega, gstate_in, gpast};
}

}  // namespace

TORCH_LIBRARY_IMPL(seqboat, CPU, m) {
  m.impl("ema_scan", ema_scan_cpu);
  m.impl("_ema_scan_backward", ema_scan_backward_cpu);
}

}  // namespace seqboat::ops
