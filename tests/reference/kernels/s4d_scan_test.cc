#include "seqboat/kernels/s4d_scan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <limits>
#include <vector>

#include "seqboat/kernels/ema_scan.h"
#include "seqboat/kernels/simd.h"
#include "support/expect_close.h"
#include "support/guarded.h"

namespace seqboat::kernels {
namespace {

using test::Guarded;
using test::on_every_target;
using test::random_numbers;
using test::Tolerance;
using Complex = std::complex<double>;

/// Compares element by element with a bound for each; a failure prints the element that exceeds its bound most, in units of the bound.
template <class T>
void expect_within(const char* what, const T* got, const std::vector<double>& want, const std::vector<double>& bound) {
  SCOPED_TRACE(what);
  std::vector<double> error(want.size()), zero(want.size(), 0.0);
  for (size_t i = 0; i < want.size(); ++i) error[i] = (static_cast<double>(got[i]) - want[i]) / (bound[i] + std::numeric_limits<double>::min());
  test::expect_close(error.data(), zero.data(), static_cast<int64_t>(error.size()), Tolerance{1.0});
}

/// Everything the three kernels compute for one channel of one sequence, in scan order, from closed sums in float64; beside each value a bound
/// of the rounding errors that the recurrences make in T. Bounds are of magnitudes: they hold for real and imaginary part.
struct Channel {
  // Inputs.
  std::vector<double> x, dy, history;
  std::vector<Complex> d, w, state_in, dstate_out;
  double skip = 0;
  int64_t truncation = 0;
  bool has_history = false;
  double epsilon = 0;
  // Results.
  std::vector<double> y, y_bound, dx, dx_bound, dhistory, dhistory_bound;
  std::vector<Complex> state_out, dd, dw, dstate_in;
  std::vector<double> state_out_bound, dd_bound, dw_bound, dstate_in_bound;
  double dskip = 0, dskip_bound = 0;

  double lagged(int64_t t) const {
    if (truncation == 0) return 0;
    if (t >= truncation) return x[static_cast<size_t>(t - truncation)];
    return has_history ? history[static_cast<size_t>(t)] : 0;
  }

