#include "seqboat/kernels/norm.h"

#include <torch/library.h>

#include <cmath>

#include "ops/common.h"
#include "seqboat/kernels/elementwise.h"

namespace seqboat::ops {
namespace {

using at::Tensor;
using kernels::RowNorm;
using OptionalTensor = std::optional<Tensor>;

constexpr int64_t kRowBlock = 512;  // fixed blocks of rows for partial sums of parameter gradients
constexpr int64_t kRowGrain = 128;  // rows are independent: a grain for threads only
constexpr int64_t kChannelGrain = 16;

RowNorm parse_kind(c10::string_view kind) {
  if (kind == "layernorm") return RowNorm::kLayerNorm;
  if (kind == "scalenorm") return RowNorm::kScaleNorm;
  if (kind == "rmsnorm") return RowNorm::kRmsNorm;
  TORCH_CHECK(false, "seqboat::row_norm: kind must be layernorm, scalenorm or rmsnorm, got '", kind, "'");
}

void check_vector(const char* op, const char* name, const OptionalTensor& t, const Tensor& x, int64_t size) {
  if (present(t))
    TORCH_CHECK(t->dim() == 1 && t->size(0) == size && t->scalar_type() == x.scalar_type(), "seqboat::", op, ": ", name, " must be (", size, ") ",
                x.scalar_type(), ", got ", t->sizes(), " ", t->scalar_type());
}

std::tuple<Tensor, Tensor, Tensor> row_norm_cpu(const Tensor& x, const OptionalTensor& weight, const OptionalTensor& bias, c10::string_view kind,
                                                double eps) {
  const PhaseScope phase(Phase::kNorm);
  check_floating("row_norm", "x", x);
  check_matrix("row_norm", "x", x);
  const RowNorm norm = parse_kind(kind);
  const int64_t rows = x.size(0), dim = x.size(1);
  check_vector("row_norm", "weight", weight, x, norm == RowNorm::kScaleNorm ? 1 : dim);
  check_vector("row_norm", "bias", bias, x, dim);
  TORCH_CHECK(norm == RowNorm::kLayerNorm || !present(bias), "seqboat::row_norm: only layernorm takes a bias");
  const Tensor xc = x.contiguous();
  const auto wc = contiguous(weight), bc = contiguous(bias);
  Tensor y = at::empty_like(xc), mean = at::empty({norm == RowNorm::kLayerNorm ? rows : 0}, x.options()), rstd = at::empty({rows}, x.options());
  SEQBOAT_DISPATCH(x, "seqboat::row_norm", [&] {
    parallel_for(rows, kRowGrain, [&](int64_t begin, int64_t end) {
      kernels::row_norm_fwd<scalar_t>(norm, end - begin, dim, static_cast<scalar_t>(eps), xc.const_data_ptr<scalar_t>() + begin * dim,
                                      data_or_null<scalar_t>(wc), data_or_null<scalar_t>(bc), y.mutable_data_ptr<scalar_t>() + begin * dim,
                                      norm == RowNorm::kLayerNorm ? mean.mutable_data_ptr<scalar_t>() + begin : nullptr,
                                      rstd.mutable_data_ptr<scalar_t>() + begin);
    });
  });
  return {y, mean, rstd};
}

std::tuple<Tensor, Tensor, Tensor> row_norm_backward_cpu(const Tensor& grad_y, const Tensor& x, const OptionalTensor& weight, const Tensor& mean,
                                                         const Tensor& rstd, c10::string_view kind, bool has_bias) {
  const PhaseScope phase(Phase::kNorm);
  const RowNorm norm = parse_kind(kind);
  const int64_t rows = x.size(0), dim = x.size(1), blocks = (rows + kRowBlock - 1) / kRowBlock;
  const Tensor gy = grad_y.contiguous(), xc = x.contiguous();
  const auto wc = contiguous(weight);
  const int64_t weight_size = present(weight) ? weight->size(0) : 0;
  Tensor gx = at::empty_like(xc), gw, gb, partial_w, partial_b;
  if (weight_size > 0) {
    gw = at::empty({weight_size}, x.options());
    partial_w = at::zeros({blocks, weight_size}, x.options());
  }
  if (has_bias) {
    gb = at::empty({dim}, x.options());
    partial_b = at::zeros({blocks, dim}, x.options());
  }
  SEQBOAT_DISPATCH(x, "seqboat::_row_norm_backward", [&] {
    using T = scalar_t;
    parallel_for(blocks, 1, [&](int64_t first, int64_t last) {
      for (int64_t block = first; block < last; ++block) {
        const int64_t begin = block * kRowBlock, end = std::min(begin + kRowBlock, rows);
        kernels::row_norm_bwd<T>(norm, end - begin, dim, xc.const_data_ptr<T>() + begin * dim, data_or_null<T>(wc),
                                 norm == RowNorm::kLayerNorm ? mean.const_data_ptr<T>() + begin : nullptr, rstd.const_data_ptr<T>() + begin,
                                 gy.const_data_ptr<T>() + begin * dim, gx.mutable_data_ptr<T>() + begin * dim,
                                 gw.defined() ? partial_w.mutable_data_ptr<T>() + block * weight_size : nullptr,
                                 gb.defined() ? partial_b.mutable_data_ptr<T>() + block * dim : nullptr);
      }
    });
    if (gw.defined())
      kernels::column_sum<T>(blocks, weight_size, weight_size, 0, weight_size, partial_w.const_data_ptr<T>(), gw.mutable_data_ptr<T>());
    if (gb.defined()) kernels::column_sum<T>(blocks, dim, dim, 0, dim, partial_b.const_data_ptr<T>(), gb.mutable_data_ptr<T>());
  });
  return {gx, gw, gb};
}

std::tuple<Tensor, Tensor> batch_norm_stats_cpu(const Tensor& x) {
  const PhaseScope phase(Phase::kNorm);
  check_floating("batch_norm_stats", "x", x);
  check_matrix("batch_norm_stats", "x", x);
  TORCH_CHECK(x.size(0) > 0, "seqboat::batch_norm_stats: x must have at least one row");
  const Tensor xc = x.contiguous();
  const int64_t dim = x.size(1);
  Tensor mean = at::empty({dim}, x.options()), var = at::empty({dim}, x.options());
  SEQBOAT_DISPATCH(x, "seqboat::batch_norm_stats", [&] {
    parallel_for(dim, kChannelGrain, [&](int64_t begin, int64_t end) {
      kernels::batch_norm_stats<scalar_t>(x.size(0), dim, begin, end, xc.const_data_ptr<scalar_t>(), mean.mutable_data_ptr<scalar_t>(),
                                          var.mutable_data_ptr<scalar_t>());
    });
  });
  return {mean, var};
}

Tensor reciprocal_spread(const Tensor& var, double eps) {
  Tensor rstd = at::empty_like(var);
  SEQBOAT_DISPATCH(var, "seqboat::batch_norm", [&] {
    const auto* from = var.const_data_ptr<scalar_t>();
    auto* to = rstd.mutable_data_ptr<scalar_t>();
    for (int64_t d = 0; d < var.size(0); ++d) to[d] = static_cast<scalar_t>(1.0 / std::sqrt(static_cast<double>(from[d]) + eps));
  });
  return rstd;
}

Tensor batch_norm_cpu(const Tensor& x, const OptionalTensor& weight, const OptionalTensor& bias, const Tensor& mean, const Tensor& var, bool,
                      double eps) {
  const PhaseScope phase(Phase::kNorm);
  check_floating("batch_norm", "x", x);
  check_matrix("batch_norm", "x", x);
  const int64_t dim = x.size(1);
  check_vector("batch_norm", "weight", weight, x, dim);
  check_vector("batch_norm", "bias", bias, x, dim);
  check_vector("batch_norm", "mean", mean, x, dim);
  check_vector("batch_norm", "var", var, x, dim);
  const Tensor xc = x.contiguous(), mc = mean.contiguous(), rstd = reciprocal_spread(var.contiguous(), eps);
  const auto wc = contiguous(weight), bc = contiguous(bias);
  Tensor y = at::empty_like(xc);
  SEQBOAT_DISPATCH(x, "seqboat::batch_norm", [&] {
    parallel_for(x.size(0), kRowGrain, [&](int64_t begin, int64_t end) {
      kernels::batch_norm_apply<scalar_t>(begin, end, dim, xc.const_data_ptr<scalar_t>(), mc.const_data_ptr<scalar_t>(),
                                          rstd.const_data_ptr<scalar_t>(), data_or_null<scalar_t>(wc), data_or_null<scalar_t>(bc),
                                          y.mutable_data_ptr<scalar_t>());
    });
  });
  return y;
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_backward_cpu(const Tensor& grad_y, const Tensor& x, const OptionalTensor& weight, const Tensor& mean,
                                                           const Tensor& var, bool batch_stats, double eps, bool has_bias) {
  const PhaseScope phase(Phase::kNorm);
  const int64_t rows = x.size(0), dim = x.size(1);
  const Tensor gy = grad_y.contiguous(), xc = x.contiguous(), mc = mean.contiguous(), rstd = reciprocal_spread(var.contiguous(), eps);
  const auto wc = contiguous(weight);
  const auto wide = x.options().dtype(at::kDouble);
  Tensor gx = at::empty_like(xc), sum_xhat = at::empty({dim}, wide), sum = at::empty({dim}, wide);
  SEQBOAT_DISPATCH(x, "seqboat::_batch_norm_backward", [&] {
    using T = scalar_t;
    parallel_for(dim, kChannelGrain, [&](int64_t begin, int64_t end) {
      kernels::batch_norm_bwd_sums<T>(rows, dim, begin, end, xc.const_data_ptr<T>(), mc.const_data_ptr<T>(), rstd.const_data_ptr<T>(),
                                      gy.const_data_ptr<T>(), sum_xhat.mutable_data_ptr<double>(), sum.mutable_data_ptr<double>());
    });
    parallel_for(rows, kRowGrain, [&](int64_t begin, int64_t end) {
      kernels::batch_norm_bwd_input<T>(rows, begin, end, dim, batch_stats, xc.const_data_ptr<T>(), mc.const_data_ptr<T>(), rstd.const_data_ptr<T>(),
                                       data_or_null<T>(wc), sum_xhat.const_data_ptr<double>(), sum.const_data_ptr<double>(), gy.const_data_ptr<T>(),
                                       gx.mutable_data_ptr<T>());
    });
  });
  return {gx, present(weight) ? sum_xhat.to(x.scalar_type()) : Tensor(), has_bias ? sum.to(x.scalar_type()) : Tensor()};
}

}  // namespace

TORCH_LIBRARY_IMPL(seqboat, CPU, m) {
  m.impl("row_norm", row_norm_cpu);
  m.impl("_row_norm_backward", row_norm_backward_cpu);
  m.impl("batch_norm_stats", batch_norm_stats_cpu);
  m.impl("batch_norm", batch_norm_cpu);
  m.impl("_batch_norm_backward", batch_norm_backward_cpu);
}

}  // namespace seqboat::ops
