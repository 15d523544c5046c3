// The backward of every operator against central differences in float64.

#include "seqboat/ops/ops.h"
#include "support/torch_checks.h"

namespace seqboat {
namespace {

using test::check_gradients;
using test::leaf;
using test::offsets;
using torch::Tensor;
using Inputs = std::vector<Tensor>;

TEST(OpGradients, Linear) {
  check_gradients([](const Inputs& in) { return ops::linear(in[0], in[1], in[2]); }, {leaf({13, 7}), leaf({5, 7}), leaf({5})});
  check_gradients([](const Inputs& in) { return ops::linear(in[0], in[1], std::nullopt); }, {leaf({300, 3}), leaf({17, 3})});
}

TEST(OpGradients, LinearOverManyTokenChunksIsTheWholeSum) {
  Tensor x = leaf({9000, 3}), w = leaf({4, 3});
  ops::linear(x, w, std::nullopt).sum().backward();
  const Tensor want = torch::ones({4, 9000}, torch::kFloat64).matmul(x.detach());
  EXPECT_LT((w.grad() - want).abs().max().item<double>(), 1e-9);
}

TEST(OpGradients, Activations) {
  for (const char* f : {"silu", "gelu", "laplace", "sigmoid"})
    check_gradients([f](const Inputs& in) { return ops::activation(in[0], f); }, {leaf({3, 19})});
  // relu2 has a kink in its second derivative at zero: stay away from it.
  Tensor x = (torch::randn({3, 19}, torch::kFloat64).sign() * (0.5 + torch::rand({3, 19}, torch::kFloat64))).requires_grad_(true);
  check_gradients([](const Inputs& in) { return ops::activation(in[0], "relu2"); }, {x});
}

TEST(OpGradients, EmaScan) {
  const Tensor cu = offsets({9, 0, 14});
  for (const bool bidirectional : {false, true}) {
    for (const int64_t truncation : {0, 5}) {
      const int64_t rows = bidirectional ? 6 : 3;
      Tensor q = (torch::rand({rows, 4}, torch::kFloat64) * 0.8 + 0.1).requires_grad_(true);
      check_gradients(
          [&](const Inputs& in) {
            return std::get<0>(ops::ema_scan(in[0], cu, in[1], in[2], in[3], truncation, bidirectional, std::nullopt, std::nullopt));
          },
          {leaf({23, 3}), q, leaf({rows, 4}), leaf({3})});
    }
  }
}

TEST(OpGradients, EmaScanThroughTheCarriedState) {
  const Tensor cu = offsets({9, 6});
  for (const int64_t truncation : {0, 5}) {
    Tensor q = (torch::rand({3, 4}, torch::kFloat64) * 0.8 + 0.1).requires_grad_(true);
    Inputs inputs{leaf({15, 3}), q, leaf({3, 4}), leaf({3}), leaf({2, 3, 4})};
    if (truncation > 0) inputs.push_back(leaf({2, truncation, 3}));
    check_gradients(
        [&](const Inputs& in) {
          auto [y, state] =
              ops::ema_scan(in[0], cu, in[1], in[2], in[3], truncation, false, in[4], truncation > 0 ? std::optional<Tensor>(in[5]) : std::nullopt);
          return torch::cat({y.reshape({-1}), state.reshape({-1})});
        },
        inputs);
  }
}

/// Decays (rows, P, 2) inside the unit circle, some of them real.
Tensor complex_decays(int64_t rows, int64_t modes) {
  Tensor d = torch::rand({rows, modes, 2}, torch::kFloat64) * 1.2 - 0.6;
  d.select(1, 0).select(1, 1).zero_();
  return d.requires_grad_(true);
}

TEST(OpGradients, S4dScan) {
  const Tensor cu = offsets({9, 0, 14});
  for (const bool bidirectional : {false, true}) {
    for (const int64_t truncation : {0, 5}) {
      const int64_t rows = bidirectional ? 6 : 3;
      check_gradients(
          [&](const Inputs& in) {
            return std::get<0>(ops::s4d_scan(in[0], cu, in[1], in[2], in[3], truncation, bidirectional, std::nullopt, std::nullopt));
          },
          {leaf({23, 3}), complex_decays(rows, 4), leaf({rows, 4, 2}), leaf({3})});
    }
  }
}

TEST(OpGradients, S4dScanThroughTheCarriedState) {
  const Tensor cu = offsets({9, 6});
  for (const int64_t truncation : {0, 5}) {
    Inputs inputs{leaf({15, 3}), complex_decays(3, 4), leaf({3, 4, 2}), leaf({3}), leaf({2, 3, 4, 2})};
    if (truncation > 0) inputs.push_back(leaf({2, truncation, 3}));
    check_gradients(
        [&](const Inputs& in) {
          auto [y, state] =
              ops::s4d_scan(in[0], cu, in[1], in[2], in[3], truncation, false, in[4], truncation > 0 ? std::optional<Tensor>(in[5]) : std::nullopt);
          return torch::cat({y.reshape({-1}), state.reshape({-1})});
        },
        inputs);
  }
}

TEST(OpGradients, RouterOfActiveTokens) {
  const Tensor forced = torch::ones({11}, torch::kUInt8);
  check_gradients([&](const Inputs& in) { return std::get<1>(ops::router(in[0], in[1], 0.3, forced)); }, {leaf({11, 2}), leaf({1})});
}

TEST(OpGradients, RouterProbabilityOfEveryToken) {
  Tensor forced = torch::zeros({11}, torch::kUInt8);
  for (int64_t t = 0; t < 11; t += 3) forced[t] = 1;
  check_gradients([&](const Inputs& in) { return std::get<2>(ops::router(in[0], in[1], 0.3, forced)); }, {leaf({11, 2}), leaf({1})});
  check_gradients(
      [&](const Inputs& in) {
        auto [active, p, probability] = ops::router(in[0], in[1], 0.3, forced);
        return p * 2 + probability * probability;
      },
      {leaf({11, 2}), leaf({1})});
}

TEST(OpGradients, CompressAndExtract) {
  const Tensor active = torch::tensor({1, 0, 0, 1, 1, 0, 1}, torch::kUInt8), cu = offsets({4, 3});
  auto [index, positions, active_cu] = ops::active_index(active, cu);
  EXPECT_TRUE(torch::equal(index, torch::tensor({0, 3, 4, 6}, torch::kInt64)));
  EXPECT_TRUE(torch::equal(positions, torch::tensor({0, 3, 0, 2}, torch::kInt64)));
  EXPECT_TRUE(torch::equal(active_cu, torch::tensor({0, 2, 4}, torch::kInt64)));
  check_gradients([&, i = index](const Inputs& in) { return ops::compress(in[0], active, i); }, {leaf({7, 5})});
  check_gradients([&, i = index](const Inputs& in) { return ops::extract(in[0], active, i); }, {leaf({4, 5})});
}

TEST(OpGradients, WindowAttention) {
  const Tensor cu = offsets({9, 0, 70}), positions = torch::cat({torch::arange(9) * 2, torch::arange(70) * 3}).to(torch::kInt64);
  for (const char* function : {"softmax", "laplace"}) {
    for (const bool causal : {false, true}) {
      for (const int64_t window : {3, -1}) {
        const std::string bias = window > 0 ? "local" : "simple";
        const int64_t table = window > 0 ? 6 * window - 1 : 399;
        check_gradients(
            [&](const Inputs& in) {
              return std::get<0>(ops::window_attention(in[0], in[1], in[2], positions, cu, in[3], bias, window, causal, function));
            },
            {leaf({79, 4}), leaf({79, 4}), leaf({79, 5}), leaf({table})});
      }
    }
  }
}

TEST(OpGradients, Rotary) {
  const Tensor positions = torch::tensor({0, 1, 5, 1000}, torch::kInt64);
  check_gradients([&](const Inputs& in) { return ops::rotary(in[0], positions); }, {leaf({4, 6})});
}

TEST(OpGradients, Norms) {
  for (const char* kind : {"layernorm", "scalenorm", "rmsnorm"}) {
    const std::string name = kind;
    const int64_t width = name == "scalenorm" ? 1 : 6;
    check_gradients(
        [&](const Inputs& in) { return ops::row_norm(in[0], in[1], name == "layernorm" ? std::optional<Tensor>(in[2]) : std::nullopt, name, 1e-5); },
        name == "layernorm" ? Inputs{leaf({9, 6}), leaf({width}), leaf({6})} : Inputs{leaf({9, 6}), leaf({width})});
    check_gradients([&](const Inputs& in) { return ops::row_norm(in[0], std::nullopt, std::nullopt, name, 1e-5); }, {leaf({9, 6})});
  }
  check_gradients(
      [](const Inputs& in) {
        auto [mean, var] = ops::batch_norm_stats(in[0].detach());
        return ops::batch_norm(in[0], in[1], in[2], mean, var, true, 1e-5);
      },
      {leaf({9, 6}), leaf({6}), leaf({6})});
  const Tensor mean = torch::randn({6}, torch::kFloat64), var = torch::rand({6}, torch::kFloat64) + 0.5;
  check_gradients([&](const Inputs& in) { return ops::batch_norm(in[0], in[1], in[2], mean, var, false, 1e-5); },
                  {leaf({9, 6}), leaf({6}), leaf({6})});
}

TEST(OpGradients, EndsOfAModel) {
  const Tensor cu = offsets({3, 0, 4}), tokens = torch::tensor({2, 0, 2, 1}, torch::kInt64), targets = torch::tensor({1, 0, 4}, torch::kInt64);
  for (const bool mean : {false, true}) check_gradients([&](const Inputs& in) { return ops::segment_sum(in[0], cu, mean); }, {leaf({7, 5})});
  check_gradients([&](const Inputs& in) { return ops::embedding(in[0], tokens); }, {leaf({3, 5})});
  check_gradients([&](const Inputs& in) { return ops::cross_entropy_sum(in[0], targets); }, {leaf({3, 5})});
  const Tensor ids = torch::zeros({7}, torch::kInt64), at = torch::arange(7);
  check_gradients([&](const Inputs& in) { return ops::dropout(in[0], 0.4, 1, 2, 3, 4, 5, ids, at); }, {leaf({7, 5})});
}

}  // namespace
}  // namespace seqboat
