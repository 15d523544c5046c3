#include "seqboat/kernels/dropout.h"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/dropout.cc"
// clang-format off
#include "hwy/foreach_target.h"  // must come before highway.h
// clang-format on
#include "hwy/highway.h"
#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/vector_loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace {

constexpr int kRounds = 10;
constexpr int64_t kGroupChannels = 8;  // a call of Philox gives 128 bits, a channel takes 16
constexpr int64_t kGroupsAtOnce = 32;  // draws made before they are used: 4 KB with the widest vectors

// The finaliser of splitmix64: a bijection in which every bit of the input reaches every bit of the output.
uint64_t mix(uint64_t v) {
  v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9u;
  v = (v ^ (v >> 27)) * 0x94d049bb133111ebu;
  return v ^ (v >> 31);
}

// A channel is dropped where its draw of 16 bits is below.
int32_t dropout_threshold(double p) {
  return p > 0 ? static_cast<int32_t>(std::lround(std::min(p, 1.0) * 65536)) : 0;
}

// For a fixed seed a bijection of the packed fields; what does not fit into them changes the seed instead.
uint64_t philox_key(const DropoutKey& key) {
  const uint64_t packed =
      (key.site & 0xffu) | uint64_t{key.layer & 0xfffu} << 8 | uint64_t{key.micro_batch & 0xfffu} << 20 | (key.update & 0xffffffffu) << 32;
  uint64_t seed = mix(key.seed + 0x9e3779b97f4a7c15u);
  const uint64_t surplus[] = {key.update >> 32, uint64_t{key.micro_batch} >> 12, uint64_t{key.layer} >> 12, uint64_t{key.site} >> 8};
  for (uint64_t i = 0; i < 4; ++i) {
    if (surplus[i] != 0) seed = mix(seed ^ mix(surplus[i] * 4 + i));
  }
  return mix(packed ^ seed);
}

// Lanes of 64 bits of which only the lower half counts: what the upper one holds is never looked at, so a product stays where the multiplication
// leaves it, its lower half in place and its upper half one exchange of halves away.
using D64 = hn::ScalableTag<uint64_t>;
using V64 = hn::Vec<D64>;

HWY_INLINE V64 product_of_low_halves(D64 d, V64 a, V64 b) {
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(d, (hn::GetLane(a) & 0xffffffffu) * (hn::GetLane(b) & 0xffffffffu));
#else
  static_cast<void>(d);
  const hn::RepartitionToNarrow<D64> d32;
  return hn::MulEven(hn::BitCast(d32, a), hn::BitCast(d32, b));
#endif
}

HWY_INLINE V64 high_half(D64 d, V64 v) {
#if HWY_TARGET == HWY_SCALAR
  static_cast<void>(d);
  return hn::ShiftRight<32>(v);
#else
  const hn::RepartitionToNarrow<D64> d32;
  return hn::BitCast(d, hn::Shuffle2301(hn::BitCast(d32, v)));
#endif
}

// Eight rows (with 512 bits) side by side, a row a lane: no row's end leaves lanes idle, and what depends on the row alone is computed once.
// Philox's first two rounds, as far as they do not know the channel: with c0 the only word that does,
//   round 0:  c0' = high(c2 M1) ^ c1 ^ k   c1' = low(c2 M1)   c2' = high(c0 M0) ^ c3 ^ k   c3' = low(c0 M0)
// the first two do not know it, and in round 1 neither does their product.
struct RowLanes {
  V64 position_high;  // shifted to its place in word 0
  V64 word2, word0_of_2, word2_of_2, word3_of_2;
};

struct RoundKeys {
  uint64_t k0[kRounds], k1[kRounds];
};

RoundKeys round_keys(const DropoutKey& key) {
  const uint64_t mixed = philox_key(key);
  RoundKeys out;
  for (uint32_t round = 0; round < uint32_t{kRounds}; ++round) {
    out.k0[round] = static_cast<uint32_t>(mixed) + round * 0x9E3779B9u;
    out.k1[round] = static_cast<uint32_t>(mixed >> 32) + round * 0xBB67AE85u;
  }
  return out;
}

