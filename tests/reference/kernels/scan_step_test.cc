#include "seqboat/kernels/scan_step.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "seqboat/kernels/ema_scan.h"
#include "seqboat/kernels/s4d_scan.h"
#include "support/guarded.h"

namespace seqboat::kernels {
namespace {

using test::Guarded;
using test::on_every_target;
using test::random_numbers;
using test::same_bits;

enum class Scan { kEma, kS4d };

/// One stream of `tokens` inputs, and what the scan over all of them at once gives.
struct Stream {
  Scan scan;
  ScanStepShape shape;
  int64_t tokens;
  Guarded<float> x, decay, weight, skip, want, want_state;

  /// lasting: of the states from this one on next to nothing is left after a step; negative: none is so.
  Stream(Scan kind, ScanStepShape s, int64_t count, int64_t lasting = -1)
      : scan(kind),
        shape(s),
        tokens(count),
        x(random_numbers<float>(count * s.channels, 1)),
        decay(random_numbers<float>(s.channels * reals(), 2, 0.3, 0.999)),
        weight(random_numbers<float>(s.channels * reals(), 3)),
        skip(random_numbers<float>(s.channels, 4)),
        want(count * s.channels),
        want_state(s.channels * reals()) {
    const int64_t cu[] = {0, tokens};
    const ScanRange all{0, 1, 0, shape.channels};
    const int64_t numbers_of_state = reals() / shape.n_state;
    for (int64_t i = 0; i < decay.size() && lasting >= 0; ++i) {
      if (i % reals() / numbers_of_state >= lasting) decay[i] *= 0.1f;
    }
    if (scan == Scan::kEma) {
      const EmaScanShape whole{1, cu, shape.channels, shape.n_state, shape.truncation};
      ema_scan_fwd<float>(whole, all, x.data(), decay.data(), weight.data(), skip.data(), nullptr, nullptr, want.data(), false, want_state.data());
    } else {
      for (float& number : decay) number *= 0.7f;  // |d| < 1
      const S4dScanShape whole{1, cu, shape.channels, shape.n_state, shape.truncation};
      s4d_scan_fwd<float>(whole, all, x.data(), decay.data(), weight.data(), skip.data(), nullptr, nullptr, want.data(), false, want_state.data());
    }
  }
  int64_t reals() const { return scan == Scan::kEma ? shape.n_state : 2 * shape.n_state; }

