// The laws of the S4D encoder over packed sequences: a sequence is the same whole, in any chunks, or token by token, however the sequences are
// batched and whatever the number of threads; bit for bit in values, and in gradients that flow back through the state.

#include <ATen/Parallel.h>

#include <random>

#include "seqboat/nn/s4d.h"
#include "support/torch_checks.h"

namespace seqboat {
namespace {

using test::offsets;
using test::same_bits;
using torch::Tensor;

constexpr int64_t kD = 37, kN = 10;
const std::vector<int64_t> kLengths{150, 41, 0, 307};

nn::S4d make_s4d(bool bidirectional, int64_t truncation, torch::ScalarType dtype = torch::kFloat32) {
  PhiloxStream random(5, 1);
  nn::S4d s4d(kD, kN, bidirectional, truncation, random);
  s4d->to(dtype);
  return s4d;
}

std::vector<Tensor> make_sequences(torch::ScalarType dtype = torch::kFloat32) {
  torch::manual_seed(7);
  std::vector<Tensor> sequences;
  for (const int64_t length : kLengths) sequences.push_back(torch::randn({length, kD}, dtype));
  return sequences;
}

/// chunks[i][b]: tokens of sequence b that call i takes. Returns each sequence's output and the final states.
std::pair<std::vector<Tensor>, Tensor> in_chunks(nn::S4d& s4d, const std::vector<Tensor>& sequences, int64_t truncation,
                                                 const std::vector<std::vector<int64_t>>& chunks) {
  const auto batch = static_cast<int64_t>(sequences.size());
  std::vector<int64_t> done(sequences.size(), 0);
  std::vector<std::vector<Tensor>> pieces(sequences.size());
  Tensor state, history;
  if (truncation > 0) history = torch::zeros({batch, truncation, kD}, sequences[0].options());
  for (const std::vector<int64_t>& lengths : chunks) {
    std::vector<Tensor> inputs;
    for (size_t b = 0; b < sequences.size(); ++b) inputs.push_back(sequences[b].narrow(0, done[b], lengths[b]));
    const auto [y, next] = s4d->forward_with_state(torch::cat(inputs), offsets(lengths), state, history);
    const auto outputs = y.split_with_sizes(lengths);
    std::vector<Tensor> last_inputs;
    for (size_t b = 0; b < sequences.size(); ++b) {
      pieces[b].push_back(outputs[b]);
      done[b] += lengths[b];
      if (truncation > 0) last_inputs.push_back(torch::cat({history[static_cast<int64_t>(b)], inputs[b]}).narrow(0, lengths[b], truncation));
    }
    state = next;
    if (truncation > 0) history = torch::stack(last_inputs);
  }
  std::vector<Tensor> whole;
  for (const auto& parts : pieces) whole.push_back(torch::cat(parts));
  return {whole, state};
}

std::vector<std::vector<int64_t>> random_chunks(int64_t pieces, std::mt19937_64& random) {
  std::vector<std::vector<int64_t>> chunks(static_cast<size_t>(pieces), std::vector<int64_t>(kLengths.size(), 0));
  for (size_t b = 0; b < kLengths.size(); ++b) {
    for (int64_t t = 0; t < kLengths[b]; ++t) ++chunks[random() % chunks.size()][b];
  }
  return chunks;
}

class S4dStreaming : public ::testing::TestWithParam<int64_t> {};

TEST_P(S4dStreaming, WholeIsAnySplitIsTokenByToken) {
  torch::NoGradGuard no_grad;
  auto s4d = make_s4d(false, GetParam());
  const auto sequences = make_sequences();
  const Tensor whole = s4d(torch::cat(sequences), offsets(kLengths));
  const auto [y, end] = in_chunks(s4d, sequences, GetParam(), {kLengths});
  EXPECT_TRUE(same_bits(torch::cat(y), whole));
  for (size_t b = 0; b < sequences.size(); ++b) {
    EXPECT_TRUE(same_bits(s4d(sequences[b], offsets({kLengths[b]})), y[b])) << "alone, sequence " << b;
  }
  std::mt19937_64 random(9);
  for (const int64_t pieces : {2, 3, 7, 40}) {
    const auto [got, last] = in_chunks(s4d, sequences, GetParam(), random_chunks(pieces, random));
    for (size_t b = 0; b < sequences.size(); ++b) EXPECT_TRUE(same_bits(got[b], y[b])) << pieces << " pieces, sequence " << b;
    EXPECT_TRUE(same_bits(last, end)) << pieces << " pieces";
  }
  const auto stepped = in_chunks(s4d, {sequences[3]}, GetParam(), std::vector<std::vector<int64_t>>(307, {1}));
  EXPECT_TRUE(same_bits(stepped.first[0], y[3])) << "token by token";
  EXPECT_TRUE(same_bits(stepped.second[0], end[3])) << "token by token";
}

// In float64, so that only the order of sums is between the two.
TEST_P(S4dStreaming, GradientsFlowBackThroughTheState) {
  auto s4d = make_s4d(false, GetParam(), torch::kFloat64);
  auto sequences = make_sequences(torch::kFloat64);
  torch::manual_seed(8);
  const Tensor weight = torch::randn({498, kD}, torch::kFloat64);
  for (Tensor& s : sequences) s.requires_grad_(true);
  const auto gradients = [&](const Tensor& y, const Tensor& end) {
    s4d->zero_grad();
    for (Tensor& s : sequences) s.mutable_grad() = Tensor();
    ((y * weight).sum() + end.sum()).backward();
    std::vector<Tensor> out;
    for (const Tensor& p : s4d->parameters()) out.push_back(p.grad().clone());
    for (const Tensor& s : sequences) out.push_back(s.grad().clone());
    return out;
  };
  const auto [y, end] = s4d->forward_with_state(torch::cat(sequences), offsets(kLengths), {}, {});
  const auto want = gradients(y, end);
  std::mt19937_64 random(10);
  const auto [pieces, last] = in_chunks(s4d, sequences, GetParam(), random_chunks(5, random));
  const auto got = gradients(torch::cat(pieces), last);
  double largest = 0;
  for (const Tensor& g : want) {
    if (g.numel() > 0) largest = std::max(largest, g.abs().max().item<double>());
  }
  for (size_t i = 0; i < want.size(); ++i) {
    if (want[i].numel() == 0) continue;
    EXPECT_LE((got[i] - want[i]).abs().max().item<double>(), 1e-11 * largest) << "tensor " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Truncations, S4dStreaming, ::testing::Values(0, 1, 25, 200));

TEST(S4dLaws, ThreadsAndBatchMatesChangeNothing) {
  const auto sequences = make_sequences();
  const Tensor x = torch::cat(sequences), weight = torch::randn({498, kD});
  for (const int64_t truncation : {0, 25}) {
    auto s4d = make_s4d(true, truncation);
    const int before = at::get_num_threads();
    std::vector<std::vector<Tensor>> results;
    for (const int threads : {1, 2, 3}) {
      at::set_num_threads(threads);
      s4d->zero_grad();
      Tensor in = x.clone().requires_grad_(true);
      const Tensor y = s4d(in, offsets(kLengths));
      (y * weight).sum().backward();
      std::vector<Tensor> result{y.detach(), in.grad()};
      for (const Tensor& parameter : s4d->parameters()) result.push_back(parameter.grad().clone());
      results.push_back(result);
    }
    at::set_num_threads(before);
    for (size_t i = 0; i < results[0].size(); ++i) {
      EXPECT_TRUE(same_bits(results[0][i], results[1][i])) << "tensor " << i << ", two threads";
      EXPECT_TRUE(same_bits(results[0][i], results[2][i])) << "tensor " << i << ", three threads";
    }
    int64_t begin = 0;
    for (size_t b = 0; b < sequences.size(); ++b) {
      Tensor in = sequences[b].clone().requires_grad_(true);
      const Tensor y = s4d(in, offsets({kLengths[b]}));
      (y * weight.narrow(0, begin, kLengths[b])).sum().backward();
      EXPECT_TRUE(same_bits(y, results[0][0].narrow(0, begin, kLengths[b]))) << "sequence " << b;
      EXPECT_TRUE(same_bits(in.grad(), results[0][1].narrow(0, begin, kLengths[b]))) << "sequence " << b;
      begin += kLengths[b];
    }
  }
}

}  // namespace
}  // namespace seqboat
