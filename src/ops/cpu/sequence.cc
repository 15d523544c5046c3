#include <ATen/ops/_log_softmax.h>
#include <torch/library.h>

#include <cmath>
#include <cstring>

#include "ops/common.h"
#include "seqboat/kernels/dropout.h"
#include "seqboat/kernels/elementwise.h"

namespace seqboat::ops {
namespace {

using at::Tensor;

constexpr int64_t kRowGrain = 256;

Tensor segment_sum_cpu(const Tensor& x, const Tensor& cu_seqlens, bool mean) {
  const PhaseScope phase(Phase::kHead);
  check_floating("segment_sum", "x", x);
  check_matrix("segment_sum", "x", x);
  check_offsets("segment_sum", cu_seqlens, x.size(0));
  const int64_t batch = cu_seqlens.size(0) - 1, dim = x.size(1);
  const int64_t* offsets = cu_seqlens.const_data_ptr<int64_t>();
  const Tensor xc = x.contiguous();
  Tensor y = at::empty({batch, dim}, x.options());
  SEQBOAT_DISPATCH(x, "seqboat::segment_sum", [&] {
    std::vector<scalar_t> scale(static_cast<size_t>(batch), scalar_t(1));
    if (mean)
      for (int64_t b = 0; b < batch; ++b) scale[b] = scalar_t(1) / static_cast<scalar_t>(std::max<int64_t>(1, offsets[b + 1] - offsets[b]));
    parallel_for(batch, 1, [&](int64_t begin, int64_t end) {
      kernels::segment_sum<scalar_t>(begin, end, offsets, dim, scale.data(), xc.const_data_ptr<scalar_t>(), y.mutable_data_ptr<scalar_t>());
    });
  });
  return y;
}

Tensor segment_sum_backward_cpu(const Tensor& grad_y, const Tensor& cu_seqlens, bool mean, c10::SymInt sym_tokens) {
  const PhaseScope phase(Phase::kHead);
  const int64_t tokens = sym_tokens.guard_int(__FILE__, __LINE__);
  const int64_t batch = cu_seqlens.size(0) - 1, dim = grad_y.size(1);
  const int64_t* offsets = cu_seqlens.const_data_ptr<int64_t>();
  const Tensor gy = grad_y.contiguous();
  Tensor gx = at::empty({tokens, dim}, grad_y.options());
  SEQBOAT_DISPATCH(grad_y, "seqboat::_segment_sum_backward", [&] {
    parallel_for(batch, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        const scalar_t scale = mean ? scalar_t(1) / static_cast<scalar_t>(std::max<int64_t>(1, offsets[b + 1] - offsets[b])) : scalar_t(1);
        const scalar_t* from = gy.const_data_ptr<scalar_t>() + b * dim;
        for (int64_t t = offsets[b]; t < offsets[b + 1]; ++t) {
          scalar_t* to = gx.mutable_data_ptr<scalar_t>() + t * dim;
          for (int64_t d = 0; d < dim; ++d) to[d] = scale * from[d];
        }
      }
    });
  });
  return gx;
}

void check_ids(const char* op, const char* name, const Tensor& ids, int64_t rows, int64_t bound) {
  TORCH_CHECK(ids.dim() == 1 && ids.scalar_type() == at::kLong && ids.is_contiguous() && (rows < 0 || ids.size(0) == rows), "seqboat::", op, ": ",
              name, " must be a contiguous (tokens) int64 tensor", rows < 0 ? std::string() : " of " + std::to_string(rows), ", got ",
              ids.scalar_type(), " ", ids.sizes());
  const int64_t* p = ids.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < ids.size(0); ++i)
    TORCH_CHECK(p[i] >= 0 && p[i] < bound, "seqboat::", op, ": ", name, " must lie in [0, ", bound, "), got ", p[i], " at ", i);
}

Tensor embedding_cpu(const Tensor& weight, const Tensor& tokens) {
  const PhaseScope phase(Phase::kEmbedding);
  check_floating("embedding", "weight", weight);
  check_matrix("embedding", "weight", weight);
  check_ids("embedding", "tokens", tokens, -1, weight.size(0));
  const Tensor wc = weight.contiguous();
  const int64_t dim = weight.size(1);
  const int64_t* ids = tokens.const_data_ptr<int64_t>();
  Tensor y = at::empty({tokens.size(0), dim}, weight.options());
  SEQBOAT_DISPATCH(weight, "seqboat::embedding", [&] {
    parallel_for(tokens.size(0), kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t)
        std::memcpy(y.mutable_data_ptr<scalar_t>() + t * dim, wc.const_data_ptr<scalar_t>() + ids[t] * dim,
                    static_cast<size_t>(dim) * sizeof(scalar_t));
    });
  });
  return y;
}

