// S4D as a scan: channels in the vector lanes, modes in registers.
//
// Work is cut as in ema_scan.cc, outermost first; no cut changes the order of any sum:
//   group of kGroupVectors vectors of channels   parameters are transposed once to (vector, mode, number, lane) on the stack
//   chunk of kChunkModes modes                   so that the stack's size does not depend on P; y continues from memory
//   sequence, block of kBlockSteps time steps    x and y of a block stay in the first-level cache
//   vector of channels, pass of a few modes      the inner loop over the steps of the block
//
// A last vector with fewer channels than lanes is staged: its columns are copied to a full-width block on the stack, and the same
// loops run on that, so that the arithmetic of the tail is that of the body.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/s4d_scan.cc"
#include "hwy/foreach_target.h"
// foreach_target.h comes first.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/cpu/scan_blocks-inl.h"
#include "seqboat/kernels/s4d_scan.h"

#ifndef SEQBOAT_KERNELS_CPU_S4D_SCAN_ONCE_
#define SEQBOAT_KERNELS_CPU_S4D_SCAN_ONCE_
namespace seqboat::kernels {
namespace {

/// What one sweep over the sequences does with each mode. `in` is x or dy, `lagged` its value L steps earlier in the order of the sweep.
enum class Sweep {
  kForward,  ///< s = d s + (in - d^L lagged);                         out += 2 Re(w s)
  kInput,    ///< g = p - 2 conj(d^L w) lagged + 2 conj(w) in;   p = conj(d) g;   out += Re g
  kHistory,  ///< g = p + 2 conj(w) in;                          p = conj(d) g;   out -= Re(conj(d^L) g)
};

template <class T>
struct SweepArgs {
  const S4dScanShape* shape;
  S4dScanRange range;
  bool from_end;  // walk each sequence from its last row to its first
  const T* in;
  const T* d;
  const T* w;
  const T* skip;
  const T* state_in;
  const T* history;
  T* out;
  bool accumulate;
  T* state_out;
};

template <class T>
struct ParamsArgs {
  const S4dScanShape* shape;
  S4dScanRange range;
  const T* x;
  const T* d;
  const T* w;
  const T* state_in;
  const T* history;
  const T* dy;
  const T* dstate_out;
  T* dd;
  T* dw;
  T* dskip;
};

constexpr int64_t kGroupVectors = 4;
constexpr int64_t kChunkModes = 16;
constexpr int64_t kChunkReals = 2 * kChunkModes;

}  // namespace
}  // namespace seqboat::kernels
#endif  // SEQBOAT_KERNELS_CPU_S4D_SCAN_ONCE_

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

// Modes of one pass: s, d, 2 w of each (sweeps) or s, e, two sums, d (parameters), two registers a number.
constexpr int kSweepModes = 4;
constexpr int kParamsModes = 2;

/// Numbers that a pass reads of each mode, a vector each: d, and (c0, c1) = 2 conj(w), so that 2 Re(w s) = c0 Re s + c1 Im s.
enum { kRe, kIm, kC0, kC1, kCoefficients };
/// What the parameters' gradient carries of each mode: s and e.
enum { kSRe, kSIm, kERe, kEIm, kCarried };
/// Its terms of x[t-L]: d^L and L d^(L-1).
enum { kPowerRe, kPowerIm, kSlopeRe, kSlopeIm, kLags };