  void compute() {
    const int64_t seq_len = static_cast<int64_t>(x.size()), n_modes = static_cast<int64_t>(d.size());
    const auto size = static_cast<size_t>(seq_len);
    y.assign(size, 0);
    y_bound.assign(size, 0);
    dx.assign(size, 0);
    dx_bound.assign(size, 0);
    dhistory.assign(static_cast<size_t>(truncation), 0);
    dhistory_bound = dhistory;
    // Roundings of one sum over the steps: chains of at most 128, then a chain of the blocks' sums.
    const double sum_steps = 128 + static_cast<double>(seq_len) / 128 + 8;
    const double mode_steps = static_cast<double>(2 * n_modes + 4);
    std::vector<double> y_size(size, 0), dx_size(size, 0);
    for (int64_t n = 0; n < n_modes; ++n) {
      const Complex dn = d[static_cast<size_t>(n)], wn = w[static_cast<size_t>(n)];
      const double shrink = std::abs(dn), weight = 2 * std::abs(wn);
      std::vector<Complex> power(static_cast<size_t>(seq_len + truncation + 2), 1.0);
      for (size_t l = 1; l < power.size(); ++l) power[l] = power[l - 1] * dn;
      const Complex tail = truncation > 0 ? power[static_cast<size_t>(truncation)] : 0;
      const Complex tail_slope = truncation > 0 ? static_cast<double>(truncation) * power[static_cast<size_t>(truncation - 1)] : 0;
      const Complex s_in = state_in[static_cast<size_t>(n)], g_out = dstate_out[static_cast<size_t>(n)];
      Complex s_before = s_in, e_before = 0, dy_e = 0, dy_s = 0;
      double s_error = 0, e_error = 0, dy_e_error = 0, dy_e_size = 0, dy_s_error = 0, dy_s_size = 0;
      for (int64_t t = 0; t < seq_len; ++t) {
        Complex s = power[static_cast<size_t>(t + 1)] * s_in, e = static_cast<double>(t + 1) * power[static_cast<size_t>(t)] * s_in;
        for (int64_t i = 0; i <= t; ++i) {
          const Complex u = x[static_cast<size_t>(i)] - tail * lagged(i);
          s += power[static_cast<size_t>(t - i)] * u;
          if (i < t) e += static_cast<double>(t - i) * power[static_cast<size_t>(t - i - 1)] * u;
          e -= power[static_cast<size_t>(t - i)] * tail_slope * lagged(i);
        }
        // A complex product rounds each of its parts twice, at sizes up to that of the whole.
        const double input_size = std::abs(x[static_cast<size_t>(t)]) + 3 * std::abs(tail * lagged(t));
        e_error = shrink * e_error + s_error +
                  epsilon * (2 * std::abs(dn * e_before) + 2 * std::abs(s_before) + 3 * std::abs(tail_slope * lagged(t)) + std::abs(e));
        s_error = shrink * s_error + epsilon * (input_size + 2 * std::abs(dn * s_before) + std::abs(s));
        s_before = s;
        e_before = e;
        const double grad = dy[static_cast<size_t>(t)];
        y[static_cast<size_t>(t)] += 2 * (wn * s).real();
        y_size[static_cast<size_t>(t)] += weight * std::abs(s);
        y_bound[static_cast<size_t>(t)] += weight * s_error;
        dy_s += grad * s;
        dy_s_size += std::abs(grad * s);
        dy_s_error += std::abs(grad) * s_error;
        dy_e += grad * e;
        dy_e_size += std::abs(grad * e);
        dy_e_error += std::abs(grad) * e_error;
      }
      state_out.push_back(s_before);
      state_out_bound.push_back(s_error);
      dw.push_back(2.0 * std::conj(dy_s));
      dw_bound.push_back(2 * (dy_s_error + sum_steps * epsilon * dy_s_size));
      dd.push_back(2.0 * std::conj(wn * dy_e) + g_out * std::conj(e_before));
      dd_bound.push_back(weight * (dy_e_error + sum_steps * epsilon * dy_e_size) + std::abs(g_out) * e_error +
                         8 * epsilon * (weight * dy_e_size + std::abs(g_out * e_before)));

      // full[t]: gradient of the state at t without the truncated term. Sizes and errors of the truncated recurrence are bounded by those of
      // its two parts.
      std::vector<Complex> full(size + 1, 0);
      std::vector<double> full_size(size + 1, 0), error(size + 1, 0);
      for (int64_t t = seq_len - 1; t >= 0; --t) {
        const auto at = static_cast<size_t>(t);
        for (int64_t i = t; i < seq_len; ++i)
          full[at] += std::conj(power[static_cast<size_t>(i - t)]) * 2.0 * std::conj(wn) * dy[static_cast<size_t>(i)];
        full[at] += std::conj(power[static_cast<size_t>(seq_len - 1 - t)]) * g_out;
        const double tail_size = truncation > 0 && t + truncation < seq_len
                                     ? std::abs(tail) * (weight * std::abs(dy[static_cast<size_t>(t + truncation)]) +
                                                         std::abs(full[static_cast<size_t>(t + truncation)]) + std::abs(g_out))
                                     : 0;
        full_size[at] = std::abs(full[at]) + weight * std::abs(dy[at]) + tail_size;
        error[at] = shrink * error[at + 1] + epsilon * (4 * full_size[at] + 4 * shrink * full_size[at + 1] + std::abs(g_out) * (t + 1 == seq_len));
      }
      for (int64_t t = 0; t < seq_len; ++t) {
        const auto at = static_cast<size_t>(t);
        Complex g = full[at];
        if (truncation > 0 && t + truncation < seq_len) g -= std::conj(tail) * full[static_cast<size_t>(t + truncation)];
        dx[at] += g.real();
        dx_size[at] += full_size[at];
        dx_bound[at] += error[at];
        if (t < truncation) {
          dhistory[at] -= (std::conj(tail) * full[at]).real();
          dhistory_bound[at] += std::abs(tail) * (error[at] + mode_steps * epsilon * full_size[at]);
        }
      }
      dstate_in.push_back(seq_len > 0 ? std::conj(dn) * full[0] : g_out);
      dstate_in_bound.push_back(seq_len > 0 ? shrink * error[0] + 2 * epsilon * std::abs(dn * full[0]) : 0);
    }
    for (size_t t = 0; t < size; ++t) {
      y[t] += skip * x[t];
      y_bound[t] += mode_steps * epsilon * (y_size[t] + std::abs(skip * x[t]) + 1);
      dx[t] += skip * dy[t];
      dx_bound[t] += mode_steps * epsilon * (dx_size[t] + std::abs(skip * dy[t]) + 1);
      dskip += dy[t] * x[t];
      dskip_bound += sum_steps * epsilon * std::abs(dy[t] * x[t]);
    }
  }
};

/// n decays [re, im] in the unit disc: of any size and angle, and among the first ones what is special.
template <class T>
Guarded<T> random_decays(int64_t n, uint32_t seed) {
  const auto sizes = random_numbers<T>(n, seed, 0, 1), angles = random_numbers<T>(n, seed + 100, -3.14159, 3.14159);
  Guarded<T> out(2 * n);
  for (int64_t i = 0; i < n; ++i) {
    double size = static_cast<double>(sizes[i]), angle = static_cast<double>(angles[i]);
    if (i % 3 == 0) size = 1 - 0.02 * size;  // long memories
    if (i % 4 == 0) angle *= 0.01;           // slow turns
    // As float holds them, never outside the disc.
    out[2 * i] = static_cast<T>(static_cast<float>(size * std::cos(angle) * (1 - 1e-6)));
    out[2 * i + 1] = static_cast<T>(static_cast<float>(size * std::sin(angle) * (1 - 1e-6)));
  }
  const double special[][2] = {{0, 0}, {1, 0}, {-1, 0}, {0, 1}, {0.5, 0}, {0, -0.5}};
  for (int64_t i = 0; i < 6 && 2 * i + 1 < n && n > 4; ++i) {
    for (int64_t part = 0; part < 2; ++part) out[2 * (2 * i + 1) + part] = static_cast<T>(special[i][part]);
  }
  return out;
}

struct Config {
  std::vector<int64_t> lengths;
  int64_t channels, n_modes, truncation;
  ScanDirection direction;
  bool carried;     // initial state, history, and the gradient of the final state
  bool accumulate;  // y and dx are added to
  int64_t run = 0;  // with it, modes come in runs of so many: those of every other run forget within the truncation, others hardly
};

template <class T>
class S4dScanTest : public ::testing::Test {
 protected:
  void TearDown() override { force_simd_target(""); }

