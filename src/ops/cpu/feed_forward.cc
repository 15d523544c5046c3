// The fused feed-forward block: one pass forward, one back (two where a batch norm comes first). With z = x + dropout(out_proj SiLU(pre)):
//
//   prenorm: y = z, pre = in_proj norm(x)       postnorm: y = norm(z), pre = in_proj x
//   dh = dropout(dz),  dpre = (dh out_proj) SiLU'(pre),  dx = dz + (through in_proj and a first norm)

#include <torch/library.h>

#include "ops/cpu/fused_operator.h"
#include "ops/cpu/row_blocks.h"
#include "ops/feed_forward_arguments.h"

namespace seqboat::ops {
namespace {

using at::Tensor;
using kernels::Activation;

constexpr const char* kName = "feed_forward";

void check_arguments(const FeedForwardArguments& a) {
  check_floating(kName, "x", a.x);
  check_matrix(kName, "x", a.x);
  const auto dtype = a.x.scalar_type();
  const int64_t tokens = a.x.size(0), d = a.x.size(1);
  TORCH_CHECK(a.in_weight.dim() == 2, "seqboat::feed_forward: in_weight must be (F, D), got ", a.in_weight.sizes());
  const int64_t f = a.in_weight.size(0);
  check_shape(kName, "in_weight", a.in_weight, {f, d}, dtype);
  check_shape(kName, "in_bias", a.in_bias, {f}, dtype);
  check_shape(kName, "out_weight", a.out_weight, {d, f}, dtype);
  check_shape(kName, "out_bias", a.out_bias, {d}, dtype);
  check_norm_arguments(kName, a, a.prenorm);
  check_shape(kName, "positions", a.positions, {tokens}, at::kLong);
  check_shape(kName, "sequence_ids", a.sequence_ids, {tokens}, at::kLong);
  check_dropout_arguments(kName, a);
}

template <class T>
struct View {
  int64_t tokens, dim, inner;
  const T *x, *in_weight, *in_bias, *out_weight, *out_bias;
  const int64_t *positions, *sequence_ids;
  NormView<T> norm;
  bool prenorm;
  double dropout;
  kernels::DropoutKey key;

