// Laws of the S4D scan: one sequence is the same whether it comes whole or in chunks, alone or among others, by one call or by many; the
// past ignores the future; the backward is the adjoint of the forward.
#include "seqboat/kernels/s4d_scan.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "seqboat/kernels/simd.h"
#include "support/guarded.h"

namespace seqboat::kernels {
namespace {

using test::Guarded;
using test::random_numbers;
using test::same_bits;

struct Shape {
  std::vector<int64_t> lengths;
  int64_t channels, n_modes, truncation;
  ScanDirection direction;
  uint32_t seed;
};

Shape any_shape(bool one_sequence = false) {
  Shape shape;
  const auto sequences = one_sequence ? 1 : *rc::gen::inRange<int64_t>(1, 4);
  for (int64_t b = 0; b < sequences; ++b) shape.lengths.push_back(*rc::gen::inRange<int64_t>(one_sequence ? 1 : 0, 300));
  shape.channels = *rc::gen::inRange<int64_t>(1, 40);
  shape.n_modes = *rc::gen::inRange<int64_t>(1, 20);
  shape.truncation = *rc::gen::element<int64_t>(0, 1, 5, 60, 129, 1000);
  shape.direction = *rc::gen::element(ScanDirection::kForward, ScanDirection::kReverse);
  shape.seed = *rc::gen::inRange<uint32_t>(0, 1 << 20);
  const std::vector<std::string> targets = supported_simd_targets();
  force_simd_target(*rc::gen::elementOf(targets));
  return shape;
}

/// A batch with its inputs and every result of the three kernels.
template <class T>
struct Batch {
  explicit Batch(const Shape& s, bool with_carried = true) : offsets{0}, carried(with_carried) {
    for (const int64_t length : s.lengths) offsets.push_back(offsets.back() + length);
    shape = {static_cast<int64_t>(s.lengths.size()), offsets.data(), s.channels, s.n_modes, s.truncation, s.direction};
    const int64_t values = offsets.back() * s.channels, params = 2 * s.channels * s.n_modes;
    x = take(random_numbers<T>(values, s.seed, -1, 1));
    dy = take(random_numbers<T>(values, s.seed + 1, -1, 1));
    d = take(random_numbers<T>(params, s.seed + 2, -0.7, 0.7));
    w = take(random_numbers<T>(params, s.seed + 3, -1, 1));
    skip = take(random_numbers<T>(s.channels, s.seed + 4, -1, 1));
    state_in = take(random_numbers<T>(shape.batch * params, s.seed + 5, -1, 1));
    history = take(random_numbers<T>(shape.batch * s.truncation * s.channels, s.seed + 6, -1, 1));
    dstate_out = take(random_numbers<T>(shape.batch * params, s.seed + 7, -1, 1));
    const T nan = std::numeric_limits<T>::quiet_NaN();
    y.assign(x.size(), nan);
    dx = y;
    state_out.assign(state_in.size(), nan);
    dd = dw = dstate_in = state_out;
    dskip.assign(static_cast<size_t>(shape.batch * s.channels), nan);
    dhistory.assign(history.size(), nan);
  }
  Batch(const Batch&) = delete;

  static std::vector<T> take(Guarded<T> from) { return std::vector<T>(from.begin(), from.end()); }

  void run(const S4dScanRange& range) {
    const T* s_in = carried ? state_in.data() : nullptr;
    const T* h_in = carried ? history.data() : nullptr;
    const T* ds = carried ? dstate_out.data() : nullptr;
    s4d_scan_fwd<T>(shape, range, x.data(), d.data(), w.data(), skip.data(), s_in, h_in, y.data(), false, state_out.data());
    s4d_scan_bwd_params<T>(shape, range, x.data(), d.data(), w.data(), s_in, h_in, dy.data(), ds, dd.data(), dw.data(), dskip.data());
    s4d_scan_bwd_input<T>(shape, range, d.data(), w.data(), skip.data(), dy.data(), ds, dx.data(), false, dstate_in.data(), dhistory.data());
  }
  void run() { run({0, shape.batch, 0, shape.channels}); }

  /// Row of x that is step t of sequence b.
  int64_t row(int64_t b, int64_t t) const {
    return shape.direction == ScanDirection::kForward ? offsets[static_cast<size_t>(b)] + t : offsets[static_cast<size_t>(b + 1)] - 1 - t;
  }