  void check(const Config& config) {
    std::vector<int64_t> offsets{0};
    for (const int64_t length : config.lengths) offsets.push_back(offsets.back() + length);
    const int64_t batch = static_cast<int64_t>(config.lengths.size()), dim = config.channels, n_modes = config.n_modes, lag = config.truncation;
    const int64_t rows = offsets.back(), params = dim * n_modes;
    const S4dScanShape shape{batch, offsets.data(), dim, n_modes, lag, config.direction};
    const S4dScanRange range{0, batch, 0, dim};
    auto x = random_numbers<T>(rows * dim, 1, -1, 1);
    auto dy = random_numbers<T>(rows * dim, 2, -1, 1);
    auto d = random_decays<T>(params, 3);
    for (int64_t i = 0; config.run > 0 && i < params; ++i) {
      const bool forgets = i % n_modes / config.run % 2 == 0;
      const T angle = d[2 * i];
      d[2 * i] = forgets ? T(0.2) * angle : T(0.99) * std::cos(angle);
      d[2 * i + 1] = forgets ? T(0.2) * d[2 * i + 1] : T(0.99) * std::sin(angle);
    }
    auto w = random_numbers<T>(2 * params, 4, -1, 1);
    auto skip = random_numbers<T>(dim, 5, -1, 1);
    auto state_in = random_numbers<T>(2 * batch * params, 6, -1, 1);
    auto dstate_out = random_numbers<T>(2 * batch * params, 7, -1, 1);
    auto history = random_numbers<T>(batch * lag * dim, 8, -1, 1);
    auto old = random_numbers<T>(rows * dim, 9, -1, 1);
    Guarded<T> y(rows * dim), dx(rows * dim), state_out(2 * batch * params), dd(2 * batch * params), dw(2 * batch * params), dskip(batch * dim),
        dstate_in(2 * batch * params), dhistory(batch * lag * dim);
    if (config.accumulate) {
      std::copy(old.begin(), old.end(), y.begin());
      std::copy(old.begin(), old.end(), dx.begin());
    }
    const bool carried = config.carried;
    s4d_scan_fwd<T>(shape, range, x.data(), d.data(), w.data(), skip.data(), carried ? state_in.data() : nullptr, carried ? history.data() : nullptr,
                    y.data(), config.accumulate, state_out.data());
    s4d_scan_bwd_params<T>(shape, range, x.data(), d.data(), w.data(), carried ? state_in.data() : nullptr, carried ? history.data() : nullptr,
                           dy.data(), carried ? dstate_out.data() : nullptr, dd.data(), dw.data(), dskip.data());
    s4d_scan_bwd_input<T>(shape, range, d.data(), w.data(), skip.data(), dy.data(), carried ? dstate_out.data() : nullptr, dx.data(),
                          config.accumulate, dstate_in.data(), dhistory.data());
    for (const Guarded<T>* tensor : {&y, &dx, &state_out, &dd, &dw, &dskip, &dstate_in, &dhistory}) {
      ASSERT_TRUE(tensor->intact()) << "an output was written around";
    }

    struct Pair {
      explicit Pair(int64_t n) : want(static_cast<size_t>(n)), bound(static_cast<size_t>(n)) {}
      void put(int64_t at, double value, double its_bound) {
        want[static_cast<size_t>(at)] = value;
        bound[static_cast<size_t>(at)] = its_bound;
      }
      void put(int64_t at, Complex value, double its_bound) {
        put(2 * at, value.real(), its_bound);
        put(2 * at + 1, value.imag(), its_bound);
      }
      std::vector<double> want, bound;
    };
    Pair r_y(rows * dim), r_dx(rows * dim), r_state(2 * batch * params), r_dd(2 * batch * params), r_dw(2 * batch * params), r_dskip(batch * dim),
        r_dstate(2 * batch * params), r_dhistory(batch * lag * dim);
    const auto number = [](const Guarded<T>& from, int64_t i) {
      return Complex(static_cast<double>(from[2 * i]), static_cast<double>(from[2 * i + 1]));
    };
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t seq_len = config.lengths[static_cast<size_t>(b)];
      const auto row = [&](int64_t t) { return config.direction == ScanDirection::kForward ? offsets[b] + t : offsets[b + 1] - 1 - t; };
      for (int64_t ch = 0; ch < dim; ++ch) {
        Channel channel;
        channel.truncation = lag;
        channel.has_history = carried;
        channel.skip = static_cast<double>(skip[ch]);
        channel.epsilon = std::numeric_limits<T>::epsilon() + std::numeric_limits<double>::epsilon();
        for (int64_t t = 0; t < seq_len; ++t) {
          channel.x.push_back(static_cast<double>(x[row(t) * dim + ch]));
          channel.dy.push_back(static_cast<double>(dy[row(t) * dim + ch]));
        }
        for (int64_t n = 0; n < n_modes; ++n) {
          const int64_t at = b * params + ch * n_modes + n;
          channel.d.push_back(number(d, ch * n_modes + n));
          channel.w.push_back(number(w, ch * n_modes + n));
          channel.state_in.push_back(carried ? number(state_in, at) : 0);
          channel.dstate_out.push_back(carried ? number(dstate_out, at) : 0);
        }
        for (int64_t j = 0; j < lag; ++j) channel.history.push_back(static_cast<double>(history[(b * lag + j) * dim + ch]));
        channel.compute();
        for (int64_t t = 0; t < seq_len; ++t) {
          const int64_t at = row(t) * dim + ch;
          const auto i = static_cast<size_t>(t);
          const double base = config.accumulate ? static_cast<double>(old[at]) : 0.0;
          r_y.put(at, channel.y[i] + base, channel.y_bound[i]);
          r_dx.put(at, channel.dx[i] + base, channel.dx_bound[i]);
        }
        for (int64_t n = 0; n < n_modes; ++n) {
          const int64_t at = b * params + ch * n_modes + n;
          const auto i = static_cast<size_t>(n);
          r_state.put(at, channel.state_out[i], channel.state_out_bound[i]);
          r_dd.put(at, channel.dd[i], channel.dd_bound[i]);
          r_dw.put(at, channel.dw[i], channel.dw_bound[i]);
          r_dstate.put(at, channel.dstate_in[i], channel.dstate_in_bound[i]);
        }
        for (int64_t j = 0; j < lag; ++j) {
          r_dhistory.put((b * lag + j) * dim + ch, channel.dhistory[static_cast<size_t>(j)], channel.dhistory_bound[static_cast<size_t>(j)]);
        }
        r_dskip.put(b * dim + ch, channel.dskip, channel.dskip_bound);
      }
    }
    expect_within("y", y.data(), r_y.want, r_y.bound);
    expect_within("state_out", state_out.data(), r_state.want, r_state.bound);
    expect_within("dd", dd.data(), r_dd.want, r_dd.bound);
    expect_within("dw", dw.data(), r_dw.want, r_dw.bound);
    expect_within("dskip", dskip.data(), r_dskip.want, r_dskip.bound);
    expect_within("dx", dx.data(), r_dx.want, r_dx.bound);
    expect_within("dstate_in", dstate_in.data(), r_dstate.want, r_dstate.bound);
    expect_within("dhistory", dhistory.data(), r_dhistory.want, r_dhistory.bound);
  }
};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(S4dScanTest, Types);

constexpr auto kFwd = ScanDirection::kForward;
constexpr auto kRev = ScanDirection::kReverse;

TYPED_TEST(S4dScanTest, MatchesClosedSumsOnEveryTarget) {
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
      SCOPED_TRACE(testing::Message() << "first length " << config.lengths[0] << " channels " << config.channels << " states " << config.n_modes
                                      << " truncation " << config.truncation);
      this->check(config);
      if (this->HasFailure()) return;
    }
  });
}

