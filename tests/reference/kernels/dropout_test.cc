#include "seqboat/kernels/dropout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "seqboat/base/philox.h"
#include "seqboat/kernels/elementwise.h"
#include "support/guarded.h"

namespace seqboat::kernels {
namespace {

using test::awkward_sizes;
using test::Guarded;
using test::on_every_target;
using test::random_numbers;
using test::same_bits;

constexpr DropoutKey kKey{0x123456789abcdef0, 77, 3, 5, 2};

// The layout that the header states, one channel at a time.
uint64_t mix_ref(uint64_t v) {
  v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9u;
  v = (v ^ v >> 27) * 0x94d049bb133111ebu;
  return v ^ v >> 31;
}
bool keep_ref(const DropoutKey& key, double p, uint64_t sequence, uint64_t position, uint64_t channel) {
  const uint64_t packed = key.site | uint64_t{key.layer} << 8 | uint64_t{key.micro_batch} << 20 | key.update << 32;
  const uint64_t mixed = mix_ref(packed ^ mix_ref(key.seed + 0x9e3779b97f4a7c15u));
  const auto words = philox4x32({static_cast<uint32_t>(channel / 8 | (position >> 32) << 22), static_cast<uint32_t>(position),
                                 static_cast<uint32_t>(sequence), static_cast<uint32_t>(sequence >> 32)},
                                {static_cast<uint32_t>(mixed), static_cast<uint32_t>(mixed >> 32)});
  const uint32_t draws[] = {words[1] & 0xffff, words[1] >> 16, words[0] & 0xffff, words[0] >> 16,
                            words[3] & 0xffff, words[3] >> 16, words[2] & 0xffff, words[2] >> 16};
  return draws[channel % 8] >= std::round(p * 65536);
}
// What the kept ones are multiplied with: one over the probability with which they are kept.
double scale_ref(double p) {
  return 65536 / (65536 - std::round(p * 65536));
}

// The mask of rows at the given places, through ones.
std::vector<float> mask(const DropoutKey& key, double p, int64_t dim, const std::vector<int64_t>& sequences, const std::vector<int64_t>& positions) {
  const int64_t rows = static_cast<int64_t>(sequences.size());
  std::vector<float> x(rows * dim, 1.0f);
  dropout(key, p, 0, rows, dim, sequences.data(), positions.data(), x.data(), x.data());
  return x;
}

template <class T>
class Dropout : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Dropout, Types);

TYPED_TEST(Dropout, EqualsItsDefinitionOnEveryTarget) {
  using T = TypeParam;
  // More rows than any vector has lanes, with a rest.
  std::vector<int64_t> sequences = {0, 0, 5, int64_t{1} << 40, -3}, positions = {0, 1, 4000000000, (int64_t{1} << 41) + 7, 12};
  for (int64_t r = 5; r < 19; ++r) {
    sequences.push_back(r / 3);
    positions.push_back(r * r);
  }
  const int64_t rows = static_cast<int64_t>(sequences.size());
  const double p = 0.3;
  on_every_target([&] {
    for (int64_t dim : awkward_sizes()) {
      for (int64_t width : {dim, dim + 600}) {
        SCOPED_TRACE(width);
        const Guarded<T> x = random_numbers<T>(rows * width, 1);
        Guarded<T> y(rows * width, 2), in_place = x, pieces(rows * width);
        dropout(kKey, p, 0, rows, width, sequences.data(), positions.data(), x.data(), y.data());
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t c = 0; c < width; ++c) {
            const T want = keep_ref(kKey, p, sequences[r], positions[r], c) ? x[r * width + c] * static_cast<T>(scale_ref(p)) : T{0};
            ASSERT_TRUE(same_bits(&want, &y[r * width + c], 1)) << r << ", " << c;
          }
        }
        EXPECT_TRUE(y.intact());
        dropout(kKey, p, 0, rows, width, sequences.data(), positions.data(), in_place.data(), in_place.data());
        EXPECT_TRUE(same_bits(y.data(), in_place.data(), rows * width));
        for (int64_t r = 0; r < rows; ++r) {
          dropout(kKey, p, r, r + 1, width, sequences.data(), positions.data(), x.data(), pieces.data());
        }
        EXPECT_TRUE(same_bits(y.data(), pieces.data(), rows * width));
      }
    }
  });
}

TYPED_TEST(Dropout, EdgesOfTheProbability) {
  using T = TypeParam;
  const int64_t rows = 3, dim = 37;
  const std::vector<int64_t> sequences = {1, 1, 2}, positions = {0, 1, 0};
  on_every_target([&] {
    Guarded<T> x = random_numbers<T>(rows * dim, 1), y(rows * dim);
    dropout(kKey, 0.0, 0, rows, dim, sequences.data(), positions.data(), x.data(), y.data());
    EXPECT_TRUE(same_bits(x.data(), y.data(), rows * dim));
    x[5] = std::numeric_limits<T>::quiet_NaN();
    dropout(kKey, 1.0, 0, rows, dim, sequences.data(), positions.data(), x.data(), y.data());
    for (T v : y) EXPECT_EQ(v, T{0});
    // What is dropped is gone, whatever it was.
    std::fill(x.begin(), x.end(), std::numeric_limits<T>::infinity());
    dropout(kKey, 0.5, 0, rows, dim, sequences.data(), positions.data(), x.data(), y.data());
    for (T v : y) EXPECT_TRUE(v == T{0} || std::isinf(v));
    EXPECT_NE(std::count(y.begin(), y.end(), T{0}), 0);
    EXPECT_TRUE(y.intact());
  });
}

