// EMA and S4D over a few tokens of one stream.
//
//   one token     for each group of 16 channels, state: state and coefficients stream by, in the order in which they lie
//   several       for each block of kBlockSteps, group, few states: coefficients and states in registers, inputs and sums of the block on the stack
//
// Both make the sums of ema_scan.cc and s4d_scan.cc: over the states in order, one fused multiply-add each.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/scan_step.cc"
#include "hwy/foreach_target.h"
// foreach_target.h comes first.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/cpu/scan_lag.h"
#include "kernels/cpu/simd_partial-inl.h"
#include "seqboat/kernels/scan_step.h"

#ifndef SEQBOAT_KERNELS_CPU_SCAN_STEP_ONCE_
#define SEQBOAT_KERNELS_CPU_SCAN_STEP_ONCE_
namespace seqboat::kernels {
namespace {

struct StepArgs {
  ScanStepShape shape;
  int64_t channel_begin, channel_end, time, tokens;
  const float* x;
  int64_t x_stride;
  const float* coefficients;
  float* state;
  float* ring;
  float* y;
  int64_t y_stride;
};

// Numbers of 16 lanes that a state is, that a step multiplies it by, and that its x[t-L] is multiplied by.
struct EmaNumbers {
  static constexpr int kState = 1;
  static constexpr int kCoefficients = 2;  // q, c
};
struct S4dNumbers {
  static constexpr int kState = 2;         // re, im; d^L too
  static constexpr int kCoefficients = 4;  // re and im of d, (c0, c1) = 2 conj(w)
};

// Coefficients of a group: skip; with truncation, in the first of 16 lanes, how many states there are up to the last whose power is not zero; then
// state by state those of the step and, with truncation, the decay's power.
template <class Numbers>
int64_t coefficients_of_state(const ScanStepShape& shape) {
  return (Numbers::kCoefficients + (shape.truncation > 0 ? Numbers::kState : 0)) * kScanGroup;
}
inline int64_t states_offset(const ScanStepShape& shape) {
  return (shape.truncation > 0 ? 2 : 1) * kScanGroup;
}
template <class Numbers>
int64_t coefficients_of_group(const ScanStepShape& shape) {
  return states_offset(shape) + shape.n_state * coefficients_of_state<Numbers>(shape);
}
inline int64_t groups_of(const ScanStepShape& shape) {
  return (shape.channels + kScanGroup - 1) / kScanGroup;
}

}  // namespace
}  // namespace seqboat::kernels
#endif  // SEQBOAT_KERNELS_CPU_SCAN_STEP_ONCE_

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

// At most 16 lanes: a group is whole vectors.
using D = hn::CappedTag<float, kScanGroup>;
using V = hn::Vec<D>;
constexpr int64_t kMaxVectorLanes = static_cast<int64_t>(hn::MaxLanes(D()));

/// Time steps that are walked at once.
constexpr int64_t kBlockSteps = 128;
constexpr int64_t kGroupsAtOnce = 8;

struct EmaCell : EmaNumbers {
  static constexpr int kPassStates = 8;
  template <bool kLagged>
  static HWY_INLINE V step(V x, V lagged, const V* HWY_RESTRICT q_c, const V* HWY_RESTRICT power, V* HWY_RESTRICT s, V acc) {
    if constexpr (kLagged) x = hn::NegMulAdd(power[0], lagged, x);
    s[0] = hn::MulAdd(q_c[0], s[0], x);
    return hn::MulAdd(q_c[1], s[0], acc);
  }
};

struct S4dCell : S4dNumbers {
  static constexpr int kPassStates = 4;
  template <bool kLagged>
  static HWY_INLINE V step(V x, V lagged, const V* HWY_RESTRICT d_w, const V* HWY_RESTRICT power, V* HWY_RESTRICT s, V acc) {
    V from_s = hn::Mul(d_w[1], s[0]);
    if constexpr (kLagged) {
      x = hn::NegMulAdd(power[0], lagged, x);
      from_s = hn::NegMulAdd(power[1], lagged, from_s);
    }
    x = hn::NegMulAdd(d_w[1], s[1], x);
    s[1] = hn::MulAdd(d_w[0], s[1], from_s);
    s[0] = hn::MulAdd(d_w[0], s[0], x);
    acc = hn::MulAdd(d_w[2], s[0], acc);
    return hn::MulAdd(d_w[3], s[1], acc);
  }
};

