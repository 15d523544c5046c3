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
          const AttentionCase c = make_case(333, 10, 37, window, function, bias);
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
    for (const int64_t d_attn : {1, 4, 17, 64, 150}) {
      for (const int64_t d_hidden : {1, 16, 64, 65, 130, 200}) {
        const AttentionCase c = make_case(200, d_attn, d_hidden, 70, AttentionFunction::kSoftmax, PositionBias::kNone);
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

}  // namespace
}  // namespace seqboat::test
