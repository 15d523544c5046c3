// The fused Transformer layer: a pass over blocks of rows before the attention and one after it, forward and backward. The heads stand one after the
// other, as if they were sequences of their own: q, k, v and the attention's output are (A, M, D / A).

#include <torch/library.h>

#include "ops/cpu/attention_passes.h"
#include "ops/cpu/fused_operator.h"
#include "ops/cpu/row_blocks.h"
#include "ops/transformer_layer_arguments.h"

namespace seqboat::ops {
namespace {

using at::Tensor;

constexpr const char* kName = "transformer_layer";

void check_arguments(const TransformerLayerArguments& a) {
  check_floating(kName, "x", a.x);
  check_matrix(kName, "x", a.x);
  check_offsets(kName, a.cu_seqlens, a.x.size(0));
  const auto dtype = a.x.scalar_type();
  const int64_t tokens = a.x.size(0), d = a.x.size(1);
  check_positions(kName, a.positions, a.cu_seqlens, false);
  check_shape(kName, "sequence_ids", a.sequence_ids, {tokens}, at::kLong);
  check_norm_arguments(kName, a, true);
  check_shape(kName, "in_weight", a.in_weight, {3 * d, d}, dtype);
  check_shape(kName, "in_bias", a.in_bias, {3 * d}, dtype);
  check_shape(kName, "out_weight", a.out_weight, {d, d}, dtype);
  check_shape(kName, "out_bias", a.out_bias, {d}, dtype);
  TORCH_CHECK(a.n_heads > 0 && d % (2 * a.n_heads) == 0, "seqboat::transformer_layer: n_heads must cut D = ", d, " into heads of an even width, got ",
              a.n_heads);
  TORCH_CHECK(a.window != 0, "seqboat::transformer_layer: window must be positive, or negative for full attention, got 0");
  check_dropout_arguments(kName, a);
}

template <class T>
struct View {
  int64_t batch, tokens, dim, heads;
  const T *x, *in_weight, *in_bias, *out_weight, *out_bias;
  const int64_t *cu_seqlens, *positions, *sequence_ids;
  NormView<T> norm;
  int64_t window;
  bool causal;
  double dropout;
  kernels::DropoutKey key;

