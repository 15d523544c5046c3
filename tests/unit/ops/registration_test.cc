// What the operators tell the dispatcher about themselves. tests/python/operators_test.py asks every one of them by PyTorch's own means.

#include "seqboat/ops/ops.h"
#include "support/torch_checks.h"

namespace seqboat {
namespace {

using test::leaf;
using test::offsets;
using torch::Tensor;

TEST(OpRegistration, ShapesOnMetaAreThoseOnTheCpuInAnyMemoryOrder) {
  const Tensor x = torch::randn({4, 6}).t(), weight = torch::randn({4, 3}).t(), q = torch::rand({2, 4}).t();
  const auto meta = [](const Tensor& t) { return torch::empty_strided(t.sizes(), t.strides(), t.options().device(torch::kMeta)); };
  const auto expect_alike = [](const Tensor& on_meta, const Tensor& on_cpu) {
    EXPECT_EQ(on_meta.sizes(), on_cpu.sizes());
    EXPECT_EQ(on_meta.strides(), on_cpu.strides());
    EXPECT_EQ(on_meta.dtype(), on_cpu.dtype());
  };
  expect_alike(ops::activation(meta(x), "silu"), ops::activation(x, "silu"));
  expect_alike(ops::linear(meta(x), meta(weight), std::nullopt), ops::linear(x, weight, std::nullopt));
  expect_alike(ops::row_norm(meta(x), std::nullopt, std::nullopt, "rmsnorm", 1e-5), ops::row_norm(x, std::nullopt, std::nullopt, "rmsnorm", 1e-5));
  const Tensor cu = offsets({2, 4}), omega = torch::randn({4});
  expect_alike(std::get<0>(ops::ema_scan(meta(x), meta(cu), meta(q), meta(q), meta(omega), 0, false, std::nullopt, std::nullopt)),
               std::get<0>(ops::ema_scan(x, cu, q, q, omega, 0, false, std::nullopt, std::nullopt)));
}

TEST(OpRegistration, GradientsAreNotDifferentiatedAgainUnseen) {
  const Tensor x = leaf({6, 4}), w = leaf({3, 4});
  const Tensor loss = ops::linear(x, w, std::nullopt).pow(2).sum();
  try {
    torch::autograd::grad({loss}, {x, w}, {}, /*retain_graph=*/true, /*create_graph=*/true);
    ADD_FAILURE() << "no error";
  } catch (const c10::Error& error) {
    EXPECT_NE(std::string(error.what()).find("seqboat::linear: its gradient cannot be differentiated again"), std::string::npos) << error.what();
  }
  // Rotations are their own adjoints: these can.
  const Tensor rotated = ops::rotary(x, torch::arange(6)).pow(2).sum();
  const Tensor once = torch::autograd::grad({rotated}, {x}, {}, true, true)[0];
  const Tensor twice = torch::autograd::grad({once.sum()}, {x})[0];
  EXPECT_TRUE(torch::allclose(twice, torch::full({6, 4}, 2.0, x.options())));
}

}  // namespace
}  // namespace seqboat
