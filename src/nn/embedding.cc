#include "seqboat/nn/embedding.h"

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
  // A table a time step, gathered: the same bits wherever a token lies in the batch. Positions are packed from 0, so the longest sequence bounds it.
  const int64_t longest = positions.numel() > 0 ? positions.max().item<int64_t>() + 1 : 0;
  const int64_t half = inv_freq.size(0);
  Tensor table = torch::empty({longest, 2 * half}, torch::kFloat64);
  const Tensor freq = inv_freq.to(torch::kFloat64).contiguous();
  for (int64_t t = 0; t < longest; ++t) {
    double* row = table.mutable_data_ptr<double>() + t * 2 * half;
    for (int64_t i = 0; i < half; ++i) {
      // As in float32 code, the angle is a product rounded to the model's precision; sine and cosine are exact for it.
      double angle = static_cast<double>(t) * freq.const_data_ptr<double>()[i];
      if (x.scalar_type() == torch::kFloat32)
        angle = static_cast<double>(static_cast<float>(t) * static_cast<float>(freq.const_data_ptr<double>()[i]));
      row[i] = std::sin(angle);
      row[half + i] = std::cos(angle);
    }
  }
  const Tensor rows = table.to(x.scalar_type()).index_select(0, positions);
  // scale's gradient is a sum over everything: a (1, M D) x (M D, 1) product keeps its order fixed.
  const Tensor flat = ops::linear(rows.reshape({-1, 1}), scale.reshape({1, 1}), std::nullopt);
  return x + flat.reshape(x.sizes());
}

}  // namespace seqboat::nn
