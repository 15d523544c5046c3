// The EMA as a scan: channels in the vector lanes, states in registers.
//
// Work is cut as follows, outermost first; no cut changes the order of any sum:
//   group of kGroupVectors vectors of channels   parameters are transposed once to (vector, state, lane) on the stack
//   chunk of kChunkStates states                 so that the stack's size does not depend on N; y continues from memory
//   sequence, block of kBlockSteps time steps    x and y of a block stay in the first-level cache
//   vector of channels, pass of up to 8 states      the inner loop over the steps of the block
//
// A last vector with fewer channels than lanes is staged: its columns are copied to a full-width block on the stack, and the same
// loops run on that, so that the arithmetic of the tail is that of the body.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/ema_scan.cc"
#include "hwy/foreach_target.h"
// foreach_target.h comes first.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/cpu/scan_blocks-inl.h"
#include "seqboat/kernels/ema_scan.h"

#ifndef SEQBOAT_KERNELS_CPU_EMA_SCAN_ONCE_
#define SEQBOAT_KERNELS_CPU_EMA_SCAN_ONCE_
namespace seqboat::kernels {
namespace {

/// What one sweep over the sequences does with each state. `in` is x or dy, `lagged` its value L steps earlier in the order of the sweep.
enum class Sweep {
  kForward,  ///< s = q s + (in - q^L lagged);                   out += c s
  kInput,    ///< g = p - c q^L lagged + c in;   p = q g;        out += g
  kHistory,  ///< g = p + c in;                  p = q g;        out -= q^L g
};

template <class T>
struct SweepArgs {
  const EmaScanShape* shape;
  EmaScanRange range;
  bool from_end;  // walk each sequence from its last row to its first
  const T* in;
  const T* q;
  const T* c;
  const T* omega;
  const T* state_in;
  const T* history;
  T* out;
  bool accumulate;
  T* state_out;
};

template <class T>
struct ParamsArgs {
  const EmaScanShape* shape;
  EmaScanRange range;
  const T* x;
  const T* q;
  const T* c;
  const T* state_in;
  const T* history;
  const T* dy;
  const T* dstate_out;
  T* dq;
  T* dc;
  T* domega;
};

constexpr int64_t kGroupVectors = 8;
constexpr int64_t kChunkStates = 16;

}  // namespace
}  // namespace seqboat::kernels
#endif  // SEQBOAT_KERNELS_CPU_EMA_SCAN_ONCE_

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

// States of one pass: s, q, c of each (sweeps) or s, e, dc, dq, q (parameters) fill 32 registers. With 16 of them, q and c come from the
// first-level cache; fewer states a pass were slower there, as the recurrence's latency then shows.
constexpr int kSweepStates = 8;
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_SSSE3
constexpr int kParamsStates = 3;
#else
constexpr int kParamsStates = 4;
#endif

/// power[i] = base[i]^exponent in double by repeated squaring: the same bits on every machine.
template <int64_t kCount, class T>
void integer_power(const T* base, int64_t exponent, double* power) {
  double square[kCount];
  for (int64_t i = 0; i < kCount; ++i) {
    power[i] = 1.0;
    square[i] = static_cast<double>(base[i]);
  }
  for (; exponent != 0; exponent >>= 1) {
    if (exponent & 1) {
      for (int64_t i = 0; i < kCount; ++i) power[i] *= square[i];
    }
    for (int64_t i = 0; i < kCount; ++i) square[i] *= square[i];
  }
}

/// One block of one vector of channels.
template <class T>
struct Block {
  int64_t steps = 0;
  Rows<const T> in;
  Rows<const T> lagged;  // no data: counts as nothing
  Rows<const T> base;    // what the sums are added to; no data: zero
  Rows<T> out;           // may be base
  // A column of x is one cache line of each row, and rows often lie a power of two apart, so that a block of them fits in few sets of the
  // cache. Hence a pass that is followed by others copies what it reads to full rows on the stack, and leaves its sums there.
  T* copy_in = nullptr;
  T* copy_lagged = nullptr;
};

