#include "seqboat/kernels/dropout.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/dropout.cc"
// clang-format off
#include "hwy/foreach_target.h"  // must come before highway.h
// clang-format on
#include "hwy/highway.h"
#include "kernels/cpu/vector_loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seqboat::kernels {
namespace HWY_NAMESPACE {
namespace {

constexpr int kRounds = 10;
constexpr int64_t kWordsAtOnce = 256;  // draws of a row made before they are used: a kilobyte, at least four whole vectors of calls

// The finaliser of splitmix64: a bijection in which every bit of the input reaches every bit of the output.
uint64_t mix(uint64_t v) {
  v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9u;
  v = (v ^ (v >> 27)) * 0x94d049bb133111ebu;
  return v ^ (v >> 31);
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

// low and high halves of the products of 32-bit lanes.
template <class D, class V>
HWY_INLINE void multiply(D d, V a, V multiplier, V& low, V& high) {
#if HWY_TARGET == HWY_SCALAR
  const uint64_t product = uint64_t{hn::GetLane(a)} * hn::GetLane(multiplier);
  low = hn::Set(d, static_cast<uint32_t>(product));
  high = hn::Set(d, static_cast<uint32_t>(product >> 32));
#else
  const hn::Repartition<uint64_t, D> wide;
  const auto even = hn::MulEven(a, multiplier);
  const auto odd = hn::MulEven(hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, a))), multiplier);
  low = hn::OddEven(hn::BitCast(d, hn::ShiftLeft<32>(odd)), hn::BitCast(d, even));
  high = hn::OddEven(hn::BitCast(d, odd), hn::BitCast(d, hn::ShiftRight<32>(even)));
#endif
}

// Draws for channels 0 .. 4 * Lanes(d) - 1 after the first channel group: a lane is a call of Philox, its four words lie side by side.
template <class D, class V>
HWY_INLINE void draw(D d, V c0, V c1, V c2, V c3, uint32_t key0, uint32_t key1, uint32_t* words) {
  const V multiplier0 = hn::Set(d, 0xD2511F53u), multiplier1 = hn::Set(d, 0xCD9E8D57u);
  for (int round = 0; round < kRounds; ++round) {
    V low0, high0, low1, high1;
    multiply(d, c0, multiplier0, low0, high0);
    multiply(d, c2, multiplier1, low1, high1);
    c0 = hn::Xor(hn::Xor(high1, c1), hn::Set(d, key0));
    c1 = low1;
    c2 = hn::Xor(hn::Xor(high0, c3), hn::Set(d, key1));
    c3 = low0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  hn::StoreInterleaved4(c0, c1, c2, c3, d, words);
}

// x[i] where words[i] >= threshold, times scale.
template <class D, class Io>
HWY_INLINE hn::Vec<D> keep(D d, Io io, const float* x, const uint32_t* words, uint32_t threshold, float scale) {
  const hn::RebindToUnsigned<D> du;
  const auto dropped = hn::RebindMask(d, hn::Lt(hn::LoadU(du, words), hn::Set(du, threshold)));
  return hn::IfThenZeroElse(dropped, hn::Mul(io.load(d, x), hn::Set(d, scale)));
}
template <class D, class Io>
HWY_INLINE hn::Vec<D> keep(D d, Io io, const double* x, const uint32_t* words, uint32_t threshold, double scale) {
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<uint32_t, D> half;
  const auto dropped = hn::RebindMask(d, hn::Lt(hn::PromoteTo(du, hn::LoadU(half, words)), hn::Set(du, uint64_t{threshold})));
  return hn::IfThenZeroElse(dropped, hn::Mul(io.load(d, x), hn::Set(d, scale)));
}

template <class T>
void dropout(const DropoutKey& key, double p, int64_t row_begin, int64_t row_end, int64_t dim, const int64_t* sequence_ids, const int64_t* positions,
             const T* x, T* y) {
  if (!(p < 1)) {
    std::fill(y + row_begin * dim, y + row_end * dim, T{0});
    return;
  }
  const uint32_t threshold = p > 0 ? static_cast<uint32_t>(p * 0x1p32) : 0;
  const T scale = static_cast<T>(1 / (1 - std::max(p, 0.0)));
  const uint64_t mixed = philox_key(key);
  const uint32_t key0 = static_cast<uint32_t>(mixed), key1 = static_cast<uint32_t>(mixed >> 32);

  const hn::ScalableTag<T> d;
  const hn::ScalableTag<uint32_t> d32;
  const int64_t calls = static_cast<int64_t>(hn::Lanes(d32));
  // Room for what the last, partly used vector of calls and the last load of a partial vector reach beyond.
  HWY_ALIGN uint32_t words[kWordsAtOnce + HWY_MAX_BYTES];
  for (int64_t row = row_begin; row < row_end; ++row) {
    const uint64_t position = static_cast<uint64_t>(positions[row]), sequence = static_cast<uint64_t>(sequence_ids[row]);
    const auto c1 = hn::Set(d32, static_cast<uint32_t>(position));
    const auto c2 = hn::Set(d32, static_cast<uint32_t>(sequence)), c3 = hn::Set(d32, static_cast<uint32_t>(sequence >> 32));
    const uint32_t position_high = static_cast<uint32_t>(position >> 32) << 22;
    for (int64_t begin = 0; begin < dim; begin += kWordsAtOnce) {
      const int64_t count = std::min(kWordsAtOnce, dim - begin);
      for (int64_t at = 0; at < count; at += 4 * calls) {
        const auto group = hn::Iota(d32, static_cast<uint32_t>((begin + at) / 4));
        draw(d32, hn::Or(group, hn::Set(d32, position_high)), c1, c2, c3, key0, key1, words + at);
      }
      const T* from = x + row * dim + begin;
      T* to = y + row * dim + begin;
      for_each_vector(d, count, [&](int64_t i, auto io) HWY_ATTR { io.store(d, keep(d, io, from + i, words + i, threshold, scale), to + i); });
    }
  }
}

// Dispatch tables hold functions, not templates: one name for each type.
constexpr auto& dropout_f32 = dropout<float>;
constexpr auto& dropout_f64 = dropout<double>;

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace seqboat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqboat::kernels {

HWY_EXPORT(dropout_f32);
HWY_EXPORT(dropout_f64);

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

}  // namespace seqboat::kernels
#endif  // HWY_ONCE