template <class Cell>
struct Registers {
  V s[Cell::kState], coefficients[Cell::kCoefficients], power[Cell::kState];

  template <bool kLagged>
  HWY_INLINE void load(const float* HWY_RESTRICT from, const float* HWY_RESTRICT state) {
    const D d;
#pragma GCC unroll 4
    for (int i = 0; i < Cell::kState; ++i) s[i] = hn::LoadU(d, state + i * kScanGroup);
#pragma GCC unroll 4
    for (int i = 0; i < Cell::kCoefficients; ++i) coefficients[i] = hn::LoadU(d, from + i * kScanGroup);
    if constexpr (kLagged) {
#pragma GCC unroll 4
      for (int i = 0; i < Cell::kState; ++i) power[i] = hn::LoadU(d, from + (Cell::kCoefficients + i) * kScanGroup);
    }
  }
  HWY_INLINE void store(float* HWY_RESTRICT state) const {
    const D d;
#pragma GCC unroll 4
    for (int i = 0; i < Cell::kState; ++i) hn::StoreU(s[i], d, state + i * kScanGroup);
  }
  template <bool kLagged>
  HWY_INLINE V step(V x, V lagged, V acc) {
    return Cell::template step<kLagged>(x, lagged, coefficients, power, s, acc);
  }
};

/// One token of one vector of channels; states [n, n_end), whose coefficients lie `stride` apart.
template <class Cell, bool kLagged>
HWY_INLINE V one_step(int64_t n, int64_t n_end, int64_t stride, V x, V lagged, V acc, const float* HWY_RESTRICT coefficients,
                      float* HWY_RESTRICT state) {
  for (; n < n_end; ++n) {
    Registers<Cell> r;
    r.template load<kLagged>(coefficients + n * stride, state + n * Cell::kState * kScanGroup);
    acc = r.template step<kLagged>(x, lagged, acc);
    r.store(state + n * Cell::kState * kScanGroup);
  }
  return acc;
}

/// Into the second-level cache: rows that lie a power of two apart would push each other out of the first.
HWY_INLINE void prefetch(const float* row) {
#if defined(__GNUC__)
  __builtin_prefetch(row, 0, 2);
#else
  static_cast<void>(row);
#endif
}

/// Rows of one vector each; row t at data + t stride.
struct Rows {
  float* data;
  int64_t stride;
};
struct ConstRows {
  const float* data;
  int64_t stride;
};

/// One block of one vector of channels. The first pass reads the inputs where they lie, a cache line of each row, and copies them for those that
/// follow; it also replaces the ring's rows. Sums go to staged_out from pass to pass, and from the last to out.
struct Block {
  int64_t steps;
  ConstRows x;
  Rows ring;       // of the inputs L steps before, which x replaces; no data: no truncation, or done before
  ConstRows late;  // the inputs L steps before; no data: none yet
  Rows out;
  float* staged_in;
  float* staged_late;
  float* staged_out;
  int64_t ahead_in, ahead_out;  // from a row to what is read or written next in its place
};