/// q, c, lag, state: (kStates, lanes). omega: one vector or nullptr. kCopy: write copy_in (and copy_lagged), prefetch the next block.
template <Sweep kSweep, int kStates, bool kLagged, bool kCopy, class D, class T>
HWY_NOINLINE void sweep_pass(D d, const Block<T>& block, const T* HWY_RESTRICT q, const T* HWY_RESTRICT c, const T* HWY_RESTRICT lag,
                             const T* HWY_RESTRICT omega, T* HWY_RESTRICT state) {
  using V = hn::Vec<D>;
  const size_t lanes = hn::Lanes(d);
  V s[kStates], qv[kStates], cv[kStates], kv[kStates];
#pragma GCC unroll 8
  for (int n = 0; n < kStates; ++n) {
    s[n] = hn::Load(d, state + n * lanes);
    qv[n] = hn::Load(d, q + n * lanes);
    cv[n] = hn::Load(d, c + n * lanes);
    kv[n] = hn::Load(d, lag + n * lanes);
  }
  const T* HWY_RESTRICT in = block.in.data;
  const T* HWY_RESTRICT lagged = block.lagged.data;
  const T* base = block.base.data;
  T* out = block.out.data;
  T* HWY_RESTRICT copy_in = block.copy_in;
  T* HWY_RESTRICT copy_lagged = block.copy_lagged;
  // The gradient sweeps carry g from step to step, and p = q g is made where it is used: then p and g take turns in one register. (Carrying p keeps
  // both alive; with 16 registers some states went through memory, on the recurrence's way.) The first step finds p itself, as it is stored.
  const auto step = [&](auto first) HWY_ATTR {
    const V x = hn::LoadU(d, in);
    V acc = hn::Zero(d);
    if (base != nullptr) acc = hn::LoadU(d, base);
    if (omega != nullptr) acc = hn::MulAdd(hn::Load(d, omega), x, acc);
    V x_lagged = x;
    if constexpr (kLagged) x_lagged = hn::LoadU(d, lagged);
    if constexpr (kCopy) {
      hn::Store(x, d, copy_in);
      prefetch_next(in + kBlockSteps * block.in.stride);
      copy_in += lanes;
      if constexpr (kLagged) {
        hn::Store(x_lagged, d, copy_lagged);
        prefetch_next(lagged + kBlockSteps * block.lagged.stride);
        copy_lagged += lanes;
      }
    }
#pragma GCC unroll 8
    for (int n = 0; n < kStates; ++n) {
      if constexpr (kSweep == Sweep::kForward) {
        // A lagged value of zero leaves x as it is, bit for bit, so that a block without one may skip the term.
        V u = x;
        if constexpr (kLagged) u = hn::NegMulAdd(kv[n], x_lagged, u);
        s[n] = hn::MulAdd(qv[n], s[n], u);
        acc = hn::MulAdd(cv[n], s[n], acc);
      } else {
        // The product q g is rounded by itself, so that a gradient handed from one call to the next is the one a single call carries.
        if constexpr (!decltype(first)::value) s[n] = hn::Mul(qv[n], s[n]);
        if constexpr (kLagged) s[n] = hn::NegMulAdd(kv[n], x_lagged, s[n]);
        s[n] = hn::MulAdd(cv[n], x, s[n]);
        acc = kSweep == Sweep::kInput ? hn::Add(acc, s[n]) : hn::NegMulAdd(kv[n], s[n], acc);
      }
    }
    hn::StoreU(acc, d, out);
    if constexpr (!kCopy) prefetch_next(out + kBlockSteps * block.out.stride);
    in += block.in.stride;
    out += block.out.stride;
    if (base != nullptr) base += block.base.stride;
    if constexpr (kLagged) lagged += block.lagged.stride;
  };
  int64_t t = 0;
  if (kSweep != Sweep::kForward && block.steps > 0) {
    step(std::true_type());
    t = 1;
  }
  for (; t < block.steps; ++t) step(std::false_type());
#pragma GCC unroll 8
  for (int n = 0; n < kStates; ++n) {
    if (kSweep != Sweep::kForward && block.steps > 0) s[n] = hn::Mul(qv[n], s[n]);
    hn::Store(s[n], d, state + n * lanes);
  }
}