// A pass in which every mode forgets its inputs before they leave leaves that term out: such passes first, last and between others.
TYPED_TEST(S4dScanTest, ModesThatForgetWithinTheTruncation) {
  on_every_target([&] {
    for (const int64_t run : {1, 2, 4, 8}) {
      SCOPED_TRACE(run);
      this->check({{150, 60, 200}, 33, 12, 64, kFwd, run == 4, run == 8, run});
      this->check({{200}, 12, 16, 64, kRev, run == 8, run == 4, run});
      if (this->HasFailure()) return;
    }
  });
}

TYPED_TEST(S4dScanTest, EveryNumberOfModes) {
  for (int64_t n_modes = 1; n_modes <= 40; ++n_modes) {
    SCOPED_TRACE(n_modes);
    this->check({{11, 2}, 3, n_modes, n_modes % 2 == 0 ? 4 : 0, n_modes % 3 == 0 ? kRev : kFwd, n_modes % 5 == 0, n_modes % 7 == 0});
    if (this->HasFailure()) return;
  }
}

TYPED_TEST(S4dScanTest, EveryNumberOfChannels) {
  on_every_target([&] {
    for (int64_t channels = 1; channels <= 40; ++channels) {
      SCOPED_TRACE(channels);
      this->check({{9}, channels, 2, channels % 2 == 0 ? 4 : 0, kFwd, true, false});
      if (this->HasFailure()) return;
    }
  });
}