  std::vector<int64_t> offsets;
  S4dScanShape shape{};
  bool carried;
  std::vector<T> x, dy, d, w, skip, state_in, history, dstate_out, y, dx, state_out, dd, dw, dstate_in, dskip, dhistory;
};

template <class T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && same_bits(a.data(), b.data(), static_cast<int64_t>(a.size()));
}

template <class T>
class S4dScanLaws : public ::testing::Test {
 protected:
  void TearDown() override { force_simd_target(""); }
};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(S4dScanLaws, Types);

// Chunk after chunk, each given the state and the last L inputs of the one before.
TYPED_TEST(S4dScanLaws, AnySplitGivesTheSameBits) {
  using T = TypeParam;
  EXPECT_TRUE(rc::check([] {
    const Shape s = any_shape(true);
    Batch<T> whole(s);
    whole.run();
    const int64_t seq_len = s.lengths[0], dim = s.channels, lag = s.truncation;
    std::vector<T> state = whole.state_in, past = whole.history;
    for (int64_t begin = 0; begin < seq_len;) {
      const int64_t steps =
          std::min(seq_len - begin, *rc::gen::weightedOneOf<int64_t>({{1, rc::gen::just<int64_t>(1)}, {3, rc::gen::inRange<int64_t>(1, 150)}}));
      const int64_t offsets[] = {0, steps};
      S4dScanShape shape = whole.shape;
      shape.cu_seqlens = offsets;
      // The chunk's rows lie in one piece, whichever way the scan runs.
      const int64_t first = s.direction == ScanDirection::kForward ? begin : seq_len - begin - steps;
      std::vector<T> y(static_cast<size_t>(steps * dim));
      s4d_scan_fwd<T>(shape, {0, 1, 0, dim}, whole.x.data() + first * dim, whole.d.data(), whole.w.data(), whole.skip.data(), state.data(),
                      past.data(), y.data(), false, state.data());
      RC_ASSERT(same_bits(y.data(), whole.y.data() + first * dim, steps * dim));
      for (int64_t t = begin; t < begin + steps && lag > 0; ++t) {
        past.erase(past.begin(), past.begin() + dim);
        const T* row = whole.x.data() + whole.row(0, t) * dim;
        past.insert(past.end(), row, row + dim);
      }
      begin += steps;
    }
    RC_ASSERT(same(state, whole.state_out));
  }));
}

// The gradient of the input, handed back from chunk to chunk through the state.
TYPED_TEST(S4dScanLaws, AnySplitGivesTheSameInputGradient) {
  using T = TypeParam;
  EXPECT_TRUE(rc::check([] {
    Shape s = any_shape(true);
    s.truncation = 0;
    Batch<T> whole(s);
    whole.run();
    const int64_t seq_len = s.lengths[0], dim = s.channels;
    std::vector<T> dstate = whole.dstate_out;
    for (int64_t end = seq_len; end > 0;) {
      const int64_t steps = std::min(end, *rc::gen::inRange<int64_t>(1, 150));
      const int64_t offsets[] = {0, steps};
      S4dScanShape shape = whole.shape;
      shape.cu_seqlens = offsets;
      const int64_t first = s.direction == ScanDirection::kForward ? end - steps : seq_len - end;
      std::vector<T> dx(static_cast<size_t>(steps * dim));
      s4d_scan_bwd_input<T>(shape, {0, 1, 0, dim}, whole.d.data(), whole.w.data(), whole.skip.data(), whole.dy.data() + first * dim, dstate.data(),
                            dx.data(), false, dstate.data(), nullptr);
      RC_ASSERT(same_bits(dx.data(), whole.dx.data() + first * dim, steps * dim));
      end -= steps;
    }
    RC_ASSERT(same(dstate, whole.dstate_in));
  }));
}

TYPED_TEST(S4dScanLaws, BatchMatesChangeNothing) {
  using T = TypeParam;
  EXPECT_TRUE(rc::check([] {
    const Shape s = any_shape();
    Batch<T> all(s, *rc::gen::arbitrary<bool>());
    all.run();
    const auto b = *rc::gen::inRange<size_t>(0, s.lengths.size());
    Shape one = s;
    one.lengths = {s.lengths[b]};
    Batch<T> alone(one, all.carried);
    const auto part = [&](const std::vector<T>& from, std::vector<T>& to, int64_t at) { std::copy_n(from.begin() + at, to.size(), to.begin()); };
    const int64_t rows_at = all.offsets[b] * s.channels, state_at = static_cast<int64_t>(b) * 2 * s.channels * s.n_modes,
                  history_at = static_cast<int64_t>(b) * s.truncation * s.channels;
    part(all.x, alone.x, rows_at);
    part(all.dy, alone.dy, rows_at);
    part(all.state_in, alone.state_in, state_at);
    part(all.dstate_out, alone.dstate_out, state_at);
    part(all.history, alone.history, history_at);
    alone.run();
    const auto equal = [](const std::vector<T>& mine, const std::vector<T>& theirs, int64_t at) {
      return same_bits(mine.data(), theirs.data() + at, static_cast<int64_t>(mine.size()));
    };
    RC_ASSERT(equal(alone.y, all.y, rows_at));
    RC_ASSERT(equal(alone.dx, all.dx, rows_at));
    RC_ASSERT(equal(alone.state_out, all.state_out, state_at));
    RC_ASSERT(equal(alone.dd, all.dd, state_at));
    RC_ASSERT(equal(alone.dw, all.dw, state_at));
    RC_ASSERT(equal(alone.dstate_in, all.dstate_in, state_at));
    RC_ASSERT(equal(alone.dskip, all.dskip, static_cast<int64_t>(b) * s.channels));
    RC_ASSERT(equal(alone.dhistory, all.dhistory, history_at));
  }));
}

TYPED_TEST(S4dScanLaws, AnyCutOfTheWorkGivesTheSameBits) {
  using T = TypeParam;
  EXPECT_TRUE(rc::check([] {
    const Shape s = any_shape();
    Batch<T> whole(s), cut(s);
    whole.run();
    for (int64_t b = 0; b < cut.shape.batch; ++b) {
      for (int64_t begin = 0; begin < s.channels;) {
        const int64_t end = std::min(s.channels, begin + *rc::gen::inRange<int64_t>(1, 40));
        cut.run({b, b + 1, begin, end});
        begin = end;
      }
    }
    RC_ASSERT(same(cut.y, whole.y));
    RC_ASSERT(same(cut.dx, whole.dx));
    RC_ASSERT(same(cut.state_out, whole.state_out));
    RC_ASSERT(same(cut.dd, whole.dd));
    RC_ASSERT(same(cut.dw, whole.dw));
    RC_ASSERT(same(cut.dskip, whole.dskip));
    RC_ASSERT(same(cut.dstate_in, whole.dstate_in));
    RC_ASSERT(same(cut.dhistory, whole.dhistory));
  }));
}

TYPED_TEST(S4dScanLaws, ThePastIgnoresTheFuture) {
  using T = TypeParam;
  EXPECT_TRUE(rc::check([] {
    const Shape s = any_shape(true);
    Batch<T> one(s), other(s);
    const int64_t now = *rc::gen::inRange<int64_t>(0, s.lengths[0]);
    for (int64_t t = now + 1; t < s.lengths[0]; ++t) {
      for (int64_t ch = 0; ch < s.channels; ++ch) {
        other.x[static_cast<size_t>(other.row(0, t) * s.channels + ch)] = std::numeric_limits<T>::infinity();
      }
    }
    one.run();
    other.run();
    for (int64_t t = 0; t <= now; ++t) {
      const int64_t at = one.row(0, t) * s.channels;
      RC_ASSERT(same_bits(one.y.data() + at, other.y.data() + at, s.channels));
    }
  }));
}

TYPED_TEST(S4dScanLaws, ReverseIsForwardOnTheReversedSequence) {
  using T = TypeParam;
  EXPECT_TRUE(rc::check([] {
    Shape s = any_shape(true);
    s.direction = ScanDirection::kForward;
    Batch<T> forward(s);
    s.direction = ScanDirection::kReverse;
    Batch<T> reverse(s);
    const auto flip = [&](const std::vector<T>& from) {
      std::vector<T> to;
      for (int64_t t = s.lengths[0] - 1; t >= 0; --t) to.insert(to.end(), from.begin() + t * s.channels, from.begin() + (t + 1) * s.channels);
      return to;
    };
    reverse.x = flip(forward.x);
    reverse.dy = flip(forward.dy);
    forward.run();
    reverse.run();
    RC_ASSERT(same(reverse.y, flip(forward.y)));
    RC_ASSERT(same(reverse.dx, flip(forward.dx)));
    RC_ASSERT(same(reverse.state_out, forward.state_out));
    RC_ASSERT(same(reverse.dd, forward.dd));
    RC_ASSERT(same(reverse.dw, forward.dw));
    RC_ASSERT(same(reverse.dskip, forward.dskip));
    RC_ASSERT(same(reverse.dstate_in, forward.dstate_in));
    RC_ASSERT(same(reverse.dhistory, forward.dhistory));
  }));
}

// The outputs (y, state_out) are linear in (x, state_in, history): <dy, y> + <dstate_out, state_out> must be what the gradients give.
// The same holds for (w, skip), in which y is linear.
TEST(S4dScanAdjoint, BackwardIsTheTransposedForward) {
  EXPECT_TRUE(rc::check([] {
    const Shape s = any_shape();
    Batch<double> batch(s);
    batch.run();
    double size = 0;
    const auto dot = [&size](const std::vector<double>& a, const std::vector<double>& b) {
      double sum = 0;
      for (size_t i = 0; i < a.size(); ++i) {
        sum += a[i] * b[i];
        size += std::abs(a[i] * b[i]);
      }
      return sum;
    };
    const double out_y = dot(batch.dy, batch.y), out_state = dot(batch.dstate_out, batch.state_out);
    const double in = dot(batch.dx, batch.x) + dot(batch.dstate_in, batch.state_in) + dot(batch.dhistory, batch.history);
    double by_params = 0;
    const int64_t params = 2 * s.channels * s.n_modes;
    for (int64_t i = 0; i < batch.shape.batch * params; ++i) by_params += batch.dw[static_cast<size_t>(i)] * batch.w[static_cast<size_t>(i % params)];
    for (int64_t i = 0; i < batch.shape.batch * s.channels; ++i) {
      by_params += batch.dskip[static_cast<size_t>(i)] * batch.skip[static_cast<size_t>(i % s.channels)];
    }
    // A memory of at most 300 steps of values of size one: every product carries no more than a few times 300 roundings of 300.
    const double tolerance = 1000 * 300 * std::numeric_limits<double>::epsilon() * (size + 1);
    RC_ASSERT(std::abs(out_y + out_state - in) <= tolerance);
    RC_ASSERT(std::abs(out_y - by_params) <= tolerance);
  }));
}

// dd against the slope of the loss along a random direction. f(h) - f(-h) over 2h errs by h^2/6 |f'''| and by rounding over h. With |d| < 0.85 and a
// step of size sqrt(2) h the third derivative of sum w d^l, 2 |w| < 3, stays below 3 * 6/(1-|d|)^4 * 2 sqrt(2) a step and mode.
TEST(S4dScanAdjoint, ParameterGradientIsTheSlope) {
  EXPECT_TRUE(rc::check([] {
    Shape s = any_shape();
    if (s.truncation > 5) s.truncation = 5;
    Batch<double> batch(s);
    for (double& part : batch.d) part *= 0.8 / 0.7 / std::sqrt(2.0);
    batch.run();
    const auto direction = random_numbers<double>(static_cast<int64_t>(batch.d.size()), s.seed + 9, -1, 1);
    double slope = 0;
    for (size_t i = 0; i < batch.dd.size(); ++i) slope += batch.dd[i] * direction[static_cast<int64_t>(i % batch.d.size())];
    const double h = 1e-5;
    const std::vector<double> d = batch.d;
    const auto loss = [&](double step) {
      for (size_t i = 0; i < d.size(); ++i) batch.d[i] = d[i] + step * direction[static_cast<int64_t>(i)];
      batch.run();
      double sum = 0;
      for (size_t i = 0; i < batch.y.size(); ++i) sum += batch.dy[i] * batch.y[i];
      for (size_t i = 0; i < batch.state_out.size(); ++i) sum += batch.dstate_out[i] * batch.state_out[i];
      return sum;
    };
    const double measured = (loss(h) - loss(-h)) / (2 * h);
    const double terms = static_cast<double>(batch.y.size() * static_cast<size_t>(s.n_modes) + batch.state_out.size()) + 1;
    const double truncation_error = h * h / 6 * 3 * 6 * 2 * std::sqrt(2.0) / std::pow(1 - 0.85, 4) * terms;
    const double rounding_error = 10 * std::numeric_limits<double>::epsilon() / h * terms * 20;
    RC_ASSERT(std::abs(measured - slope) <= truncation_error + rounding_error);
  }));
}

}  // namespace
}  // namespace seqboat::kernels
