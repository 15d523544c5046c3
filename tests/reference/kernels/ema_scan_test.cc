#include "seqboat/kernels/ema_scan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "seqboat/kernels/simd.h"
#include "support/expect_close.h"
#include "support/guarded.h"

namespace seqboat::kernels {
namespace {

using test::Guarded;
using test::on_every_target;
using test::random_numbers;
using test::Tolerance;

/// Compares element by element with a bound for each; a failure prints the element that exceeds its bound most, in units of the bound.
template <class T>
void expect_within(const char* what, const T* got, const std::vector<double>& want, const std::vector<double>& bound) {
  SCOPED_TRACE(what);
  std::vector<double> error(want.size()), zero(want.size(), 0.0);
  for (size_t i = 0; i < want.size(); ++i) error[i] = (static_cast<double>(got[i]) - want[i]) / (bound[i] + std::numeric_limits<double>::min());
  test::expect_close(error.data(), zero.data(), static_cast<int64_t>(error.size()), Tolerance{1.0});
}

/// Everything the three kernels compute for one channel of one sequence, in scan order, from closed sums in float64; beside each value a bound
/// of the rounding errors that the recurrences make in T.
struct Channel {
  // Inputs.
  std::vector<double> x, dy, q, c, state_in, history, dstate_out;
  double omega = 0;
  int64_t truncation = 0;
  bool has_history = false;
  double epsilon = 0;
  // Results.
  std::vector<double> y, y_bound, state_out, state_out_bound, dq, dq_bound, dc, dc_bound, dx, dx_bound, dstate_in, dstate_in_bound, dhistory,
      dhistory_bound;
  double domega = 0, domega_bound = 0;

  double lagged(int64_t t) const {
    if (truncation == 0) return 0;
    if (t >= truncation) return x[static_cast<size_t>(t - truncation)];
    return has_history ? history[static_cast<size_t>(t)] : 0;
  }