// The header's definition: a convolution with K[l] = 2 Re sum_p w d^l, l < L. Its coefficients are powers, so errors are those of the recurrence.
TYPED_TEST(S4dScanTest, IsTheConvolution) {
  using T = TypeParam;
  const int64_t seq_len = 200, dim = 5, n_modes = 4;
  for (const int64_t truncation : {int64_t{0}, int64_t{1}, int64_t{37}, int64_t{200}, int64_t{500}}) {
    const int64_t offsets[] = {0, seq_len};
    const auto x = random_numbers<T>(seq_len * dim, 1, -1, 1);
    const auto d = random_numbers<T>(2 * dim * n_modes, 2, -0.7, 0.7);
    const auto w = random_numbers<T>(2 * dim * n_modes, 3, -1, 1);
    Guarded<T> y(seq_len * dim);
    std::vector<double> want(static_cast<size_t>(seq_len * dim));
    for (int64_t ch = 0; ch < dim; ++ch) {
      std::vector<double> kernel(static_cast<size_t>(seq_len), 0.0);
      for (int64_t n = 0; n < n_modes; ++n) {
        const int64_t at = 2 * (ch * n_modes + n);
        Complex term(static_cast<double>(w[at]), static_cast<double>(w[at + 1]));
        const Complex decay(static_cast<double>(d[at]), static_cast<double>(d[at + 1]));
        for (int64_t l = 0; l < seq_len && (truncation == 0 || l < truncation); ++l, term *= decay) kernel[static_cast<size_t>(l)] += 2 * term.real();
      }
      for (int64_t t = 0; t < seq_len; ++t) {
        for (int64_t l = 0; l <= t; ++l)
          want[static_cast<size_t>(t * dim + ch)] += kernel[static_cast<size_t>(l)] * static_cast<double>(x[(t - l) * dim + ch]);
      }
    }
    s4d_scan_fwd<T>({1, offsets, dim, n_modes, truncation, kFwd}, {0, 1, 0, dim}, x.data(), d.data(), w.data(), nullptr, nullptr, nullptr, y.data(),
                    false, nullptr);
    // |d| <= 0.99, so |s| <= 100; each step rounds about six times that at most, and the errors of 100 steps add up; 2 |w| < 3, P modes.
    test::expect_close(y.data(), want.data(), seq_len * dim, Tolerance{3 * n_modes * 6 * 100.0 * 100.0 * std::numeric_limits<T>::epsilon()});
  }
}

