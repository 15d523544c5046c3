#pragma once

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <functional>
#include <vector>

namespace seqboat::test {

using TensorFunction = std::function<torch::Tensor(const std::vector<torch::Tensor>&)>;

/// Holds the backward of f at float64 inputs against central differences of sum(f(x) * w) in a random direction for each input that wants a
/// gradient. The error of a central difference of step h is O(h^2) beside rounding eps/h: both lie below the tolerance for smooth f of size one.
inline void check_gradients(const TensorFunction& f, std::vector<torch::Tensor> inputs, double tolerance = 2e-7) {
  torch::manual_seed(7);
  const torch::Tensor y = f(inputs);
  const torch::Tensor w = torch::randn_like(y);
  for (torch::Tensor& input : inputs)
    if (input.requires_grad()) input.mutable_grad() = torch::Tensor();
  (f(inputs) * w).sum().backward();
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].requires_grad()) continue;
    ASSERT_TRUE(inputs[i].grad().defined()) << "no gradient for input " << i;
    torch::NoGradGuard no_grad;
    const torch::Tensor direction = torch::randn_like(inputs[i]), original = inputs[i].clone();
    constexpr double kStep = 1e-5;
    inputs[i].copy_(original + kStep * direction);
    const double above = (f(inputs) * w).sum().item<double>();
    inputs[i].copy_(original - kStep * direction);
    const double below = (f(inputs) * w).sum().item<double>();
    inputs[i].copy_(original);
    const double numeric = (above - below) / (2 * kStep), analytic = (inputs[i].grad() * direction).sum().item<double>();
    EXPECT_NEAR(analytic, numeric, tolerance * (1 + std::abs(numeric))) << "input " << i;
  }
}

inline torch::Tensor leaf(std::vector<int64_t> shape, torch::ScalarType dtype = torch::kFloat64) {
  return torch::randn(shape, dtype).requires_grad_(true);
}

inline torch::Tensor offsets(std::vector<int64_t> lengths) {
  std::vector<int64_t> ends{0};
  for (const int64_t length : lengths) ends.push_back(ends.back() + length);
  return torch::tensor(ends, torch::kInt64);
}

/// Equal to the last bit, NaN never.
inline ::testing::AssertionResult same_bits(const torch::Tensor& a, const torch::Tensor& b) {
  if (a.sizes() != b.sizes()) return ::testing::AssertionFailure() << "shapes " << a.sizes() << " and " << b.sizes();
  if (torch::equal(a, b)) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "largest difference " << (a - b).abs().max().item<double>();
}

}  // namespace seqboat::test
