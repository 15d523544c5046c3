#include "seqboat/trace/activation_stats.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "seqboat/base/error.h"

namespace seqboat::trace {

namespace {

/// Calls visit(i, span_i) for every query from `first` on.
template <class Visit>
void for_each_query(std::span<const int64_t> times, int64_t window, bool causal, int64_t first, const Visit& visit) {
  const int64_t count = static_cast<int64_t>(times.size());
  const int64_t reach = window > 0 ? std::min(window, count) : count;
  // Sums of the times to the left and to the right of the query that are in reach, moved along with it. Times differ, so every key but the query
  // itself is at a distance above zero.
  int64_t left = 0, right = 0;
  for (int64_t j = 1; j <= reach && j < count; ++j) right += times[j];
  for (int64_t i = 0; i < count; ++i) {
    const int64_t before = std::min(i, reach), after = causal ? 0 : std::min(count - 1 - i, reach);
    int64_t distance = before * times[i] - left;
    if (!causal) distance += right - after * times[i];
    if (i >= first) visit(i, static_cast<double>(distance) / (static_cast<double>(before + after) + 1e-8));
    left += times[i];
    if (i - reach >= 0) left -= times[i - reach];
    if (i + 1 < count) right -= times[i + 1];
    if (i + 1 + reach < count) right += times[i + 1 + reach];
  }
}

}  // namespace

AttentionSpan attention_span_of_times(std::span<const int64_t> times, int64_t window, bool causal, int64_t keys_only) {
  AttentionSpan out;
  for_each_query(times, window, causal, keys_only, [&](int64_t, double span) {
    if (span <= 0) return;
    out.total += span;
    ++out.queries;
  });
  return out;
}

std::vector<double> query_spans(std::span<const int64_t> times, int64_t window, bool causal) {
  std::vector<double> out(times.size());
  for_each_query(times, window, causal, 0, [&](int64_t i, double span) { out[static_cast<size_t>(i)] = span; });
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

void Spread::add(double value) {
  ++count_;
  const double from_old = value - mean_;
  mean_ += from_old / static_cast<double>(count_);
  squares_ += from_old * (value - mean_);
}

double Spread::deviation() const {
  return count_ > 1 ? std::sqrt(squares_ / static_cast<double>(count_ - 1)) : 0.0;
}

int64_t Histogram::count() const {
  int64_t sum = 0;
  for (const auto& [value, times] : counts_) sum += times;
  return sum;
}

double Histogram::mean() const {
  int64_t sum = 0, all = 0;
  for (const auto& [value, times] : counts_) {
    sum += value * times;
    all += times;
  }
  return all > 0 ? static_cast<double>(sum) / static_cast<double>(all) : 0.0;
}

double Histogram::median() const {
  const int64_t all = count();
  if (all == 0) return 0.0;
  const auto number = [&](int64_t n) {  // the n-th in order, from 0
    for (const auto& [value, times] : counts_) {
      if (n < times) return value;
      n -= times;
    }
    return max();
  };
  return static_cast<double>(number((all - 1) / 2) + number(all / 2)) / 2;
}

int position_bin(int64_t time) {
  return static_cast<int>(std::bit_width(static_cast<uint64_t>(time)));
}

std::string position_bin_label(int bin) {
  if (bin <= 1) return std::to_string(bin);
  const int64_t from = int64_t{1} << (bin - 1);
  return std::to_string(from) + "-" + std::to_string(from - 1 + from);
}

std::string tenth_label(int tenth) {
  return std::to_string(tenth * 100 / kTenths) + "-" + std::to_string((tenth + 1) * 100 / kTenths) + " %";
}

ActivationStats::ActivationStats(StatsOptions options) : options_(std::move(options)) {
  SEQBOAT_CHECK(options_.layers >= 0 && !options_.modules.empty(), ErrorKind::kFailed,
                "activation statistics need a module, got {} layers of {} modules", options_.layers, options_.modules.size());
  for (const Grouping& grouping : options_.groupings)
    SEQBOAT_CHECK(grouping.labels.size() <= 256, ErrorKind::kFailed, "tokens can be grouped by at most 256 labels, '{}' has {}", grouping.name,
                  grouping.labels.size());
  reset();
}

const ActivationStats::Entry& ActivationStats::entry(int64_t layer, int64_t module) const {
  SEQBOAT_CHECK(layer >= 0 && layer < layers() && module >= 0 && module < modules(), ErrorKind::kFailed,
                "activation statistics of {} layers with {} modules have no module {} of layer {}", layers(), modules(), module, layer);
  return entries_[static_cast<size_t>(layer * modules() + module)];
}

ActivationStats::Entry& ActivationStats::entry(int64_t layer, int64_t module) {
  return const_cast<Entry&>(std::as_const(*this).entry(layer, module));
}

void ActivationStats::count(Entry* into, const Decisions& decisions, int64_t begin, int64_t end, int64_t first_time, int64_t length,
                            int64_t last_active) const {
  ModuleActivation& out = into->result;
  Share here;
  for (int64_t t = begin; t < end; ++t) here.add(decisions.active == nullptr || decisions.active[t] != 0);
  out.all.tokens += here.tokens;
  out.all.active += here.active;
  if (!options_.details || here.tokens == 0) return;
  out.sequences.add(here.rate());
  for (int64_t t = begin; t < end; ++t) {
    const bool active = decisions.active == nullptr || decisions.active[t] != 0;
    const int64_t time = first_time + t - begin;
    out.by_position[static_cast<size_t>(position_bin(time))].add(active);
    if (length > 0) out.by_tenth[static_cast<size_t>(kTenths * time / length)].add(active);
    if (!active) continue;
    if (last_active >= 0) out.gaps.add(time - last_active);
    last_active = time;
  }
  into->last_active = last_active;
  SEQBOAT_CHECK(decisions.groups.size() <= out.by_group.size(), ErrorKind::kFailed, "tokens are grouped in {} ways, the statistics know {}",
                decisions.groups.size(), out.by_group.size());
  for (size_t g = 0; g < decisions.groups.size(); ++g) {
    const std::span<const uint8_t> labels = decisions.groups[g];
    for (int64_t t = begin; t < end; ++t) {
      const size_t label = labels[static_cast<size_t>(t)];
      SEQBOAT_CHECK(label < out.by_group[g].size(), ErrorKind::kFailed, "token {} has label {} of the {} of '{}'", t, label, out.by_group[g].size(),
                    options_.groupings[g].name);
      out.by_group[g][label].add(decisions.active == nullptr || decisions.active[t] != 0);
    }
  }
}

void ActivationStats::add_spans(Entry* into, const Module& module, std::span<const int64_t> times, int64_t keys_only) const {
  const AttentionReach& reach = module.reach;
  if (reach.chunk <= 0) {
    into->result.span += attention_span_of_times(times, reach.window, reach.causal, keys_only);
    return;
  }
  // Block after block; only the first can hold what is no query.
  for (size_t begin = 0; begin < times.size();) {
    const int64_t block = times[begin] / reach.chunk;
    size_t end = begin;
    while (end < times.size() && times[end] / reach.chunk == block) ++end;
    into->result.span += attention_span_of_times(times.subspan(begin, end - begin), reach.window, reach.causal,
                                                 std::max<int64_t>(0, keys_only - static_cast<int64_t>(begin)));
    begin = end;
  }
}

void ActivationStats::add(int64_t layer, int64_t module, const Decisions& decisions) {
  Entry& into = entry(layer, module);
  const Module& what = options_.modules[static_cast<size_t>(module)];
  std::vector<int64_t> times;
  for (size_t b = 0; b + 1 < decisions.cu_seqlens.size(); ++b) {
    const int64_t begin = decisions.cu_seqlens[b], end = decisions.cu_seqlens[b + 1];
    count(&into, decisions, begin, end, 0, end - begin, -1);
    if (!options_.spans || !what.attends) continue;
    times.clear();
    for (int64_t t = begin; t < end; ++t) {
      if (decisions.active == nullptr || decisions.active[t] != 0) times.push_back(t - begin);
    }
    add_spans(&into, what, times, 0);
  }
  add_distances(&into, decisions);
}

void ActivationStats::add_piece(int64_t layer, int64_t module, const Decisions& decisions) {
  Entry& into = entry(layer, module);
  const Module& what = options_.modules[static_cast<size_t>(module)];
  SEQBOAT_CHECK(decisions.cu_seqlens.size() == 2 && what.reach.causal, ErrorKind::kFailed,
                "a piece of a stream is one sequence of a causal module, got {} sequences", static_cast<int64_t>(decisions.cu_seqlens.size()) - 1);
  const int64_t begin = decisions.cu_seqlens[0], end = decisions.cu_seqlens[1];
  count(&into, decisions, begin, end, into.time, 0, into.last_active);
  if (options_.spans && what.attends) {
    std::vector<int64_t> times = std::move(into.last_times);
    const auto before = static_cast<int64_t>(times.size());
    for (int64_t t = begin; t < end; ++t) {
      if (decisions.active == nullptr || decisions.active[t] != 0) times.push_back(into.time + t - begin);
    }
    add_spans(&into, what, times, before);
    // What the next piece may still see: the last `window` of them, and of those what lies in the block that goes on.
    const AttentionReach& reach = what.reach;
    if (reach.window > 0 && static_cast<int64_t>(times.size()) > reach.window) times.erase(times.begin(), times.end() - reach.window);
    if (reach.chunk > 0) {
      const int64_t block_begin = (into.time + end - begin) / reach.chunk * reach.chunk;
      times.erase(times.begin(), std::lower_bound(times.begin(), times.end(), block_begin));
    }
    into.last_times = std::move(times);
  }
  into.time += end - begin;
  add_distances(&into, decisions);
}

void ActivationStats::add_distances(Entry* into, const Decisions& decisions) {
  for (const double distance : decisions.distances) {
    if (std::isnan(distance)) continue;
    into->result.weighted_span.total += distance;
    ++into->result.weighted_span.queries;
  }
}

std::vector<double> ActivationStats::activation_rate() const {
  std::vector<double> out;
  for (int64_t layer = 0; layer < layers(); ++layer) {
    Share share;
    for (int64_t m = 0; m < modules(); ++m) {
      share.tokens += at(layer, m).all.tokens;
      share.active += at(layer, m).all.active;
    }
    out.push_back(share.rate());
  }
  return out;
}

std::vector<double> ActivationStats::attention_span() const {
  std::vector<double> out;
  for (int64_t layer = 0; layer < layers(); ++layer) {
    AttentionSpan span;
    for (int64_t m = 0; m < modules(); ++m) span += at(layer, m).span;
    out.push_back(span.mean());
  }
  return out;
}

std::vector<double> ActivationStats::weighted_span() const {
  std::vector<double> out;
  for (int64_t layer = 0; layer < layers(); ++layer) {
    WeightedSpan span;
    for (int64_t m = 0; m < modules(); ++m) {
      span.total += at(layer, m).weighted_span.total;
      span.queries += at(layer, m).weighted_span.queries;
    }
    out.push_back(span.mean());
  }
  return out;
}

double ActivationStats::mean_activation_rate() const {
  Share share;
  for (const Entry& entry : entries_) {
    share.tokens += entry.result.all.tokens;
    share.active += entry.result.all.active;
  }
  return share.rate();
}

void ActivationStats::reset() {
  Entry fresh;
  if (options_.details) {
    fresh.result.by_tenth.resize(kTenths);
    fresh.result.by_position.resize(kPositionBins);
    for (const Grouping& grouping : options_.groupings) fresh.result.by_group.emplace_back(grouping.labels.size());
  }
  entries_.assign(static_cast<size_t>(layers() * modules()), fresh);
}

}  // namespace seqboat::trace
