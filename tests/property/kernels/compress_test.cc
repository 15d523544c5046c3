#include "seqboat/kernels/compress.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <vector>

#include "seqboat/kernels/router.h"
#include "support/guarded.h"

namespace seqboat::kernels {
namespace {

// Packed sequences of random lengths with random decisions.
struct Batch {
  std::vector<int64_t> cu_seqlens = {0};
  std::vector<uint8_t> active;
  std::vector<int64_t> active_cu_seqlens, active_index, positions;
  int64_t dim;

  int64_t batch() const { return static_cast<int64_t>(cu_seqlens.size()) - 1; }
  int64_t tokens() const { return cu_seqlens.back(); }
  int64_t count() const { return static_cast<int64_t>(active_index.size()); }
};

Batch any_batch() {
  Batch b;
  const int batch = *rc::gen::inRange(0, 6);
  for (int i = 0; i < batch; ++i) b.cu_seqlens.push_back(b.cu_seqlens.back() + *rc::gen::inRange(0, 40));
  const int tenths = *rc::gen::inRange(0, 11);
  b.active = *rc::gen::container<std::vector<uint8_t>>(static_cast<size_t>(b.tokens()),
                                                       rc::gen::map(rc::gen::inRange(0, 10), [=](int v) { return uint8_t(v < tenths); }));
  b.dim = *rc::gen::inRange(1, 70);
  b.active_cu_seqlens.resize(b.cu_seqlens.size());
  const int64_t count = count_active(b.batch(), b.cu_seqlens.data(), b.active.data(), b.active_cu_seqlens.data());
  b.active_index.resize(count);
  b.positions.resize(count);
  fill_active_index(b.batch(), b.cu_seqlens.data(), b.active.data(), b.active_index.data(), b.positions.data());
  return b;
}

template <class T>
std::vector<T> any_integers(int64_t n) {
  return *rc::gen::container<std::vector<T>>(static_cast<size_t>(n), rc::gen::map(rc::gen::inRange(-9, 10), [](int v) { return static_cast<T>(v); }));
}

template <class T>
std::vector<T> compress(const Batch& b, const std::vector<T>& x) {
  std::vector<T> out(b.count() * b.dim);
  compress_rows(0, b.count(), b.dim, b.active_index.data(), x.data(), b.dim, out.data(), b.dim);
  return out;
}

template <class T>
std::vector<T> extract(const Batch& b, const std::vector<T>& h) {
  std::vector<T> out(b.tokens() * b.dim, T{77});
  extract_rows(0, b.tokens(), b.dim, b.active.data(), 0, h.data(), b.dim, out.data(), b.dim);
  return out;
}

RC_GTEST_PROP(CompressProperty, IndicesNameTheActiveTokensInOrder, ()) {
  const Batch b = any_batch();
  RC_ASSERT(std::is_sorted(b.active_index.begin(), b.active_index.end()));
  RC_ASSERT(b.count() == std::count(b.active.begin(), b.active.end(), 1));
  for (int64_t s = 0; s < b.batch(); ++s) {
    for (int64_t i = b.active_cu_seqlens[s]; i < b.active_cu_seqlens[s + 1]; ++i) {
      RC_ASSERT(b.active[b.active_index[i]] == 1);
      RC_ASSERT(b.active_index[i] == b.cu_seqlens[s] + b.positions[i]);
      RC_ASSERT(b.active_index[i] < b.cu_seqlens[s + 1]);
    }
  }
}

template <class T>
void restores_active_rows() {
  const Batch b = any_batch();
  const std::vector<T> x = any_integers<T>(b.tokens() * b.dim);
  const std::vector<T> back = extract(b, compress(b, x));
  for (int64_t t = 0; t < b.tokens(); ++t) {
    for (int64_t j = 0; j < b.dim; ++j) RC_ASSERT(back[t * b.dim + j] == (b.active[t] == 1 ? x[t * b.dim + j] : T{0}));
  }
  // The other way round nothing is lost: every packed row has its token.
  const std::vector<T> h = any_integers<T>(b.count() * b.dim);
  RC_ASSERT(compress(b, extract(b, h)) == h);
}
RC_GTEST_PROP(CompressProperty, ExtractOfCompressRestoresActiveRowsAndZerosOthersF32, ()) {
  restores_active_rows<float>();
}
RC_GTEST_PROP(CompressProperty, ExtractOfCompressRestoresActiveRowsAndZerosOthersF64, ()) {
  restores_active_rows<double>();
}

// <compress(x), h> = <x, extract(h)>, exact because all sums are of small integers.
template <class T>
void adjoint() {
  const Batch b = any_batch();
  const std::vector<T> x = any_integers<T>(b.tokens() * b.dim), h = any_integers<T>(b.count() * b.dim);
  const std::vector<T> packed = compress(b, x), spread = extract(b, h);
  double left = 0, right = 0;
  for (size_t i = 0; i < packed.size(); ++i) left += static_cast<double>(packed[i]) * h[i];
  for (size_t i = 0; i < spread.size(); ++i) right += static_cast<double>(spread[i]) * x[i];
  RC_ASSERT(left == right);
}
RC_GTEST_PROP(CompressProperty, CompressAndExtractAreAdjointF32, ()) {
  adjoint<float>();
}
RC_GTEST_PROP(CompressProperty, CompressAndExtractAreAdjointF64, ()) {
  adjoint<double>();
}

struct Routed {
  std::vector<uint8_t> active;
  std::vector<float> p, probability;
};

Routed route(int64_t begin, int64_t end, int64_t stride, const std::vector<float>& u, float bias, float log_temperature, const uint8_t* forced) {
  const int64_t n = end - begin;
  Routed out{std::vector<uint8_t>(n), std::vector<float>(n), std::vector<float>(n)};
  router_fwd(n, stride, u.data() + begin * stride, bias, log_temperature, forced == nullptr ? nullptr : forced + begin, out.active.data(),
             out.p.data(), out.probability.data());
  return out;
}

std::vector<float> any_logits(int64_t n) {
  return *rc::gen::container<std::vector<float>>(static_cast<size_t>(n),
                                                 rc::gen::map(rc::gen::inRange(-4000, 4001), [](int v) { return static_cast<float>(v) / 1000; }));
}

RC_GTEST_PROP(RouterProperty, ForcedDecisionsAreHonoured, ()) {
  const int64_t tokens = *rc::gen::inRange(0, 150), stride = *rc::gen::inRange(2, 6);
  const std::vector<float> u = any_logits(tokens * stride);
  const auto forced = *rc::gen::container<std::vector<uint8_t>>(static_cast<size_t>(tokens), rc::gen::element<uint8_t>(0, 1));
  const Routed free = route(0, tokens, stride, u, 0.25f, 0.5f, nullptr), bound = route(0, tokens, stride, u, 0.25f, 0.5f, forced.data());
  RC_ASSERT(bound.active == forced);
  RC_ASSERT(bound.probability == free.probability);
  for (int64_t t = 0; t < tokens; ++t) RC_ASSERT(bound.p[t] == (forced[t] == 1 ? free.probability[t] : 0.0f));
}

RC_GTEST_PROP(RouterProperty, TokensAreIndependent, ()) {
  const int64_t tokens = *rc::gen::inRange(1, 200), stride = *rc::gen::inRange(2, 6);
  const int64_t begin = *rc::gen::inRange<int64_t>(0, tokens), end = *rc::gen::inRange<int64_t>(begin, tokens + 1);
  const std::vector<float> u = any_logits(tokens * stride);
  const Routed whole = route(0, tokens, stride, u, -0.1f, 1.0f, nullptr), part = route(begin, end, stride, u, -0.1f, 1.0f, nullptr);
  RC_ASSERT(std::equal(part.active.begin(), part.active.end(), whole.active.begin() + begin));
  RC_ASSERT(test::same_bits(part.p.data(), whole.p.data() + begin, end - begin));
  RC_ASSERT(test::same_bits(part.probability.data(), whole.probability.data() + begin, end - begin));
}

}  // namespace
}  // namespace seqboat::kernels