// A mode with Im d = 0 and Im w = 0 is a state of the EMA with q = d and c = 2 w, bit for bit.
TYPED_TEST(S4dScanTest, RealModesAreTheEma) {
  using T = TypeParam;
  const int64_t offsets[] = {0, 150, 153}, rows = 153, batch = 2, dim = 19, n_modes = 7, params = dim * n_modes;
  const auto x = random_numbers<T>(rows * dim, 1), dy = random_numbers<T>(rows * dim, 2), q = random_numbers<T>(params, 3, 0, 1),
             c = random_numbers<T>(params, 4), skip = random_numbers<T>(dim, 5);
  std::vector<T> d(static_cast<size_t>(2 * params), T{0}), w = d;
  for (int64_t i = 0; i < params; ++i) {
    d[static_cast<size_t>(2 * i)] = q[i];
    w[static_cast<size_t>(2 * i)] = c[i] / 2;
  }
  on_every_target([&] {
    for (const int64_t lag : {0, 20}) {
      const S4dScanShape shape{batch, offsets, dim, n_modes, lag, kRev};
      const EmaScanShape ema_shape{batch, offsets, dim, n_modes, lag, kRev};
      const ScanRange range{0, batch, 0, dim};
      Guarded<T> y(rows * dim), ema_y(rows * dim), dx(rows * dim), ema_dx(rows * dim), dskip(batch * dim), ema_dskip(batch * dim);
      Guarded<T> dd(2 * batch * params), dw(2 * batch * params), dq(batch * params), dc(batch * params);
      s4d_scan_fwd<T>(shape, range, x.data(), d.data(), w.data(), skip.data(), nullptr, nullptr, y.data(), false, nullptr);
      ema_scan_fwd<T>(ema_shape, range, x.data(), q.data(), c.data(), skip.data(), nullptr, nullptr, ema_y.data(), false, nullptr);
      EXPECT_TRUE(test::same_bits(y.data(), ema_y.data(), y.size()));
      s4d_scan_bwd_input<T>(shape, range, d.data(), w.data(), skip.data(), dy.data(), nullptr, dx.data(), false, nullptr, nullptr);
      ema_scan_bwd_input<T>(ema_shape, range, q.data(), c.data(), skip.data(), dy.data(), nullptr, ema_dx.data(), false, nullptr, nullptr);
      EXPECT_TRUE(test::same_bits(dx.data(), ema_dx.data(), dx.size()));
      s4d_scan_bwd_params<T>(shape, range, x.data(), d.data(), w.data(), nullptr, nullptr, dy.data(), nullptr, dd.data(), dw.data(), dskip.data());
      ema_scan_bwd_params<T>(ema_shape, range, x.data(), q.data(), c.data(), nullptr, nullptr, dy.data(), nullptr, dq.data(), dc.data(),
                             ema_dskip.data());
      EXPECT_TRUE(test::same_bits(dskip.data(), ema_dskip.data(), dskip.size()));
      for (int64_t i = 0; i < dq.size(); ++i) {
        ASSERT_EQ(dd[2 * i], dq[i]) << "lag " << lag;
        ASSERT_EQ(dw[2 * i], 2 * dc[i]) << "lag " << lag;
      }
    }
  });
}