Tensor embedding_backward_cpu(const Tensor& grad_y, const Tensor& tokens, c10::SymInt sym_vocab) {
  const PhaseScope phase(Phase::kEmbedding);
  const int64_t vocab = sym_vocab.guard_int(__FILE__, __LINE__);
  const Tensor gy = grad_y.contiguous();
  const int64_t dim = grad_y.size(1), rows = tokens.size(0);
  const int64_t* ids = tokens.const_data_ptr<int64_t>();
  Tensor gw = at::zeros({vocab, dim}, grad_y.options());
  SEQBOAT_DISPATCH(grad_y, "seqboat::_embedding_backward", [&] {
    // Columns are shared out, so that each sum runs over the tokens in their order.
    parallel_for(dim, 16, [&](int64_t begin, int64_t end) {
      for (int64_t t = 0; t < rows; ++t) {
        scalar_t* to = gw.mutable_data_ptr<scalar_t>() + ids[t] * dim;
        const scalar_t* from = gy.const_data_ptr<scalar_t>() + t * dim;
        for (int64_t d = begin; d < end; ++d) to[d] += from[d];
      }
    });
  });
  return gw;
}

Tensor dropout_cpu(const Tensor& x, double p, int64_t seed, int64_t update, int64_t micro_batch, int64_t layer, int64_t site,
                   const Tensor& sequence_ids, const Tensor& positions) {
  const PhaseScope phase(Phase::kDropout);
  check_floating("dropout", "x", x);
  check_matrix("dropout", "x", x);
  TORCH_CHECK(p >= 0 && p < 1, "seqboat::dropout: p must lie in [0, 1), got ", p);
  for (const auto& [name, t] : {std::pair<const char*, const Tensor*>{"sequence_ids", &sequence_ids}, {"positions", &positions}})
    TORCH_CHECK(t->dim() == 1 && t->size(0) == x.size(0) && t->scalar_type() == at::kLong && t->is_contiguous(), "seqboat::dropout: ", name,
                " must be (", x.size(0), ") int64, got ", t->scalar_type(), " ", t->sizes());
  const kernels::DropoutKey key{static_cast<uint64_t>(seed), static_cast<uint64_t>(update), static_cast<uint32_t>(micro_batch),
                                static_cast<uint32_t>(layer), static_cast<uint32_t>(site)};
  const Tensor xc = x.contiguous();
  Tensor y = at::empty_like(xc);
  SEQBOAT_DISPATCH(x, "seqboat::dropout", [&] {
    parallel_for(x.size(0), kRowGrain, [&](int64_t begin, int64_t end) {
      kernels::dropout<scalar_t>(key, p, begin, end, x.size(1), sequence_ids.const_data_ptr<int64_t>(), positions.const_data_ptr<int64_t>(),
                                 xc.const_data_ptr<scalar_t>(), y.mutable_data_ptr<scalar_t>());
    });
  });
  return y;
}

std::tuple<Tensor, Tensor> cross_entropy_sum_cpu(const Tensor& logits, const Tensor& targets) {
  const PhaseScope phase(Phase::kHead);
  check_floating("cross_entropy_sum", "logits", logits);
  check_matrix("cross_entropy_sum", "logits", logits);
  check_ids("cross_entropy_sum", "targets", targets, logits.size(0), logits.size(1));
  const Tensor log_probs = at::_log_softmax(logits.contiguous(), 1, false);
  const int64_t classes = logits.size(1);
  const int64_t* ids = targets.const_data_ptr<int64_t>();
  Tensor loss = at::empty({1}, logits.options());
  SEQBOAT_DISPATCH(logits, "seqboat::cross_entropy_sum", [&] {
    const auto* p = log_probs.const_data_ptr<scalar_t>();
    double sum = 0;
    for (int64_t t = 0; t < logits.size(0); ++t) sum -= static_cast<double>(p[t * classes + ids[t]]);
    *loss.mutable_data_ptr<scalar_t>() = static_cast<scalar_t>(sum);
  });
  return {loss, log_probs};
}

Tensor cross_entropy_backward_cpu(const Tensor& grad_loss, const Tensor& kept, const Tensor& targets) {
  const PhaseScope phase(Phase::kHead);
  const Tensor log_probs = kept.contiguous();
  const int64_t classes = log_probs.size(1);
  const int64_t* ids = targets.const_data_ptr<int64_t>();
  Tensor grad = at::empty_like(log_probs);
  SEQBOAT_DISPATCH(log_probs, "seqboat::_cross_entropy_backward", [&] {
    const scalar_t scale = *grad_loss.const_data_ptr<scalar_t>();
    const auto* p = log_probs.const_data_ptr<scalar_t>();
    auto* g = grad.mutable_data_ptr<scalar_t>();
    parallel_for(log_probs.size(0), kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t)
        for (int64_t c = 0; c < classes; ++c) g[t * classes + c] = scale * (std::exp(p[t * classes + c]) - (c == ids[t] ? scalar_t(1) : scalar_t(0)));
    });
  });
  return grad;
}

}  // namespace

TORCH_LIBRARY_IMPL(seqboat, CPU, m) {
  m.impl("segment_sum", segment_sum_cpu);
  m.impl("_segment_sum_backward", segment_sum_backward_cpu);
  m.impl("embedding", embedding_cpu);
  m.impl("_embedding_backward", embedding_backward_cpu);
  m.impl("dropout", dropout_cpu);
  m.impl("cross_entropy_sum", cross_entropy_sum_cpu);
  m.impl("_cross_entropy_backward", cross_entropy_backward_cpu);
}

}  // namespace seqboat::ops
