#include "seqboat/trace/activation_stats.h"

#include <algorithm>

#include "seqboat/base/error.h"

namespace seqboat::trace {

AttentionSpan attention_span_of_times(std::span<const int64_t> times, int64_t window, bool causal, int64_t keys_only) {
  const int64_t count = static_cast<int64_t>(times.size());
  const int64_t reach = window > 0 ? std::min(window, count) : count;
  AttentionSpan out;
  // Sums of the times to the left and to the right of the query that are in reach, moved along with it. Times differ, so every key but the query
  // itself is at a distance above zero.
  int64_t left = 0, right = 0;
  for (int64_t j = 1; j <= reach && j < count; ++j) right += times[j];
  for (int64_t i = 0; i < count; ++i) {
    const int64_t before = std::min(i, reach), after = causal ? 0 : std::min(count - 1 - i, reach);
    int64_t distance = before * times[i] - left;
    if (!causal) distance += right - after * times[i];
    if (distance > 0 && i >= keys_only) {
      out.total += static_cast<double>(distance) / (static_cast<double>(before + after) + 1e-8);
      ++out.queries;
    }
    left += times[i];
    if (i - reach >= 0) left -= times[i - reach];
    if (i + 1 < count) right -= times[i + 1];
    if (i + 1 + reach < count) right += times[i + 1 + reach];
  }
  return out;
}

AttentionSpan attention_span(std::span<const uint8_t> active, int64_t window, bool causal) {
  std::vector<int64_t> times;
  times.reserve(active.size());
  for (size_t t = 0; t < active.size(); ++t) {
    if (active[t] != 0) times.push_back(static_cast<int64_t>(t));
  }
  return attention_span_of_times(times, window, causal);
}

ActivationStats::ActivationStats(int64_t layers, int64_t window, bool causal)
    : layers_(static_cast<size_t>(layers)), window_(window), causal_(causal) {}

void ActivationStats::add(int64_t layer, const uint8_t* active, std::span<const int64_t> cu_seqlens, bool spans) {
  SEQBOAT_DCHECK(layer >= 0 && layer < layers());
  if (cu_seqlens.empty()) return;
  Layer& into = layers_[static_cast<size_t>(layer)];
  const int64_t begin = cu_seqlens.front(), end = cu_seqlens.back();
  if (active == nullptr) {
    if (static_cast<int64_t>(all_.size()) < end) all_.assign(static_cast<size_t>(end), 1);
    active = all_.data();
  }
  into.tokens += end - begin;
  for (int64_t t = begin; t < end; ++t) into.active += active[t] != 0 ? 1 : 0;
  if (!spans) return;
  for (size_t b = 0; b + 1 < cu_seqlens.size(); ++b) {
    into.span += trace::attention_span({active + cu_seqlens[b], static_cast<size_t>(cu_seqlens[b + 1] - cu_seqlens[b])}, window_, causal_);
  }
}

void ActivationStats::add_piece(int64_t layer, const uint8_t* active, int64_t tokens, bool spans) {
  SEQBOAT_DCHECK(layer >= 0 && layer < layers() && causal_);
  Layer& into = layers_[static_cast<size_t>(layer)];
  std::vector<int64_t> times = std::move(into.last_times);
  const auto before = static_cast<int64_t>(times.size());
  for (int64_t t = 0; t < tokens; ++t) {
    if (active == nullptr || active[t] != 0) times.push_back(into.time + t);
  }
  into.tokens += tokens;
  into.active += static_cast<int64_t>(times.size()) - before;
  into.time += tokens;
  if (spans) into.span += attention_span_of_times(times, window_, causal_, before);
  const auto kept = window_ > 0 ? std::min(window_, static_cast<int64_t>(times.size())) : static_cast<int64_t>(times.size());
  times.erase(times.begin(), times.end() - kept);
  into.last_times = std::move(times);
}

std::vector<double> ActivationStats::activation_rate() const {
  std::vector<double> out;
  for (const Layer& layer : layers_) out.push_back(layer.tokens > 0 ? static_cast<double>(layer.active) / static_cast<double>(layer.tokens) : 0.0);
  return out;
}

std::vector<double> ActivationStats::attention_span() const {
  std::vector<double> out;
  for (const Layer& layer : layers_) out.push_back(layer.span.mean());
  return out;
}

double ActivationStats::mean_activation_rate() const {
  int64_t tokens = 0, active = 0;
  for (const Layer& layer : layers_) {
    tokens += layer.tokens;
    active += layer.active;
  }
  return tokens > 0 ? static_cast<double>(active) / static_cast<double>(tokens) : 0.0;
}

void ActivationStats::reset() {
  std::fill(layers_.begin(), layers_.end(), Layer{});
}

}  // namespace seqboat::trace
