#include "seqboat/base/philox.h"

#include <cmath>
#include <limits>

namespace seqboat {
namespace {

constexpr uint32_t kMultiplier0 = 0xD2511F53u;
constexpr uint32_t kMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kWeyl0 = 0x9E3779B9u;  // the golden ratio
constexpr uint32_t kWeyl1 = 0xBB67AE85u;  // sqrt(3) - 1
constexpr int kRounds = 10;

// Horner's rule, highest power first.
template <int N>
double polynomial(const double (&coefficients)[N], double x) {
  double sum = coefficients[0];
  for (int i = 1; i < N; ++i) sum = sum * x + coefficients[i];
  return sum;
}

// Wichura's rational approximations (algorithm AS 241, Applied Statistics 37, 1988), relative error about 1e-16 in exact arithmetic:
// the centre |p - 1/2| <= 0.425, the near tail sqrt(-log p) <= 5, and the far tail.
constexpr double kCentreTop[] = {2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
                                 13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608};
constexpr double kCentreBottom[] = {5226.495278852854561,  28729.085735721942674, 39307.89580009271061,  21213.794301586595867,
                                    5394.1960214247511077, 687.1870074920579083,  42.313330701600911252, 1.0};
constexpr double kNearTop[] = {7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
                               3.64784832476320460504,   5.7694972214606914055,    4.6303378461565452959,  1.42343711074968357734};
constexpr double kNearBottom[] = {1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
                                  0.68976733498510000455,    1.6763848301838038494,   2.05319162663775882187,   1.0};
constexpr double kFarTop[] = {2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386, 0.026532189526576123093,
                              0.29656057182850489123,    1.7848265399172913358,     5.4637849111641143699,    6.6579046435011037772};
constexpr double kFarBottom[] = {2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4,
                                 0.0148753612908506148525,   0.13692988092273580531,   0.59983220655588793769,   1.0};

}  // namespace

std::array<uint32_t, 4> philox4x32(const std::array<uint32_t, 4>& counter, const std::array<uint32_t, 2>& key) noexcept {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  uint32_t k0 = key[0], k1 = key[1];
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t product0 = uint64_t{kMultiplier0} * c0;
    const uint64_t product1 = uint64_t{kMultiplier1} * c2;
    c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(product1);
    c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(product0);
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  return {c0, c1, c2, c3};
}

// Counter words 0, 1: number of the block; words 2, 3: the stream.
PhiloxStream::PhiloxStream(uint64_t seed, uint64_t stream) noexcept
    : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
      counter_{0, 0, static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)} {}

uint32_t PhiloxStream::next_u32() noexcept {
  if (used_ == 4) {
    block_ = philox4x32(counter_, key_);
    if (++counter_[0] == 0) ++counter_[1];
    used_ = 0;
  }
  return block_[used_++];
}

uint64_t PhiloxStream::next_u64() noexcept {
  const uint64_t low = next_u32();
  return low | uint64_t{next_u32()} << 32;
}

double PhiloxStream::next_uniform() noexcept {
  return static_cast<double>(next_u64() >> 11) * 0x1p-53;
}

uint64_t PhiloxStream::next_below(uint64_t bound) noexcept {
  if (bound == 0) return 0;  // an empty range has no number; never divide by zero
  // 2^64 is rarely a multiple of the bound: the first 2^64 mod bound words would make small results more likely, so they are drawn again.
  const uint64_t first = (0 - bound) % bound;
  uint64_t word = next_u64();
  while (word < first) word = next_u64();
  return word % bound;
}

// The middle of one of 2^52 equal cells: never 0 or 1, and exact in a double.
double PhiloxStream::next_normal() noexcept {
  return normal_quantile((static_cast<double>(next_u64() >> 12) + 0.5) * 0x1p-52);
}

double normal_quantile(double p) noexcept {
  if (!(p > 0 && p < 1)) {
    if (p == 0) return -std::numeric_limits<double>::infinity();
    if (p == 1) return std::numeric_limits<double>::infinity();
    return std::numeric_limits<double>::quiet_NaN();
  }
  const double centred = p - 0.5;
  if (std::abs(centred) <= 0.425) {
    const double r = 0.180625 - centred * centred;
    return centred * polynomial(kCentreTop, r) / polynomial(kCentreBottom, r);
  }
  const double r = std::sqrt(-std::log(centred < 0 ? p : 1 - p));
  const double size =
      r <= 5 ? polynomial(kNearTop, r - 1.6) / polynomial(kNearBottom, r - 1.6) : polynomial(kFarTop, r - 5) / polynomial(kFarBottom, r - 5);
  return centred < 0 ? -size : size;
}

}  // namespace seqboat
