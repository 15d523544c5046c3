#include "seqboat/kernels/compress.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "support/guarded.h"

namespace seqboat::kernels {
namespace {

using test::awkward_sizes;
using test::Guarded;
using test::on_every_target;
using test::random_numbers;
using test::same_bits;

std::vector<uint8_t> random_flags(int64_t n, double rate, uint32_t seed) {
  std::mt19937 engine(seed);
  std::vector<uint8_t> flags(n);
  for (uint8_t& flag : flags) flag = engine() * 0x1p-32 < rate;
  return flags;
}

TEST(Compress, TheDrawingOfTheHeader) {
  const int64_t cu_seqlens[] = {0, 5, 8};
  const uint8_t active[] = {1, 0, 0, 1, 1, 0, 1, 0};
  int64_t active_cu_seqlens[3], active_index[4], positions[4];
  EXPECT_EQ(count_active(2, cu_seqlens, active, active_cu_seqlens), 4);
  EXPECT_EQ(std::vector<int64_t>(active_cu_seqlens, active_cu_seqlens + 3), (std::vector<int64_t>{0, 3, 4}));
  fill_active_index(2, cu_seqlens, active, active_index, positions);
  EXPECT_EQ(std::vector<int64_t>(active_index, active_index + 4), (std::vector<int64_t>{0, 3, 4, 6}));
  EXPECT_EQ(std::vector<int64_t>(positions, positions + 4), (std::vector<int64_t>{0, 3, 4, 1}));
}

TEST(Compress, NoSequencesAndEmptyOnes) {
  const int64_t none[] = {0}, empty[] = {0, 0, 0};
  int64_t out[3] = {-1, -1, -1};
  EXPECT_EQ(count_active(0, none, nullptr, out), 0);
  EXPECT_EQ(out[0], 0);
  EXPECT_EQ(count_active(2, empty, nullptr, out), 0);
  EXPECT_EQ(out[2], 0);
  fill_active_index(2, empty, nullptr, nullptr, nullptr);
}

TEST(Compress, CountsAndIndicesEqualALoop) {
  for (double rate : {0.0, 0.1, 0.5, 1.0}) {
    for (int64_t first : {0, 1, 7, 8, 9, 64, 100}) {
      const std::vector<int64_t> cu_seqlens = {0, first, first, first + 13, first + 13 + 300};
      const int64_t batch = 4;
      const std::vector<uint8_t> active = random_flags(cu_seqlens.back(), rate, static_cast<uint32_t>(first));
      std::vector<int64_t> want_cu = {0}, want_index, want_positions;
      for (int64_t b = 0; b < batch; ++b) {
        for (int64_t t = cu_seqlens[b]; t < cu_seqlens[b + 1]; ++t) {
          if (active[t] == 0) continue;
          want_index.push_back(t);
          want_positions.push_back(t - cu_seqlens[b]);
        }
        want_cu.push_back(static_cast<int64_t>(want_index.size()));
      }
      const int64_t count = want_cu.back();
      Guarded<int64_t> cu(batch + 1), index(count), positions(count), index_alone(count), positions_alone(count);
      EXPECT_EQ(count_active(batch, cu_seqlens.data(), active.data(), cu.data()), count);
      fill_active_index(batch, cu_seqlens.data(), active.data(), index.data(), positions.data());
      fill_active_index(batch, cu_seqlens.data(), active.data(), index_alone.data(), nullptr);
      fill_active_index(batch, cu_seqlens.data(), active.data(), nullptr, positions_alone.data());
      EXPECT_TRUE(std::equal(cu.begin(), cu.end(), want_cu.begin()));
      EXPECT_TRUE(std::equal(index.begin(), index.end(), want_index.begin()));
      EXPECT_TRUE(std::equal(positions.begin(), positions.end(), want_positions.begin()));
      EXPECT_TRUE(std::equal(index_alone.begin(), index_alone.end(), want_index.begin()));
      EXPECT_TRUE(std::equal(positions_alone.begin(), positions_alone.end(), want_positions.begin()));
      EXPECT_TRUE(cu.intact() && index.intact() && positions.intact());
    }
  }
}

template <class T>
class CompressRows : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(CompressRows, Types);

// Gaps between the rows of a strided output stay as they were: NaN, like the guards.
template <class T>
bool gaps_intact(const Guarded<T>& x, int64_t rows, int64_t dim, int64_t stride) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = dim; j < stride; ++j) {
      if (x[i * stride + j] == x[i * stride + j]) return false;
    }
  }
  return x.intact();
}

TYPED_TEST(CompressRows, EqualALoopForAnySplit) {
  using T = TypeParam;
  const int64_t tokens = 23;
  const std::vector<uint8_t> active = random_flags(tokens, 0.4, 3);
  std::vector<int64_t> index;
  for (int64_t t = 0; t < tokens; ++t) {
    if (active[t] != 0) index.push_back(t);
  }
  const int64_t count = static_cast<int64_t>(index.size());
  on_every_target([&] {
    for (int64_t dim : awkward_sizes()) {
      SCOPED_TRACE(dim);
      const int64_t x_stride = dim + 3, out_stride = dim + 1;
      const Guarded<T> x = random_numbers<T>(tokens * x_stride, 2);
      for (int64_t split : {int64_t{0}, count / 2, count}) {
        Guarded<T> packed(count * out_stride);
        compress_rows(0, split, dim, index.data(), x.data(), x_stride, packed.data(), out_stride);
        compress_rows(split, count, dim, index.data(), x.data(), x_stride, packed.data(), out_stride);
        for (int64_t i = 0; i < count; ++i) EXPECT_TRUE(same_bits(packed.data() + i * out_stride, x.data() + index[i] * x_stride, dim));
        EXPECT_TRUE(gaps_intact(packed, count, dim, out_stride));
      }
      for (int64_t split : {int64_t{0}, int64_t{9}, tokens}) {
        const Guarded<T> h = random_numbers<T>(count * x_stride, 5);
        Guarded<T> out(tokens * out_stride);
        const int64_t before = std::count(active.begin(), active.begin() + split, 1);
        extract_rows(0, split, dim, active.data(), 0, h.data(), x_stride, out.data(), out_stride);
        extract_rows(split, tokens, dim, active.data(), before, h.data(), x_stride, out.data(), out_stride);
        int64_t next = 0;
        const std::vector<T> zeros(dim);
        for (int64_t t = 0; t < tokens; ++t) {
          const T* want = active[t] != 0 ? h.data() + next++ * x_stride : zeros.data();
          EXPECT_TRUE(same_bits(out.data() + t * out_stride, want, dim));
        }
        EXPECT_TRUE(gaps_intact(out, tokens, dim, out_stride));
      }
    }
  });
}

}  // namespace
}  // namespace seqboat::kernels
