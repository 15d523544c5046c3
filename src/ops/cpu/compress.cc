#include "seqboat/kernels/compress.h"

#include <torch/library.h>

#include "ops/common.h"

namespace seqboat::ops {
namespace {

using at::Tensor;

constexpr int64_t kRowGrain = 512;

void check_active(const char* op, const Tensor& active) {
  TORCH_CHECK(active.dim() == 1 && active.scalar_type() == at::kByte && active.is_contiguous(), "seqboat::", op,
              ": active must be a contiguous (tokens) uint8 tensor, got ", active.scalar_type(), " ", active.sizes());
}

void check_index(const char* op, const Tensor& index, int64_t tokens) {
  TORCH_CHECK(index.dim() == 1 && index.scalar_type() == at::kLong && index.is_contiguous(), "seqboat::", op,
              ": active_index must be a contiguous (K) int64 tensor, got ", index.scalar_type(), " ", index.sizes());
  const int64_t* p = index.const_data_ptr<int64_t>();
  const int64_t count = index.size(0);
  for (int64_t i = 0; i < count; ++i)
    TORCH_CHECK(p[i] >= 0 && p[i] < tokens && (i == 0 || p[i] > p[i - 1]), "seqboat::", op, ": active_index must increase within [0, ", tokens,
                "), got ", p[i], " at ", i);
}

std::tuple<Tensor, Tensor, Tensor> active_index_cpu(const Tensor& active, const Tensor& cu_seqlens) {
  const PhaseScope phase(Phase::kCompress);
  check_active("active_index", active);
  check_offsets("active_index", cu_seqlens, active.size(0));
  const int64_t batch = cu_seqlens.size(0) - 1;
  const int64_t* offsets = cu_seqlens.const_data_ptr<int64_t>();
  Tensor active_cu = at::empty({batch + 1}, cu_seqlens.options());
  const int64_t count = kernels::count_active(batch, offsets, active.const_data_ptr<uint8_t>(), active_cu.mutable_data_ptr<int64_t>());
  Tensor index = at::empty({count}, cu_seqlens.options()), positions = at::empty({count}, cu_seqlens.options());
  kernels::fill_active_index(batch, offsets, active.const_data_ptr<uint8_t>(), index.mutable_data_ptr<int64_t>(),
                             positions.mutable_data_ptr<int64_t>());
  return {index, positions, active_cu};
}

Tensor compress_cpu(const Tensor& x, const Tensor& active, const Tensor& index) {
  const PhaseScope phase(Phase::kCompress);
  check_floating("compress", "x", x);
  check_matrix("compress", "x", x);
  check_active("compress", active);
  TORCH_CHECK(active.size(0) == x.size(0), "seqboat::compress: active must have one entry a row of x (", x.size(0), "), got ", active.size(0));
  check_index("compress", index, x.size(0));
  const Tensor xc = x.contiguous();
  Tensor out = at::empty({index.size(0), x.size(1)}, x.options());
  SEQBOAT_DISPATCH(x, "seqboat::compress", [&] {
    parallel_for(index.size(0), kRowGrain, [&](int64_t begin, int64_t end) {
      kernels::compress_rows<scalar_t>(begin, end, x.size(1), index.const_data_ptr<int64_t>(), xc.const_data_ptr<scalar_t>(), x.size(1),
                                       out.mutable_data_ptr<scalar_t>(), x.size(1));
    });
  });
  return out;
}

Tensor extract_cpu(const Tensor& h, const Tensor& active, const Tensor& index) {
  const PhaseScope phase(Phase::kExtract);
  check_floating("extract", "h", h);
  check_matrix("extract", "h", h);
  check_active("extract", active);
  check_index("extract", index, active.size(0));
  TORCH_CHECK(h.size(0) == index.size(0), "seqboat::extract: h must have one row an active token (", index.size(0), "), got ", h.size(0));
  const Tensor hc = h.contiguous();
  const int64_t tokens = active.size(0), dim = h.size(1);
  const int64_t* rows = index.const_data_ptr<int64_t>();
  Tensor out = at::empty({tokens, dim}, h.options());
  SEQBOAT_DISPATCH(h, "seqboat::extract", [&] {
    parallel_for(tokens, kRowGrain, [&](int64_t begin, int64_t end) {
      const int64_t first = std::lower_bound(rows, rows + index.size(0), begin) - rows;
      kernels::extract_rows<scalar_t>(begin, end, dim, active.const_data_ptr<uint8_t>(), first, hc.const_data_ptr<scalar_t>(), dim,
                                      out.mutable_data_ptr<scalar_t>(), dim);
    });
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(seqboat, CPU, m) {
  m.impl("active_index", active_index_cpu);
  m.impl("compress", compress_cpu);
  m.impl("extract", extract_cpu);
}

}  // namespace seqboat::ops
