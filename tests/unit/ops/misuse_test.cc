// What the operators say when they are misused, and that nothing (no token, no active one) is a proper input.

#include "seqboat/ops/ops.h"
#include "support/torch_checks.h"

namespace seqboat {
namespace {

using test::leaf;
using test::offsets;
using torch::Tensor;

template <class F>
std::string message_of(const F& f) {
  try {
    f();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "(no error)";
}

#define EXPECT_MESSAGE(statement, part) EXPECT_NE(message_of([&] { statement; }).find(part), std::string::npos) << message_of([&] { statement; })

TEST(OpMisuse, NamesTheOperatorAndWhatWasFound) {
  const Tensor x = torch::randn({6, 4}), q = torch::rand({4, 2}), omega = torch::randn({4});
  EXPECT_MESSAGE(ops::linear(x, torch::randn({3, 5}), std::nullopt), "seqboat::linear: weight must be (out, 4)");
  EXPECT_MESSAGE(ops::linear(x.to(torch::kHalf), torch::randn({3, 4}), std::nullopt), "must be float32 or float64");
  EXPECT_MESSAGE(ops::activation(x, "tanh"), "got 'tanh'");
  EXPECT_MESSAGE(ops::ema_scan(x, offsets({5}), q, q, omega, 0, false, std::nullopt, std::nullopt), "cu_seqlens must go from 0 to 6, got 0 to 5");
  EXPECT_MESSAGE(ops::ema_scan(x, torch::tensor({0, 4, 3, 6}, torch::kInt64), q, q, omega, 0, false, std::nullopt, std::nullopt),
                 "must not decrease");
  EXPECT_MESSAGE(ops::ema_scan(x, offsets({6}), q, q, omega, 0, true, std::nullopt, std::nullopt), "q and c must be (8, N)");
  EXPECT_MESSAGE(ops::ema_scan(x, offsets({6}), q, q, omega, -1, false, std::nullopt, std::nullopt), "truncation must be 0");
  const Tensor d = torch::rand({4, 2, 2});
  EXPECT_MESSAGE(ops::s4d_scan(x, offsets({5}), d, d, omega, 0, false, std::nullopt, std::nullopt), "cu_seqlens must go from 0 to 6, got 0 to 5");
  EXPECT_MESSAGE(ops::s4d_scan(x, offsets({6}), d, d, omega, 0, true, std::nullopt, std::nullopt), "d and w must be (8, P, 2)");
  EXPECT_MESSAGE(ops::s4d_scan(x, offsets({6}), q, q, omega, 0, false, std::nullopt, std::nullopt), "d and w must be (4, P, 2), got [4, 2]");
  EXPECT_MESSAGE(ops::s4d_scan(x, offsets({6}), d, d.to(torch::kFloat64), omega, 0, false, std::nullopt, std::nullopt), "must be Float like x");
  EXPECT_MESSAGE(ops::s4d_scan(x, offsets({6}), d, d, d, 0, false, std::nullopt, std::nullopt), "skip must be (4), got [4, 2, 2]");
  EXPECT_MESSAGE(ops::s4d_scan(x, offsets({6}), d, d, omega, -1, false, std::nullopt, std::nullopt), "truncation must be 0");
  EXPECT_MESSAGE(ops::router(x, torch::zeros({1}), 0, std::nullopt), "logits must be (tokens, 2)");
  EXPECT_MESSAGE(ops::compress(x, torch::ones({6}, torch::kUInt8), torch::tensor({3, 1}, torch::kInt64)), "must increase");
  EXPECT_MESSAGE(ops::window_attention(x, x, x, torch::arange(6), offsets({6}), std::nullopt, "none", 0, false, "softmax"), "got 0");
  EXPECT_MESSAGE(ops::window_attention(x, x, x, torch::arange(6), offsets({6}), torch::randn({8}), "simple", 2, false, "softmax"),
                 "bias_table must be (2M-1)");
  EXPECT_MESSAGE(ops::window_attention(x, x, x, torch::arange(6), offsets({6}), std::nullopt, "none", 2, false, "tanh"), "got 'tanh'");
  const Tensor table = torch::randn({11});
  EXPECT_MESSAGE(ops::window_attention(x, x, x, torch::arange(6).flip(0).contiguous(), offsets({6}), table, "simple", 2, false, "softmax"),
                 "positions must increase within a sequence, got 5 then 4 in sequence 0 at row 1");
  EXPECT_MESSAGE(ops::window_attention(x, x, x, torch::tensor({0, 1, 2, 0, 1, 2}), offsets({6}), table, "simple", 2, false, "softmax"),
                 "got 2 then 0 in sequence 0 at row 3");
  EXPECT_NO_THROW(ops::window_attention(x, x, x, torch::tensor({0, 1, 2, 0, 1, 2}), offsets({3, 3}), table, "simple", 2, false, "softmax"));
  EXPECT_MESSAGE(ops::window_attention(x.narrow(1, 0, 0), x.narrow(1, 0, 0), x, torch::arange(6), offsets({6}), table, "simple", 2, false, "softmax"),
                 "at least one wide, got 0 and 4");
  EXPECT_MESSAGE(ops::window_attention(x, x, x.narrow(1, 0, 0), torch::arange(6), offsets({6}), table, "simple", 2, false, "softmax"),
                 "at least one wide, got 4 and 0");
  EXPECT_MESSAGE(ops::rotary(torch::randn({2, 3}), torch::arange(2)), "must be even, got 3");
  EXPECT_MESSAGE(ops::row_norm(x, torch::ones({3}), std::nullopt, "layernorm", 1e-5), "weight must be (4)");
  EXPECT_MESSAGE(ops::embedding(x, torch::tensor({0, 6}, torch::kInt64)), "must lie in [0, 6), got 6 at 1");
  EXPECT_MESSAGE(ops::cross_entropy_sum(x, torch::tensor({0, 1, 2, 3, 4, 0}, torch::kInt64)), "got 4 at 4");
  EXPECT_MESSAGE(ops::dropout(x, 1.0, 0, 0, 0, 0, 0, torch::arange(6), torch::arange(6)), "p must lie in [0, 1)");
}

TEST(OpEmpty, NoActiveTokenGivesZeroGradientsThatAreThere) {
  Tensor x = leaf({6, 4}), w = leaf({3, 4}), b = leaf({3}), table = leaf({9});
  const Tensor none = torch::zeros({6}, torch::kUInt8), cu = offsets({4, 2});
  auto [index, positions, active_cu] = ops::active_index(none, cu);
  EXPECT_EQ(index.size(0), 0);
  const Tensor h = ops::linear(ops::compress(x, none, index), w, b);
  const Tensor a = std::get<0>(ops::window_attention(h, h, h, positions, active_cu, table, "simple", 2, true, "softmax"));
  const Tensor y = ops::extract(a, none, index);
  EXPECT_EQ(y.sizes(), at::IntArrayRef({6, 3}));
  EXPECT_EQ(y.abs().max().item<double>(), 0.0);
  y.sum().backward();
  for (const Tensor& t : {x, w, b, table}) {
    ASSERT_TRUE(t.grad().defined());
    EXPECT_EQ(t.grad().abs().max().item<double>(), 0.0);
  }
}

// Shapes without data are those of the data.
TEST(OpMeta, S4dScan) {
  for (const bool bidirectional : {false, true}) {
    const int64_t rows = bidirectional ? 8 : 4;
    Tensor x = leaf({6, 4}), d = leaf({rows, 3, 2}), skip = leaf({4});
    const auto run = [&](const Tensor& in, const Tensor& cu, const Tensor& decay, const Tensor& gain) {
      return ops::s4d_scan(in, cu, decay, decay, gain, 2, bidirectional, std::nullopt, std::nullopt);
    };
    const auto [y, state] = run(x, offsets({4, 2}), d, skip);
    const auto meta = [](const Tensor& t) { return t.detach().to(torch::kMeta).requires_grad_(t.requires_grad()); };
    Tensor meta_x = meta(x), meta_d = meta(d);
    const auto [meta_y, meta_state] = run(meta_x, meta(offsets({4, 2})), meta_d, meta(skip));
    EXPECT_EQ(meta_y.sizes(), y.sizes());
    EXPECT_EQ(meta_state.sizes(), state.sizes());
    meta_y.sum().backward();
    EXPECT_EQ(meta_x.grad().sizes(), x.sizes());
    EXPECT_EQ(meta_d.grad().sizes(), d.sizes());
  }
}

TEST(OpRandom, DropoutDoesNotDependOnPacking) {
  const Tensor x = torch::ones({10, 7});
  const Tensor ids = torch::tensor({5, 5, 5, 5, 9, 9, 9, 9, 9, 9}, torch::kInt64), at = torch::tensor({0, 1, 2, 3, 0, 1, 2, 3, 4, 5}, torch::kInt64);
  const Tensor whole = ops::dropout(x, 0.5, 1, 2, 0, 3, 1, ids, at);
  const Tensor alone = ops::dropout(x.narrow(0, 4, 6), 0.5, 1, 2, 0, 3, 1, ids.narrow(0, 4, 6).contiguous(), at.narrow(0, 4, 6).contiguous());
  EXPECT_TRUE(torch::equal(whole.narrow(0, 4, 6), alone));
  EXPECT_FALSE(torch::equal(whole, ops::dropout(x, 0.5, 1, 3, 0, 3, 1, ids, at)));
}

}  // namespace
}  // namespace seqboat