/// All states of a chunk, pass after pass. lasts: which states' lag is not zero. staged_out: room for the sums between two passes.
template <Sweep kSweep, class D, class T>
void sweep_states(D d, Block<T> block, int64_t n_state, const T* q, const T* c, const T* lag, const bool* lasts, const T* omega, T* state,
                  T* staged_out) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const Rows<T> final_out = block.out;
  const bool copies = block.copy_in != nullptr;
  int64_t n = 0;
  const auto pass = [&](auto width) HWY_ATTR {
    constexpr int kStates = decltype(width)::value;
    const int64_t at = n * lanes;
    const bool last = n + kStates == n_state;
    block.out = last ? final_out : Rows<T>{staged_out, lanes};
    const bool lagged = block.lagged.data != nullptr && any_nonzero(lasts + n, kStates);
    const auto call = [&](auto with_lagged, auto with_copy) HWY_ATTR {
      constexpr bool kLagged = kSweep != Sweep::kHistory && decltype(with_lagged)::value;
      sweep_pass<kSweep, kStates, kLagged, decltype(with_copy)::value>(d, block, q + at, c + at, lag + at, omega, state + at);
    };
    if (kStates == kSweepStates && n == 0 && !last && copies) {
      constexpr std::bool_constant<kStates == kSweepStates> with_copy;
      lagged ? call(std::true_type(), with_copy) : call(std::false_type(), with_copy);
      block.in = {block.copy_in, lanes};
      if (lagged) block.lagged = {block.copy_lagged, lanes};
    } else {
      lagged ? call(std::true_type(), std::false_type()) : call(std::false_type(), std::false_type());
    }
    block.base = {staged_out, lanes};
    omega = nullptr;
    n += kStates;
  };
  while (n_state - n >= kSweepStates) pass(std::integral_constant<int, kSweepStates>());
  while (n_state - n >= 3) pass(std::integral_constant<int, 3>());
  while (n_state - n >= 1) pass(std::integral_constant<int, 1>());
}

