// The scans of the state encoders, EMA and S4D: one code for both, since only the kernel and what a state is made of differ.

#include <torch/library.h>

#include "ops/common.h"
#include "ops/cpu/scan_passes.h"
#include "ops/cpu/scratch.h"

namespace seqboat::ops {
namespace {

using at::Tensor;
using ScanTensors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

const char* name_of(ScanKind kind) {
  return kind == ScanKind::kS4d ? "s4d_scan" : "ema_scan";
}

/// (B, D, N), or (B, D, P, 2)
std::vector<int64_t> state_shape(ScanKind kind, int64_t batch, const Tensor& x, const Tensor& decay) {
  std::vector<int64_t> shape{batch, x.size(1), decay.size(1)};
  if (kind == ScanKind::kS4d) shape.push_back(2);
  return shape;
}

struct ScanCall {
  ScanKind kind;
  const Tensor &x, &cu_seqlens, &decay, &weight, &skip;
  int64_t truncation;
  bool bidirectional;
  const std::optional<Tensor>&state, &history;

  void check() const {
    const char* name = name_of(kind);
    check_floating(name, "x", x);
    check_matrix(name, "x", x);
    check_offsets(name, cu_seqlens, x.size(0));
    const int64_t dim = x.size(1), rows = bidirectional ? 2 * dim : dim, batch = cu_seqlens.size(0) - 1;
    const bool is_s4d = kind == ScanKind::kS4d;
    const bool fits = decay.dim() == (is_s4d ? 3 : 2) && decay.size(0) == rows && decay.size(1) > 0 && (!is_s4d || decay.size(2) == 2);
    TORCH_CHECK(fits && decay.sizes() == weight.sizes(), "seqboat::", name, ": ", is_s4d ? "d and w" : "q and c", " must be (", rows,
                is_s4d ? ", P, 2)" : ", N)", ", got ", decay.sizes(), " and ", weight.sizes());
    TORCH_CHECK(skip.dim() == 1 && skip.size(0) == dim, "seqboat::", name, ": ", is_s4d ? "skip" : "omega", " must be (", dim, "), got ",
                skip.sizes());
    for (const Tensor* t : {&decay, &weight, &skip}) check_same_dtype(name, is_s4d ? "d, w and skip" : "q, c and omega", *t, x);
    TORCH_CHECK(truncation >= 0, "seqboat::", name, ": truncation must be 0 (none) or positive, got ", truncation);
    TORCH_CHECK(!bidirectional || (!present(state) && !present(history)), "seqboat::", name, ": a bidirectional scan carries no state");
    if (present(state)) {
      const std::vector<int64_t> shape = state_shape(kind, batch, x, decay);
      TORCH_CHECK(state->sizes() == at::IntArrayRef(shape) && state->scalar_type() == x.scalar_type(), "seqboat::", name, ": state must be (", batch,
                  ", ", dim, ", ", decay.size(1), is_s4d ? ", 2) " : ") ", x.scalar_type(), ", got ", state->sizes());
    }
    if (present(history))
      TORCH_CHECK(truncation > 0 && history->sizes() == at::IntArrayRef({batch, truncation, dim}) && history->scalar_type() == x.scalar_type(),
                  "seqboat::", name, ": history must be (", batch, ", ", truncation, ", ", dim, ") and needs a truncation, got ", history->sizes());
  }
};

/// The call's tensors, contiguous, as the passes take them.
struct Held {
  explicit Held(const ScanCall& call)
      : x(call.x.contiguous()),
        decay(call.decay.contiguous()),
        weight(call.weight.contiguous()),
        skip(call.skip.contiguous()),
        state(contiguous(call.state)),
        history(contiguous(call.history)) {}

  template <class T>
  ScanArguments<T> arguments(const ScanCall& call) const {
    return {.kind = call.kind,
            .batch = call.cu_seqlens.size(0) - 1,
            .cu_seqlens = call.cu_seqlens.const_data_ptr<int64_t>(),
            .channels = skip.size(0),
            .n_state = decay.size(1),
            .truncation = call.truncation,
            .bidirectional = call.bidirectional,
            .decay = decay.const_data_ptr<T>(),
            .weight = weight.const_data_ptr<T>(),
            .skip = skip.const_data_ptr<T>(),
            .state = data_or_null<T>(state),
            .history = data_or_null<T>(history)};
  }

