#pragma once

#include <torch/torch.h>

#include "seqboat/base/philox.h"
#include "seqboat/nn/packed.h"

namespace seqboat::nn {

/// Rows of weight (V, D) at the tokens. Initially N(0, 1/D); classifiers leave the pad row as drawn, language models set it to zero.
class TokenEmbeddingImpl : public torch::nn::Module {
 public:
  TokenEmbeddingImpl(int64_t vocab, int64_t dim, bool zero_pad_row, PhiloxStream& random);
  torch::Tensor forward(const torch::Tensor& tokens);  ///< (M) int64 -> (M, D)
  torch::Tensor weight;
};
TORCH_MODULE(TokenEmbedding);

/// Numbers instead of tokens: values (M, C) -> sum_c value_c weight[:, c] + bias (M, D). weight (D, C) N(0, 1), bias (D) N(0, 0.1^2).
class RealEmbeddingImpl : public torch::nn::Module {
 public:
  RealEmbeddingImpl(int64_t channels, int64_t dim, PhiloxStream& random);
  torch::Tensor forward(const torch::Tensor& values);
  torch::Tensor weight, bias;
};
TORCH_MODULE(RealEmbedding);

/// x + scale * [sin(t f_i), cos(t f_i)] (two halves), f_i = 10000^(-2i/D), t from 0. Parameter scale (1), initially D^-1/2; buffer inv_freq (D/2).
class SinusoidalPositionsImpl : public torch::nn::Module {
 public:
  explicit SinusoidalPositionsImpl(int64_t dim);
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& positions);
  torch::Tensor scale, inv_freq;
};
TORCH_MODULE(SinusoidalPositions);

constexpr int64_t kPadToken = 1;  ///< 0 <s>, 1 <pad>, 2 </s>, 3 <unk>

}  // namespace seqboat::nn
