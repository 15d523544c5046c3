#include "seqboat/nn/norm.h"

#include "support/torch_checks.h"

namespace seqboat {
namespace {

using test::close;
using test::Tolerance;
using torch::Tensor;

constexpr int64_t kD = 19;

/// A norm in float64 with weights and biases that are not 1 and 0.
nn::Norm lively_norm(const std::string& kind, bool affine) {
  torch::manual_seed(1);
  nn::Norm norm(kind, kD, affine);
  norm->to(torch::kFloat64);
  torch::NoGradGuard no_grad;
  for (const Tensor& parameter : norm->parameters()) parameter.normal_();
  return norm;
}

TEST(Norm, RowNormsFollowTheirFormulas) {
  for (const std::string kind : {"layernorm", "scalenorm", "rmsnorm"}) {
    for (const bool affine : {true, false}) {
      nn::Norm norm = lively_norm(kind, affine);
      const Tensor x = torch::randn({33, kD}, torch::kFloat64) * 3 + 1;
      const Tensor centred = kind == "layernorm" ? x - x.mean(1, true) : x;
      Tensor want = centred / torch::sqrt(centred.square().mean(1, true) + 1e-5);
      if (affine) want = want * norm->weight;
      if (affine && kind == "layernorm") want = want + norm->bias;
      const double magnitude = 2 + 2 * want.abs().max().item<double>() + 3 * x.abs().max().item<double>();
      EXPECT_TRUE(close(norm(x), want, Tolerance::sum<double>(kD, magnitude))) << kind << (affine ? "" : " without weights");
    }
  }
}

TEST(Norm, ParametersOfEachKind) {
  const nn::Norm layer("layernorm", kD), scale("scalenorm", kD), rms("rmsnorm", kD), batch("batchnorm", kD), bare("batchnorm", kD, false);
  EXPECT_EQ(layer->weight.sizes(), at::IntArrayRef({kD}));
  EXPECT_EQ(layer->bias.sizes(), at::IntArrayRef({kD}));
  EXPECT_EQ(scale->weight.sizes(), at::IntArrayRef({1}));
  EXPECT_EQ(rms->weight.sizes(), at::IntArrayRef({kD}));
  EXPECT_FALSE(scale->bias.defined() || rms->bias.defined());
  EXPECT_EQ(batch->parameters().size(), 2u);
  EXPECT_EQ(bare->parameters().size(), 0u);
  EXPECT_EQ(bare->buffers().size(), 3u);
}

TEST(Norm, BatchNormTrainsOnTheBatchAndTracksItsStatistics) {
  for (const bool affine : {true, false}) {
    nn::Norm norm = lively_norm("batchnorm", affine);
    Tensor mean = torch::zeros({kD}, torch::kFloat64), var = torch::ones({kD}, torch::kFloat64);
    norm->train();
    const Tolerance tolerance = Tolerance::sum<double>(40, 400);  // sums over 40 rows of numbers below 20, their squares below 400
    for (const int64_t rows : {40, 2, 7}) {
      const Tensor x = torch::randn({rows, kD}, torch::kFloat64) * 2 + 1;
      Tensor want = (x - x.mean(0)) / torch::sqrt(x.var(0, /*unbiased=*/false) + 1e-5);
      if (affine) want = want * norm->weight + norm->bias;
      EXPECT_TRUE(close(norm(x), want, tolerance));
      mean = 0.9 * mean + 0.1 * x.mean(0);
      var = 0.9 * var + 0.1 * x.var(0, /*unbiased=*/true);
    }
    EXPECT_TRUE(close(norm->running_mean, mean, tolerance));
    EXPECT_TRUE(close(norm->running_var, var, tolerance));
    EXPECT_EQ(norm->num_batches_tracked.item<int64_t>(), 3);

    norm->eval();
    const Tensor x = torch::randn({5, kD}, torch::kFloat64);
    Tensor want = (x - mean) / torch::sqrt(var + 1e-5);
    if (affine) want = want * norm->weight + norm->bias;
    EXPECT_TRUE(close(norm(x), want, tolerance));
    EXPECT_EQ(norm->num_batches_tracked.item<int64_t>(), 3);
  }
}

TEST(Norm, BatchNormOfOneTokenIsFinite) {
  nn::Norm norm("batchnorm", kD);
  norm->train();
  EXPECT_TRUE((norm(torch::randn({1, kD})) == 0).all().item<bool>());
  EXPECT_TRUE(torch::allclose(norm->running_var, torch::full({kD}, 0.9)));
}

TEST(Norm, Misuse) {
  EXPECT_C10_ERROR(nn::Norm("groupnorm", 4), "kind must be layernorm, scalenorm, rmsnorm or batchnorm, got 'groupnorm'");
  nn::Norm norm("layernorm", 4), batch("batchnorm", 4);
  EXPECT_C10_ERROR(norm(torch::randn({3, 5})), "weight must be (5) Float, got [4]");
  EXPECT_C10_ERROR(norm(torch::randn({3})), "x must be (tokens, width), got [3]");
  EXPECT_C10_ERROR(batch(torch::randn({0, 4})), "x must have at least one row");
}

}  // namespace
}  // namespace seqboat