HWY_INLINE RowLanes start_rows(D64 d, const RoundKeys& keys, V64 sequence, V64 position) {
  const V64 multiplier0 = hn::Set(d, 0xD2511F53u), multiplier1 = hn::Set(d, 0xCD9E8D57u);
  const V64 p1 = product_of_low_halves(d, sequence, multiplier1);
  const V64 word0 = hn::Xor3(high_half(d, p1), position, hn::Set(d, keys.k0[0]));
  const V64 p0 = product_of_low_halves(d, word0, multiplier0);
  RowLanes out;
  out.position_high = hn::ShiftLeft<22>(hn::ShiftRight<32>(position));
  out.word2 = hn::Xor(high_half(d, sequence), hn::Set(d, keys.k1[0]));
  out.word0_of_2 = hn::Xor(p1, hn::Set(d, keys.k0[1]));
  out.word2_of_2 = hn::Xor(high_half(d, p0), hn::Set(d, keys.k1[1]));
  out.word3_of_2 = p0;
  return out;
}

// Draws of kGroups groups of channels, from `group` on, for all lanes' rows. The chains of multiplications are long and do not depend on each other.
template <int kGroups>
HWY_INLINE void draw(D64 d, const RoundKeys& keys, const RowLanes& rows, int64_t group, uint16_t* draws) {
  const V64 multiplier0 = hn::Set(d, 0xD2511F53u), multiplier1 = hn::Set(d, 0xCD9E8D57u);
  V64 c0[kGroups], c1[kGroups], c2[kGroups], c3[kGroups];
  for (int g = 0; g < kGroups; ++g) {
    const V64 p0 = product_of_low_halves(d, hn::Or(rows.position_high, hn::Set(d, static_cast<uint64_t>(group + g))), multiplier0);
    const V64 p1 = product_of_low_halves(d, hn::Xor(high_half(d, p0), rows.word2), multiplier1);
    c0[g] = hn::Xor(high_half(d, p1), rows.word0_of_2);
    c1[g] = p1;
    c2[g] = hn::Xor(p0, rows.word2_of_2);
    c3[g] = rows.word3_of_2;
  }
  for (int round = 2; round < kRounds - 1; ++round) {
    const V64 k0 = hn::Set(d, keys.k0[round]), k1 = hn::Set(d, keys.k1[round]);
    for (int g = 0; g < kGroups; ++g) {
      const V64 p0 = product_of_low_halves(d, c0[g], multiplier0), p1 = product_of_low_halves(d, c2[g], multiplier1);
      c0[g] = hn::Xor3(high_half(d, p1), c1[g], k0);
      c1[g] = p1;
      c2[g] = hn::Xor3(high_half(d, p0), c3[g], k1);
      c3[g] = p0;
    }
  }
  // The last round leaves the words in pairs: a product's lower half is word 1 or 3, its upper half goes into word 0 or 2.
  const V64 k0 = hn::Set(d, keys.k0[kRounds - 1]), k1 = hn::Set(d, keys.k1[kRounds - 1]);
  for (int g = 0; g < kGroups; ++g) {
    const V64 p0 = product_of_low_halves(d, c0[g], multiplier0), p1 = product_of_low_halves(d, c2[g], multiplier1);
    const V64 words10 = hn::Xor(p1, hn::ShiftLeft<32>(hn::Xor(c1[g], k0))), words32 = hn::Xor(p0, hn::ShiftLeft<32>(hn::Xor(c3[g], k1)));
    uint64_t* to = reinterpret_cast<uint64_t*>(draws) + g * 2 * static_cast<int64_t>(hn::Lanes(d));
#if HWY_TARGET == HWY_SCALAR
    hn::StoreU(words10, d, to);
    hn::StoreU(words32, d, to + 1);
#else
    // Even lanes' rows, then odd lanes' rows: see draws_of_lane.
    hn::Store(hn::InterleaveLower(d, words10, words32), d, to);
    hn::Store(hn::InterleaveUpper(d, words10, words32), d, to + hn::Lanes(d));
#endif
  }
}

// Where the draws of a lane's row lie within those of a group.
HWY_INLINE int64_t draws_of_lane(int64_t lane, int64_t lanes) {
  return lanes == 1 ? 0 : kGroupChannels * (lane % 2 * (lanes / 2) + lane / 2);
}