/// d^exponent of kCount numbers, in double by repeated squaring: the same bits on every machine.
template <int64_t kCount, class T>
void complex_power(const T* re, const T* im, int64_t exponent, double* power_re, double* power_im) {
  double square_re[kCount], square_im[kCount];
  for (int64_t i = 0; i < kCount; ++i) {
    power_re[i] = 1.0;
    power_im[i] = 0.0;
    square_re[i] = static_cast<double>(re[i]);
    square_im[i] = static_cast<double>(im[i]);
  }
  for (; exponent != 0; exponent >>= 1) {
    if (exponent & 1) {
      for (int64_t i = 0; i < kCount; ++i) {
        const double product = power_re[i] * square_re[i] - power_im[i] * square_im[i];
        power_im[i] = power_re[i] * square_im[i] + power_im[i] * square_re[i];
        power_re[i] = product;
      }
    }
    for (int64_t i = 0; i < kCount; ++i) {
      const double product = square_re[i] * square_re[i] - square_im[i] * square_im[i];
      square_im[i] = 2.0 * (square_re[i] * square_im[i]);
      square_re[i] = product;
    }
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

/// coefficients (kModes, kCoefficients, lanes), lag and state (kModes, 2, lanes), skip: one vector or nullptr. kCopy: write copy_in (and
/// copy_lagged), prefetch the next block.
template <Sweep kSweep, int kModes, bool kLagged, bool kCopy, class D, class T>
HWY_NOINLINE void sweep_pass(D d, const Block<T>& block, const T* HWY_RESTRICT coefficients, const T* HWY_RESTRICT lag, const T* HWY_RESTRICT skip,
                             T* HWY_RESTRICT state) {
  using V = hn::Vec<D>;
  const size_t lanes = hn::Lanes(d);
  V s_re[kModes], s_im[kModes], d_re[kModes], d_im[kModes], c0[kModes], c1[kModes], k_re[kModes], k_im[kModes];
#pragma GCC unroll 8
  for (int n = 0; n < kModes; ++n) {
    s_re[n] = hn::Load(d, state + (2 * n) * lanes);
    s_im[n] = hn::Load(d, state + (2 * n + 1) * lanes);
    d_re[n] = hn::Load(d, coefficients + (n * kCoefficients + kRe) * lanes);
    d_im[n] = hn::Load(d, coefficients + (n * kCoefficients + kIm) * lanes);
    c0[n] = hn::Load(d, coefficients + (n * kCoefficients + kC0) * lanes);
    c1[n] = hn::Load(d, coefficients + (n * kCoefficients + kC1) * lanes);
    k_re[n] = hn::Load(d, lag + (2 * n) * lanes);
    k_im[n] = hn::Load(d, lag + (2 * n + 1) * lanes);
  }
  // p = conj(d) g: products by themselves, so that a gradient handed from one call to the next is the one a single call carries.
  const auto turn_back = [&](int n) HWY_ATTR {
    const V re = hn::MulAdd(d_im[n], s_im[n], hn::Mul(d_re[n], s_re[n]));
    s_im[n] = hn::NegMulAdd(d_im[n], s_re[n], hn::Mul(d_re[n], s_im[n]));
    s_re[n] = re;
  };
  const T* HWY_RESTRICT in = block.in.data;
  const T* HWY_RESTRICT lagged = block.lagged.data;
  const T* base = block.base.data;
  T* out = block.out.data;
  T* HWY_RESTRICT copy_in = block.copy_in;
  T* HWY_RESTRICT copy_lagged = block.copy_lagged;
  // The gradient sweeps carry g from step to step and make p where it is used, as in ema_scan.cc. The first step finds p itself, as it is stored.
  const auto step = [&](auto first) HWY_ATTR {
    const V x = hn::LoadU(d, in);
    V acc = hn::Zero(d);
    if (base != nullptr) acc = hn::LoadU(d, base);
    if (skip != nullptr) acc = hn::MulAdd(hn::Load(d, skip), x, acc);
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
    for (int n = 0; n < kModes; ++n) {
      if constexpr (kSweep == Sweep::kForward) {
        // A lagged value of zero changes nothing (but for the sign of a zero), so that a block without one may skip the terms.
        V from_x = x, from_s = hn::Mul(d_im[n], s_re[n]);
        if constexpr (kLagged) {
          from_x = hn::NegMulAdd(k_re[n], x_lagged, from_x);
          from_s = hn::NegMulAdd(k_im[n], x_lagged, from_s);
        }
        from_x = hn::NegMulAdd(d_im[n], s_im[n], from_x);
        s_im[n] = hn::MulAdd(d_re[n], s_im[n], from_s);
        s_re[n] = hn::MulAdd(d_re[n], s_re[n], from_x);
        acc = hn::MulAdd(c0[n], s_re[n], acc);
        acc = hn::MulAdd(c1[n], s_im[n], acc);
      } else {
        if constexpr (!decltype(first)::value) turn_back(n);
        if constexpr (kLagged) {
          s_re[n] = hn::NegMulAdd(k_re[n], x_lagged, s_re[n]);
          s_im[n] = hn::NegMulAdd(k_im[n], x_lagged, s_im[n]);
        }
        s_re[n] = hn::MulAdd(c0[n], x, s_re[n]);
        s_im[n] = hn::MulAdd(c1[n], x, s_im[n]);
        if constexpr (kSweep == Sweep::kInput) {
          acc = hn::Add(acc, s_re[n]);
        } else {
          acc = hn::NegMulAdd(k_re[n], s_re[n], acc);
          acc = hn::NegMulAdd(k_im[n], s_im[n], acc);
        }
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
  for (int n = 0; n < kModes; ++n) {
    if (kSweep != Sweep::kForward && block.steps > 0) turn_back(n);
    hn::Store(s_re[n], d, state + (2 * n) * lanes);
    hn::Store(s_im[n], d, state + (2 * n + 1) * lanes);
  }
}

/// All modes of a chunk, pass after pass. lasts: which modes' lag is not zero. staged_out: room for the sums between two passes.
template <Sweep kSweep, class D, class T>
void sweep_modes(D d, Block<T> block, int64_t n_modes, const T* coefficients, const T* lag, const bool* lasts, const T* skip, T* state,
                 T* staged_out) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const Rows<T> final_out = block.out;
  const bool copies = block.copy_in != nullptr;
  int64_t n = 0;
  const auto pass = [&](auto width) HWY_ATTR {
    constexpr int kModes = decltype(width)::value;
    const T* mine = coefficients + n * kCoefficients * lanes;
    const int64_t at = 2 * n * lanes;
    const bool last = n + kModes == n_modes;
    block.out = last ? final_out : Rows<T>{staged_out, lanes};
    const bool lagged = block.lagged.data != nullptr && any_nonzero(lasts + n, kModes);
    const auto call = [&](auto with_lagged, auto with_copy) HWY_ATTR {
      constexpr bool kLagged = kSweep != Sweep::kHistory && decltype(with_lagged)::value;
      sweep_pass<kSweep, kModes, kLagged, decltype(with_copy)::value>(d, block, mine, lag + at, skip, state + at);
    };
    if (kModes == kSweepModes && n == 0 && !last && copies) {
      constexpr std::bool_constant<kModes == kSweepModes> with_copy;
      lagged ? call(std::true_type(), with_copy) : call(std::false_type(), with_copy);
      block.in = {block.copy_in, lanes};
      if (lagged) block.lagged = {block.copy_lagged, lanes};
    } else {
      lagged ? call(std::true_type(), std::false_type()) : call(std::false_type(), std::false_type());
    }
    block.base = {staged_out, lanes};
    skip = nullptr;
    n += kModes;
  };
  while (n_modes - n >= kSweepModes) pass(std::integral_constant<int, kSweepModes>());
  while (n_modes - n >= 1) pass(std::integral_constant<int, 1>());
}

/// Coefficients of one vector's modes from d and w as they lie transposed, (mode, [re, im], lane).
template <class T>
void make_coefficients(int64_t n_modes, int64_t lanes, const T* d, const T* w, T* coefficients) {
  for (int64_t n = 0; n < n_modes; ++n, d += 2 * lanes, w += 2 * lanes, coefficients += kCoefficients * lanes) {
    for (int64_t i = 0; i < lanes; ++i) {
      coefficients[kRe * lanes + i] = d[i];
      coefficients[kIm * lanes + i] = d[lanes + i];
      coefficients[kC0 * lanes + i] = T{2} * w[i];
      coefficients[kC1 * lanes + i] = T{-2} * w[lanes + i];
    }
  }
}

template <Sweep kSweep, class T>
void run_sweep(const SweepArgs<T>& args) {
  const hn::ScalableTag<T> d;
  constexpr int64_t kLanes = hn::MaxLanes(hn::ScalableTag<T>());
  constexpr int64_t kSize = kGroupVectors * kChunkReals * kLanes;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const S4dScanShape& shape = *args.shape;
  const int64_t dim = shape.channels, n_reals = 2 * shape.n_modes, truncation = shape.truncation;
  const ptrdiff_t stride = args.from_end ? -dim : dim;
  // The gradient of the history lies in scan order, which this sweep walks backwards, whichever way the sequence lies.
  const ptrdiff_t out_stride = kSweep == Sweep::kHistory ? -dim : stride;
  const bool needs_power = kSweep == Sweep::kHistory || any_lagged(shape, args.range, args.history != nullptr);

  HWY_ALIGN T decay[kSize];   // d
  HWY_ALIGN T weight[kSize];  // w
  HWY_ALIGN T coefficients[kSize / 2 * kCoefficients];
  HWY_ALIGN T lag[kSize];                        // d^L, or 2 conj(d^L w) for kInput
  HWY_ALIGN T power[kSize];                      // d^L for kInput
  bool lasts[kGroupVectors * kChunkModes] = {};  // whether d^L of a mode is not zero in some lane
  HWY_ALIGN T state[kSize];
  HWY_ALIGN T skip[kGroupVectors * kLanes];
  HWY_ALIGN T staged_in[kBlockSteps * kLanes];
  HWY_ALIGN T staged_lagged[kBlockSteps * kLanes];
  HWY_ALIGN T staged_out[kBlockSteps * kLanes];

  for (int64_t group = args.range.channel_begin; group < args.range.channel_end; group += kGroupVectors * lanes) {
    const int64_t channels = std::min(kGroupVectors * lanes, args.range.channel_end - group);
    if (args.skip != nullptr) {
      for (int64_t i = 0; i < kGroupVectors * lanes; ++i) skip[i] = i < channels ? args.skip[group + i] : T{0};
    }
    for (int64_t begin = 0; begin < n_reals; begin += kChunkReals) {
      const int64_t count_reals = std::min(kChunkReals, n_reals - begin), n_modes = count_reals / 2;
      transpose_in<kChunkReals>(d, args.d + group * n_reals, n_reals, channels, begin, count_reals, decay);
      transpose_in<kChunkReals>(d, args.w + group * n_reals, n_reals, channels, begin, count_reals, weight);
      for (int64_t v = 0; v * lanes < channels; ++v) {
        const int64_t at = v * kChunkReals * lanes;
        make_coefficients(n_modes, lanes, decay + at, weight + at, coefficients + at / 2 * kCoefficients);
        for (int64_t n = 0; needs_power && n < n_modes; ++n) {
          const int64_t re = at + 2 * n * lanes, im = re + lanes;
          double power_re[kLanes], power_im[kLanes];
          complex_power<kLanes>(decay + re, decay + im, truncation, power_re, power_im);
          for (int64_t i = 0; i < lanes; ++i) {
            // The gradient of a history is a sum of such terms alone: there none is beside larger ones.
            const bool whole = kSweep == Sweep::kHistory;
            power[re + i] = lag[re + i] = whole ? static_cast<T>(power_re[i]) : lag_coefficient<T>(power_re[i]);
            power[im + i] = lag[im + i] = whole ? static_cast<T>(power_im[i]) : lag_coefficient<T>(power_im[i]);
            if (kSweep != Sweep::kInput || (power[re + i] == T{0} && power[im + i] == T{0})) continue;
            const double w_re = static_cast<double>(weight[re + i]), w_im = static_cast<double>(weight[im + i]);
            lag[re + i] = static_cast<T>(2 * (power_re[i] * w_re - power_im[i] * w_im));
            lag[im + i] = static_cast<T>(-2 * (power_re[i] * w_im + power_im[i] * w_re));
          }
          lasts[v * kChunkModes + n] = any_nonzero(power + re, 2 * lanes);
        }
      }
      for (int64_t b = args.range.seq_begin; b < args.range.seq_end; ++b) {
        const int64_t row_begin = shape.cu_seqlens[b], seq_len = shape.cu_seqlens[b + 1] - row_begin;
        const int64_t state_at = (b * dim + group) * n_reals;
        transpose_in<kChunkReals>(d, args.state_in == nullptr ? nullptr : args.state_in + state_at, n_reals, channels, begin, count_reals, state);
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
            const T* from = args.state_in + state_at + begin;
            for (int64_t i = 0; i < channels; ++i) {
              for (int64_t n = 0; n < n_modes; ++n) {
                const int64_t at = (i / lanes * kChunkReals + 2 * n) * lanes + i % lanes;
                const T g_re = from[i * n_reals + 2 * n], g_im = from[i * n_reals + 2 * n + 1];
                state[at] -= power[at] * g_re + power[at + lanes] * g_im;
                state[at + lanes] -= power[at] * g_im - power[at + lanes] * g_re;
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
            const int64_t at = v * kChunkReals * lanes;
            const T* skip_here = args.skip != nullptr && begin == 0 ? skip + v * lanes : nullptr;
            const Rows<T> out_here{discard ? nullptr : out + t * out_stride + v * lanes, out_stride};
            const bool load_out = (args.accumulate || begin > 0) && !discard;
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
            const T* mine = coefficients + at / 2 * kCoefficients;
            sweep_modes<kSweep>(d, block, n_modes, mine, lag + at, lasts + v * kChunkModes, skip_here, state + at, staged_out);
            if (partial && !discard) stage_out(d, steps, staged_out, count, out_here);
          }
        }
        if (args.state_out != nullptr) transpose_out<kChunkReals>(d, state, n_reals, channels, begin, count_reals, args.state_out + state_at);
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

/// One block of the parameters' gradient for kModes modes of one vector of channels: coefficients (kModes, kCoefficients, lanes), lag (kModes, kLags,
/// lanes), carried (kModes, kCarried, lanes) and sums of dy times that. The sums of a block are added at its end, so that rounding grows with the
/// number of blocks and not of steps.
template <int kModes, bool kLagged, bool kCopy, class D, class T>
HWY_NOINLINE void params_pass(D d, const ParamsBlock<T>& block, const T* HWY_RESTRICT coefficients, const T* HWY_RESTRICT lag,
                              T* HWY_RESTRICT carried, T* HWY_RESTRICT sums) {
  using V = hn::Vec<D>;
  const size_t lanes = hn::Lanes(d);
  V s_re[kModes], s_im[kModes], e_re[kModes], e_im[kModes], d_re[kModes], d_im[kModes], sum[kModes][kCarried];
  V power_re[kModes], power_im[kModes], slope_re[kModes], slope_im[kModes];
#pragma GCC unroll 4
  for (int n = 0; n < kModes; ++n) {
    s_re[n] = hn::Load(d, carried + (n * kCarried + kSRe) * lanes);
    s_im[n] = hn::Load(d, carried + (n * kCarried + kSIm) * lanes);
    e_re[n] = hn::Load(d, carried + (n * kCarried + kERe) * lanes);
    e_im[n] = hn::Load(d, carried + (n * kCarried + kEIm) * lanes);
    d_re[n] = hn::Load(d, coefficients + (n * kCoefficients + kRe) * lanes);
    d_im[n] = hn::Load(d, coefficients + (n * kCoefficients + kIm) * lanes);
    power_re[n] = hn::Load(d, lag + (n * kLags + kPowerRe) * lanes);
    power_im[n] = hn::Load(d, lag + (n * kLags + kPowerIm) * lanes);
    slope_re[n] = hn::Load(d, lag + (n * kLags + kSlopeRe) * lanes);
    slope_im[n] = hn::Load(d, lag + (n * kLags + kSlopeIm) * lanes);
    sum[n][kSRe] = sum[n][kSIm] = sum[n][kERe] = sum[n][kEIm] = hn::Zero(d);
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
    for (int n = 0; n < kModes; ++n) {
      // s as in sweep_pass, e = d e + (s before - L d^(L-1) lagged).
      V from_x = x, from_s = hn::Mul(d_im[n], s_re[n]), before_re = s_re[n], before_im = s_im[n];
      if constexpr (kLagged) {
        from_x = hn::NegMulAdd(power_re[n], x_lagged, from_x);
        from_s = hn::NegMulAdd(power_im[n], x_lagged, from_s);
        before_re = hn::NegMulAdd(slope_re[n], x_lagged, before_re);
        before_im = hn::NegMulAdd(slope_im[n], x_lagged, before_im);
      }
      from_x = hn::NegMulAdd(d_im[n], s_im[n], from_x);
      s_im[n] = hn::MulAdd(d_re[n], s_im[n], from_s);
      s_re[n] = hn::MulAdd(d_re[n], s_re[n], from_x);
      before_re = hn::NegMulAdd(d_im[n], e_im[n], before_re);
      before_im = hn::MulAdd(d_im[n], e_re[n], before_im);
      e_re[n] = hn::MulAdd(d_re[n], e_re[n], before_re);
      e_im[n] = hn::MulAdd(d_re[n], e_im[n], before_im);
      sum[n][kSRe] = hn::MulAdd(grad, s_re[n], sum[n][kSRe]);
      sum[n][kSIm] = hn::MulAdd(grad, s_im[n], sum[n][kSIm]);
      sum[n][kERe] = hn::MulAdd(grad, e_re[n], sum[n][kERe]);
      sum[n][kEIm] = hn::MulAdd(grad, e_im[n], sum[n][kEIm]);
    }
    x_row += block.x.stride;
    dy_row += block.dy.stride;
    if constexpr (kLagged) lagged += block.lagged.stride;
  }
#pragma GCC unroll 4
  for (int n = 0; n < kModes; ++n) {
    hn::Store(s_re[n], d, carried + (n * kCarried + kSRe) * lanes);
    hn::Store(s_im[n], d, carried + (n * kCarried + kSIm) * lanes);
    hn::Store(e_re[n], d, carried + (n * kCarried + kERe) * lanes);
    hn::Store(e_im[n], d, carried + (n * kCarried + kEIm) * lanes);
#pragma GCC unroll 4
    for (int i = 0; i < kCarried; ++i) {
      T* total = sums + (n * kCarried + i) * lanes;
      hn::Store(hn::Add(hn::Load(d, total), sum[n][i]), d, total);
    }
  }
}

template <class T>
void run_params(const ParamsArgs<T>& args) {
  const hn::ScalableTag<T> d;
  constexpr int64_t kLanes = hn::MaxLanes(hn::ScalableTag<T>());
  constexpr int64_t kModesOfGroup = kGroupVectors * kChunkModes;
  constexpr int64_t kSize = 2 * kModesOfGroup * kLanes;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const S4dScanShape& shape = *args.shape;
  const int64_t dim = shape.channels, n_reals = 2 * shape.n_modes, truncation = shape.truncation;
  const bool reverse = shape.direction == ScanDirection::kReverse;
  const ptrdiff_t stride = reverse ? -dim : dim;
  const bool needs_power = any_lagged(shape, args.range, args.history != nullptr);

  HWY_ALIGN T decay[kSize];
  HWY_ALIGN T weight[kSize];
  HWY_ALIGN T coefficients[kModesOfGroup * kCoefficients * kLanes];
  HWY_ALIGN T lag[kModesOfGroup * kLags * kLanes];
  bool lasts[kModesOfGroup] = {};  // whether one of a mode's lags is not zero in some lane
  HWY_ALIGN T carried[kModesOfGroup * kCarried * kLanes];
  HWY_ALIGN T sums[kModesOfGroup * kCarried * kLanes];
  HWY_ALIGN T results[kSize];  // what is transposed in or out: the state, dd, dw
  HWY_ALIGN T dskip[kGroupVectors * kLanes];
  HWY_ALIGN T staged_x[kBlockSteps * kLanes];
  HWY_ALIGN T staged_lagged[kBlockSteps * kLanes];
  HWY_ALIGN T staged_dy[kBlockSteps * kLanes];

  for (int64_t group = args.range.channel_begin; group < args.range.channel_end; group += kGroupVectors * lanes) {
    const int64_t channels = std::min(kGroupVectors * lanes, args.range.channel_end - group);
    for (int64_t begin = 0; begin < n_reals; begin += kChunkReals) {
      const int64_t count_reals = std::min(kChunkReals, n_reals - begin), n_modes = count_reals / 2;
      transpose_in<kChunkReals>(d, args.d + group * n_reals, n_reals, channels, begin, count_reals, decay);
      transpose_in<kChunkReals>(d, args.w + group * n_reals, n_reals, channels, begin, count_reals, weight);
      // Every vector's modes: mode(v, n) is its place, a vector of each number.
      const auto mode = [](int64_t v, int64_t n) { return v * kChunkModes + n; };
      for (int64_t v = 0; v * lanes < channels; ++v) {
        make_coefficients(n_modes, lanes, decay + 2 * mode(v, 0) * lanes, weight + 2 * mode(v, 0) * lanes,
                          coefficients + mode(v, 0) * kCoefficients * lanes);
        for (int64_t n = 0; needs_power && n < n_modes; ++n) {
          const T* re = decay + 2 * mode(v, n) * lanes;
          T* k = lag + mode(v, n) * kLags * lanes;
          double power_re[kLanes], power_im[kLanes];
          complex_power<kLanes>(re, re + lanes, truncation, power_re, power_im);
          for (int64_t i = 0; i < lanes; ++i) {
            k[kPowerRe * lanes + i] = lag_coefficient<T>(power_re[i]);
            k[kPowerIm * lanes + i] = lag_coefficient<T>(power_im[i]);
          }
          complex_power<kLanes>(re, re + lanes, truncation - 1, power_re, power_im);
          for (int64_t i = 0; i < lanes; ++i) {
            k[kSlopeRe * lanes + i] = lag_coefficient<T>(static_cast<double>(truncation) * power_re[i]);
            k[kSlopeIm * lanes + i] = lag_coefficient<T>(static_cast<double>(truncation) * power_im[i]);
          }
          lasts[mode(v, n)] = any_nonzero(k, kLags * lanes);
        }
      }
      for (int64_t b = args.range.seq_begin; b < args.range.seq_end; ++b) {
        const int64_t row_begin = shape.cu_seqlens[b], seq_len = shape.cu_seqlens[b + 1] - row_begin;
        const int64_t state_at = (b * dim + group) * n_reals;
        transpose_in<kChunkReals>(d, args.state_in == nullptr ? nullptr : args.state_in + state_at, n_reals, channels, begin, count_reals, results);
        std::fill_n(carried, kModesOfGroup * kCarried * kLanes, T{0});
        std::fill_n(sums, kModesOfGroup * kCarried * kLanes, T{0});
        std::fill_n(dskip, kGroupVectors * kLanes, T{0});
        for (int64_t v = 0; v * lanes < channels; ++v) {
          for (int64_t n = 0; n < n_modes; ++n) {
            const T* from = results + 2 * mode(v, n) * lanes;
            std::copy_n(from, lanes, carried + (mode(v, n) * kCarried + kSRe) * lanes);
            std::copy_n(from + lanes, lanes, carried + (mode(v, n) * kCarried + kSIm) * lanes);
          }
        }
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
              constexpr int kModes = decltype(width)::value;
              const bool lags = lagged.data != nullptr && any_nonzero(lasts + mode(v, n), kModes);
              const auto call = [&](auto with_lagged, auto with_copy) HWY_ATTR {
                params_pass<kModes, decltype(with_lagged)::value, decltype(with_copy)::value>(
                    d, block, coefficients + mode(v, n) * kCoefficients * lanes, lag + mode(v, n) * kLags * lanes,
                    carried + mode(v, n) * kCarried * lanes, sums + mode(v, n) * kCarried * lanes);
              };
              if (kModes == kParamsModes && copy) {
                constexpr std::bool_constant<kModes == kParamsModes> with_copy;
                lags ? call(std::true_type(), with_copy) : call(std::false_type(), with_copy);
                block.x = {staged_x, lanes};
                block.dy = {staged_dy, lanes};
                if (lags) block.lagged = {staged_lagged, lanes};
                copy = false;
              } else {
                lags ? call(std::true_type(), std::false_type()) : call(std::false_type(), std::false_type());
              }
              n += kModes;
            };
            while (n_modes - n >= kParamsModes) pass(std::integral_constant<int, kParamsModes>());
            while (n_modes - n >= 1) pass(std::integral_constant<int, 1>());
            if (args.dskip != nullptr && begin == 0) add_dot(d, steps, block.x, block.dy, dskip + v * lanes);
          }
        }
        // The sums are of dy s and dy e: w and the final state's gradient come last.
        const auto finish = [&](const auto& gradient_of, T* to) {
          for (int64_t i = 0; i < channels; ++i) {
            for (int64_t n = 0; n < n_modes; ++n) {
              const int64_t place = mode(i / lanes, n), lane = i % lanes;
              T* pair = results + 2 * place * lanes + lane;
              gradient_of(place * kCarried * lanes + lane, (group + i) * n_reals + begin + 2 * n, pair[0], pair[lanes]);
            }
          }
          transpose_out<kChunkReals>(d, results, n_reals, channels, begin, count_reals, to + state_at);
        };
        finish(
            [&](int64_t at, int64_t, T& re, T& im) {
              re = T{2} * sums[at + kSRe * lanes];
              im = T{-2} * sums[at + kSIm * lanes];
            },
            args.dw);
        finish(
            [&](int64_t at, int64_t param_at, T& re, T& im) {
              const T w_re = args.w[param_at], w_im = args.w[param_at + 1], e_re = sums[at + kERe * lanes], e_im = sums[at + kEIm * lanes];
              re = T{2} * (w_re * e_re - w_im * e_im);
              im = T{-2} * (w_re * e_im + w_im * e_re);
              if (args.dstate_out == nullptr) return;
              const T* g = args.dstate_out + b * dim * n_reals + param_at;
              re += g[0] * carried[at + kERe * lanes] + g[1] * carried[at + kEIm * lanes];
              im += g[1] * carried[at + kERe * lanes] - g[0] * carried[at + kEIm * lanes];
            },
            args.dd);
        if (args.dskip != nullptr && begin == 0) std::copy_n(dskip, channels, args.dskip + b * dim + group);
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
void s4d_scan_fwd(const S4dScanShape& shape, const S4dScanRange& range, const T* x, const T* d, const T* w, const T* skip, const T* state_in,
                  const T* history, T* y, bool accumulate, T* state_out) noexcept {
  const bool reverse = shape.direction == ScanDirection::kReverse;
  run_forward(SweepArgs<T>{&shape, range, reverse, x, d, w, skip, state_in, shape.truncation > 0 ? history : nullptr, y, accumulate, state_out});
}

template <class T>
void s4d_scan_bwd_params(const S4dScanShape& shape, const S4dScanRange& range, const T* x, const T* d, const T* w, const T* state_in,
                         const T* history, const T* dy, const T* dstate_out, T* dd, T* dw, T* dskip) noexcept {
  run_params_dispatch(ParamsArgs<T>{&shape, range, x, d, w, state_in, shape.truncation > 0 ? history : nullptr, dy, dstate_out, dd, dw, dskip});
}

template <class T>
void s4d_scan_bwd_input(const S4dScanShape& shape, const S4dScanRange& range, const T* d, const T* w, const T* skip, const T* dy, const T* dstate_out,
                        T* dx, bool accumulate, T* dstate_in, T* dhistory) noexcept {
  const bool from_end = shape.direction == ScanDirection::kForward;
  const bool truncated = shape.truncation > 0;
  run_input(SweepArgs<T>{&shape, range, from_end, dy, d, w, skip, dstate_out, nullptr, dx, accumulate, truncated ? nullptr : dstate_in});
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
  run_history(SweepArgs<T>{&shape, range, from_end, dy, d, w, nullptr, dstate_out, nullptr, dhistory, false, dstate_in});
}

#define SEQBOAT_INSTANTIATE(T)                                                                                                                  \
  template void s4d_scan_fwd<T>(const S4dScanShape&, const S4dScanRange&, const T*, const T*, const T*, const T*, const T*, const T*, T*, bool, \
                                T*) noexcept;                                                                                                   \
  template void s4d_scan_bwd_params<T>(const S4dScanShape&, const S4dScanRange&, const T*, const T*, const T*, const T*, const T*, const T*,    \
                                       const T*, T*, T*, T*) noexcept;                                                                          \
  template void s4d_scan_bwd_input<T>(const S4dScanShape&, const S4dScanRange&, const T*, const T*, const T*, const T*, const T*, T*, bool, T*, \
                                      T*) noexcept;
SEQBOAT_INSTANTIATE(float)
SEQBOAT_INSTANTIATE(double)
#undef SEQBOAT_INSTANTIATE

}  // namespace seqboat::kernels
#endif  // HWY_ONCE