template <Sweep kSweep, class T>
void run_sweep(const SweepArgs<T>& args) {
  const hn::ScalableTag<T> d;
  constexpr int64_t kLanes = hn::MaxLanes(hn::ScalableTag<T>());
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const EmaScanShape& shape = *args.shape;
  const int64_t dim = shape.channels, n_state = shape.n_state, truncation = shape.truncation;
  const ptrdiff_t stride = args.from_end ? -dim : dim;
  // The gradient of the history lies in scan order, which this sweep walks backwards, whichever way the sequence lies.
  const ptrdiff_t out_stride = kSweep == Sweep::kHistory ? -dim : stride;
  const bool needs_power = kSweep == Sweep::kHistory || any_lagged(shape, args.range, args.history != nullptr);

  HWY_ALIGN T q[kGroupVectors * kChunkStates * kLanes];
  HWY_ALIGN T c[kGroupVectors * kChunkStates * kLanes];
  HWY_ALIGN T lag[kGroupVectors * kChunkStates * kLanes];    // q^L, or c q^L for kInput
  HWY_ALIGN T power[kGroupVectors * kChunkStates * kLanes];  // q^L for kInput
  bool lasts[kGroupVectors * kChunkStates] = {};             // whether q^L of a state is not zero in some lane
  HWY_ALIGN T state[kGroupVectors * kChunkStates * kLanes];
  HWY_ALIGN T omega[kGroupVectors * kLanes];
  HWY_ALIGN T staged_in[kBlockSteps * kLanes];
  HWY_ALIGN T staged_lagged[kBlockSteps * kLanes];
  HWY_ALIGN T staged_out[kBlockSteps * kLanes];

  for (int64_t group = args.range.channel_begin; group < args.range.channel_end; group += kGroupVectors * lanes) {
    const int64_t channels = std::min(kGroupVectors * lanes, args.range.channel_end - group);
    if (args.omega != nullptr) {
      for (int64_t i = 0; i < kGroupVectors * lanes; ++i) omega[i] = i < channels ? args.omega[group + i] : T{0};
    }
    for (int64_t n_begin = 0; n_begin < n_state; n_begin += kChunkStates) {
      const int64_t n_count = std::min(kChunkStates, n_state - n_begin);
      transpose_in<kChunkStates>(d, args.q + group * n_state, n_state, channels, n_begin, n_count, q);
      transpose_in<kChunkStates>(d, args.c + group * n_state, n_state, channels, n_begin, n_count, c);
      if (needs_power) {
        for (int64_t v = 0; v * lanes < channels; ++v) {
          for (int64_t n = 0; n < n_count; ++n) {
            const int64_t at = (v * kChunkStates + n) * lanes;
            double wide[kLanes];
            integer_power<kLanes>(q + at, truncation, wide);
            for (int64_t i = 0; i < lanes; ++i) {
              // The gradient of a history is a sum of such terms alone: there none is beside larger ones.
              power[at + i] = kSweep == Sweep::kHistory ? static_cast<T>(wide[i]) : lag_coefficient<T>(wide[i]);
              lag[at + i] = power[at + i];
              if (kSweep == Sweep::kInput && power[at + i] != T{0}) lag[at + i] = static_cast<T>(static_cast<double>(c[at + i]) * wide[i]);
            }
            lasts[v * kChunkStates + n] = any_nonzero(power + at, lanes);
          }
        }
      }
      for (int64_t b = args.range.seq_begin; b < args.range.seq_end; ++b) {
        const int64_t row_begin = shape.cu_seqlens[b], seq_len = shape.cu_seqlens[b + 1] - row_begin;
        const int64_t state_at = (b * dim + group) * n_state;
        transpose_in<kChunkStates>(d, args.state_in == nullptr ? nullptr : args.state_in + state_at, n_state, channels, n_begin, n_count, state);
        const int64_t first_row = args.from_end ? row_begin + seq_len - 1 : row_begin;
        const T* in = seq_len > 0 ? args.in + first_row * dim + group : nullptr;
        // Of the history's gradient only its L rows are kept: the steps before them compute into the staging block.
        const int64_t border = kSweep == Sweep::kHistory ? std::max<int64_t>(0, seq_len - truncation) : truncation;
        T* out = nullptr;
        if (args.out != nullptr && seq_len > 0) out = args.out + (kSweep == Sweep::kHistory ? b * truncation + seq_len - 1 : first_row) * dim + group;
        for (int64_t t = 0, steps = 0; t < seq_len; t += steps) {
          steps = block_steps(t, seq_len, border);
          if (kSweep == Sweep::kInput && t == truncation && truncation > 0 && args.state_in != nullptr) {
            // The final state does not see the input L steps before it: its gradient leaves the window here.
            const T* from = args.state_in + state_at;
            for (int64_t i = 0; i < channels; ++i) {
              for (int64_t n = 0; n < n_count; ++n) {
                const int64_t at = (i / lanes * kChunkStates + n) * lanes + i % lanes;
                state[at] -= power[at] * from[i * n_state + n_begin + n];
              }
            }
          }
          Rows<const T> lagged;
          if (kSweep != Sweep::kHistory && truncation > 0) {
            if (t >= truncation) {
              lagged = {in + (t - truncation) * stride, stride};
            } else if (args.history != nullptr) {
              lagged = {args.history + (b * truncation + t) * dim + group, dim};
            }
          }
          const bool discard = kSweep == Sweep::kHistory && (t < border || out == nullptr);
          for (int64_t v = 0; v * lanes < channels; ++v) {
            const size_t count = static_cast<size_t>(std::min(lanes, channels - v * lanes));
            const bool partial = count < static_cast<size_t>(lanes);
            const int64_t at = v * kChunkStates * lanes;
            const T* omega_here = args.omega != nullptr && n_begin == 0 ? omega + v * lanes : nullptr;
            const Rows<T> out_here{discard ? nullptr : out + t * out_stride + v * lanes, out_stride};
            const bool load_out = (args.accumulate || n_begin > 0) && !discard;
            Block<T> block;
            block.steps = steps;
            block.in = {in + t * stride + v * lanes, stride};
            if (lagged.data != nullptr) block.lagged = {lagged.data + v * lanes, lagged.stride};
            if (load_out) block.base = {out_here.data, out_here.stride};
            block.out = out_here;
            if (partial) {
              stage_in(d, steps, block.in, count, staged_in);
              block.in = {staged_in, lanes};
              if (block.lagged.data != nullptr) {
                stage_in(d, steps, block.lagged, count, staged_lagged);
                block.lagged = {staged_lagged, lanes};
              }
              if (load_out) {
                stage_in(d, steps, block.base, count, staged_out);
                block.base = {staged_out, lanes};
              }
            } else {
              block.copy_in = staged_in;
              block.copy_lagged = staged_lagged;
            }
            if (partial || discard) block.out = {staged_out, lanes};
            sweep_states<kSweep>(d, block, n_count, q + at, c + at, lag + at, lasts + v * kChunkStates, omega_here, state + at, staged_out);
            if (partial && !discard) stage_out(d, steps, staged_out, count, out_here);
          }
        }
        if (args.state_out != nullptr) transpose_out<kChunkStates>(d, state, n_state, channels, n_begin, n_count, args.state_out + state_at);
      }
    }
  }
}