/// kStates states. kFirst: the first pass; kLagged: some input leaves the window at each step.
template <class Cell, int kStates, bool kLagged, bool kFirst>
HWY_NOINLINE void pass(const Block& block, int64_t stride, const float* HWY_RESTRICT skip, bool last, const float* HWY_RESTRICT coefficients,
                       float* HWY_RESTRICT state) {
  const D d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  Registers<Cell> r[kStates];
#pragma GCC unroll 8
  for (int n = 0; n < kStates; ++n) r[n].template load<kLagged>(coefficients + n * stride, state + n * Cell::kState * kScanGroup);
  const V skip_x = hn::LoadU(d, skip);
  const ConstRows x = kFirst ? block.x : ConstRows{block.staged_in, lanes};
  const ConstRows late = kFirst ? block.late : ConstRows{block.staged_late, lanes};
  const Rows out = last ? block.out : Rows{block.staged_out, lanes};
  const bool copies = kFirst && !last, keeps = kFirst && block.ring.data != nullptr;
  for (int64_t t = 0; t < block.steps; ++t) {
    const V input = hn::LoadU(d, x.data + t * x.stride);
    V lagged = input;
    if constexpr (kLagged) lagged = hn::LoadU(d, late.data + t * late.stride);
    V acc;
    if constexpr (kFirst) {
      acc = hn::MulAdd(skip_x, input, hn::Zero(d));
      prefetch(x.data + t * x.stride + block.ahead_in);
      if (copies) {
        hn::Store(input, d, block.staged_in + t * lanes);
        if constexpr (kLagged) hn::Store(lagged, d, block.staged_late + t * lanes);
      }
      if (keeps) {
        prefetch(block.ring.data + t * block.ring.stride + kScanGroup);
        hn::StoreU(input, d, block.ring.data + t * block.ring.stride);
      }
    } else {
      acc = hn::Load(d, block.staged_out + t * lanes);
    }
#pragma GCC unroll 8
    for (int n = 0; n < kStates; ++n) acc = r[n].template step<kLagged>(input, lagged, acc);
    hn::StoreU(acc, d, out.data + t * out.stride);
    if (last) prefetch(out.data + t * out.stride + block.ahead_out);
  }
#pragma GCC unroll 8
  for (int n = 0; n < kStates; ++n) r[n].store(state + n * Cell::kState * kScanGroup);
}

/// All states, of which the first n_lagged may keep something of an input until it leaves the window.
template <class Cell>
void passes(const Block& block, int64_t n_state, int64_t n_lagged, int64_t stride, const float* skip, const float* coefficients, float* state) {
  int64_t n = 0;
  const auto run = [&](auto width) HWY_ATTR {
    constexpr int kStates = decltype(width)::value;
    for (; n_state - n >= kStates; n += kStates) {
      const bool last = n + kStates == n_state;
      const float* mine = coefficients + n * stride;
      float* states = state + n * Cell::kState * kScanGroup;
      const auto call = [&](auto lagged, auto first) HWY_ATTR {
        pass<Cell, kStates, decltype(lagged)::value, decltype(first)::value>(block, stride, skip, last, mine, states);
      };
      if (n == 0) {
        n < n_lagged ? call(std::true_type(), std::true_type()) : call(std::false_type(), std::true_type());
      } else {
        n < n_lagged ? call(std::true_type(), std::false_type()) : call(std::false_type(), std::false_type());
      }
    }
  };
  run(std::integral_constant<int, Cell::kPassStates>());
  run(std::integral_constant<int, Cell::kPassStates / 2>());
  run(std::integral_constant<int, 1>());
}