  void compute() {
    const int64_t seq_len = static_cast<int64_t>(x.size()), n_state = static_cast<int64_t>(q.size());
    const auto size = static_cast<size_t>(seq_len);
    y.assign(size, 0);
    y_bound.assign(size, 0);
    dx.assign(size, 0);
    dx_bound.assign(size, 0);
    dhistory.assign(static_cast<size_t>(truncation), 0);
    dhistory_bound = dhistory;
    // Roundings of one sum over the steps: chains of at most 128, then a chain of the blocks' sums.
    const double sum_steps = 128 + static_cast<double>(seq_len) / 128 + 8;
    std::vector<double> y_size(size, 0), dx_size(size, 0);
    for (int64_t n = 0; n < n_state; ++n) {
      const double qn = q[static_cast<size_t>(n)], cn = c[static_cast<size_t>(n)];
      std::vector<double> power(static_cast<size_t>(seq_len + truncation + 2), 1.0);
      for (size_t l = 1; l < power.size(); ++l) power[l] = power[l - 1] * qn;
      const double q_tail = truncation > 0 ? power[static_cast<size_t>(truncation)] : 0;
      const double q_tail_slope = truncation > 0 ? static_cast<double>(truncation) * power[static_cast<size_t>(truncation - 1)] : 0;
      const double s_in = state_in[static_cast<size_t>(n)], g_out = dstate_out[static_cast<size_t>(n)];
      double s_error = 0, e_error = 0, s_before = s_in, e_before = 0, dq_sum = 0, dq_error = 0, dq_size = 0, dc_sum = 0, dc_error = 0, dc_size = 0;
      for (int64_t t = 0; t < seq_len; ++t) {
        double s = power[static_cast<size_t>(t + 1)] * s_in, e = static_cast<double>(t + 1) * power[static_cast<size_t>(t)] * s_in;
        for (int64_t i = 0; i <= t; ++i) {
          const double u = x[static_cast<size_t>(i)] - q_tail * lagged(i);
          s += power[static_cast<size_t>(t - i)] * u;
          if (i < t) e += static_cast<double>(t - i) * power[static_cast<size_t>(t - i - 1)] * u;
          e -= power[static_cast<size_t>(t - i)] * q_tail_slope * lagged(i);
        }
        const double input_size = std::abs(x[static_cast<size_t>(t)]) + 3 * std::abs(q_tail * lagged(t));
        e_error = qn * e_error + s_error +
                  epsilon * (2 * std::abs(qn * e_before) + 2 * std::abs(s_before) + 3 * std::abs(q_tail_slope * lagged(t)) + std::abs(e));
        s_error = qn * s_error + epsilon * (input_size + 2 * std::abs(qn * s_before) + std::abs(s));
        s_before = s;
        e_before = e;
        const double grad = dy[static_cast<size_t>(t)];
        y[static_cast<size_t>(t)] += cn * s;
        y_size[static_cast<size_t>(t)] += std::abs(cn * s);
        y_bound[static_cast<size_t>(t)] += std::abs(cn) * s_error;
        dc_sum += grad * s;
        dc_size += std::abs(grad * s);
        dc_error += std::abs(grad) * s_error;
        dq_sum += grad * e;
        dq_size += std::abs(grad * e);
        dq_error += std::abs(grad) * e_error;
      }
      state_out.push_back(s_before);
      state_out_bound.push_back(s_error);
      dc.push_back(dc_sum);
      dc_bound.push_back(dc_error + sum_steps * epsilon * dc_size);
      dq.push_back(cn * dq_sum + g_out * e_before);
      dq_bound.push_back(std::abs(cn) * (dq_error + sum_steps * epsilon * dq_size) + std::abs(g_out) * e_error +
                         4 * epsilon * (std::abs(cn) * dq_size + std::abs(g_out * e_before)));

      // full[t]: gradient of the state at t without the truncated term. Sizes and errors of the truncated recurrence are bounded by those of
      // its two parts.
      std::vector<double> full(size + 1, 0), full_size(size + 1, 0), error(size + 1, 0);
      for (int64_t t = seq_len - 1; t >= 0; --t) {
        for (int64_t i = t; i < seq_len; ++i) full[static_cast<size_t>(t)] += power[static_cast<size_t>(i - t)] * cn * dy[static_cast<size_t>(i)];
        full[static_cast<size_t>(t)] += power[static_cast<size_t>(seq_len - 1 - t)] * g_out;
        const double tail_size = truncation > 0 && t + truncation < seq_len
                                     ? std::abs(q_tail) * (std::abs(cn * dy[static_cast<size_t>(t + truncation)]) +
                                                           std::abs(full[static_cast<size_t>(t + truncation)]) + std::abs(g_out))
                                     : 0;
        full_size[static_cast<size_t>(t)] = std::abs(full[static_cast<size_t>(t)]) + std::abs(cn * dy[static_cast<size_t>(t)]) + tail_size;
        error[static_cast<size_t>(t)] =
            qn * error[static_cast<size_t>(t + 1)] +
            epsilon * (4 * full_size[static_cast<size_t>(t)] + 4 * qn * full_size[static_cast<size_t>(t + 1)] + std::abs(g_out) * (t + 1 == seq_len));
      }
      for (int64_t t = 0; t < seq_len; ++t) {
        double g = full[static_cast<size_t>(t)];
        if (truncation > 0 && t + truncation < seq_len) g -= q_tail * full[static_cast<size_t>(t + truncation)];
        dx[static_cast<size_t>(t)] += g;
        dx_size[static_cast<size_t>(t)] += full_size[static_cast<size_t>(t)];
        dx_bound[static_cast<size_t>(t)] += error[static_cast<size_t>(t)];
        if (t < truncation) {
          dhistory[static_cast<size_t>(t)] -= q_tail * full[static_cast<size_t>(t)];
          dhistory_bound[static_cast<size_t>(t)] +=
              std::abs(q_tail) * (error[static_cast<size_t>(t)] + static_cast<double>(n_state + 4) * epsilon * full_size[static_cast<size_t>(t)]);
        }
      }
      dstate_in.push_back(seq_len > 0 ? qn * full[0] : g_out);
      dstate_in_bound.push_back(seq_len > 0 ? qn * error[0] + 2 * epsilon * std::abs(qn * full[0]) : 0);
    }
    for (size_t t = 0; t < size; ++t) {
      y[t] += omega * x[t];
      y_bound[t] += static_cast<double>(n_state + 4) * epsilon * (y_size[t] + std::abs(omega * x[t]) + 1);
      dx[t] += omega * dy[t];
      dx_bound[t] += static_cast<double>(n_state + 4) * epsilon * (dx_size[t] + std::abs(omega * dy[t]) + 1);
      domega += dy[t] * x[t];
      domega_bound += sum_steps * epsilon * std::abs(dy[t] * x[t]);
    }
  }
};

struct Config {
  std::vector<int64_t> lengths;
  int64_t channels, n_state, truncation;
  ScanDirection direction;
  bool carried;     // initial state, history, and the gradient of the final state
  bool accumulate;  // y and dx are added to
  int64_t run = 0;  // with it, states come in runs of so many: those of every other run forget within the truncation, others hardly
};

template <class T>
class EmaScanTest : public ::testing::Test {
 protected:
  void TearDown() override { force_simd_target(""); }