  void drop(int64_t begin, int64_t rows, const T* from, T* to) const {
    kernels::dropout<T>(key, dropout, 0, rows, dim, sequence_ids + begin, positions + begin, from, to);
  }
};

template <class T>
View<T> make_view(const FeedForwardArguments& a, std::vector<T>* rstd) {
  return {.tokens = a.x.size(0),
          .dim = a.x.size(1),
          .inner = a.in_weight.size(0),
          .x = data<T>(a.x),
          .in_weight = data<T>(a.in_weight),
          .in_bias = data<T>(a.in_bias),
          .out_weight = data<T>(a.out_weight),
          .out_bias = data<T>(a.out_bias),
          .positions = data<int64_t>(a.positions),
          .sequence_ids = data<int64_t>(a.sequence_ids),
          .norm = make_norm_view<T>(a, rstd),
          .prenorm = a.prenorm,
          .dropout = a.dropout,
          .key = dropout_key(a.random)};
}

/// What a forward keeps: one buffer of M (F + 2), with a last norm M (F + 2 + D) elements.
template <class T>
struct Kept {
  Kept(T* buffer, const View<T>& v) : pre(buffer), mean(pre + v.tokens * v.inner), rstd(mean + v.tokens), sum(rstd + v.tokens) {}
  T* pre;   ///< (M, F) before SiLU
  T* mean;  ///< (M) of the row norm
  T* rstd;  ///< (M)
  T* sum;   ///< (M, D) z; postnorm only
};

/// kept: nullptr where nothing is.
template <class T>
void forward_pass(const View<T>& v, const Kept<T>* kept, T* y) {
  Scratch& scratch = Scratch::mine();
  const Scratch::Frame frame(scratch);
  const int64_t d = v.dim, f = v.inner;
  using Weight = PackedWeight<T>;
  Weight in_proj(scratch, v.in_weight, f, d, Weight::kForward), out_proj(scratch, v.out_weight, d, f, Weight::kForward);
  {
    const PhaseScope phase(Phase::kProducts);
    pack_weights({&in_proj, &out_proj});
  }
  PhaseSplit split;
  parallel_tasks(blocks_of(v.tokens), [&](int64_t block) {
    PhaseSplit::Laps laps(split);
    const int64_t begin = block * kBlockRows, rows = std::min(kBlockRows, v.tokens - begin);
    LocalBuffers<T> local(kBlockRows * (2 * f + 2 * d + 2), 6);
    T* hidden = local.take(kBlockRows * f);
    T* pre = kept != nullptr ? kept->pre + begin * f : hidden;
    T* inner = local.take(kBlockRows * d);
    T* mean = kept != nullptr ? kept->mean + begin : local.take(kBlockRows);
    T* rstd = kept != nullptr ? kept->rstd + begin : local.take(kBlockRows);
    const T* x = v.x + begin * d;
    const T* input = x;
    if (v.prenorm) {
      v.norm.forward(rows, x, inner, mean, rstd);
      input = inner;
      laps.done(Phase::kNorm);
    }
    in_proj.multiply(rows, input, v.in_bias, pre);
    laps.done(Phase::kProducts);
    kernels::activation_fwd<T>(Activation::kSilu, rows * f, pre, hidden);
    laps.done(Phase::kElementwise);
    T* out = y + begin * d;
    T* sum = v.prenorm ? out : kept != nullptr ? kept->sum + begin * d : inner;
    out_proj.multiply(rows, hidden, v.out_bias, sum);
    laps.done(Phase::kProducts);
    if (v.dropout > 0) {
      v.drop(begin, rows, sum, sum);
      laps.done(Phase::kDropout);
    }
    kernels::add_rows<T>(rows, d, x, d, sum, d);
    laps.done(Phase::kElementwise);
    if (!v.prenorm) {
      v.norm.forward(rows, sum, out, mean, rstd);
      laps.done(Phase::kNorm);
    }
  });
}

template <class T>
struct Gradients {
  T *x, *norm_weight, *norm_bias, *in_weight, *in_bias, *out_weight, *out_bias;  ///< nullptr where the argument is absent
};

template <class T>
void backward_pass(const View<T>& v, const Kept<T>& kept, const T* grad_y, const Gradients<T>& grad) {
  Scratch& scratch = Scratch::mine();
  const Scratch::Frame frame(scratch);
  const int64_t d = v.dim, f = v.inner, chunks = chunks_of(v.tokens), workspace_size = gradient_workspace_size<T>({{f, d}, {d, f}});
  // A batch norm's gradient needs sums over all tokens first.
  const bool norm_in_pass = !v.norm.is_batch;
  T* dnormed = norm_in_pass ? nullptr : scratch.take<T>(v.tokens * d);
  using Weight = PackedWeight<T>;
  Weight in_proj(scratch, v.in_weight, f, d, Weight::kBackward), out_proj(scratch, v.out_weight, d, f, Weight::kBackward);
  enum { kInWeight, kInBias, kOutWeight, kOutBias, kNormWeight, kNormBias };
  PartialSums<T> sums(scratch, chunks,
                      {{f * d, grad.in_weight},
                       {f, grad.in_bias},
                       {d * f, grad.out_weight},
                       {d, grad.out_bias},
                       {norm_in_pass ? v.norm.weight_size() : 0, norm_in_pass ? grad.norm_weight : nullptr},
                       {norm_in_pass ? v.norm.bias_size() : 0, norm_in_pass ? grad.norm_bias : nullptr}});
  {
    const PhaseScope phase(Phase::kProducts);
    pack_weights({&in_proj, &out_proj});
  }
  {
    PhaseSplit split;
    parallel_tasks(chunks, [&](int64_t chunk) {
      PhaseSplit::Laps laps(split);
      T* partial = sums.begin_chunk(chunk);
      LocalBuffers<T> local(kBlockRows * (2 * f + 3 * d + 2) + std::max(d, f) + workspace_size, 8);
      T* hidden = local.take(kBlockRows * f);
      T* dpre = local.take(kBlockRows * f);
      T* dz_own = local.take(kBlockRows * d);
      T* dh_own = local.take(kBlockRows * d);
      T* inner = local.take(kBlockRows * d);
      T* statistics = local.take(2 * kBlockRows);  // those that the forward kept, once more
      T* temporary = local.take(std::max(d, f));
      T* workspace = local.take(workspace_size);
      const int64_t chunk_end = std::min((chunk + 1) * kChunkRows, v.tokens);
      for (int64_t begin = chunk * kChunkRows; begin < chunk_end; begin += kBlockRows) {
        const int64_t rows = std::min(kBlockRows, chunk_end - begin);
        const T* x = v.x + begin * d;
        const T* pre = kept.pre + begin * f;
        const T* dz = grad_y + begin * d;
        if (!v.prenorm) {
          v.norm.backward(rows, kept.sum + begin * d, kept.mean + begin, kept.rstd + begin, dz, dz_own, sums.part_or_null(partial, kNormWeight),
                          sums.part_or_null(partial, kNormBias));
          dz = dz_own;
          laps.done(Phase::kNorm);
        }
        const T* dh = dz;
        if (v.dropout > 0) {
          v.drop(begin, rows, dz, dh_own);
          dh = dh_own;
          laps.done(Phase::kDropout);
        }
        out_proj.multiply(rows, dh, nullptr, dpre);
        laps.done(Phase::kProducts);
        kernels::activation_fwd<T>(Activation::kSilu, rows * f, pre, hidden);
        kernels::activation_bwd<T>(Activation::kSilu, rows * f, pre, dpre, dpre);
        laps.done(Phase::kElementwise);
        const T* input = x;
        if (v.prenorm) {
          v.norm.forward(rows, x, inner, statistics, statistics + kBlockRows);
          input = inner;
          laps.done(Phase::kNorm);
        }
        add_weight_gradient<T>(rows, d, f, dh, hidden, sums.part(partial, kOutWeight), workspace);
        add_column_sums<T>(rows, d, d, dh, sums.part(partial, kOutBias), temporary);
        add_weight_gradient<T>(rows, f, d, dpre, input, sums.part(partial, kInWeight), workspace);
        add_column_sums<T>(rows, f, f, dpre, sums.part(partial, kInBias), temporary);
        T* dx = grad.x + begin * d;
        if (!v.prenorm) {
          std::copy_n(dz, rows * d, dx);
          in_proj.multiply(rows, dpre, nullptr, dx, true);
          laps.done(Phase::kProducts);
        } else if (!norm_in_pass) {
          std::copy_n(dz, rows * d, dx);
          in_proj.multiply(rows, dpre, nullptr, dnormed + begin * d);
          laps.done(Phase::kProducts);
        } else {
          in_proj.multiply(rows, dpre, nullptr, inner);
          laps.done(Phase::kProducts);
          v.norm.backward(rows, x, kept.mean + begin, kept.rstd + begin, inner, dx, sums.part_or_null(partial, kNormWeight),
                          sums.part_or_null(partial, kNormBias));
          kernels::add_rows<T>(rows, d, dz, d, dx, d);
          laps.done(Phase::kNorm);
        }
      }
    });
  }
  {
    const PhaseScope phase(Phase::kProducts);
    sums.add_up();
  }
  if (!norm_in_pass) norm_backward<T>(v.norm, v.tokens, v.x, kept.mean, kept.rstd, dnormed, grad.x, grad.norm_weight, grad.norm_bias);
}

}  // namespace

template <>
FusedResult FusedKernels<FeedForwardArguments>::forward(const FeedForwardArguments& given, bool keeps) {
  check_arguments(given);
  const FeedForwardArguments a = contiguous_arguments(given);
  const int64_t tokens = a.x.size(0), row = a.in_weight.size(0) + 2 + (a.prenorm ? 0 : a.x.size(1));
  FusedResult out{at::empty_like(a.x), at::empty({keeps ? tokens : 0, row}, a.x.options())};
  SEQBOAT_DISPATCH(a.x, "seqboat::feed_forward", [&] {
    using T = scalar_t;
    std::vector<T> rstd;
    const View<T> v = make_view<T>(a, &rstd);
    std::optional<Kept<T>> kept;
    if (keeps) {
      kept.emplace(out.kept.mutable_data_ptr<T>(), v);
      std::fill_n(kept->mean, 2 * tokens, T(0));  // not every norm has a mean: an output holds no memory that nobody wrote
    }
    forward_pass<T>(v, keeps ? &*kept : nullptr, out.y.mutable_data_ptr<T>());
  });
  return out;
}

template <>
c10::List<std::optional<Tensor>> FusedKernels<FeedForwardArguments>::backward(const Tensor& grad_y, const Tensor& kept,
                                                                              const FeedForwardArguments& a) {
  GradientTensors grads(a);
  SEQBOAT_DISPATCH(a.x, "seqboat::_feed_forward_backward", [&] {
    using T = scalar_t;
    std::vector<T> rstd;
    const View<T> v = make_view<T>(a, &rstd);
    // Braces evaluate in order, which is that of the parameters.
    const Gradients<T> grad{grads.next<T>(), grads.next<T>(), grads.next<T>(), grads.next<T>(), grads.next<T>(), grads.next<T>(), grads.next<T>()};
    backward_pass<T>(v, Kept<T>(kept.mutable_data_ptr<T>(), v), grad_y.const_data_ptr<T>(), grad);
  });
  return grads.tensors();
}

TORCH_LIBRARY_IMPL(seqboat, CPU, m) {
  implement_fused_cpu<FeedForwardArguments>(m);
}

}  // namespace seqboat::ops
