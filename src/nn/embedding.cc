#include "seqboat/nn/embedding.h"

#include <ATen/Parallel.h>

#include <cmath>

#include "seqboat/nn/initialization.h"
#include "seqboat/ops/ops.h"

namespace seqboat::nn {

using torch::Tensor;

TokenEmbeddingImpl::TokenEmbeddingImpl(int64_t vocab, int64_t dim, bool zero_pad_row, PhiloxStream& random) {
  weight = register_parameter("weight", torch::empty({vocab, dim}));
  fill_normal(weight, 1.0 / std::sqrt(static_cast<double>(dim)), random);
  torch::NoGradGuard no_grad;
  if (zero_pad_row && vocab > kPadToken) weight[kPadToken].zero_();
}

Tensor TokenEmbeddingImpl::forward(const Tensor& tokens) {
  return ops::embedding(weight, tokens);
}

RealEmbeddingImpl::RealEmbeddingImpl(int64_t channels, int64_t dim, PhiloxStream& random) {
  weight = register_parameter("weight", torch::empty({dim, channels}));
  bias = register_parameter("bias", torch::empty({dim}));
  fill_normal(weight, 1.0, random);
  fill_normal(bias, 0.1, random);
}

Tensor RealEmbeddingImpl::forward(const Tensor& values) {
  return ops::linear(values, weight, bias);
}

SinusoidalPositionsImpl::SinusoidalPositionsImpl(int64_t dim) {
  TORCH_CHECK(dim % 2 == 0, "seqboat::nn::SinusoidalPositions: the width must be even, got ", dim);
  scale = register_parameter("scale", torch::full({1}, 1.0 / std::sqrt(static_cast<double>(dim))));
  inv_freq =
      register_buffer("inv_freq", torch::pow(10000.0, -torch::arange(0, dim, 2, torch::kFloat64) / static_cast<double>(dim)).to(torch::kFloat32));
}

Tensor SinusoidalPositionsImpl::forward(const Tensor& x, const Tensor& positions) {
  // A row for each time step between the first and the last, gathered; or one for each token where those lie far apart (streams at different times).
  // The same bits either way, and no more memory at position 10^9 than at 0.
  const int64_t tokens = positions.size(0), half = inv_freq.size(0);
  const int64_t first = tokens > 0 ? positions.min().item<int64_t>() : 0, last = tokens > 0 ? positions.max().item<int64_t>() : -1;
  const bool dense = last - first < tokens;
  const Tensor times = dense ? torch::arange(first, last + 1, torch::kInt64) : positions.contiguous();
  const int64_t* time = times.const_data_ptr<int64_t>();
  Tensor table = torch::empty({times.size(0), 2 * half}, torch::kFloat64);
  const Tensor freq = inv_freq.to(torch::kFloat64).contiguous();
  const double* frequency = freq.const_data_ptr<double>();
  const bool is_float = x.scalar_type() == torch::kFloat32;
  at::parallel_for(0, times.size(0), 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      double* row = table.mutable_data_ptr<double>() + t * 2 * half;
      for (int64_t i = 0; i < half; ++i) {
        // As in float32 code, the angle is a product rounded to the model's precision; sine and cosine are exact for it.
        double angle = static_cast<double>(time[t]) * frequency[i];
        if (is_float) angle = static_cast<double>(static_cast<float>(time[t]) * static_cast<float>(frequency[i]));
        row[i] = std::sin(angle);
        row[half + i] = std::cos(angle);
      }
    }
  });
  const Tensor rounded = table.to(x.scalar_type());
  const Tensor rows = dense ? rounded.index_select(0, positions - first) : rounded;
  // scale's gradient is a sum over everything: a (1, M D) x (M D, 1) product keeps its order fixed.
  const Tensor flat = ops::linear(rows.reshape({-1, 1}), scale.reshape({1, 1}), std::nullopt);
  return x + flat.reshape(x.sizes());
}

}  // namespace seqboat::nn
