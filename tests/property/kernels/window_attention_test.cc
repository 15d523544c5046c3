#include "seqboat/kernels/window_attention.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "reference/kernels/window_attention_case.h"
#include "support/guarded.h"

namespace seqboat::test {
namespace {

using kernels::AttentionFunction;
using kernels::PositionBias;

AttentionCase any_case() {
  AttentionCase c;
  const int64_t sequences = *rc::gen::inRange<int64_t>(1, 5);
  for (int64_t b = 0; b < sequences; ++b) c.lengths.push_back(*rc::gen::inRange<int64_t>(0, 200));
  // Now and then one that the backward cuts into chunks whatever the window is.
  if (*rc::gen::inRange(0, 8) == 0) c.lengths[0] = *rc::gen::inRange<int64_t>(500, 1200);
  c.d_attn = *rc::gen::inRange<int64_t>(1, 40);
  c.d_hidden = *rc::gen::inRange<int64_t>(1, 80);
  c.window = *rc::gen::element<int64_t>(-1, 1, 2, 7, 30, 63, 64, 65, 130, 1000);
  c.causal = *rc::gen::arbitrary<bool>();
  c.function = *rc::gen::element(AttentionFunction::kSoftmax, AttentionFunction::kRelu2, AttentionFunction::kLaplace);
  c.bias = *rc::gen::element(PositionBias::kNone, PositionBias::kOriginalDistance, PositionBias::kWindowDistance);
  if (c.window < 0 && c.bias == PositionBias::kWindowDistance) c.bias = PositionBias::kNone;
  c.max_positions = positions_for(c.bias, c.window);
  c.gap = *rc::gen::inRange<int64_t>(0, 4);
  return c;
}

template <class T>
bool same_rows(const Guarded<T>& a, int64_t a_row, const Guarded<T>& b, int64_t b_row, int64_t stride, int64_t width) {
  return same_bits(a.data() + a_row * stride, b.data() + b_row * stride, width);
}

// Rows [a_begin, a_begin + count) of one result and [b_begin, ...) of another, problems of equal widths and strides.
template <class T>
void require_equal_rows(const AttentionTensors<T>& t, const AttentionResults<T>& a, int64_t a_begin, const AttentionResults<T>& b, int64_t b_begin,
                        int64_t count) {
  const auto& s = t.shape;
  for (int64_t i = 0; i < count; ++i) {
    RC_ASSERT(same_rows(a.out, a_begin + i, b.out, b_begin + i, s.out_stride, s.d_hidden));
    if (s.function == AttentionFunction::kSoftmax) RC_ASSERT(same_rows(a.lse, a_begin + i, b.lse, b_begin + i, 1, 1));
    RC_ASSERT(same_rows(a.dq, a_begin + i, b.dq, b_begin + i, s.q_stride, s.d_attn));
    RC_ASSERT(same_rows(a.dk, a_begin + i, b.dk, b_begin + i, s.k_stride, s.d_attn));
    RC_ASSERT(same_rows(a.dv, a_begin + i, b.dv, b_begin + i, s.v_stride, s.d_hidden));
  }
}

template <class T>
void copy_rows(const Guarded<T>& from, int64_t begin, int64_t count, int64_t stride, Guarded<T>* to) {
  std::copy(from.data() + begin * stride, from.data() + (begin + count) * stride, to->data());
}

template <class T>
void poison(Guarded<T>* tensor, int64_t row, int64_t stride, int64_t width) {
  for (int64_t x = 0; x < width; ++x) (*tensor)[row * stride + x] = std::numeric_limits<T>::quiet_NaN();
}

template <class T>
class WindowAttentionLaws : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(WindowAttentionLaws, Types);

// check() on every SIMD target; fails the test with RapidCheck's report, which carries the seed.
template <class Property>
void holds(const Property& property) {
  on_every_target([&] { EXPECT_TRUE(rc::check(property)); });
}

TYPED_TEST(WindowAttentionLaws, ASequenceAloneGivesTheSameBits) {
  using T = TypeParam;
  holds([] {
    const AttentionCase c = any_case();
    const AttentionTensors<T> all(c);
    const AttentionResults<T> together = run_attention(all);
    for (size_t b = 0; b < c.lengths.size(); ++b) {
      AttentionCase single = c;
      single.lengths = {c.lengths[b]};
      AttentionTensors<T> alone(single);
      copy_rows(all.q, all.cu[b], c.lengths[b], all.shape.q_stride, &alone.q);
      copy_rows(all.k, all.cu[b], c.lengths[b], all.shape.k_stride, &alone.k);
      copy_rows(all.v, all.cu[b], c.lengths[b], all.shape.v_stride, &alone.v);
      copy_rows(all.dout, all.cu[b], c.lengths[b], all.shape.out_stride, &alone.dout);
      std::copy(all.positions.begin() + all.cu[b], all.positions.begin() + all.cu[b + 1], alone.positions.begin());
      const AttentionResults<T> separately = run_attention(alone);
      require_equal_rows(all, together, all.cu[b], separately, 0, c.lengths[b]);
    }
  });
}

TYPED_TEST(WindowAttentionLaws, ItemCutsChangeNoBit) {
  using T = TypeParam;
  holds([] {
    const AttentionCase c = any_case();
    const AttentionTensors<T> t(c);
    const AttentionResults<T> whole = run_attention(t);
    const int64_t items = kernels::window_attention_items(t.shape);
    std::vector<int64_t> cuts = *rc::gen::container<std::vector<int64_t>>(rc::gen::inRange<int64_t>(0, items + 1));
    cuts.push_back(0);
    cuts.push_back(items);
    std::sort(cuts.begin(), cuts.end());
    AttentionResults<T> cut(t);
    run_attention(t, cuts, &cut);
    require_equal_rows(t, whole, 0, cut, 0, t.tokens());
    RC_ASSERT(same_bits(whole.dbias.data(), cut.dbias.data(), t.table.size()));
  });
}

TYPED_TEST(WindowAttentionLaws, StridesChangeNoBit) {
  using T = TypeParam;
  holds([] {
    AttentionCase c = any_case();
    c.gap = 0;
    const AttentionTensors<T> tight(c);
    const AttentionResults<T> a = run_attention(tight);
    c.gap = *rc::gen::inRange<int64_t>(1, 70);
    const AttentionTensors<T> wide(c);
    const AttentionResults<T> b = run_attention(wide);
    for (int64_t i = 0; i < tight.tokens(); ++i) {
      RC_ASSERT(same_bits(a.out.data() + i * tight.shape.out_stride, b.out.data() + i * wide.shape.out_stride, c.d_hidden));
      RC_ASSERT(same_bits(a.dq.data() + i * tight.shape.q_stride, b.dq.data() + i * wide.shape.q_stride, c.d_attn));
      RC_ASSERT(same_bits(a.dk.data() + i * tight.shape.k_stride, b.dk.data() + i * wide.shape.k_stride, c.d_attn));
      RC_ASSERT(same_bits(a.dv.data() + i * tight.shape.v_stride, b.dv.data() + i * wide.shape.v_stride, c.d_hidden));
    }
  });
}

// The prefix of a causal sequence neither sees nor can tell the length of what follows.
TYPED_TEST(WindowAttentionLaws, ThePastIgnoresTheFuture) {
  using T = TypeParam;
  holds([] {
    AttentionCase c = any_case();
    c.causal = true;
    c.lengths = {*rc::gen::element<int64_t>(1, 4) * *rc::gen::inRange<int64_t>(1, 300)};
    const AttentionTensors<T> whole(c);
    const AttentionResults<T> full = run_attention(whole);
    const int64_t prefix = *rc::gen::inRange<int64_t>(0, c.lengths[0] + 1);
    AttentionCase shorter = c;
    shorter.lengths = {prefix};
    AttentionTensors<T> start(shorter);
    copy_rows(whole.q, 0, prefix, whole.shape.q_stride, &start.q);
    copy_rows(whole.k, 0, prefix, whole.shape.k_stride, &start.k);
    copy_rows(whole.v, 0, prefix, whole.shape.v_stride, &start.v);
    copy_rows(whole.dout, 0, prefix, whole.shape.out_stride, &start.dout);
    std::copy(whole.positions.begin(), whole.positions.begin() + prefix, start.positions.begin());
    const AttentionResults<T> part = run_attention(start);
    for (int64_t i = 0; i < prefix; ++i) {
      RC_ASSERT(same_rows(full.out, i, part.out, i, whole.shape.out_stride, c.d_hidden));
      RC_ASSERT(same_rows(full.dq, i, part.dq, i, whole.shape.q_stride, c.d_attn));
    }
  });
}

// Whatever stands outside a row's window, NaN included, the row keeps its bits: queries against keys and keys against queries.
TYPED_TEST(WindowAttentionLaws, WhatIsOutsideTheWindowChangesNoBit) {
  using T = TypeParam;
  holds([] {
    AttentionCase c = any_case();
    c.window = *rc::gen::element<int64_t>(1, 7, 30, 63, 64, 65, 100);
    c.max_positions = positions_for(c.bias, c.window);
    const int64_t n = *rc::gen::element<int64_t>(1, 4) * *rc::gen::inRange<int64_t>(1, 300);
    c.lengths = {n};
    const AttentionTensors<T> clean(c);
    const AttentionResults<T> want = run_attention(clean);
    const int64_t row = *rc::gen::inRange<int64_t>(0, n);
    const auto& s = clean.shape;
    const int64_t back = c.window, ahead = c.causal ? 0 : c.window;

    AttentionTensors<T> keys_gone(c);
    for (int64_t j = 0; j < n; ++j) {
      if (row - j <= back && j - row <= ahead) continue;
      poison(&keys_gone.k, j, s.k_stride, c.d_attn);
      poison(&keys_gone.v, j, s.v_stride, c.d_hidden);
    }
    const AttentionResults<T> by_query = run_attention(keys_gone);
    RC_ASSERT(same_rows(want.out, row, by_query.out, row, s.out_stride, c.d_hidden));
    RC_ASSERT(same_rows(want.dq, row, by_query.dq, row, s.q_stride, c.d_attn));

    AttentionTensors<T> queries_gone(c);
    for (int64_t i = 0; i < n; ++i) {
      if (i - row <= back && row - i <= ahead) continue;
      poison(&queries_gone.q, i, s.q_stride, c.d_attn);
      poison(&queries_gone.dout, i, s.out_stride, c.d_hidden);
    }
    const AttentionResults<T> by_key = run_attention(queries_gone);
    RC_ASSERT(same_rows(want.dk, row, by_key.dk, row, s.k_stride, c.d_attn));
    RC_ASSERT(same_rows(want.dv, row, by_key.dv, row, s.v_stride, c.d_hidden));
  });
}

}  // namespace
}  // namespace seqboat::test