// Absent arguments mean zero, bit for bit.
TYPED_TEST(S4dScanTest, AbsentMeansZero) {
  using T = TypeParam;
  const int64_t offsets[] = {0, 30, 33}, dim = 19, n_modes = 7, lag = 12;
  const S4dScanShape shape{2, offsets, dim, n_modes, lag, kFwd};
  const S4dScanRange range{0, 2, 0, dim};
  const auto x = random_numbers<T>(33 * dim, 1), dy = random_numbers<T>(33 * dim, 2), d = random_decays<T>(dim * n_modes, 3),
             w = random_numbers<T>(2 * dim * n_modes, 4);
  const std::vector<T> zeros(static_cast<size_t>(2 * dim * (2 * n_modes + lag)), T{0});
  on_every_target([&] {
    Guarded<T> y1(33 * dim), y2(33 * dim), a1(4 * dim * n_modes), a2(4 * dim * n_modes), b1(4 * dim * n_modes), b2(4 * dim * n_modes);
    s4d_scan_fwd<T>(shape, range, x.data(), d.data(), w.data(), nullptr, nullptr, nullptr, y1.data(), false, a1.data());
    s4d_scan_fwd<T>(shape, range, x.data(), d.data(), w.data(), nullptr, zeros.data(), zeros.data(), y2.data(), false, a2.data());
    EXPECT_TRUE(test::same_bits(y1.data(), y2.data(), y1.size()));
    EXPECT_TRUE(test::same_bits(a1.data(), a2.data(), a1.size()));
    s4d_scan_bwd_input<T>(shape, range, d.data(), w.data(), nullptr, dy.data(), nullptr, y1.data(), false, nullptr, nullptr);
    s4d_scan_bwd_input<T>(shape, range, d.data(), w.data(), nullptr, dy.data(), zeros.data(), y2.data(), false, a2.data(), nullptr);
    EXPECT_TRUE(test::same_bits(y1.data(), y2.data(), y1.size()));
    s4d_scan_bwd_params<T>(shape, range, x.data(), d.data(), w.data(), nullptr, nullptr, dy.data(), nullptr, a1.data(), b1.data(), nullptr);
    s4d_scan_bwd_params<T>(shape, range, x.data(), d.data(), w.data(), nullptr, nullptr, dy.data(), zeros.data(), a2.data(), b2.data(), nullptr);
    for (int64_t i = 0; i < a1.size(); ++i) ASSERT_EQ(a1[i], a2[i]);
    EXPECT_TRUE(test::same_bits(b1.data(), b2.data(), b1.size()));
  });
}

// A call over a part of the sequences and channels writes that part alone.
TYPED_TEST(S4dScanTest, RangeWritesItsPartAlone) {
  using T = TypeParam;
  const int64_t offsets[] = {0, 5, 9, 16}, dim = 37, n_modes = 3, lag = 2, rows = 16;
  const S4dScanShape shape{3, offsets, dim, n_modes, lag, kRev};
  const S4dScanRange range{1, 2, 4, 21};
  const auto x = random_numbers<T>(rows * dim, 1), d = random_decays<T>(dim * n_modes, 3), w = random_numbers<T>(2 * dim * n_modes, 4);
  on_every_target([&] {
    Guarded<T> y(rows * dim), state(6 * dim * n_modes), dd(6 * dim * n_modes), dw(6 * dim * n_modes), dskip(3 * dim), dx(rows * dim),
        dstate(6 * dim * n_modes), dhistory(3 * lag * dim);
    s4d_scan_fwd<T>(shape, range, x.data(), d.data(), w.data(), nullptr, nullptr, nullptr, y.data(), false, state.data());
    s4d_scan_bwd_params<T>(shape, range, x.data(), d.data(), w.data(), nullptr, nullptr, x.data(), nullptr, dd.data(), dw.data(), dskip.data());
    s4d_scan_bwd_input<T>(shape, range, d.data(), w.data(), nullptr, x.data(), nullptr, dx.data(), false, dstate.data(), dhistory.data());
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
    expect_part(state, 1, 2, 2 * n_modes);
    expect_part(dd, 1, 2, 2 * n_modes);
    expect_part(dw, 1, 2, 2 * n_modes);
    expect_part(dstate, 1, 2, 2 * n_modes);
    expect_part(dskip, 1, 2, 1);
    expect_part(dhistory, lag, 2 * lag, 1);
  });
}