// The 16-bit draws of a vector of channels that begins at a multiple of its width; draws of the row's groups lie `stride` apart.
template <class D16>
HWY_INLINE hn::Vec<D16> load_draws(D16 d, const uint16_t* draws, int64_t stride, int64_t channel) {
  const uint16_t* from = draws + channel / kGroupChannels * stride + channel % kGroupChannels;
  constexpr size_t kWidth = hn::MaxLanes(D16());
  static_assert(kWidth <= 2 * kGroupChannels);
#if HWY_TARGET != HWY_SCALAR
  if constexpr (kWidth > kGroupChannels) {
    const hn::Half<D16> half;
    return hn::Combine(d, hn::LoadU(half, from + stride), hn::LoadU(half, from));
  }
#endif
  return hn::LoadU(d, from);
}

// A mask of what is dropped from draws and threshold, as 32-bit or 64-bit lanes.
template <class D>
HWY_INLINE hn::Mask<D> is_dropped(D d, const uint16_t* draws, int64_t stride, int64_t channel, int32_t threshold) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::Rebind<int32_t, D> d32;
  const auto wide = hn::PromoteTo(d32, load_draws(d16, draws, stride, channel));
  if constexpr (sizeof(hn::TFromD<D>) == 4) {
    return hn::RebindMask(d, hn::Lt(wide, hn::Set(d32, threshold)));
  } else {
    const hn::Rebind<int64_t, D> d64;
    return hn::RebindMask(d, hn::Lt(hn::PromoteTo(d64, wide), hn::Set(d64, int64_t{threshold})));
  }
}

// Groups whose draws are computed together: as many as the registers hold with the keys of all rounds beside them.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
constexpr int kGroupsTogether = 4;
#else
constexpr int kGroupsTogether = 2;
#endif

// Not inlined: the keys of all rounds want the registers for themselves.
HWY_NOINLINE void draw_groups(const RoundKeys& keys, const RowLanes& rows, int64_t first_group, int64_t groups, uint16_t* draws) {
  const D64 d;
  const int64_t stride = static_cast<int64_t>(hn::Lanes(d)) * kGroupChannels;
  int64_t g = 0;
  for (; g + kGroupsTogether <= groups; g += kGroupsTogether) draw<kGroupsTogether>(d, keys, rows, first_group + g, draws + g * stride);
  for (; g < groups; ++g) draw<1>(d, keys, rows, first_group + g, draws + g * stride);
}

// The draws of a part of a row.
template <class T>
struct Draws {
  using D = hn::ScalableTag<T>;
  const uint16_t* draws;
  int64_t stride;
  int32_t threshold;
  T scale;
  // v at channel i of the part, after dropout.
  HWY_INLINE hn::Vec<D> apply(D d, hn::Vec<D> v, int64_t i) const {
    return hn::IfThenZeroElse(is_dropped(d, draws, stride, i, threshold), hn::Mul(v, hn::Set(d, scale)));
  }
};

// part(at, channels, draws) for every part of a row: elements at, at + 1, ... of x.
template <class T, class Part>
HWY_INLINE void for_each_part(const DropoutKey& key, double p, int64_t row_begin, int64_t row_end, int64_t dim, const int64_t* sequence_ids,
                              const int64_t* positions, const Part& part) {
  const int32_t threshold = dropout_threshold(p);
  const T scale = static_cast<T>(65536.0 / std::max(1, 65536 - threshold));
  const RoundKeys keys = round_keys(key);
  const D64 d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), stride = lanes * kGroupChannels;
  // Room for the group after the last one, which a vector wider than a group looks at.
  HWY_ALIGN uint16_t draws[(kGroupsAtOnce + 1) * kGroupChannels * hn::MaxLanes(D64())];
  for (int64_t first = row_begin; first < row_end; first += lanes) {
    const int64_t count = std::min(lanes, row_end - first);
    const auto load_ids = [&](const int64_t* ids)
                              HWY_ATTR { return load_partial(d, reinterpret_cast<const uint64_t*>(ids + first), static_cast<size_t>(count)); };
    const RowLanes rows = start_rows(d, keys, load_ids(sequence_ids), load_ids(positions));
    for (int64_t begin = 0; begin < dim; begin += kGroupsAtOnce * kGroupChannels) {
      const int64_t channels = std::min(kGroupsAtOnce * kGroupChannels, dim - begin);
      draw_groups(keys, rows, begin / kGroupChannels, (channels + kGroupChannels - 1) / kGroupChannels, draws);
      for (int64_t lane = 0; lane < count; ++lane) {
        part((first + lane) * dim + begin, channels, Draws<T>{draws + draws_of_lane(lane, lanes), stride, threshold, scale});
      }
    }
  }
}