  void check(const Config& config) {
    std::vector<int64_t> offsets{0};
    for (const int64_t length : config.lengths) offsets.push_back(offsets.back() + length);
    const int64_t batch = static_cast<int64_t>(config.lengths.size()), dim = config.channels, n_state = config.n_state, lag = config.truncation;
    const int64_t rows = offsets.back(), params = dim * n_state;
    const EmaScanShape shape{batch, offsets.data(), dim, n_state, lag, config.direction};
    const EmaScanRange range{0, batch, 0, dim};
    auto x = random_numbers<T>(rows * dim, 1, -1, 1);
    auto dy = random_numbers<T>(rows * dim, 2, -1, 1);
    auto q = random_numbers<T>(params, 3, 0.0, 1.0);
    for (int64_t i = 0; i < params; i += 3) q[i] = T(1) - q[i] * T(0.02);  // long memories
    if (params > 4) q[1] = T(0);
    if (params > 4) q[4] = T(1);
    for (int64_t i = 0; config.run > 0 && i < params; ++i) q[i] = i % n_state / config.run % 2 == 0 ? T(0.3) + T(0.15) * q[i] : T(1) - T(0.1) * q[i];
    auto c = random_numbers<T>(params, 4, -1, 1);
    auto omega = random_numbers<T>(dim, 5, -1, 1);
    auto state_in = random_numbers<T>(batch * params, 6, -1, 1);
    auto dstate_out = random_numbers<T>(batch * params, 7, -1, 1);
    auto history = random_numbers<T>(batch * lag * dim, 8, -1, 1);
    auto old = random_numbers<T>(rows * dim, 9, -1, 1);
    Guarded<T> y(rows * dim), dx(rows * dim), state_out(batch * params), dq(batch * params), dc(batch * params), domega(batch * dim),
        dstate_in(batch * params), dhistory(batch * lag * dim);
    if (config.accumulate) {
      std::copy(old.begin(), old.end(), y.begin());
      std::copy(old.begin(), old.end(), dx.begin());
    }
    const bool carried = config.carried;
    ema_scan_fwd<T>(shape, range, x.data(), q.data(), c.data(), omega.data(), carried ? state_in.data() : nullptr, carried ? history.data() : nullptr,
                    y.data(), config.accumulate, state_out.data());
    ema_scan_bwd_params<T>(shape, range, x.data(), q.data(), c.data(), carried ? state_in.data() : nullptr, carried ? history.data() : nullptr,
                           dy.data(), carried ? dstate_out.data() : nullptr, dq.data(), dc.data(), domega.data());
    ema_scan_bwd_input<T>(shape, range, q.data(), c.data(), omega.data(), dy.data(), carried ? dstate_out.data() : nullptr, dx.data(),
                          config.accumulate, dstate_in.data(), dhistory.data());
    for (const Guarded<T>* tensor : {&y, &dx, &state_out, &dq, &dc, &domega, &dstate_in, &dhistory}) {
      ASSERT_TRUE(tensor->intact()) << "an output was written around";
    }

    struct Pair {
      explicit Pair(int64_t n) : want(static_cast<size_t>(n)), bound(static_cast<size_t>(n)) {}
      std::vector<double> want, bound;
    };
    Pair r_y(rows * dim), r_dx(rows * dim), r_state(batch * params), r_dq(batch * params), r_dc(batch * params), r_domega(batch * dim),
        r_dstate(batch * params), r_dhistory(batch * lag * dim);
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t seq_len = config.lengths[static_cast<size_t>(b)];
      const auto row = [&](int64_t t) { return config.direction == ScanDirection::kForward ? offsets[b] + t : offsets[b + 1] - 1 - t; };
      for (int64_t ch = 0; ch < dim; ++ch) {
        Channel channel;
        channel.truncation = lag;
        channel.has_history = carried;
        channel.omega = static_cast<double>(omega[ch]);
        channel.epsilon = std::numeric_limits<T>::epsilon() + std::numeric_limits<double>::epsilon();
        for (int64_t t = 0; t < seq_len; ++t) {
          channel.x.push_back(static_cast<double>(x[row(t) * dim + ch]));
          channel.dy.push_back(static_cast<double>(dy[row(t) * dim + ch]));
        }
        for (int64_t n = 0; n < n_state; ++n) {
          channel.q.push_back(static_cast<double>(q[ch * n_state + n]));
          channel.c.push_back(static_cast<double>(c[ch * n_state + n]));
          channel.state_in.push_back(carried ? static_cast<double>(state_in[b * params + ch * n_state + n]) : 0.0);
          channel.dstate_out.push_back(carried ? static_cast<double>(dstate_out[b * params + ch * n_state + n]) : 0.0);
        }
        for (int64_t j = 0; j < lag; ++j) channel.history.push_back(static_cast<double>(history[(b * lag + j) * dim + ch]));
        channel.compute();
        const auto put = [](Pair& to, int64_t at, double want, double bound) {
          to.want[static_cast<size_t>(at)] = want;
          to.bound[static_cast<size_t>(at)] = bound;
        };
        for (int64_t t = 0; t < seq_len; ++t) {
          const int64_t at = row(t) * dim + ch;
          const auto i = static_cast<size_t>(t);
          const double base = config.accumulate ? static_cast<double>(old[at]) : 0.0;
          put(r_y, at, channel.y[i] + base, channel.y_bound[i]);
          put(r_dx, at, channel.dx[i] + base, channel.dx_bound[i]);
        }
        for (int64_t n = 0; n < n_state; ++n) {
          const int64_t at = b * params + ch * n_state + n;
          const auto i = static_cast<size_t>(n);
          put(r_state, at, channel.state_out[i], channel.state_out_bound[i]);
          put(r_dq, at, channel.dq[i], channel.dq_bound[i]);
          put(r_dc, at, channel.dc[i], channel.dc_bound[i]);
          put(r_dstate, at, channel.dstate_in[i], channel.dstate_in_bound[i]);
        }
        for (int64_t j = 0; j < lag; ++j) {
          put(r_dhistory, (b * lag + j) * dim + ch, channel.dhistory[static_cast<size_t>(j)], channel.dhistory_bound[static_cast<size_t>(j)]);
        }
        put(r_domega, b * dim + ch, channel.domega, channel.domega_bound);
      }
    }
    expect_within("y", y.data(), r_y.want, r_y.bound);
    expect_within("state_out", state_out.data(), r_state.want, r_state.bound);
    expect_within("dq", dq.data(), r_dq.want, r_dq.bound);
    expect_within("dc", dc.data(), r_dc.want, r_dc.bound);
    expect_within("domega", domega.data(), r_domega.want, r_domega.bound);
    expect_within("dx", dx.data(), r_dx.want, r_dx.bound);
    expect_within("dstate_in", dstate_in.data(), r_dstate.want, r_dstate.bound);
    expect_within("dhistory", dhistory.data(), r_dhistory.want, r_dhistory.bound);
  }
};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(EmaScanTest, Types);

constexpr auto kFwd = ScanDirection::kForward;
constexpr auto kRev = ScanDirection::kReverse;

TYPED_TEST(EmaScanTest, MatchesClosedSumsOnEveryTarget) {
  const Config configs[] = {
      {{5}, 1, 1, 0, kFwd, false, false},
      {{7, 0, 3}, 15, 2, 0, kFwd, true, false},
      {{130, 1}, 17, 3, 0, kRev, true, true},
      {{40}, 33, 16, 0, kRev, false, true},
      {{12}, 8, 17, 0, kFwd, true, true},
      {{9, 20}, 3, 40, 4, kRev, true, false},
      {{30}, 16, 8, 10, kFwd, false, false},
      {{30, 10, 9, 11, 4, 0}, 18, 5, 10, kFwd, true, false},
      {{30, 10, 9, 11, 4, 0}, 18, 5, 10, kRev, false, true},
      {{260}, 5, 9, 100, kFwd, true, true},
      {{300}, 4, 6, 1, kRev, true, false},
      {{20}, 140, 4, 7, kFwd, true, false},
      {{3}, 2, 64, 50, kFwd, true, false},
  };
  on_every_target([&] {
    for (const Config& config : configs) {
      SCOPED_TRACE(testing::Message() << "first length " << config.lengths[0] << " channels " << config.channels << " states " << config.n_state
                                      << " truncation " << config.truncation);
      this->check(config);
      if (this->HasFailure()) return;
    }
  });
}

// A pass in which every state forgets its inputs before they leave leaves that term out: such passes first, last and between others.
TYPED_TEST(EmaScanTest, StatesThatForgetWithinTheTruncation) {
  on_every_target([&] {
    for (const int64_t run : {1, 3, 4, 8, 16}) {
      SCOPED_TRACE(run);
      this->check({{150, 60, 200}, 33, 24, 64, kFwd, run == 4, run == 8, run});
      this->check({{200}, 12, 16, 64, kRev, run == 8, run == 4, run});
      if (this->HasFailure()) return;
    }
  });
}

TYPED_TEST(EmaScanTest, EveryNumberOfStates) {
  for (int64_t n_state = 1; n_state <= 64; ++n_state) {
    SCOPED_TRACE(n_state);
    this->check({{11, 2}, 3, n_state, n_state % 2 == 0 ? 4 : 0, n_state % 3 == 0 ? kRev : kFwd, n_state % 5 == 0, n_state % 7 == 0});
    if (this->HasFailure()) return;
  }
}

TYPED_TEST(EmaScanTest, EveryNumberOfChannels) {
  on_every_target([&] {
    for (int64_t channels = 1; channels <= 40; ++channels) {
      SCOPED_TRACE(channels);
      this->check({{9}, channels, 2, channels % 2 == 0 ? 4 : 0, kFwd, true, false});
      if (this->HasFailure()) return;
    }
  });
}

// The header's definition: a convolution with K[l] = sum_n c q^l, l < L. Its coefficients are powers, so errors are those of the recurrence.
TYPED_TEST(EmaScanTest, IsTheConvolution) {
  using T = TypeParam;
  const int64_t seq_len = 200, dim = 5, n_state = 4;
  for (const int64_t truncation : {int64_t{0}, int64_t{1}, int64_t{37}, int64_t{200}, int64_t{500}}) {
    const int64_t offsets[] = {0, seq_len};
    const auto x = random_numbers<T>(seq_len * dim, 1, -1, 1);
    const auto q = random_numbers<T>(dim * n_state, 2, 0.5, 0.99);
    const auto c = random_numbers<T>(dim * n_state, 3, -1, 1);
    Guarded<T> y(seq_len * dim);
    std::vector<double> want(static_cast<size_t>(seq_len * dim));
    for (int64_t ch = 0; ch < dim; ++ch) {
      std::vector<double> kernel(static_cast<size_t>(seq_len), 0.0);
      for (int64_t l = 0; l < seq_len && (truncation == 0 || l < truncation); ++l) {
        for (int64_t n = 0; n < n_state; ++n) {
          kernel[static_cast<size_t>(l)] +=
              static_cast<double>(c[ch * n_state + n]) * std::pow(static_cast<double>(q[ch * n_state + n]), static_cast<double>(l));
        }
      }
      for (int64_t t = 0; t < seq_len; ++t) {
        for (int64_t l = 0; l <= t; ++l)
          want[static_cast<size_t>(t * dim + ch)] += kernel[static_cast<size_t>(l)] * static_cast<double>(x[(t - l) * dim + ch]);
      }
    }
    ema_scan_fwd<T>({1, offsets, dim, n_state, truncation, kFwd}, {0, 1, 0, dim}, x.data(), q.data(), c.data(), nullptr, nullptr, nullptr, y.data(),
                    false, nullptr);
    // |s| <= 1/(1-q) <= 100; each step rounds about six times that at most, and the errors of 1/(1-q) steps add up; N states.
    test::expect_close(y.data(), want.data(), seq_len * dim, Tolerance{n_state * 6 * 100.0 * 100.0 * std::numeric_limits<T>::epsilon()});
  }
}

// Absent arguments mean zero, bit for bit.
TYPED_TEST(EmaScanTest, AbsentMeansZero) {
  using T = TypeParam;
  const int64_t offsets[] = {0, 30, 33}, dim = 19, n_state = 7, lag = 12;
  const EmaScanShape shape{2, offsets, dim, n_state, lag, kFwd};
  const EmaScanRange range{0, 2, 0, dim};
  const auto x = random_numbers<T>(33 * dim, 1), dy = random_numbers<T>(33 * dim, 2), q = random_numbers<T>(dim * n_state, 3, 0, 1),
             c = random_numbers<T>(dim * n_state, 4);
  const std::vector<T> zeros(static_cast<size_t>(2 * dim * (n_state + lag)), T{0});
  on_every_target([&] {
    Guarded<T> y1(33 * dim), y2(33 * dim), a1(2 * dim * n_state), a2(2 * dim * n_state), b1(2 * dim * n_state), b2(2 * dim * n_state);
    ema_scan_fwd<T>(shape, range, x.data(), q.data(), c.data(), nullptr, nullptr, nullptr, y1.data(), false, a1.data());
    ema_scan_fwd<T>(shape, range, x.data(), q.data(), c.data(), nullptr, zeros.data(), zeros.data(), y2.data(), false, a2.data());
    EXPECT_TRUE(test::same_bits(y1.data(), y2.data(), y1.size()));
    EXPECT_TRUE(test::same_bits(a1.data(), a2.data(), a1.size()));
    ema_scan_bwd_input<T>(shape, range, q.data(), c.data(), nullptr, dy.data(), nullptr, y1.data(), false, nullptr, nullptr);
    ema_scan_bwd_input<T>(shape, range, q.data(), c.data(), nullptr, dy.data(), zeros.data(), y2.data(), false, a2.data(), nullptr);
    EXPECT_TRUE(test::same_bits(y1.data(), y2.data(), y1.size()));
    ema_scan_bwd_params<T>(shape, range, x.data(), q.data(), c.data(), nullptr, nullptr, dy.data(), nullptr, a1.data(), b1.data(), nullptr);
    ema_scan_bwd_params<T>(shape, range, x.data(), q.data(), c.data(), nullptr, nullptr, dy.data(), zeros.data(), a2.data(), b2.data(), nullptr);
    for (int64_t i = 0; i < a1.size(); ++i) ASSERT_EQ(a1[i], a2[i]);
    EXPECT_TRUE(test::same_bits(b1.data(), b2.data(), b1.size()));
  });
}

// A call over a part of the sequences and channels writes that part alone.
TYPED_TEST(EmaScanTest, RangeWritesItsPartAlone) {
  using T = TypeParam;
  const int64_t offsets[] = {0, 5, 9, 16}, dim = 37, n_state = 3, lag = 2, rows = 16;
  const EmaScanShape shape{3, offsets, dim, n_state, lag, kRev};
  const EmaScanRange range{1, 2, 4, 21};
  const auto x = random_numbers<T>(rows * dim, 1), q = random_numbers<T>(dim * n_state, 3, 0, 1), c = random_numbers<T>(dim * n_state, 4);
  on_every_target([&] {
    Guarded<T> y(rows * dim), state(3 * dim * n_state), dq(3 * dim * n_state), dc(3 * dim * n_state), domega(3 * dim), dx(rows * dim),
        dstate(3 * dim * n_state), dhistory(3 * lag * dim);
    ema_scan_fwd<T>(shape, range, x.data(), q.data(), c.data(), nullptr, nullptr, nullptr, y.data(), false, state.data());
    ema_scan_bwd_params<T>(shape, range, x.data(), q.data(), c.data(), nullptr, nullptr, x.data(), nullptr, dq.data(), dc.data(), domega.data());
    ema_scan_bwd_input<T>(shape, range, q.data(), c.data(), nullptr, x.data(), nullptr, dx.data(), false, dstate.data(), dhistory.data());
    // New elements are not-a-number, so that what was not written still is.
    const auto expect_part = [&](const Guarded<T>& tensor, int64_t outer_begin, int64_t outer_end, int64_t inner) {
      for (int64_t i = 0; i < tensor.size(); ++i) {
        const int64_t outer = i / (dim * inner), channel = i / inner % dim;
        const bool inside = outer >= outer_begin && outer < outer_end && channel >= 4 && channel < 21;
        ASSERT_EQ(!std::isnan(tensor[i]), inside) << "element " << i;
      }
    };
    expect_part(y, 5, 9, 1);
    expect_part(dx, 5, 9, 1);
    expect_part(state, 1, 2, n_state);
    expect_part(dq, 1, 2, n_state);
    expect_part(dc, 1, 2, n_state);
    expect_part(dstate, 1, 2, n_state);
    expect_part(domega, 1, 2, 1);
    expect_part(dhistory, lag, 2 * lag, 1);
  });
}

// A million steps with memories of up to a million steps, in float32. Noise: the rounding errors of 1/(1-q) steps behave as independent
// numbers of half an epsilon of the state each, so that they grow with the square root; eight standard deviations are allowed. A constant input
// aligns them: then the bound is their plain sum.
TEST(EmaScanLongRunTest, AMillionStepsInFloat32) {
  const int64_t seq_len = 1000000, dim = 2, n_state = 3;
  const int64_t offsets[] = {0, seq_len};
  const double memories[n_state] = {1e2, 1e4, 1e6};
  Guarded<float> q(dim * n_state), c(dim * n_state);
  for (int64_t i = 0; i < dim * n_state; ++i) {
    q[i] = static_cast<float>(1 - 1 / memories[i % n_state]);
    c[i] = 1;
  }
  auto x = random_numbers<float>(seq_len * dim, 1, -1, 1);
  for (int64_t t = 0; t < seq_len; ++t) x[t * dim + 1] = 1;
  Guarded<float> y(seq_len * dim), state(dim * n_state);
  ema_scan_fwd<float>({1, offsets, dim, n_state, 0, kFwd}, {0, 1, 0, dim}, x.data(), q.data(), c.data(), nullptr, nullptr, nullptr, y.data(), false,
                      state.data());
  for (int64_t ch = 0; ch < dim; ++ch) {
    std::vector<double> s(n_state, 0), largest(n_state, 0), got(static_cast<size_t>(seq_len)), want(static_cast<size_t>(seq_len));
    for (int64_t t = 0; t < seq_len; ++t) {
      for (int64_t n = 0; n < n_state; ++n) {
        const auto i = static_cast<size_t>(n);
        s[i] = static_cast<double>(q[ch * n_state + n]) * s[i] + static_cast<double>(x[t * dim + ch]);
        largest[i] = std::max(largest[i], std::abs(s[i]));
        want[static_cast<size_t>(t)] += s[i];
      }
      got[static_cast<size_t>(t)] = static_cast<double>(y[t * dim + ch]);
    }
    const double unit = std::numeric_limits<float>::epsilon() / 2;
    double bound = 0, sum_size = 0;
    for (int64_t n = 0; n < n_state; ++n) {
      const auto i = static_cast<size_t>(n);
      const double memory = 1 / (1 - static_cast<double>(q[n]));
      const double state_bound = unit * largest[i] * (ch == 0 ? 8 * std::sqrt(memory / 2) : memory);
      EXPECT_NEAR(static_cast<double>(state[ch * n_state + n]), s[i], state_bound) << "channel " << ch << " state " << n;
      bound += state_bound;
      sum_size += largest[i];
    }
    test::expect_close(got.data(), want.data(), seq_len, Tolerance{bound + n_state * unit * sum_size});
  }
}

// With truncation the state forgets nothing by itself at q = 1: what comes in must go out again, exactly where the sums are exact.
TEST(EmaScanLongRunTest, TruncatedSumAtQOneIsExactOnIntegers) {
  const int64_t seq_len = 100000, lag = 1000;
  const int64_t offsets[] = {0, seq_len};
  const float one = 1;
  std::vector<float> x(static_cast<size_t>(seq_len)), y(x.size());
  for (size_t t = 0; t < x.size(); ++t) x[t] = static_cast<float>(static_cast<int>(t * 7919 % 201) - 100);
  ema_scan_fwd<float>({1, offsets, 1, 1, lag, kFwd}, {0, 1, 0, 1}, x.data(), &one, &one, nullptr, nullptr, nullptr, y.data(), false, nullptr);
  double window = 0;
  for (int64_t t = 0; t < seq_len; ++t) {
    window += static_cast<double>(x[static_cast<size_t>(t)]);
    if (t >= lag) window -= static_cast<double>(x[static_cast<size_t>(t - lag)]);
    ASSERT_EQ(static_cast<double>(y[static_cast<size_t>(t)]), window) << "step " << t;
  }
}

}  // namespace
}  // namespace seqboat::kernels