// A million steps with memories of up to a million steps, in float32. Noise: the rounding errors of 1/(1-|d|) steps, four a step, behave as
// independent numbers of half an epsilon of the state each, so that they grow with the square root; eight standard deviations are allowed. An input
// that turns as the last mode does aligns them: then the bound is their plain sum.
TEST(S4dScanLongRunTest, AMillionStepsInFloat32) {
  const int64_t seq_len = 1000000, dim = 2, n_modes = 4;
  const int64_t offsets[] = {0, seq_len};
  const double memories[n_modes] = {1e2, 1e4, 1e6, 1e6}, angles[n_modes] = {0.3, 1e-3, 0, 2};
  Guarded<float> d(2 * dim * n_modes), w(2 * dim * n_modes);
  for (int64_t i = 0; i < dim * n_modes; ++i) {
    const int64_t n = i % n_modes;
    const Complex decay = std::polar(1 - 1 / memories[n], angles[n]);
    d[2 * i] = static_cast<float>(decay.real());
    d[2 * i + 1] = static_cast<float>(decay.imag());
    w[2 * i] = 0.5f;
    w[2 * i + 1] = n == 1 ? -0.5f : 0.0f;
  }
  const auto number = [](const Guarded<float>& from, int64_t i) {
    return Complex(static_cast<double>(from[2 * i]), static_cast<double>(from[2 * i + 1]));
  };
  auto x = random_numbers<float>(seq_len * dim, 1, -1, 1);
  const double turn = std::arg(number(d, n_modes - 1));
  for (int64_t t = 0; t < seq_len; ++t) x[t * dim + 1] = static_cast<float>(std::cos(turn * static_cast<double>(t)));
  Guarded<float> y(seq_len * dim), state(2 * dim * n_modes);
  s4d_scan_fwd<float>({1, offsets, dim, n_modes, 0, kFwd}, {0, 1, 0, dim}, x.data(), d.data(), w.data(), nullptr, nullptr, nullptr, y.data(), false,
                      state.data());
  for (int64_t ch = 0; ch < dim; ++ch) {
    std::vector<Complex> s(n_modes, 0);
    std::vector<double> largest(n_modes, 0), got(static_cast<size_t>(seq_len)), want(static_cast<size_t>(seq_len));
    for (int64_t t = 0; t < seq_len; ++t) {
      for (int64_t n = 0; n < n_modes; ++n) {
        const auto i = static_cast<size_t>(n);
        s[i] = number(d, n) * s[i] + static_cast<double>(x[t * dim + ch]);
        largest[i] = std::max(largest[i], std::abs(s[i]));
        want[static_cast<size_t>(t)] += 2 * (number(w, n) * s[i]).real();
      }
      got[static_cast<size_t>(t)] = static_cast<double>(y[t * dim + ch]);
    }
    const double unit = std::numeric_limits<float>::epsilon() / 2;
    double bound = 0, sum_size = 0;
    for (int64_t n = 0; n < n_modes; ++n) {
      const auto i = static_cast<size_t>(n);
      const double memory = 1 / (1 - std::abs(number(d, n)));
      const double state_bound = unit * largest[i] * (ch == 0 ? 8 * std::sqrt(4 * memory / 2) : 4 * memory);
      EXPECT_LE(std::abs(number(state, ch * n_modes + n) - s[i]), state_bound) << "channel " << ch << " mode " << n;
      bound += 2 * std::abs(number(w, n)) * state_bound;
      sum_size += 2 * std::abs(number(w, n)) * largest[i];
    }
    test::expect_close(got.data(), want.data(), seq_len, Tolerance{bound + 2 * n_modes * unit * sum_size});
  }
}

// With truncation the state forgets nothing by itself at |d| = 1: what comes in must go out again, exactly where the sums are exact.
TEST(S4dScanLongRunTest, TruncatedSumOnTheUnitCircleIsExactOnIntegers) {
  const int64_t seq_len = 100000, lag = 1001;
  const int64_t offsets[] = {0, seq_len};
  const float w[] = {0.5f, 0.5f};
  std::vector<float> x(static_cast<size_t>(seq_len)), y(x.size());
  for (size_t t = 0; t < x.size(); ++t) x[t] = static_cast<float>(static_cast<int>(t * 7919 % 201) - 100);
  for (const Complex decay : {Complex(1, 0), Complex(-1, 0), Complex(0, 1), Complex(0, -1)}) {
    const float d[] = {static_cast<float>(decay.real()), static_cast<float>(decay.imag())};
    s4d_scan_fwd<float>({1, offsets, 1, 1, lag, kFwd}, {0, 1, 0, 1}, x.data(), d, w, nullptr, nullptr, nullptr, y.data(), false, nullptr);
    Complex window = 0, power = 1;
    for (int64_t l = 0; l < lag; ++l) power *= decay;
    for (int64_t t = 0; t < seq_len; ++t) {
      window = decay * window + static_cast<double>(x[static_cast<size_t>(t)]);
      if (t >= lag) window -= power * static_cast<double>(x[static_cast<size_t>(t - lag)]);
      ASSERT_EQ(static_cast<double>(y[static_cast<size_t>(t)]), 2 * (Complex(0.5, 0.5) * window).real()) << "step " << t << " d " << decay;
    }
  }
}

}  // namespace
}  // namespace seqboat::kernels