/// Steps [t, t + steps) of all channels. The rows of the ring that they replace follow each other from `ring` on; nullptr without truncation.
template <class Cell>
void walk(const StepArgs& args, int64_t t, int64_t steps, float* ring, bool lagged) {
  const D d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const ScanStepShape& shape = args.shape;
  const int64_t dim = shape.channels, stride = coefficients_of_state<Cell>(shape);
  HWY_ALIGN float inputs[kBlockSteps * kMaxVectorLanes];
  HWY_ALIGN float late[kBlockSteps * kMaxVectorLanes];
  HWY_ALIGN float sums[kBlockSteps * kMaxVectorLanes];
  for (int64_t channel = args.channel_begin; channel < args.channel_end; channel += lanes) {
    const int64_t group = channel / kScanGroup, lane = channel % kScanGroup;
    const float* skip = args.coefficients + group * coefficients_of_group<Cell>(shape) + lane;
    const float* coefficients = skip + states_offset(shape);
    const int64_t n_lagged = lagged ? static_cast<int64_t>(skip[kScanGroup - lane]) : 0;
    float* state = args.state + group * shape.n_state * Cell::kState * kScanGroup + lane;
    const size_t count = static_cast<size_t>(std::min(lanes, dim - channel));
    const bool whole = count == static_cast<size_t>(lanes);
    const float* x = args.x + t * args.x_stride + channel;
    float* y = args.y + t * args.y_stride + channel;
    const auto load = [&](const float* from) HWY_ATTR { return whole ? hn::LoadU(d, from) : load_partial(d, from, count); };
    const auto store = [&](V v, float* to) HWY_ATTR {
      if (whole) {
        hn::StoreU(v, d, to);
      } else {
        store_partial(v, d, to, count);
      }
    };
    if (steps == 1) {
      const V input = load(x);
      V acc = hn::MulAdd(hn::LoadU(d, skip), input, hn::Zero(d));
      if (n_lagged > 0) acc = one_step<Cell, true>(0, n_lagged, stride, input, load(ring + channel), acc, coefficients, state);
      store(one_step<Cell, false>(n_lagged, shape.n_state, stride, input, input, acc, coefficients, state), y);
      if (ring != nullptr) store(input, ring + channel);
      continue;
    }
    Block block{steps, {x, args.x_stride}, {nullptr, 0}, {nullptr, 0}, {y, args.y_stride}, inputs, late, sums, kScanGroup, kScanGroup};
    if (args.tokens - t > kBlockSteps) block.ahead_in = kBlockSteps * args.x_stride, block.ahead_out = kBlockSteps * args.y_stride;
    if (whole) {
      if (ring != nullptr) block.ring = {ring + channel, dim};
      if (n_lagged > 0) block.late = {ring + channel, dim};
    } else {
      // The same loops run on full rows on the stack.
      for (int64_t i = 0; i < steps; ++i) {
        const V input = load(x + i * args.x_stride);
        hn::Store(input, d, inputs + i * lanes);
        if (ring == nullptr) continue;
        float* row = ring + i * dim + channel;
        if (n_lagged > 0) hn::Store(load(row), d, late + i * lanes);
        store(input, row);
      }
      block.x = {inputs, lanes};
      if (n_lagged > 0) block.late = {late, lanes};
      block.out = {sums, lanes};
    }
    passes<Cell>(block, shape.n_state, n_lagged, stride, skip, coefficients, state);
    if (whole) continue;
    for (int64_t i = 0; i < steps; ++i) store(hn::Load(d, sums + i * lanes), y + i * args.y_stride);
  }
}

template <class Cell>
void run(const StepArgs& all) {
  const int64_t length = all.shape.truncation;
  StepArgs args = all;
  // Of many tokens a few groups of channels at a time: what a block reads and writes of them stays in the second-level cache.
  const int64_t channels = args.tokens > kBlockSteps ? kGroupsAtOnce * kScanGroup : args.channel_end - args.channel_begin;
  for (; args.channel_begin < all.channel_end; args.channel_begin = args.channel_end) {
    args.channel_end = std::min(all.channel_end, args.channel_begin + channels);
    for (int64_t t = 0, steps = 0; t < args.tokens; t += steps) {
      steps = std::min(kBlockSteps, args.tokens - t);
      float* ring = nullptr;
      if (length > 0) {
        // Never across the ring's end, so that its rows follow each other; the first input leaves the window at such an end, too.
        const int64_t row = (args.time + t) % length;
        steps = std::min(steps, length - row);
        ring = args.ring + row * args.shape.channels;
      }
      walk<Cell>(args, t, steps, ring, length > 0 && args.time + t >= length);
    }
  }
}