// Probabilities are multiples of 2^-16: the draws and the scale know the same one, at both ends too.
TYPED_TEST(Dropout, TheProbabilityIsRounded) {
  using T = TypeParam;
  const int64_t rows = 9, dim = 4096;
  const std::vector<int64_t> sequences(rows, 3), positions = {0, 1, 2, 3, 4, 5, 6, 7, 8};
  const std::vector<T> x(rows * dim, T{1});
  std::vector<T> y(rows * dim);
  on_every_target([&] {
    for (double p : {0x0.fp-17, 1e-5, 0x1p-16, 1e-3, 0.1, 0.25, 0.999, 1 - 0x1p-16, 1 - 1e-5}) {
      dropout(kKey, p, 0, rows, dim, sequences.data(), positions.data(), x.data(), y.data());
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < dim; ++c) {
          const T want = keep_ref(kKey, p, sequences[r], positions[r], c) ? static_cast<T>(scale_ref(p)) : T{0};
          ASSERT_EQ(y[r * dim + c], want) << p << ": " << r << ", " << c;
        }
      }
    }
    dropout(kKey, 1 - 0x0.fp-17, 0, rows, dim, sequences.data(), positions.data(), x.data(), y.data());
    EXPECT_EQ(std::count(y.begin(), y.end(), T{0}), rows * dim);
  });
}

TYPED_TEST(Dropout, BackwardWithSiluInOnePassEqualsOneAfterTheOther) {
  using T = TypeParam;
  const int64_t rows = 11;
  std::vector<int64_t> sequences(rows, 3), positions(rows);
  std::iota(positions.begin(), positions.end(), 40);
  on_every_target([&] {
    for (int64_t dim : awkward_sizes()) {
      for (double p : {0.0, 0.1, 1.0}) {
        SCOPED_TRACE(dim);
        const Guarded<T> x = random_numbers<T>(rows * dim, 1, -6, 6), dy = random_numbers<T>(rows * dim, 2);
        Guarded<T> dx(rows * dim, 2), want(rows * dim), over_x = x, over_dy = dy;
        dropout(kKey, p, 0, rows, dim, sequences.data(), positions.data(), dy.data(), want.data());
        activation_bwd(Activation::kSilu, rows * dim, x.data(), want.data(), want.data());
        silu_dropout_bwd(kKey, p, 0, rows, dim, sequences.data(), positions.data(), x.data(), dy.data(), dx.data());
        EXPECT_TRUE(same_bits(dx.data(), want.data(), rows * dim) && dx.intact());
        silu_dropout_bwd(kKey, p, 0, rows, dim, sequences.data(), positions.data(), x.data(), over_dy.data(), over_dy.data());
        EXPECT_TRUE(same_bits(over_dy.data(), want.data(), rows * dim));
        // Piece by piece, in place.
        for (int64_t r = 0; r < rows; r += 3) {
          silu_dropout_bwd(kKey, p, r, std::min(r + 3, rows), dim, sequences.data(), positions.data(), over_x.data(), dy.data(), over_x.data());
        }
        EXPECT_TRUE(same_bits(over_x.data(), want.data(), rows * dim));
      }
    }
  });
}

// The same tokens in another order, in another batch and without half of them.
TEST(DropoutMask, DoesNotKnowThePacking) {
  const int64_t dim = 75;
  std::vector<int64_t> sequences, positions;
  for (int64_t s = 0; s < 4; ++s) {
    for (int64_t t = 0; t < 9; ++t) {
      sequences.push_back(100 + s);
      positions.push_back(t);
    }
  }
  const std::vector<float> packed = mask(kKey, 0.4, dim, sequences, positions);
  for (int64_t step : {1, 5, 35}) {
    std::vector<int64_t> order, chosen_sequences, chosen_positions;
    for (int64_t i = 0; i < 36; i += step == 1 ? 2 : 1) order.push_back((i * step) % 36);
    for (int64_t row : order) {
      chosen_sequences.push_back(sequences[row]);
      chosen_positions.push_back(positions[row]);
    }
    const std::vector<float> other = mask(kKey, 0.4, dim, chosen_sequences, chosen_positions);
    for (size_t i = 0; i < order.size(); ++i) EXPECT_TRUE(same_bits(other.data() + i * dim, packed.data() + order[i] * dim, dim)) << i;
  }
  // A channel's draw does not depend on how many channels there are.
  const std::vector<float> narrow = mask(kKey, 0.4, 13, sequences, positions);
  for (int64_t row = 0; row < 36; ++row) EXPECT_TRUE(same_bits(narrow.data() + row * 13, packed.data() + row * dim, 13));
}

