#include "seqboat/kernels/key_ring.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "reference/kernels/window_attention_case.h"
#include "seqboat/kernels/packed_weight.h"
#include "support/guarded.h"

namespace seqboat::test {
namespace {

using kernels::AttentionFunction;
using kernels::kAttentionBlock;
using kernels::kValueTile;
using kernels::PositionBias;
using kernels::RingAttention;
using kernels::RingType;

/// A stream whose tokens go into a ring, held to window_attention_fwd() over all of them at once.
class Stream {
 public:
  Stream(AttentionCase c, RingType type, int64_t most_queries) : tensors_(prepared(c)), want_(0), ring_bytes_(0) {
    const auto& s = tensors_.shape;
    if (type == RingType::kBf16) {
      // What the ring makes of keys and values; the queries stay.
      for (Guarded<float>* tensor : {&tensors_.k, &tensors_.v}) {
        std::vector<uint16_t> half(static_cast<size_t>(tensor->size()));
        kernels::float_to_bf16(tensor->size(), tensor->data(), half.data());
        exact_.push_back(*tensor);
        kernels::bf16_to_float(tensor->size(), half.data(), tensor->data());
      }
    }
    attention_.ring = {kernels::key_ring_capacity(c.window < 0 ? c.lengths[0] : c.window, most_queries), s.d_attn, s.d_hidden, type};
    attention_.window = s.window;
    attention_.function = s.function;
    attention_.bias = s.bias;
    attention_.max_positions = s.max_positions;
    want_ = Guarded<float>(tensors_.tokens() * s.out_stride);
    const Workspace<float> workspace(kernels::window_attention_workspace_size<float>(s));
    kernels::window_attention_fwd<float>(s, 0, kernels::window_attention_items(s), tensors_.q.data(), tensors_.k.data(), tensors_.v.data(),
                                         tensors_.positions.data(), table(), want_.data(), nullptr, workspace.data);
    ring_bytes_ = static_cast<int64_t>(kernels::key_ring_bytes(attention_.ring));
  }

  /// Token by token (`cut` = 0: one call a stage; else items and columns in pieces), or by blocks of `count` queries.
  void check(int64_t count, int64_t cut) {
    const auto& s = tensors_.shape;
    const bool bf16 = attention_.ring.type == RingType::kBf16;
    const Guarded<float>& k = bf16 ? exact_[0] : tensors_.k;
    const Guarded<float>& v = bf16 ? exact_[1] : tensors_.v;
    const Workspace<unsigned char> ring(static_cast<size_t>(ring_bytes_));  // of NaN: what no token has reached is not seen
    std::vector<int64_t> positions(static_cast<size_t>(attention_.ring.capacity), 0);
    Guarded<float> out(tensors_.tokens() * s.out_stride);
    const Workspace<float> scores(kernels::key_ring_step_scores_size(attention_));
    const Workspace<float> step_workspace(kernels::key_ring_step_workspace_size(attention_));
    const Workspace<float> workspace(kernels::key_ring_attention_workspace_size(attention_));
    for (int64_t first = 0; first < tensors_.tokens(); first += count) {
      const int64_t n = std::min(count, tensors_.tokens() - first);
      kernels::key_ring_append(attention_.ring, first, n, k.data() + first * s.k_stride, s.k_stride, v.data() + first * s.v_stride, s.v_stride,
                               ring.data);
      kernels::position_ring_append(attention_.ring.capacity, first, n, tensors_.positions.data() + first, positions.data());
      const float* q = tensors_.q.data() + first * s.q_stride;
      float* to = out.data() + first * s.out_stride;
      if (count == 1) {
        const int64_t items = kernels::key_ring_step_items(attention_, first);
        ASSERT_LE(items, attention_.ring.capacity / kAttentionBlock + 1);
        const int64_t piece = cut == 0 ? items : cut;
        for (int64_t item = 0; item < items; item += piece) {
          kernels::key_ring_step_scores(attention_, first, item, std::min(items, item + piece), q, ring.data, positions.data(), table(), scores.data);
        }
        const int64_t columns = cut == 0 ? s.d_hidden : cut * kValueTile;
        for (int64_t col = 0; col < s.d_hidden; col += columns) {
          kernels::key_ring_step_sum(attention_, first, col, std::min(s.d_hidden, col + columns), scores.data, ring.data, to, step_workspace.data);
        }
      } else {
        for (int64_t i = 0; i < n; i += kAttentionBlock) {
          kernels::key_ring_attention(attention_, first + i, std::min(kAttentionBlock, n - i), q + i * s.q_stride, s.q_stride, ring.data,
                                      positions.data(), table(), to + i * s.out_stride, s.out_stride, workspace.data);
        }
      }
    }
    EXPECT_TRUE(ring.intact() && out.intact() && scores.intact() && step_workspace.intact() && workspace.intact());
    for (int64_t i = 0; i < tensors_.tokens(); ++i) {
      ASSERT_TRUE(same_bits(out.data() + i * s.out_stride, want_.data() + i * s.out_stride, s.d_hidden)) << "query " << i;
      for (int64_t h = s.d_hidden; h < s.out_stride; ++h) ASSERT_TRUE(std::isnan(out[i * s.out_stride + h])) << "written behind row " << i;
    }
  }