  /// The stream in pieces of `cuts` tokens (repeated), channels cut at `channel_cut`; rows of x and y `gap` wider than D.
  void check(const std::vector<int64_t>& cuts, int64_t channel_cut, int64_t gap) {
    const int64_t dim = shape.channels, stride = dim + gap;
    const bool ema = scan == Scan::kEma;
    Guarded<float> coefficients(static_cast<int64_t>(ema ? ema_step_coefficients_size(shape) : s4d_step_coefficients_size(shape)));
    (ema ? ema_step_pack : s4d_step_pack)(shape, decay.data(), weight.data(), skip.data(), coefficients.data());
    Guarded<float> state(static_cast<int64_t>(ema ? ema_step_state_size(shape) : s4d_step_state_size(shape)));
    std::fill(state.begin(), state.end(), 0.0f);
    Guarded<float> ring(static_cast<int64_t>(scan_step_ring_size(shape)));  // of NaN: not read before it is written
    Guarded<float> from(tokens * stride), y(tokens * stride);
    for (int64_t t = 0; t < tokens; ++t) std::copy_n(x.data() + t * dim, dim, from.data() + t * stride);
    const std::vector<float> packed(coefficients.begin(), coefficients.end());
    size_t turn = 0;
    for (int64_t t = 0; t < tokens;) {
      const int64_t count = std::min(cuts[turn++ % cuts.size()], tokens - t);
      for (int64_t begin = 0; begin < dim; begin += channel_cut) {
        (ema ? ema_step : s4d_step)(shape, begin, std::min(dim, begin + channel_cut), t, count, from.data() + t * stride, stride, coefficients.data(),
                                    state.data(), shape.truncation > 0 ? ring.data() : nullptr, y.data() + t * stride, stride);
      }
      t += count;
    }
    for (int64_t t = 0; t < tokens; ++t) {
      ASSERT_TRUE(same_bits(y.data() + t * stride, want.data() + t * dim, dim)) << "token " << t;
      for (int64_t i = dim; i < stride; ++i) ASSERT_TRUE(std::isnan(y[t * stride + i])) << "written behind row " << t;
    }
    for (int64_t channel = 0; channel < dim; ++channel) {
      for (int64_t n = 0; n < reals(); ++n) {
        const float got = state[scan_step_state_index(reals(), channel, n)];
        ASSERT_TRUE(same_bits(&got, &want_state[channel * reals() + n], 1)) << "state " << n << " of channel " << channel;
      }
    }
    for (int64_t channel = dim; channel % kScanGroup != 0; ++channel) {
      for (int64_t n = 0; n < reals(); ++n) ASSERT_EQ(state[scan_step_state_index(reals(), channel, n)], 0.0f);
    }
    EXPECT_TRUE(state.intact() && ring.intact() && y.intact() && coefficients.intact());
    EXPECT_TRUE(same_bits(coefficients.data(), packed.data(), coefficients.size()));
  }
};

class ScanStep : public ::testing::TestWithParam<Scan> {};

TEST_P(ScanStep, HasTheBitsOfTheScan) {
  on_every_target([] {
    for (const int64_t dim : {1, 3, 15, 16, 17, 37, 80}) {
      for (const int64_t n_state : {1, 3, 7, 16, 21}) {
        for (const int64_t truncation : {0, 1, 5, 40}) {
          SCOPED_TRACE("D " + std::to_string(dim) + " N " + std::to_string(n_state) + " L " + std::to_string(truncation));
          Stream stream(GetParam(), {dim, n_state, truncation}, 50);
          stream.check({1}, dim, 0);
          stream.check({50}, dim, 3);
          stream.check({2, 1, 7, 16, 3}, 16, 1);
          if (::testing::Test::HasFatalFailure()) return;
        }
      }
    }
  });
}

TEST_P(ScanStep, LongStreamsGoRoundTheRing) {
  on_every_target([] {
    for (const int64_t truncation : {0, 130, 300}) {
      Stream stream(GetParam(), {33, 5, truncation}, 900);
      stream.check({1}, 33, 0);
      stream.check({900}, 16, 0);
      stream.check({129, 1, 300, 64}, 32, 0);
    }
  });
}

// Where a state has forgotten an input long before that leaves the window, the step leaves the term out, as the scan does.
TEST_P(ScanStep, SomeStatesForgetBeforeTheWindowEnds) {
  on_every_target([] {
    for (const int64_t n_state : {4, 13}) {
      for (const int64_t lasting : {int64_t{0}, int64_t{1}, n_state / 2, n_state - 1}) {
        SCOPED_TRACE("N " + std::to_string(n_state) + ", lasting " + std::to_string(lasting));
        Stream stream(GetParam(), {37, n_state, 70}, 200, lasting);
        stream.check({1}, 37, 0);
        stream.check({200}, 37, 3);
        stream.check({2, 1, 70, 16, 3}, 16, 1);
        if (::testing::Test::HasFatalFailure()) return;
      }
    }
  });
}

TEST_P(ScanStep, WithoutASkipTheSumStartsFromZero) {
  const ScanStepShape shape{20, 4, 0};
  const bool ema = GetParam() == Scan::kEma;
  const Guarded<float> numbers = random_numbers<float>(20 * 8, 1, 0.1, 0.6);
  std::vector<float> zeros(20, 0.0f), with(ema ? ema_step_coefficients_size(shape) : s4d_step_coefficients_size(shape)), without(with);
  const auto pack = ema ? ema_step_pack : s4d_step_pack;
  pack(shape, numbers.data(), numbers.data(), zeros.data(), with.data());
  pack(shape, numbers.data(), numbers.data(), nullptr, without.data());
  EXPECT_EQ(with, without);
}

INSTANTIATE_TEST_SUITE_P(Scans, ScanStep, ::testing::Values(Scan::kEma, Scan::kS4d),
                         [](const auto& kind) { return kind.param == Scan::kEma ? "Ema" : "S4d"; });

}  // namespace
}  // namespace seqboat::kernels