template <class T>
struct ParamsBlock {
  int64_t steps = 0;
  Rows<const T> x, dy, lagged;
  T* copy_x = nullptr;  // as in Block
  T* copy_dy = nullptr;
  T* copy_lagged = nullptr;
};

/// One block of the parameters' gradient for kStates states of one vector of channels; all arrays (kStates, lanes). The sums of a block are
/// added to dq, dc at its end, so that rounding grows with the number of blocks and not of steps.
template <int kStates, bool kLagged, bool kCopy, class D, class T>
HWY_NOINLINE void params_pass(D d, const ParamsBlock<T>& block, const T* HWY_RESTRICT q, const T* HWY_RESTRICT lag,
                              const T* HWY_RESTRICT lag_derivative, T* HWY_RESTRICT state, T* HWY_RESTRICT derivative, T* HWY_RESTRICT dq,
                              T* HWY_RESTRICT dc) {
  using V = hn::Vec<D>;
  const size_t lanes = hn::Lanes(d);
  V s[kStates], e[kStates], qv[kStates], kv[kStates], lv[kStates], sum_q[kStates], sum_c[kStates];
#pragma GCC unroll 4
  for (int n = 0; n < kStates; ++n) {
    s[n] = hn::Load(d, state + n * lanes);
    e[n] = hn::Load(d, derivative + n * lanes);
    qv[n] = hn::Load(d, q + n * lanes);
    kv[n] = hn::Load(d, lag + n * lanes);
    lv[n] = hn::Load(d, lag_derivative + n * lanes);
    sum_q[n] = sum_c[n] = hn::Zero(d);
  }
  const T* HWY_RESTRICT x_row = block.x.data;
  const T* HWY_RESTRICT dy_row = block.dy.data;
  const T* HWY_RESTRICT lagged = block.lagged.data;
  for (int64_t t = 0; t < block.steps; ++t) {
    const V x = hn::LoadU(d, x_row);
    const V grad = hn::LoadU(d, dy_row);
    V x_lagged = x;
    if constexpr (kLagged) x_lagged = hn::LoadU(d, lagged);
    if constexpr (kCopy) {
      hn::Store(x, d, block.copy_x + t * lanes);
      hn::Store(grad, d, block.copy_dy + t * lanes);
      prefetch_next(x_row + kBlockSteps * block.x.stride);
      prefetch_next(dy_row + kBlockSteps * block.dy.stride);
      if constexpr (kLagged) {
        hn::Store(x_lagged, d, block.copy_lagged + t * lanes);
        prefetch_next(lagged + kBlockSteps * block.lagged.stride);
      }
    }
#pragma GCC unroll 4
    for (int n = 0; n < kStates; ++n) {
      V before = s[n];
      V u = x;
      if constexpr (kLagged) {
        before = hn::NegMulAdd(lv[n], x_lagged, before);
        u = hn::NegMulAdd(kv[n], x_lagged, u);
      }
      e[n] = hn::MulAdd(qv[n], e[n], before);
      s[n] = hn::MulAdd(qv[n], s[n], u);
      sum_q[n] = hn::MulAdd(grad, e[n], sum_q[n]);
      sum_c[n] = hn::MulAdd(grad, s[n], sum_c[n]);
    }
    x_row += block.x.stride;
    dy_row += block.dy.stride;
    if constexpr (kLagged) lagged += block.lagged.stride;
  }
#pragma GCC unroll 4
  for (int n = 0; n < kStates; ++n) {
    hn::Store(s[n], d, state + n * lanes);
    hn::Store(e[n], d, derivative + n * lanes);
    hn::Store(hn::Add(hn::Load(d, dq + n * lanes), sum_q[n]), d, dq + n * lanes);
    hn::Store(hn::Add(hn::Load(d, dc + n * lanes), sum_c[n]), d, dc + n * lanes);
  }
}