  int64_t width() const { return dim / heads; }
  void drop(int64_t begin, int64_t rows, const T* from, T* to) const {
    kernels::dropout<T>(key, dropout, 0, rows, dim, sequence_ids + begin, positions + begin, from, to);
  }
};

template <class T>
View<T> make_view(const TransformerLayerArguments& a, std::vector<T>* rstd) {
  View<T> v{.batch = a.cu_seqlens.size(0) - 1,
            .tokens = a.x.size(0),
            .dim = a.x.size(1),
            .heads = a.n_heads,
            .x = data<T>(a.x),
            .in_weight = data<T>(a.in_weight),
            .in_bias = data<T>(a.in_bias),
            .out_weight = data<T>(a.out_weight),
            .out_bias = data<T>(a.out_bias),
            .cu_seqlens = data<int64_t>(a.cu_seqlens),
            .positions = data<int64_t>(a.positions),
            .sequence_ids = data<int64_t>(a.sequence_ids),
            .norm = make_norm_view<T>(a, rstd),
            .window = a.window,
            .causal = a.causal,
            .dropout = a.dropout,
            .key = dropout_key(a.random)};
  v.key.site += kOutputSite;
  return v;
}

/// What a forward keeps: one buffer of M (4D + A + 2) elements.
template <class T>
struct Kept {
  static int64_t row(int64_t dim, int64_t heads) { return 4 * dim + heads + 2; }
  Kept(T* buffer, const View<T>& v)
      : q(buffer),
        k(q + v.tokens * v.dim),
        v(k + v.tokens * v.dim),
        attention(this->v + v.tokens * v.dim),
        lse(attention + v.tokens * v.dim),
        mean(lse + v.tokens * v.heads),
        rstd(mean + v.tokens) {}
  T *q, *k;      ///< (A, M, D/A), rotated
  T* v;          ///< (A, M, D/A)
  T* attention;  ///< (A, M, D/A)
  T* lse;        ///< (A, M)
  T* mean;       ///< (M) of the row norm; batch norm keeps nothing here
  T* rstd;       ///< (M)
};

/// Rows [begin, begin + rows) of heads (A, M, D/A) -> columns of rows (rows, D), `stride` elements apart, and back.
template <class T>
void join_heads(const View<T>& v, int64_t begin, int64_t rows, const T* heads, T* to, int64_t stride) {
  const int64_t width = v.width();
  for (int64_t head = 0; head < v.heads; ++head) {
    const T* from = heads + (head * v.tokens + begin) * width;
    for (int64_t i = 0; i < rows; ++i) std::copy_n(from + i * width, width, to + i * stride + head * width);
  }
}
template <class T>
void split_heads(const View<T>& v, int64_t begin, int64_t rows, const T* from, int64_t stride, T* heads) {
  const int64_t width = v.width();
  for (int64_t head = 0; head < v.heads; ++head) {
    T* to = heads + (head * v.tokens + begin) * width;
    for (int64_t i = 0; i < rows; ++i) std::copy_n(from + i * stride + head * width, width, to + i * width);
  }
}

template <class T>
kernels::WindowAttentionShape attention_shape(const View<T>& v, Scratch& scratch) {
  int64_t* offsets = scratch.take<int64_t>(v.heads * v.batch + 1);
  for (int64_t head = 0; head < v.heads; ++head) {
    for (int64_t b = 0; b < v.batch; ++b) offsets[head * v.batch + b] = head * v.tokens + v.cu_seqlens[b];
  }
  offsets[v.heads * v.batch] = v.heads * v.tokens;
  kernels::WindowAttentionShape shape{};
  shape.batch = v.heads * v.batch;
  shape.active_cu_seqlens = offsets;
  shape.d_attn = shape.d_hidden = shape.q_stride = shape.k_stride = shape.v_stride = shape.out_stride = v.width();
  shape.window = v.window;
  shape.causal = v.causal;
  shape.function = kernels::AttentionFunction::kSoftmax;
  return shape;
}

template <class T>
void forward_pass(const View<T>& v, const Kept<T>& kept, T* y) {
  Scratch& scratch = Scratch::mine();
  const Scratch::Frame frame(scratch);
  const int64_t d = v.dim, width = v.width();
  using Weight = PackedWeight<T>;
  Weight in_proj(scratch, v.in_weight, 3 * d, d, Weight::kForward), out_proj(scratch, v.out_weight, d, d, Weight::kForward);
  {
    const PhaseScope phase(Phase::kProducts);
    pack_weights({&in_proj, &out_proj});
  }
  {
    PhaseSplit split;
    parallel_tasks(blocks_of(v.tokens), [&](int64_t block) {
      PhaseSplit::Laps laps(split);
      const int64_t begin = block * kBlockRows, rows = std::min(kBlockRows, v.tokens - begin);
      LocalBuffers<T> local(kBlockRows * 4 * d, 2);
      T* normed = local.take(kBlockRows * d);
      T* qkv = local.take(kBlockRows * 3 * d);
      v.norm.forward(rows, v.x + begin * d, normed, kept.mean + begin, kept.rstd + begin);
      laps.done(Phase::kNorm);
      in_proj.multiply(rows, normed, v.in_bias, qkv);
      laps.done(Phase::kProducts);
      for (int64_t head = 0; head < v.heads; ++head) {
        const int64_t to = (head * v.tokens + begin) * width;
        kernels::rotary<T>(rows, width, 3 * d, width, v.positions + begin, false, qkv + head * width, kept.q + to);
        kernels::rotary<T>(rows, width, 3 * d, width, v.positions + begin, false, qkv + d + head * width, kept.k + to);
      }
      split_heads(v, begin, rows, qkv + 2 * d, 3 * d, kept.v);
      laps.done(Phase::kAttention);
    });
  }
  {
    const PhaseScope phase(Phase::kAttention);
    attention_forward<T>(attention_shape(v, scratch), {kept.q, kept.k, kept.v, nullptr, nullptr}, kept.attention, kept.lse);
  }
  PhaseSplit split;
  parallel_tasks(blocks_of(v.tokens), [&](int64_t block) {
    PhaseSplit::Laps laps(split);
    const int64_t begin = block * kBlockRows, rows = std::min(kBlockRows, v.tokens - begin);
    LocalBuffers<T> local(kBlockRows * d, 1);
    T* attention = local.take(kBlockRows * d);
    T* out = y + begin * d;
    join_heads(v, begin, rows, kept.attention, attention, d);
    laps.done(Phase::kAttention);
    out_proj.multiply(rows, attention, v.out_bias, out);
    laps.done(Phase::kProducts);
    if (v.dropout > 0) {
      v.drop(begin, rows, out, out);
      laps.done(Phase::kDropout);
    }
    kernels::add_rows<T>(rows, d, v.x + begin * d, d, out, d);
    laps.done(Phase::kElementwise);
  });
}

template <class T>
struct Gradients {
  T *x, *norm_weight, *norm_bias, *in_weight, *in_bias, *out_weight, *out_bias;  ///< nullptr where the argument is absent
};

/// Gradients of out_proj; dattention (A, M, D/A).
template <class T>
void output_backward(const View<T>& v, const Kept<T>& kept, const T* grad_y, T* dattention, const Gradients<T>& grad) {
  Scratch& scratch = Scratch::mine();
  const Scratch::Frame frame(scratch);
  const int64_t d = v.dim, chunks = chunks_of(v.tokens), workspace_size = gradient_workspace_size<T>({{d, d}});
  enum { kOutWeight, kOutBias };
  PartialSums<T> sums(scratch, chunks, {{d * d, grad.out_weight}, {d, grad.out_bias}});
  PackedWeight<T> out_proj(scratch, v.out_weight, d, d, PackedWeight<T>::kBackward);
  out_proj.pack();
  {
    PhaseSplit split;
    parallel_tasks(chunks, [&](int64_t chunk) {
      PhaseSplit::Laps laps(split);
      T* partial = sums.begin_chunk(chunk);
      LocalBuffers<T> local(kBlockRows * 2 * d + d + workspace_size, 4);
      T* dropped = local.take(kBlockRows * d);
      T* joined = local.take(kBlockRows * d);
      T* temporary = local.take(d);
      T* workspace = local.take(workspace_size);
      const int64_t chunk_end = std::min((chunk + 1) * kChunkRows, v.tokens);
      for (int64_t begin = chunk * kChunkRows; begin < chunk_end; begin += kBlockRows) {
        const int64_t rows = std::min(kBlockRows, chunk_end - begin);
        const T* dh = grad_y + begin * d;
        if (v.dropout > 0) {
          v.drop(begin, rows, dh, dropped);
          dh = dropped;
          laps.done(Phase::kDropout);
        }
        join_heads(v, begin, rows, kept.attention, joined, d);
        laps.done(Phase::kAttention);
        add_weight_gradient<T>(rows, d, d, dh, joined, sums.part(partial, kOutWeight), workspace);
        add_column_sums<T>(rows, d, d, dh, sums.part(partial, kOutBias), temporary);
        out_proj.multiply(rows, dh, nullptr, joined);
        laps.done(Phase::kProducts);
        split_heads(v, begin, rows, joined, d, dattention);
        laps.done(Phase::kAttention);
      }
    });
  }
  const PhaseScope phase(Phase::kProducts);
  sums.add_up();
}

/// From dq, dk, dv (A, M, D/A) to dx; gradients of in_proj and norm.
template <class T>
void input_backward(const View<T>& v, const Kept<T>& kept, const T* grad_y, const T* dq, const T* dk, const T* dv, const Gradients<T>& grad) {
  Scratch& scratch = Scratch::mine();
  const Scratch::Frame frame(scratch);
  const int64_t d = v.dim, width = v.width(), chunks = chunks_of(v.tokens), workspace_size = gradient_workspace_size<T>({{3 * d, d}});
  // A batch norm's gradient needs sums over all tokens first.
  const bool norm_in_pass = !v.norm.is_batch;
  T* dnormed = norm_in_pass ? nullptr : scratch.take<T>(v.tokens * d);
  enum { kInWeight, kInBias, kNormWeight, kNormBias };
  PartialSums<T> sums(scratch, chunks,
                      {{3 * d * d, grad.in_weight},
                       {3 * d, grad.in_bias},
                       {norm_in_pass ? v.norm.weight_size() : 0, norm_in_pass ? grad.norm_weight : nullptr},
                       {norm_in_pass ? v.norm.bias_size() : 0, norm_in_pass ? grad.norm_bias : nullptr}});
  PackedWeight<T> in_proj(scratch, v.in_weight, 3 * d, d, PackedWeight<T>::kBackward);
  in_proj.pack();
  {
    PhaseSplit split;
    parallel_tasks(chunks, [&](int64_t chunk) {
      PhaseSplit::Laps laps(split);
      T* partial = sums.begin_chunk(chunk);
      LocalBuffers<T> local(kBlockRows * (4 * d + 2) + 3 * d + workspace_size, 5);
      T* dqkv = local.take(kBlockRows * 3 * d);
      T* normed = local.take(kBlockRows * d);
      T* statistics = local.take(2 * kBlockRows);  // those that the forward kept, once more
      T* temporary = local.take(3 * d);
      T* workspace = local.take(workspace_size);
      const int64_t chunk_end = std::min((chunk + 1) * kChunkRows, v.tokens);
      for (int64_t begin = chunk * kChunkRows; begin < chunk_end; begin += kBlockRows) {
        const int64_t rows = std::min(kBlockRows, chunk_end - begin);
        const T* x = v.x + begin * d;
        const T* dy = grad_y + begin * d;
        T* dx = grad.x + begin * d;
        for (int64_t head = 0; head < v.heads; ++head) {
          const int64_t from = (head * v.tokens + begin) * width;
          kernels::rotary<T>(rows, width, width, 3 * d, v.positions + begin, true, dq + from, dqkv + head * width);
          kernels::rotary<T>(rows, width, width, 3 * d, v.positions + begin, true, dk + from, dqkv + d + head * width);
        }
        join_heads(v, begin, rows, dv, dqkv + 2 * d, 3 * d);
        laps.done(Phase::kAttention);
        v.norm.forward(rows, x, normed, statistics, statistics + kBlockRows);
        laps.done(Phase::kNorm);
        add_weight_gradient<T>(rows, 3 * d, d, dqkv, normed, sums.part(partial, kInWeight), workspace);
        add_column_sums<T>(rows, 3 * d, 3 * d, dqkv, sums.part(partial, kInBias), temporary);
        T* dn = norm_in_pass ? normed : dnormed + begin * d;
        in_proj.multiply(rows, dqkv, nullptr, dn);
        laps.done(Phase::kProducts);
        if (norm_in_pass) {
          v.norm.backward(rows, x, kept.mean + begin, kept.rstd + begin, dn, dx, sums.part_or_null(partial, kNormWeight),
                          sums.part_or_null(partial, kNormBias));
          kernels::add_rows<T>(rows, d, dy, d, dx, d);
        } else {
          std::copy_n(dy, rows * d, dx);
        }
        laps.done(Phase::kNorm);
      }
    });
  }
  {
    const PhaseScope phase(Phase::kProducts);
    sums.add_up();
  }
  if (!norm_in_pass) norm_backward<T>(v.norm, v.tokens, v.x, kept.mean, kept.rstd, dnormed, grad.x, grad.norm_weight, grad.norm_bias);
}

template <class T>
void backward_pass(const View<T>& v, const Kept<T>& kept, const T* grad_y, const Gradients<T>& grad) {
  Scratch& scratch = Scratch::mine();
  const Scratch::Frame frame(scratch);
  const int64_t size = v.tokens * v.dim;
  T* dattention = scratch.take<T>(size);
  output_backward(v, kept, grad_y, dattention, grad);
  T* dq = scratch.take<T>(size);
  T* dk = scratch.take<T>(size);
  T* dv = scratch.take<T>(size);
  {
    const PhaseScope phase(Phase::kAttention);
    attention_backward<T>(attention_shape(v, scratch), {kept.q, kept.k, kept.v, nullptr, nullptr}, kept.attention, kept.lse, dattention, dq, dk, dv,
                          nullptr);
  }
  input_backward(v, kept, grad_y, dq, dk, dv, grad);
}

}  // namespace

template <>
FusedResult FusedKernels<TransformerLayerArguments>::forward(const TransformerLayerArguments& given, bool keeps) {
  check_arguments(given);
  const TransformerLayerArguments a = contiguous_arguments(given);
  const int64_t tokens = a.x.size(0), row = Kept<float>::row(a.x.size(1), a.n_heads);
  FusedResult out{at::empty_like(a.x), at::empty({keeps ? tokens : 0, row}, a.x.options())};
  SEQBOAT_DISPATCH(a.x, "seqboat::transformer_layer", [&] {
    using T = scalar_t;
    std::vector<T> rstd;
    const View<T> v = make_view<T>(a, &rstd);
    Scratch& scratch = Scratch::mine();
    const Scratch::Frame frame(scratch);
    const Kept<T> kept(keeps ? out.kept.mutable_data_ptr<T>() : scratch.take<T>(tokens * row), v);
    if (keeps) std::fill_n(kept.mean, 2 * tokens, T(0));  // not every norm has a mean: an output holds no memory that nobody wrote
    forward_pass<T>(v, kept, out.y.mutable_data_ptr<T>());
  });
  return out;
}

template <>
c10::List<std::optional<Tensor>> FusedKernels<TransformerLayerArguments>::backward(const Tensor& grad_y, const Tensor& kept,
                                                                                   const TransformerLayerArguments& a) {
  GradientTensors grads(a);
  SEQBOAT_DISPATCH(a.x, "seqboat::_transformer_layer_backward", [&] {
    using T = scalar_t;
    std::vector<T> rstd;
    const View<T> v = make_view<T>(a, &rstd);
    const auto next = [&] { return grads.next<T>(); };
    // Braces evaluate in order, which is that of the parameters.
    const Gradients<T> grad{next(), next(), next(), next(), next(), next(), next()};
    backward_pass<T>(v, Kept<T>(kept.mutable_data_ptr<T>(), v), grad_y.const_data_ptr<T>(), grad);
  });
  return grads.tensors();
}

TORCH_LIBRARY_IMPL(seqboat, CPU, m) {
  implement_fused_cpu<TransformerLayerArguments>(m);
}

}  // namespace seqboat::ops
