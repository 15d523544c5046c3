// The kernels' attention against the composite of plain ATen calls, values and gradients, for every function, position kind and direction.

#include "seqboat/nn/gated_attention_unit.h"
#include "seqboat/ops/ops.h"
#include "support/torch_checks.h"

namespace seqboat {
namespace {

using torch::Tensor;

struct Case {
  const char* function;
  const char* position;
  int64_t window;
  bool causal;
};

class CompositeAttention : public ::testing::TestWithParam<Case> {};

TEST_P(CompositeAttention, EqualsTheKernel) {
  const Case param = GetParam();
  nn::AttentionOptions options;
  options.function = param.function;
  options.position = param.position;
  options.window = param.window;
  options.causal = param.causal;
  torch::manual_seed(3);
  const Tensor cu = test::offsets({1, 0, 150, 37});
  const Tensor positions = torch::cat({torch::tensor({4}), torch::arange(150) * 2 + 1, torch::arange(37) * 5}).to(torch::kInt64);
  const int64_t table_size = std::string(param.position) == "local" ? 6 * param.window - 1 : 199;  // the longest distances are clamped
  for (const auto dtype : {torch::kFloat64, torch::kFloat32}) {
    std::vector<Tensor> in{torch::randn({188, 6}, dtype), torch::randn({188, 6}, dtype), torch::randn({188, 9}, dtype),
                           torch::randn({table_size}, dtype)};
    const Tensor w = torch::randn({188, 9}, dtype);
    std::vector<Tensor> outs, grads[2];
    for (const bool composite : {true, false}) {
      std::vector<Tensor> x;
      for (const Tensor& t : in) x.push_back(t.clone().requires_grad_(true));
      const Tensor y =
          composite
              ? nn::composite_attention(x[0], x[1], x[2], positions, cu, x[3], options)
              : std::get<0>(ops::window_attention(x[0], x[1], x[2], positions, cu, x[3], param.position, param.window, param.causal, param.function));
      (y * w).sum().backward();
      outs.push_back(y.detach());
      for (const Tensor& t : x) grads[composite].push_back(t.grad());
    }
    // Two float paths with the same sums in another order: rounding of 188-term sums, relative to the largest element.
    const double eps = dtype == torch::kFloat64 ? 2.3e-16 : 1.2e-7;
    const auto near = [&](const Tensor& a, const Tensor& b, const char* what) {
      const double scale = std::max(1.0, b.abs().max().item<double>());
      EXPECT_LT((a - b).abs().max().item<double>(), 200 * eps * scale) << what;
    };
    near(outs[1], outs[0], "out");
    const char* const names[] = {"q", "k", "v", "table"};
    for (size_t i = 0; i < 4; ++i) near(grads[0][i], grads[1][i], names[i]);
  }
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const char* function : {"softmax", "relu2", "laplace"})
    for (const bool causal : {false, true}) {
      for (const int64_t window : {1, 5, 64, 500}) cases.push_back({function, "local", window, causal});
      for (const int64_t window : {7, 128, -1}) cases.push_back({function, "simple", window, causal});
    }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(All, CompositeAttention, ::testing::ValuesIn(all_cases()));

}  // namespace
}  // namespace seqboat
