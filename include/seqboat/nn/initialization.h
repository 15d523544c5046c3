#pragma once

#include <torch/torch.h>

#include "seqboat/base/philox.h"

/// Initial values of the official code, drawn from a counter-based stream: the same on every machine. Each fills a float32 or float64 tensor in
/// row-major order, without gradient tracking.
namespace seqboat::nn {

void fill_normal(torch::Tensor& t, double std, PhiloxStream& random);                ///< N(0, std^2)
void fill_uniform(torch::Tensor& t, double low, double high, PhiloxStream& random);  ///< U[low, high)
void fill_truncated_normal(torch::Tensor& t, double std, PhiloxStream& random);  ///< N(0, std^2) cut at +-2 std; its standard deviation is 0.8796 std
void fill_xavier_uniform(torch::Tensor& t, PhiloxStream& random);                ///< U(-a, a), a = sqrt(6 / (in + out)), for an (out, in) matrix

}  // namespace seqboat::nn
