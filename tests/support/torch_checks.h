#pragma once

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "support/expect_close.h"

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

/// The same bytes in one shape and dtype (0 is not -0), and no NaN among them.
inline ::testing::AssertionResult same_bits(const torch::Tensor& a, const torch::Tensor& b) {
  if (a.sizes() != b.sizes() || a.scalar_type() != b.scalar_type())
    return ::testing::AssertionFailure() << a.scalar_type() << " " << a.sizes() << " against " << b.scalar_type() << " " << b.sizes();
  const torch::Tensor left = a.detach().contiguous(), right = b.detach().contiguous();
  const bool same_bytes = left.nbytes() == 0 || std::memcmp(left.const_data_ptr(), right.const_data_ptr(), left.nbytes()) == 0;
  if (same_bytes && torch::equal(left, right)) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "largest difference " << (left - right).abs().max().item<double>();
}

/// |got - want| <= tolerance for every element of two tensors of one shape and dtype; a failure names the worst. NaN never passes.
inline ::testing::AssertionResult close(const torch::Tensor& got, const torch::Tensor& want, Tolerance tolerance) {
  if (got.sizes() != want.sizes() || got.scalar_type() != want.scalar_type())
    return ::testing::AssertionFailure() << got.scalar_type() << " " << got.sizes() << " against " << want.scalar_type() << " " << want.sizes();
  const torch::Tensor a = got.detach().to(torch::kFloat64).contiguous(), b = want.detach().to(torch::kFloat64).contiguous();
  return close(a.const_data_ptr<double>(), b.const_data_ptr<double>(), a.numel(), tolerance);
}

/// What the c10::Error says that f throws, or "(no error)".
template <class F>
std::string c10_message(const F& f) {
  try {
    f();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "(no error)";
}

/// The statement throws a c10::Error whose message has `part` in it.
#define EXPECT_C10_ERROR(statement, part)                                         \
  do {                                                                            \
    const std::string message = ::seqboat::test::c10_message([&] { statement; }); \
    EXPECT_NE(message.find(part), std::string::npos) << message;                  \
  } while (false)

}  // namespace seqboat::test