template <class T>
void run_params(const ParamsArgs<T>& args) {
  const hn::ScalableTag<T> d;
  constexpr int64_t kLanes = hn::MaxLanes(hn::ScalableTag<T>());
  constexpr int64_t kSize = kGroupVectors * kChunkStates * kLanes;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const EmaScanShape& shape = *args.shape;
  const int64_t dim = shape.channels, n_state = shape.n_state, truncation = shape.truncation;
  const bool reverse = shape.direction == ScanDirection::kReverse;
  const ptrdiff_t stride = reverse ? -dim : dim;
  const bool needs_power = any_lagged(shape, args.range, args.history != nullptr);

  HWY_ALIGN T q[kSize];
  HWY_ALIGN T lag[kSize];                         // q^L
  HWY_ALIGN T lag_derivative[kSize];              // L q^(L-1)
  bool lasts[kGroupVectors * kChunkStates] = {};  // whether one of the two is not zero in some lane
  HWY_ALIGN T state[kSize];
  HWY_ALIGN T derivative[kSize];  // e
  HWY_ALIGN T dq[kSize];
  HWY_ALIGN T dc[kSize];
  HWY_ALIGN T domega[kGroupVectors * kLanes];
  HWY_ALIGN T staged_x[kBlockSteps * kLanes];
  HWY_ALIGN T staged_lagged[kBlockSteps * kLanes];
  HWY_ALIGN T staged_dy[kBlockSteps * kLanes];

  for (int64_t group = args.range.channel_begin; group < args.range.channel_end; group += kGroupVectors * lanes) {
    const int64_t channels = std::min(kGroupVectors * lanes, args.range.channel_end - group);
    for (int64_t n_begin = 0; n_begin < n_state; n_begin += kChunkStates) {
      const int64_t n_count = std::min(kChunkStates, n_state - n_begin);
      transpose_in<kChunkStates>(d, args.q + group * n_state, n_state, channels, n_begin, n_count, q);
      if (needs_power) {
        for (int64_t v = 0; v * lanes < channels; ++v) {
          for (int64_t n = 0; n < n_count; ++n) {
            const int64_t at = (v * kChunkStates + n) * lanes;
            double wide[kLanes];
            integer_power<kLanes>(q + at, truncation, wide);
            for (int64_t i = 0; i < lanes; ++i) lag[at + i] = lag_coefficient<T>(wide[i]);
            integer_power<kLanes>(q + at, truncation - 1, wide);
            for (int64_t i = 0; i < lanes; ++i) lag_derivative[at + i] = lag_coefficient<T>(static_cast<double>(truncation) * wide[i]);
            lasts[v * kChunkStates + n] = any_nonzero(lag + at, lanes) || any_nonzero(lag_derivative + at, lanes);
          }
        }
      }
      for (int64_t b = args.range.seq_begin; b < args.range.seq_end; ++b) {
        const int64_t row_begin = shape.cu_seqlens[b], seq_len = shape.cu_seqlens[b + 1] - row_begin;
        const int64_t state_at = (b * dim + group) * n_state;
        transpose_in<kChunkStates>(d, args.state_in == nullptr ? nullptr : args.state_in + state_at, n_state, channels, n_begin, n_count, state);
        std::fill_n(derivative, kSize, T{0});
        std::fill_n(dq, kSize, T{0});
        std::fill_n(dc, kSize, T{0});
        std::fill_n(domega, kGroupVectors * kLanes, T{0});
        const int64_t first_at = (reverse ? row_begin + seq_len - 1 : row_begin) * dim + group;
        const T* x = seq_len > 0 ? args.x + first_at : nullptr;
        const T* dy = seq_len > 0 ? args.dy + first_at : nullptr;
        for (int64_t t = 0, steps = 0; t < seq_len; t += steps) {
          steps = block_steps(t, seq_len, truncation);
          Rows<const T> lagged;
          if (truncation > 0) {
            if (t >= truncation) {
              lagged = {x + (t - truncation) * stride, stride};
            } else if (args.history != nullptr) {
              lagged = {args.history + (b * truncation + t) * dim + group, dim};
            }
          }
          for (int64_t v = 0; v * lanes < channels; ++v) {
            const size_t count = static_cast<size_t>(std::min(lanes, channels - v * lanes));
            ParamsBlock<T> block;
            block.steps = steps;
            block.x = {x + t * stride + v * lanes, stride};
            block.dy = {dy + t * stride + v * lanes, stride};
            if (lagged.data != nullptr) block.lagged = {lagged.data + v * lanes, lagged.stride};
            bool copy = false;
            if (count < static_cast<size_t>(lanes)) {
              stage_in(d, steps, block.x, count, staged_x);
              stage_in(d, steps, block.dy, count, staged_dy);
              if (lagged.data != nullptr) {
                stage_in(d, steps, block.lagged, count, staged_lagged);
                block.lagged = {staged_lagged, lanes};
              }
              block.x = {staged_x, lanes};
              block.dy = {staged_dy, lanes};
            } else {
              copy = true;
              block.copy_x = staged_x;
              block.copy_dy = staged_dy;
              block.copy_lagged = staged_lagged;
            }
            int64_t n = 0;
            const auto pass = [&](auto width) HWY_ATTR {
              constexpr int kStates = decltype(width)::value;
              const int64_t at = (v * kChunkStates + n) * lanes;
              const bool lags = lagged.data != nullptr && any_nonzero(lasts + v * kChunkStates + n, kStates);
              const auto call = [&](auto with_lagged, auto with_copy) HWY_ATTR {
                params_pass<kStates, decltype(with_lagged)::value, decltype(with_copy)::value>(d, block, q + at, lag + at, lag_derivative + at,
                                                                                               state + at, derivative + at, dq + at, dc + at);
              };
              if (kStates == kParamsStates && copy) {
                constexpr std::bool_constant<kStates == kParamsStates> with_copy;
                lags ? call(std::true_type(), with_copy) : call(std::false_type(), with_copy);
                block.x = {staged_x, lanes};
                block.dy = {staged_dy, lanes};
                if (lags) block.lagged = {staged_lagged, lanes};
                copy = false;
              } else {
                lags ? call(std::true_type(), std::false_type()) : call(std::false_type(), std::false_type());
              }
              n += kStates;
            };
            while (n_count - n >= kParamsStates) pass(std::integral_constant<int, kParamsStates>());
            while (n_count - n >= 1) pass(std::integral_constant<int, 1>());
            if (args.domega != nullptr && n_begin == 0) add_dot(d, steps, block.x, block.dy, domega + v * lanes);
          }
        }
        // dq holds sum_t dy e: c and the final state's gradient come last.
        for (int64_t i = 0; i < channels; ++i) {
          for (int64_t n = 0; n < n_count; ++n) {
            const int64_t at = (i / lanes * kChunkStates + n) * lanes + i % lanes;
            const int64_t param_at = (group + i) * n_state + n_begin + n;
            T value = args.c[param_at] * dq[at];
            if (args.dstate_out != nullptr) value += args.dstate_out[b * dim * n_state + param_at] * derivative[at];
            dq[at] = value;
          }
        }
        transpose_out<kChunkStates>(d, dq, n_state, channels, n_begin, n_count, args.dq + state_at);
        transpose_out<kChunkStates>(d, dc, n_state, channels, n_begin, n_count, args.dc + state_at);
        if (args.domega != nullptr && n_begin == 0) std::copy_n(domega, channels, args.domega + b * dim + group);
      }
    }
  }
}

