#include "seqboat/runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "seqboat/base/error.h"
#include "seqboat/base/philox.h"

namespace seqboat::runtime {
namespace {

// Sets these numbers apart from others that the same seed is the key of.
constexpr uint32_t kSampling = 0x73616d70;

double uniform(uint64_t seed, int64_t number) {
  const auto n = static_cast<uint64_t>(number);
  const auto words = philox4x32({static_cast<uint32_t>(n), static_cast<uint32_t>(n >> 32), 0, kSampling},
                                {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return static_cast<double>((static_cast<uint64_t>(words[0]) << 32 | words[1]) >> 11) * 0x1p-53;
}

}  // namespace

Sampler::Sampler(const SamplerOptions& options, int64_t vocab) : options_(options) {
  SEQBOAT_CHECK(vocab >= 1 && vocab <= std::numeric_limits<int32_t>::max(), ErrorKind::kUsage, "a sampler needs a vocabulary of 1 to {}, found {}",
                std::numeric_limits<int32_t>::max(), vocab);
  SEQBOAT_CHECK(std::isfinite(options.temperature) && options.temperature >= 0, ErrorKind::kUsage,
                "temperature: expected a number from 0 on, found {}", options.temperature);
  SEQBOAT_CHECK(options.top_k >= 0, ErrorKind::kUsage, "top_k: expected a whole number from 0 on, found {}", options.top_k);
  SEQBOAT_CHECK(options.top_p > 0 && options.top_p <= 1, ErrorKind::kUsage, "top_p: expected a number above 0 and at most 1, found {}",
                options.top_p);
  order_.resize(static_cast<size_t>(vocab));
  weight_.resize(static_cast<size_t>(vocab));
}

int64_t Sampler::largest(std::span<const float> logits) const {
  SEQBOAT_CHECK(logits.size() == weight_.size(), ErrorKind::kUsage, "the sampler was made for {} logits, found {}", weight_.size(), logits.size());
  size_t best = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    SEQBOAT_CHECK(!std::isnan(logits[i]) && logits[i] != std::numeric_limits<float>::infinity(), ErrorKind::kDiverged,
                  "logit {}: expected a number, found {}", i, logits[i]);
    if (logits[i] > logits[best]) best = i;
  }
  SEQBOAT_CHECK(std::isfinite(logits[best]), ErrorKind::kDiverged, "all {} logits are -infinity: no token is possible", logits.size());
  return static_cast<int64_t>(best);
}

int64_t Sampler::sample(std::span<const float> logits, int64_t number) {
  const int64_t best = largest(logits);
  if (options_.temperature == 0) return best;
  const double top = logits[static_cast<size_t>(best)];
  for (size_t i = 0; i < logits.size(); ++i) weight_[i] = std::exp((static_cast<double>(logits[i]) - top) / options_.temperature);

  std::iota(order_.begin(), order_.end(), 0);
  auto end = order_.end();
  const auto more_probable = [&](int32_t a, int32_t b) {
    // By the logits: weights that round to the same number are no ties.
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  if (options_.top_k > 0 && options_.top_k < static_cast<int64_t>(order_.size())) {
    end = order_.begin() + options_.top_k;
    std::nth_element(order_.begin(), end - 1, order_.end(), more_probable);
  }
  // With all of the vocabulary their own order will do; else the sums must not depend on how nth_element left them.
  if (end != order_.end() || options_.top_p < 1) std::sort(order_.begin(), end, more_probable);

  const auto sum_up_to = [&](auto last) {
    double sum = 0;
    for (auto i = order_.begin(); i != last; ++i) sum += weight_[static_cast<size_t>(*i)];
    return sum;
  };
  double total = sum_up_to(end);
  if (options_.top_p < 1) {
    const double wanted = options_.top_p * total;
    double sum = 0;
    auto last = order_.begin();
    do sum += weight_[static_cast<size_t>(*last++)];
    while (last != end && sum < wanted);
    end = last;
    total = sum;
  }
  const double place = uniform(options_.seed, number) * total;
  double sum = 0;
  int64_t chosen = best;  // never an impossible token, even where rounding leaves `place` at the end
  for (auto i = order_.begin(); i != end; ++i) {
    const double weight = weight_[static_cast<size_t>(*i)];
    if (weight == 0) continue;
    chosen = *i;
    sum += weight;
    if (place < sum) break;
  }
  return chosen;
}

}  // namespace seqboat::runtime