void run_ema(const StepArgs& args) {
  run<EmaCell>(args);
}
void run_s4d(const StepArgs& args) {
  run<S4dCell>(args);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqboat::kernels {
namespace {

HWY_EXPORT(run_ema);
HWY_EXPORT(run_s4d);

struct Complex {
  double re, im;
};

// As the scans compute it: in double by repeated squaring.
Complex power_of(Complex base, int64_t exponent) {
  Complex power{1.0, 0.0};
  for (; exponent != 0; exponent >>= 1) {
    if (exponent & 1) power = {power.re * base.re - power.im * base.im, power.re * base.im + power.im * base.re};
    base = {base.re * base.re - base.im * base.im, 2.0 * (base.re * base.im)};
  }
  return power;
}

// Numbers of a state, n of them, of channel d from `of(d, n, values)`; skip(d). What has no channel is zero.
template <class Numbers, class Skip, class Of>
void pack(const ScanStepShape& shape, const Skip& skip, const Of& of, float* coefficients) {
  const int64_t stride = coefficients_of_state<Numbers>(shape);
  for (int64_t group = 0; group < groups_of(shape); ++group, coefficients += coefficients_of_group<Numbers>(shape)) {
    int64_t n_lagged = 0;
    for (int64_t lane = 0; lane < kScanGroup; ++lane) {
      const int64_t channel = group * kScanGroup + lane;
      const bool exists = channel < shape.channels;
      coefficients[lane] = exists ? skip(channel) : 0.0f;
      for (int64_t n = 0; n < shape.n_state; ++n) {
        float values[Numbers::kCoefficients + Numbers::kState] = {};
        if (exists) of(channel, n, values);
        float* to = coefficients + states_offset(shape) + n * stride + lane;
        for (int64_t i = 0; i * kScanGroup < stride; ++i) to[i * kScanGroup] = values[i];
        for (int64_t i = Numbers::kCoefficients; i * kScanGroup < stride; ++i) n_lagged = values[i] != 0.0f ? std::max(n_lagged, n + 1) : n_lagged;
      }
    }
    if (shape.truncation == 0) continue;
    std::fill_n(coefficients + kScanGroup, kScanGroup, 0.0f);
    coefficients[kScanGroup] = static_cast<float>(n_lagged);
  }
}

}  // namespace

size_t ema_step_coefficients_size(const ScanStepShape& shape) noexcept {
  return static_cast<size_t>(groups_of(shape) * coefficients_of_group<EmaNumbers>(shape));
}
size_t ema_step_state_size(const ScanStepShape& shape) noexcept {
  return static_cast<size_t>(groups_of(shape) * shape.n_state * EmaNumbers::kState * kScanGroup);
}
size_t s4d_step_coefficients_size(const ScanStepShape& shape) noexcept {
  return static_cast<size_t>(groups_of(shape) * coefficients_of_group<S4dNumbers>(shape));
}
size_t s4d_step_state_size(const ScanStepShape& shape) noexcept {
  return static_cast<size_t>(groups_of(shape) * shape.n_state * S4dNumbers::kState * kScanGroup);
}

void ema_step_pack(const ScanStepShape& shape, const float* q, const float* c, const float* omega, float* coefficients) noexcept {
  pack<EmaNumbers>(
      shape, [&](int64_t channel) { return omega == nullptr ? 0.0f : omega[channel]; },
      [&](int64_t channel, int64_t n, float* values) {
        const int64_t at = channel * shape.n_state + n;
        values[0] = q[at];
        values[1] = c[at];
        values[2] = lag_coefficient<float>(power_of({static_cast<double>(q[at]), 0.0}, shape.truncation).re);
      },
      coefficients);
}

void s4d_step_pack(const ScanStepShape& shape, const float* d, const float* w, const float* skip, float* coefficients) noexcept {
  pack<S4dNumbers>(
      shape, [&](int64_t channel) { return skip == nullptr ? 0.0f : skip[channel]; },
      [&](int64_t channel, int64_t n, float* values) {
        const float* decay = d + 2 * (channel * shape.n_state + n);
        const float* weight = w + 2 * (channel * shape.n_state + n);
        const Complex power = power_of({static_cast<double>(decay[0]), static_cast<double>(decay[1])}, shape.truncation);
        values[0] = decay[0];
        values[1] = decay[1];
        values[2] = 2.0f * weight[0];
        values[3] = -2.0f * weight[1];
        values[4] = lag_coefficient<float>(power.re);
        values[5] = lag_coefficient<float>(power.im);
      },
      coefficients);
}

void ema_step(const ScanStepShape& shape, int64_t channel_begin, int64_t channel_end, int64_t time, int64_t tokens, const float* x, int64_t x_stride,
              const float* coefficients, float* state, float* ring, float* y, int64_t y_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(run_ema)
  (StepArgs{shape, channel_begin, channel_end, time, tokens, x, x_stride, coefficients, state, ring, y, y_stride});
}

void s4d_step(const ScanStepShape& shape, int64_t channel_begin, int64_t channel_end, int64_t time, int64_t tokens, const float* x, int64_t x_stride,
              const float* coefficients, float* state, float* ring, float* y, int64_t y_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(run_s4d)
  (StepArgs{shape, channel_begin, channel_end, time, tokens, x, x_stride, coefficients, state, ring, y, y_stride});
}

}  // namespace seqboat::kernels
#endif  // HWY_ONCE