void forward_f32(const SweepArgs<float>& args) {
  run_sweep<Sweep::kForward>(args);
}
void forward_f64(const SweepArgs<double>& args) {
  run_sweep<Sweep::kForward>(args);
}
void input_f32(const SweepArgs<float>& args) {
  run_sweep<Sweep::kInput>(args);
}
void input_f64(const SweepArgs<double>& args) {
  run_sweep<Sweep::kInput>(args);
}
void history_f32(const SweepArgs<float>& args) {
  run_sweep<Sweep::kHistory>(args);
}
void history_f64(const SweepArgs<double>& args) {
  run_sweep<Sweep::kHistory>(args);
}
void params_f32(const ParamsArgs<float>& args) {
  run_params(args);
}
void params_f64(const ParamsArgs<double>& args) {
  run_params(args);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqboat::kernels {
namespace {

HWY_EXPORT(forward_f32);
HWY_EXPORT(forward_f64);
HWY_EXPORT(input_f32);
HWY_EXPORT(input_f64);
HWY_EXPORT(history_f32);
HWY_EXPORT(history_f64);
HWY_EXPORT(params_f32);
HWY_EXPORT(params_f64);

void run_forward(const SweepArgs<float>& args) {
  HWY_DYNAMIC_DISPATCH(forward_f32)(args);
}
void run_forward(const SweepArgs<double>& args) {
  HWY_DYNAMIC_DISPATCH(forward_f64)(args);
}
void run_input(const SweepArgs<float>& args) {
  HWY_DYNAMIC_DISPATCH(input_f32)(args);
}
void run_input(const SweepArgs<double>& args) {
  HWY_DYNAMIC_DISPATCH(input_f64)(args);
}
void run_history(const SweepArgs<float>& args) {
  HWY_DYNAMIC_DISPATCH(history_f32)(args);
}
void run_history(const SweepArgs<double>& args) {
  HWY_DYNAMIC_DISPATCH(history_f64)(args);
}
void run_params_dispatch(const ParamsArgs<float>& args) {
  HWY_DYNAMIC_DISPATCH(params_f32)(args);
}
void run_params_dispatch(const ParamsArgs<double>& args) {
  HWY_DYNAMIC_DISPATCH(params_f64)(args);
}

}  // namespace

template <class T>
void ema_scan_fwd(const EmaScanShape& shape, const EmaScanRange& range, const T* x, const T* q, const T* c, const T* omega, const T* state_in,
                  const T* history, T* y, bool accumulate, T* state_out) noexcept {
  const bool reverse = shape.direction == ScanDirection::kReverse;
  run_forward(SweepArgs<T>{&shape, range, reverse, x, q, c, omega, state_in, shape.truncation > 0 ? history : nullptr, y, accumulate, state_out});
}

template <class T>
void ema_scan_bwd_params(const EmaScanShape& shape, const EmaScanRange& range, const T* x, const T* q, const T* c, const T* state_in,
                         const T* history, const T* dy, const T* dstate_out, T* dq, T* dc, T* domega) noexcept {
  run_params_dispatch(ParamsArgs<T>{&shape, range, x, q, c, state_in, shape.truncation > 0 ? history : nullptr, dy, dstate_out, dq, dc, domega});
}

template <class T>
void ema_scan_bwd_input(const EmaScanShape& shape, const EmaScanRange& range, const T* q, const T* c, const T* omega, const T* dy,
                        const T* dstate_out, T* dx, bool accumulate, T* dstate_in, T* dhistory) noexcept {
  const bool from_end = shape.direction == ScanDirection::kForward;
  const bool truncated = shape.truncation > 0;
  run_input(SweepArgs<T>{&shape, range, from_end, dy, q, c, omega, dstate_out, nullptr, dx, accumulate, truncated ? nullptr : dstate_in});
  if (!truncated || (dstate_in == nullptr && dhistory == nullptr)) return;
  // The initial state and the inputs before the first act on every later state, while an input of the sequence leaves after L steps:
  // their gradients need the sum without the truncated term, a sweep of its own.
  if (dhistory != nullptr) {
    // Row t of the history acts from step t on: a sequence shorter than L leaves the youngest rows without effect.
    for (int64_t b = range.seq_begin; b < range.seq_end; ++b) {
      const int64_t seq_len = shape.cu_seqlens[b + 1] - shape.cu_seqlens[b];
      for (int64_t t = std::min(seq_len, shape.truncation); t < shape.truncation; ++t) {
        T* row = dhistory + (b * shape.truncation + t) * shape.channels;
        std::fill(row + range.channel_begin, row + range.channel_end, T{0});
      }
    }
  }
  run_history(SweepArgs<T>{&shape, range, from_end, dy, q, c, nullptr, dstate_out, nullptr, dhistory, false, dstate_in});
}

#define SEQBOAT_INSTANTIATE(T)                                                                                                                  \
  template void ema_scan_fwd<T>(const EmaScanShape&, const EmaScanRange&, const T*, const T*, const T*, const T*, const T*, const T*, T*, bool, \
                                T*) noexcept;                                                                                                   \
  template void ema_scan_bwd_params<T>(const EmaScanShape&, const EmaScanRange&, const T*, const T*, const T*, const T*, const T*, const T*,    \
                                       const T*, T*, T*, T*) noexcept;                                                                          \
  template void ema_scan_bwd_input<T>(const EmaScanShape&, const EmaScanRange&, const T*, const T*, const T*, const T*, const T*, T*, bool, T*, \
                                      T*) noexcept;
SEQBOAT_INSTANTIATE(float)
SEQBOAT_INSTANTIATE(double)
#undef SEQBOAT_INSTANTIATE

}  // namespace seqboat::kernels
#endif  // HWY_ONCE