  Tensor x, decay, weight, skip;
  std::optional<Tensor> state, history;
};

template <class T>
T* data_of(Tensor& t) {
  return t.defined() ? t.mutable_data_ptr<T>() : nullptr;
}

template <ScanKind kKind>
std::tuple<Tensor, Tensor> scan_cpu(const Tensor& x, const Tensor& cu_seqlens, const Tensor& decay, const Tensor& weight, const Tensor& skip,
                                    int64_t truncation, bool bidirectional, const std::optional<Tensor>& state,
                                    const std::optional<Tensor>& history) {
  const PhaseScope phase(Phase::kEma);
  const ScanCall call{kKind, x, cu_seqlens, decay, weight, skip, truncation, bidirectional, state, history};
  call.check();
  const Held held(call);
  Tensor y = at::empty_like(held.x);
  Tensor state_out = at::empty({0}, x.options());
  if (!bidirectional) state_out = at::empty(state_shape(kKind, cu_seqlens.size(0) - 1, x, decay), x.options());
  SEQBOAT_DISPATCH(x, "seqboat::scan", [&] {
    using T = scalar_t;
    scan_forward<T>(held.arguments<T>(call), held.x.const_data_ptr<T>(), y.mutable_data_ptr<T>(),
                    bidirectional ? nullptr : state_out.mutable_data_ptr<T>());
  });
  return {y, state_out};
}

template <ScanKind kKind>
ScanTensors scan_backward_cpu(const Tensor& grad_y, const std::optional<Tensor>& grad_state, const Tensor& x, const Tensor& cu_seqlens,
                              const Tensor& decay, const Tensor& weight, const Tensor& skip, int64_t truncation, bool bidirectional,
                              const std::optional<Tensor>& state, const std::optional<Tensor>& history) {
  const PhaseScope phase(Phase::kEma);
  const ScanCall call{kKind, x, cu_seqlens, decay, weight, skip, truncation, bidirectional, state, history};
  call.check();
  const Held held(call);
  const Tensor gy = grad_y.contiguous();
  auto gstate = contiguous(grad_state);
  if (bidirectional) gstate.reset();
  Tensor gx = at::empty_like(held.x), gdecay = at::empty_like(held.decay), gweight = at::empty_like(held.weight), gskip = at::empty_like(held.skip);
  Tensor gstate_in = present(state) ? at::empty_like(*held.state) : Tensor();
  Tensor gpast = present(history) ? at::empty_like(*held.history) : Tensor();
  SEQBOAT_DISPATCH(x, "seqboat::scan_backward", [&] {
    using T = scalar_t;
    const ScanArguments<T> arguments = held.arguments<T>(call);
    Scratch::Frame frame(Scratch::mine());
    scan_backward<T>(arguments, held.x.const_data_ptr<T>(), gy.const_data_ptr<T>(), data_or_null<T>(gstate),
                     {.x = gx.mutable_data_ptr<T>(),
                      .accumulate_x = false,
                      .decay = gdecay.mutable_data_ptr<T>(),
                      .weight = gweight.mutable_data_ptr<T>(),
                      .skip = gskip.mutable_data_ptr<T>(),
                      .state = data_of<T>(gstate_in),
                      .history = data_of<T>(gpast),
                      .partial = Scratch::mine().take<T>(scan_partial_size(arguments))});
  });
  return {gx, gdecay, gweight, gskip, gstate_in, gpast};
}

}  // namespace

TORCH_LIBRARY_IMPL(seqboat, CPU, m) {
  m.impl("ema_scan", scan_cpu<ScanKind::kEma>);
  m.impl("_ema_scan_backward", scan_backward_cpu<ScanKind::kEma>);
  m.impl("s4d_scan", scan_cpu<ScanKind::kS4d>);
  m.impl("_s4d_scan_backward", scan_backward_cpu<ScanKind::kS4d>);
}

}  // namespace seqboat::ops
