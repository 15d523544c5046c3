#include <torch/library.h>

#include "ops/common.h"
#include "seqboat/kernels/elementwise.h"
#include "seqboat/kernels/gemm.h"

namespace seqboat::ops {
namespace {

using at::Tensor;
using kernels::GemmShape;

// Rows of one product are cut among threads at multiples of this; a row has the same bits wherever the cut falls.
constexpr int64_t kRowBlock = 256;
// The sum over tokens of a weight's gradient is cut into chunks of this many tokens, whatever the thread count, and the partial sums are added in
// order.
constexpr int64_t kTokenChunk = 4096;
constexpr int64_t kWeightRowBlock = 128;

template <class T>
void gemm_rows(int64_t m, int64_t n, int64_t k, const T* a, const T* b, bool trans_b, const T* bias, T* c) {
  const int64_t blocks = (m + kRowBlock - 1) / kRowBlock;
  const int64_t per_thread = std::max<int64_t>(1, (blocks + at::get_num_threads() - 1) / at::get_num_threads());
  parallel_for(blocks, per_thread, [&](int64_t begin, int64_t end) {
    const int64_t row = begin * kRowBlock;
    const GemmShape shape{.m = std::min(end * kRowBlock, m) - row, .n = n, .k = k, .lda = k, .ldb = trans_b ? k : n, .ldc = n, .trans_b = trans_b};
    kernels::gemm<T>(shape, a + row * k, b, bias, c + row * n, thread_workspace<T>(kernels::gemm_workspace_size<T>(shape)));
  });
}

// gw (out, in) = sum over tokens of gy (M, out)^T x (M, in).
template <class T>
void weight_gradient(int64_t tokens, int64_t out, int64_t in, const T* gy, const T* x, const at::TensorOptions& options, T* gw) {
  const int64_t chunks = std::max<int64_t>(1, (tokens + kTokenChunk - 1) / kTokenChunk);
  const int64_t blocks = (out + kWeightRowBlock - 1) / kWeightRowBlock;
  Tensor partial = chunks > 1 ? at::empty({chunks, out * in}, options) : Tensor();
  T* base = chunks > 1 ? partial.mutable_data_ptr<T>() : gw;
  parallel_for(chunks * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t chunk = task / blocks, row = task % blocks * kWeightRowBlock, token = chunk * kTokenChunk;
      const GemmShape shape{.m = std::min(kWeightRowBlock, out - row),
                            .n = in,
                            .k = std::min(kTokenChunk, tokens - token),
                            .lda = out,
                            .ldb = in,
                            .ldc = in,
                            .trans_a = true};
      kernels::gemm<T>(shape, gy + token * out + row, x + token * in, nullptr, base + chunk * out * in + row * in,
                       thread_workspace<T>(kernels::gemm_workspace_size<T>(shape)));
    }
  });
  if (chunks > 1)
    parallel_for(out * in, 4096, [&](int64_t begin, int64_t end) { kernels::column_sum<T>(chunks, out * in, out * in, begin, end, base, gw); });
}

void check_linear(const Tensor& x, const Tensor& weight) {
  check_floating("linear", "x", x);
  check_matrix("linear", "x", x);
  check_same_dtype("linear", "weight", weight, x);
  TORCH_CHECK(weight.dim() == 2 && weight.size(1) == x.size(1), "seqboat::linear: weight must be (out, ", x.size(1), ") for x ", x.sizes(), ", got ",
              weight.sizes());
}

Tensor linear_cpu(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
  const PhaseScope phase(Phase::kProducts);
  check_linear(x, weight);
  TORCH_CHECK(!present(bias) || (bias->dim() == 1 && bias->size(0) == weight.size(0) && bias->scalar_type() == x.scalar_type()),
              "seqboat::linear: bias must be (", weight.size(0), ") ", x.scalar_type(), ", got ", bias.value_or(Tensor()).sizes());
  const Tensor xc = x.contiguous(), wc = weight.contiguous();
  const auto bc = contiguous(bias);
  Tensor y = at::empty({x.size(0), weight.size(0)}, x.options());
  SEQBOAT_DISPATCH(x, "seqboat::linear", [&] {
    gemm_rows<scalar_t>(x.size(0), weight.size(0), x.size(1), xc.const_data_ptr<scalar_t>(), wc.const_data_ptr<scalar_t>(), true,
                        data_or_null<scalar_t>(bc), y.mutable_data_ptr<scalar_t>());
  });
  return y;
}

std::tuple<Tensor, Tensor, Tensor> linear_backward_cpu(const Tensor& grad_y, const Tensor& x, const Tensor& weight, std::array<bool, 3> mask) {
  const PhaseScope phase(Phase::kProducts);
  check_linear(x, weight);
  const Tensor gy = grad_y.contiguous(), xc = x.contiguous(), wc = weight.contiguous();
  const int64_t tokens = x.size(0), in = x.size(1), out = weight.size(0);
  Tensor grad_x, grad_w, grad_b;
  if (mask[0]) grad_x = at::empty({tokens, in}, x.options());
  if (mask[1]) grad_w = at::empty({out, in}, x.options());
  if (mask[2]) grad_b = at::empty({out}, x.options());
  SEQBOAT_DISPATCH(x, "seqboat::_linear_backward", [&] {
    const auto* g = gy.const_data_ptr<scalar_t>();
    if (mask[0]) gemm_rows<scalar_t>(tokens, in, out, g, wc.const_data_ptr<scalar_t>(), false, nullptr, grad_x.mutable_data_ptr<scalar_t>());
    if (mask[1]) weight_gradient<scalar_t>(tokens, out, in, g, xc.const_data_ptr<scalar_t>(), x.options(), grad_w.mutable_data_ptr<scalar_t>());
    if (mask[2])
      parallel_for(out, 64, [&](int64_t begin, int64_t end) {
        kernels::column_sum<scalar_t>(tokens, out, out, begin, end, g, grad_b.mutable_data_ptr<scalar_t>());
      });
  });
  return {grad_x, grad_w, grad_b};
}

}  // namespace

TORCH_LIBRARY_IMPL(seqboat, CPU, m) {
  m.impl("linear", linear_cpu);
  m.impl("_linear_backward", linear_backward_cpu);
}

}  // namespace seqboat::ops