TEST(DropoutMask, IsTheSameInFloatAndDouble) {
  const int64_t dim = 203;
  const std::vector<int64_t> sequences = {3}, positions = {8};
  const std::vector<float> single = mask(kKey, 0.25, dim, sequences, positions);
  std::vector<double> wide(dim, 1.0);
  dropout(kKey, 0.25, 0, 1, dim, sequences.data(), positions.data(), wide.data(), wide.data());
  for (int64_t c = 0; c < dim; ++c) EXPECT_EQ(single[c] != 0, wide[c] != 0);
}

// All counts within six standard deviations of the binomial distribution.
TEST(DropoutMask, KeepsTheRightShareEverywhere) {
  const int64_t rows = 400, dim = 160;
  std::vector<int64_t> sequences(rows), positions(rows);
  for (int64_t r = 0; r < rows; ++r) {
    sequences[r] = r / 100;
    positions[r] = r % 100;
  }
  for (double p : {0.01, 0.1, 0.15, 0.5, 0.9}) {
    const std::vector<float> y = mask(kKey, p, dim, sequences, positions);
    const auto near = [&](double kept, double n) { EXPECT_NEAR(kept, n * (1 - p), 6 * std::sqrt(n * p * (1 - p)) + 1) << p; };
    std::vector<double> by_channel(dim), by_row(rows);
    double right_pairs = 0, below_pairs = 0;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < dim; ++c) {
        const bool kept = y[r * dim + c] != 0;
        by_channel[c] += kept;
        by_row[r] += kept;
        right_pairs += kept && c + 1 < dim && y[r * dim + c + 1] != 0;
        below_pairs += kept && r + 1 < rows && y[(r + 1) * dim + c] != 0;
      }
    }
    near(std::accumulate(by_row.begin(), by_row.end(), 0.0), static_cast<double>(rows * dim));
    for (double kept : by_channel) near(kept, rows);
    for (double kept : by_row) near(kept, dim);
    // Neighbours in channel and in time are independent: both are kept with probability (1 - p)^2. Overlapping pairs at most triple the variance.
    const double both = (1 - p) * (1 - p);
    for (auto [pairs, n] : {std::pair(right_pairs, rows * (dim - 1.0)), std::pair(below_pairs, (rows - 1.0) * dim)}) {
      EXPECT_NEAR(pairs, n * both, 6 * std::sqrt(3 * n * both * (1 - both))) << p;
    }
  }
}

// Each field of the key, the sequence and the position moves the mask: two independent masks agree in p^2 + (1 - p)^2 of the places.
TEST(DropoutMask, DifferentKeysGiveIndependentMasks) {
  const int64_t dim = 4096;
  const double p = 0.3, agree = p * p + (1 - p) * (1 - p);
  std::vector<DropoutKey> keys(1, kKey);
  for (uint64_t change : {uint64_t{1}, uint64_t{2}, uint64_t{0x1000}, uint64_t{1} << 20, uint64_t{1} << 31}) {
    DropoutKey key = kKey;
    key.seed += change;
    keys.push_back(key);
    key = kKey;
    key.update += change;
    keys.push_back(key);
    key = kKey;
    key.micro_batch += static_cast<uint32_t>(change);
    keys.push_back(key);
    key = kKey;
    key.layer += static_cast<uint32_t>(change);
    keys.push_back(key);
    key = kKey;
    key.site += static_cast<uint32_t>(change);
    keys.push_back(key);
  }
  for (uint64_t change : {uint64_t{1} << 32, uint64_t{1} << 63}) {
    DropoutKey key = kKey;
    key.seed += change;
    keys.push_back(key);
    key = kKey;
    key.update += change;
    keys.push_back(key);
  }
  std::vector<std::vector<float>> masks;
  for (const DropoutKey& key : keys) masks.push_back(mask(key, p, dim, {9}, {4}));
  masks.push_back(mask(kKey, p, dim, {10}, {4}));
  masks.push_back(mask(kKey, p, dim, {9 + (int64_t{1} << 32)}, {4}));
  masks.push_back(mask(kKey, p, dim, {9}, {5}));
  masks.push_back(mask(kKey, p, dim, {9}, {4 + (int64_t{1} << 32)}));
  masks.push_back(mask(kKey, p, dim, {4}, {9}));
  for (size_t i = 0; i < masks.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      int64_t same = 0;
      for (int64_t c = 0; c < dim; ++c) same += (masks[i][c] != 0) == (masks[j][c] != 0);
      EXPECT_NEAR(static_cast<double>(same), dim * agree, 6 * std::sqrt(dim * agree * (1 - agree))) << i << " and " << j;
    }
  }
}

}  // namespace
}  // namespace seqboat::kernels