 private:
  static AttentionCase prepared(AttentionCase c) {
    c.causal = true;
    c.max_positions = positions_for(c.bias, c.window);
    return c;
  }
  const float* table() const { return attention_.bias == PositionBias::kNone ? nullptr : tensors_.table.data(); }

  AttentionTensors<float> tensors_;
  Guarded<float> want_;
  std::vector<Guarded<float>> exact_;
  RingAttention attention_;
  int64_t ring_bytes_;
};

constexpr AttentionFunction kFunctions[] = {AttentionFunction::kSoftmax, AttentionFunction::kRelu2, AttentionFunction::kLaplace};
constexpr PositionBias kBiases[] = {PositionBias::kNone, PositionBias::kOriginalDistance, PositionBias::kWindowDistance};

AttentionCase make_case(int64_t tokens, int64_t d_attn, int64_t d_hidden, int64_t window, AttentionFunction function, PositionBias bias) {
  AttentionCase c;
  c.lengths = {tokens};
  c.d_attn = d_attn;
  c.d_hidden = d_hidden;
  c.window = window;
  c.function = function;
  c.bias = bias;
  c.gap = d_attn % 3;
  return c;
}

TEST(KeyRing, HasTheBitsOfWindowAttention) {
  on_every_target([] {
    for (const AttentionFunction function : kFunctions) {
      for (const PositionBias bias : kBiases) {
        for (const int64_t window : {-1, 0, 1, 7, 63, 64, 100}) {
          if (window <= 0 && bias == PositionBias::kWindowDistance) continue;
          const AttentionCase c = make_case(230, 10, 37, window, function, bias);
          for (const RingType type : {RingType::kFloat32, RingType::kBf16}) {
            SCOPED_TRACE(c.name() + (type == RingType::kBf16 ? " bf16" : ""));
            Stream(c, type, 1).check(1, 0);
            Stream(c, type, 70).check(70, 0);
            if (::testing::Test::HasFatalFailure()) return;
          }
        }
      }
    }
  });
}

TEST(KeyRing, ShapesAndCutsChangeNoBit) {
  on_every_target([] {
    for (const int64_t d_attn : {1, 17, 130}) {
      for (const int64_t d_hidden : {1, 64, 65, 200}) {
        const AttentionCase c = make_case(160, d_attn, d_hidden, 70, AttentionFunction::kSoftmax, PositionBias::kNone);
        for (const RingType type : {RingType::kFloat32, RingType::kBf16}) {
          SCOPED_TRACE(c.name());
          Stream(c, type, 1).check(1, 1);
          Stream(c, type, 64).check(64, 0);
          Stream(c, type, 37).check(5, 0);
          Stream(c, type, 37).check(37, 0);
          if (::testing::Test::HasFatalFailure()) return;
        }
      }
    }
  });
}

TEST(KeyRing, ACopyOfTheBytesGoesOnAsTheRing) {
  on_every_target([] {
    const RingAttention attention{{128, 9, 40, RingType::kBf16}, 100, AttentionFunction::kRelu2};
    const Guarded<float> rows = random_numbers<float>(300 * 49, 3);
    const auto append = [&](int64_t first, int64_t n, void* ring) {
      kernels::key_ring_append(attention.ring, first, n, rows.data() + first * 49, 49, rows.data() + first * 49 + 9, 49, ring);
    };
    const Workspace<unsigned char> ring(kernels::key_ring_bytes(attention.ring)), copy(kernels::key_ring_bytes(attention.ring));
    const Workspace<float> workspace(kernels::key_ring_attention_workspace_size(attention));
    append(0, 128, ring.data);
    append(128, 40, ring.data);
    std::memcpy(copy.data, ring.data, kernels::key_ring_bytes(attention.ring));
    append(168, 20, ring.data);
    append(168, 20, copy.data);
    Guarded<float> out(20 * 40), again(20 * 40);
    kernels::key_ring_attention(attention, 168, 20, rows.data() + 1, 49, ring.data, nullptr, nullptr, out.data(), 40, workspace.data);
    kernels::key_ring_attention(attention, 168, 20, rows.data() + 1, 49, copy.data, nullptr, nullptr, again.data(), 40, workspace.data);
    EXPECT_TRUE(same_bits(out.data(), again.data(), out.size()));
    EXPECT_TRUE(same_bits(ring.data, copy.data, static_cast<int64_t>(kernels::key_ring_bytes(attention.ring))));
  });
}

// Attention that begins anew counts from 0 again, and does not see what the ring still holds: mega-chunk with a chunk of 100, no multiple of a block.
TEST(KeyRing, CountingAnewForgetsWhatTheRingHolds) {
  on_every_target([] {
    for (const AttentionFunction function : kFunctions) {
      AttentionCase c = make_case(100, 12, 70, -1, function, PositionBias::kOriginalDistance);
      c.lengths = {100, 100, 37};
      c.causal = true;
      c.max_positions = 30;
      const AttentionTensors<float> t(c);
      const auto& s = t.shape;
      const AttentionResults<float> want = run_attention(t);
      const RingAttention attention{{kernels::key_ring_capacity(-1, 100), 12, 70, RingType::kFloat32}, -1, function, c.bias, c.max_positions};
      const Workspace<unsigned char> ring(kernels::key_ring_bytes(attention.ring));
      const Workspace<float> workspace(kernels::key_ring_attention_workspace_size(attention));
      std::vector<int64_t> positions(static_cast<size_t>(attention.ring.capacity));
      Guarded<float> out(t.tokens() * s.out_stride);
      for (size_t chunk = 0; chunk < c.lengths.size(); ++chunk) {
        const int64_t begin = t.cu[chunk];
        for (int64_t i = 0; i < c.lengths[chunk];) {
          const int64_t n = std::min(i % 3 + 1, c.lengths[chunk] - i), row = begin + i;
          kernels::key_ring_append(attention.ring, i, n, t.k.data() + row * s.k_stride, s.k_stride, t.v.data() + row * s.v_stride, s.v_stride,
                                   ring.data);
          kernels::position_ring_append(attention.ring.capacity, i, n, t.positions.data() + row, positions.data());
          kernels::key_ring_attention(attention, i, n, t.q.data() + row * s.q_stride, s.q_stride, ring.data, positions.data(), t.table.data(),
                                      out.data() + row * s.out_stride, s.out_stride, workspace.data);
          i += n;
        }
      }
      for (int64_t i = 0; i < t.tokens(); ++i) {
        ASSERT_TRUE(same_bits(out.data() + i * s.out_stride, want.out.data() + i * s.out_stride, s.d_hidden)) << c.name() << " query " << i;
      }
    }
  });
}

// Numbers and times beyond 32 bits: only differences matter.
TEST(KeyRing, NumbersGrowWithoutBound) {
  on_every_target([] {
    for (const PositionBias bias : kBiases) {
      constexpr int64_t kFar = (int64_t{1} << 40) * kAttentionBlock, kTime = int64_t{1} << 50, kTokens = 150;
      const AttentionCase c = make_case(kTokens, 8, 20, 50, AttentionFunction::kSoftmax, bias);
      const int64_t max_positions = positions_for(bias, c.window);
      const Guarded<float> rows = random_numbers<float>(kTokens * 36, 1), table = random_numbers<float>(std::max<int64_t>(1, 2 * max_positions), 2);
      const RingAttention attention{{kernels::key_ring_capacity(50, 10), 8, 20, RingType::kFloat32}, 50, c.function, bias, max_positions};
      const auto run = [&](int64_t number, int64_t time, int64_t step) {
        const Workspace<unsigned char> ring(kernels::key_ring_bytes(attention.ring));
        const Workspace<float> workspace(kernels::key_ring_attention_workspace_size(attention));
        std::vector<int64_t> positions(static_cast<size_t>(attention.ring.capacity));
        Guarded<float> out(kTokens * 20);
        for (int64_t i = 0; i < kTokens; i += step) {
          std::vector<int64_t> times;
          for (int64_t j = i; j < i + step; ++j) times.push_back(time + j * j);
          const float* from = rows.data() + i * 36;
          kernels::key_ring_append(attention.ring, number + i, step, from, 36, from + 8, 36, ring.data);
          kernels::position_ring_append(attention.ring.capacity, number + i, step, times.data(), positions.data());
          kernels::key_ring_attention(attention, number + i, step, from + 28, 36, ring.data, positions.data(), table.data(), out.data() + i * 20, 20,
                                      workspace.data);
        }
        return out;
      };
      // Far from the start a window is full at once, so that the first rows see what the ring held before: rows from 50 on are compared.
      const Guarded<float> near = run(0, 0, 10);
      for (const int64_t step : {1, 10}) {
        const Guarded<float> far = run(kFar * attention.ring.capacity, kTime, step);
        EXPECT_TRUE(same_bits(far.data() + 50 * 20, near.data() + 50 * 20, (kTokens - 50) * 20)) << c.name() << " step " << step;
      }
    }
  });
}

}  // namespace
}  // namespace seqboat::test