template <class T>
void dropout(const DropoutKey& key, double p, int64_t row_begin, int64_t row_end, int64_t dim, const int64_t* sequence_ids, const int64_t* positions,
             const T* x, T* y) {
  const hn::ScalableTag<T> d;
  const auto part = [&](int64_t at, int64_t channels, const Draws<T>& draws) HWY_ATTR {
    const T* from = x + at;
    T* to = y + at;
    for_each_vector(d, channels, [&](int64_t i, auto io) HWY_ATTR { io.store(d, draws.apply(d, io.load(d, from + i), i), to + i); });
  };
  for_each_part<T>(key, p, row_begin, row_end, dim, sequence_ids, positions, part);
}

template <class T>
struct SiluDropoutBackward {
  Draws<T> draws;
  const T* x;
  const T* dy;
  T* dx;
  template <class Io>
  HWY_INLINE void operator()(int64_t i, Io io) const {
    const hn::ScalableTag<T> d;
    hn::Vec<decltype(d)> v[Io::kCount], slope[Io::kCount];
    io.load(d, x + i, v);
    vector_silu_slope(d, v, slope);
    io.load(d, dy + i, v);
    for (int n = 0; n < Io::kCount; ++n) v[n] = hn::Mul(slope[n], draws.apply(d, v[n], i + n * static_cast<int64_t>(hn::Lanes(d))));
    io.store(d, v, dx + i);
  }
};

template <class T>
void silu_dropout_bwd(const DropoutKey& key, double p, int64_t row_begin, int64_t row_end, int64_t dim, const int64_t* sequence_ids,
                      const int64_t* positions, const T* x, const T* dy, T* dx) {
  const auto part = [&](int64_t at, int64_t channels, const Draws<T>& draws) HWY_ATTR {
    for_each_vector_array(hn::ScalableTag<T>(), channels, SiluDropoutBackward<T>{draws, x + at, dy + at, dx + at});
  };
  for_each_part<T>(key, p, row_begin, row_end, dim, sequence_ids, positions, part);
}

// Dispatch tables hold functions, not templates: one name for each type.
constexpr auto& dropout_f32 = dropout<float>;
constexpr auto& dropout_f64 = dropout<double>;
constexpr auto& silu_dropout_bwd_f32 = silu_dropout_bwd<float>;
constexpr auto& silu_dropout_bwd_f64 = silu_dropout_bwd<double>;

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqboat::kernels {

HWY_EXPORT(dropout_f32);
HWY_EXPORT(dropout_f64);
HWY_EXPORT(silu_dropout_bwd_f32);
HWY_EXPORT(silu_dropout_bwd_f64);

template <>
void dropout<float>(const DropoutKey& key, double p, int64_t row_begin, int64_t row_end, int64_t dim, const int64_t* sequence_ids,
                    const int64_t* positions, const float* x, float* y) noexcept {
  HWY_DYNAMIC_DISPATCH(dropout_f32)(key, p, row_begin, row_end, dim, sequence_ids, positions, x, y);
}
template <>
void dropout<double>(const DropoutKey& key, double p, int64_t row_begin, int64_t row_end, int64_t dim, const int64_t* sequence_ids,
                     const int64_t* positions, const double* x, double* y) noexcept {
  HWY_DYNAMIC_DISPATCH(dropout_f64)(key, p, row_begin, row_end, dim, sequence_ids, positions, x, y);
}

template <>
void silu_dropout_bwd<float>(const DropoutKey& key, double p, int64_t row_begin, int64_t row_end, int64_t dim, const int64_t* sequence_ids,
                             const int64_t* positions, const float* x, const float* dy, float* dx) noexcept {
  HWY_DYNAMIC_DISPATCH(silu_dropout_bwd_f32)(key, p, row_begin, row_end, dim, sequence_ids, positions, x, dy, dx);
}
template <>
void silu_dropout_bwd<double>(const DropoutKey& key, double p, int64_t row_begin, int64_t row_end, int64_t dim, const int64_t* sequence_ids,
                              const int64_t* positions, const double* x, const double* dy, double* dx) noexcept {
  HWY_DYNAMIC_DISPATCH(silu_dropout_bwd_f64)(key, p, row_begin, row_end, dim, sequence_ids, positions, x, dy, dx);
}

}  // namespace seqboat::kernels
#endif  // HWY_ONCE
