#include "seqboat/nn/classifier.h"

#include "support/torch_checks.h"

namespace seqboat {
namespace {

using test::close;
using test::offsets;
using test::Tolerance;
using torch::Tensor;

TEST(Pool, MeanOfEachSequence) {
  const Tensor x = torch::randn({7, 3}, torch::kFloat64);
  const Tensor want = torch::stack({x.slice(0, 0, 4).mean(0), torch::zeros({3}, torch::kFloat64), x.slice(0, 4).mean(0)});
  EXPECT_TRUE(close(nn::pool(x, offsets({4, 0, 3}), "mean"), want, Tolerance::sum<double>(4, x.abs().max().item<double>())));
}

TEST(Pool, FirstTokenOfEachSequence) {
  Tensor x = test::leaf({7, 3});
  const Tensor got = nn::pool(x, offsets({4, 1, 2}), "first");
  EXPECT_TRUE(test::same_bits(got, x.index_select(0, torch::tensor({0, 4, 5}, torch::kInt64))));
  got.sum().backward();
  EXPECT_TRUE(torch::equal(x.grad().select(1, 0), torch::tensor({1, 0, 0, 0, 1, 1, 0}, torch::kFloat64)));
}

TEST(Pool, Misuse) {
  const Tensor x = torch::randn({7, 3});
  EXPECT_C10_ERROR(nn::pool(x, offsets({4, 0, 3}), "first"), "sequence 1 is empty and has no first token");
  EXPECT_C10_ERROR(nn::pool(x, offsets({7}), "last"), "kind must be mean or first, got 'last'");
  EXPECT_C10_ERROR(nn::pool(x, offsets({6}), "mean"), "cu_seqlens must go from 0 to 7, got 0 to 6");
}

TEST(Classifier, IsGeluLayersAndALinearOne) {
  torch::NoGradGuard no_grad;
  torch::manual_seed(1);
  for (const int64_t layers : {0, 1, 2}) {
    PhiloxStream random(3, 1);
    nn::Classifier classifier(9, 16, layers, 4, 0.5, random);
    classifier->to(torch::kFloat64);
    classifier->eval();
    for (const Tensor& parameter : classifier->parameters()) parameter.normal_();
    ASSERT_EQ(classifier->parameters().size(), static_cast<size_t>(2 * layers + 1));
    const Tensor x = torch::randn({5, 9}, torch::kFloat64);
    Tensor want = x;
    double magnitude = x.abs().max().item<double>();
    for (const auto& layer : classifier->hidden) {
      want = torch::gelu(torch::linear(want, layer->weight, layer->bias));
      magnitude *= 1 + layer->weight.abs().sum(1).max().item<double>();
    }
    want = torch::linear(want, classifier->out->weight);
    magnitude *= 1 + classifier->out->weight.abs().sum(1).max().item<double>();
    EXPECT_TRUE(close(classifier->forward(x, {}), want, Tolerance::sum<double>(16, magnitude))) << layers << " layers";
  }
}

TEST(Classifier, DropoutIsKeyedByTheSequence) {
  PhiloxStream random(3, 1);
  nn::Classifier classifier(9, 16, 2, 4, 0.5, random);
  const Tensor x = torch::randn({3, 9});
  nn::RandomKey key;
  key.sequence_ids = torch::tensor({5, 8, 2}, torch::kInt64);
  const Tensor all = classifier->forward(x, key);
  key.sequence_ids = torch::tensor({8}, torch::kInt64);
  EXPECT_TRUE(test::same_bits(classifier->forward(x.narrow(0, 1, 1), key), all.narrow(0, 1, 1)));
  key.sequence_ids = torch::tensor({9}, torch::kInt64);
  EXPECT_FALSE(torch::equal(classifier->forward(x.narrow(0, 1, 1), key), all.narrow(0, 1, 1)));
}

TEST(Classifier, Misuse) {
  PhiloxStream random(3, 1);
  nn::Classifier classifier(9, 16, 1, 4, 0.0, random);
  EXPECT_C10_ERROR(classifier->forward(torch::randn({2, 8}), {}), "weight must be (out, 8)");
}

}  // namespace
}  // namespace seqboat
