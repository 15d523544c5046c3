#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

/// How much of its input a model activates, where, and how far it looks: what `eval` says of each layer.
namespace seqboat::trace {

/// What a layer's attention sees, summed over queries. Sums of several sequences, batches or runs add up.
struct AttentionSpan {
  double total = 0;     ///< sum over queries of their mean distance
  int64_t queries = 0;  ///< those whose mean distance is not zero

  /// Mean distance in tokens from an activated token to the activated tokens that it attends to; 0 where there are none.
  double mean() const { return total / (static_cast<double>(queries) + 1e-6); }
  AttentionSpan& operator+=(const AttentionSpan& other) {
    total += other.total;
    queries += other.queries;
    return *this;
  }
};

/// Of one sequence. Let t_0 < t_1 < ... < t_{K-1} be the times of its activated tokens. Query i attends to the keys
///   j = max(0, i - window) .. i  (causal),  max(0, i - window) .. min(K - 1, i + window)  (bidirectional);  window <= 0: all, or all up to i,
/// and with n_i the number of them at a distance |t_i - t_j| > 0
///   span_i = sum_j |t_i - t_j| / (n_i + 1e-8),     mean() = sum_i span_i / (number of i with span_i != 0, + 1e-6).
/// The window counts activated tokens, the distance is the original one: sparse activation is what makes a short window see far.
/// `active` has one flag a token. Distances are summed in integers, so the cost is that of one pass whatever the window.
AttentionSpan attention_span(std::span<const uint8_t> active, int64_t window, bool causal);

/// The same with the times themselves, increasing. The first `keys_only` of them are only attended to, not counted as queries.
AttentionSpan attention_span_of_times(std::span<const int64_t> times, int64_t window, bool causal, int64_t keys_only = 0);

/// span_i of each query of attention_span_of_times().
std::vector<double> query_spans(std::span<const int64_t> times, int64_t window, bool causal);

/// What the queries of a module may attend to, among the activated tokens of their sequence.
struct AttentionReach {
  int64_t window = 0;   ///< activated tokens on a side, as attention_span() has it; <= 0: all
  int64_t chunk = 0;    ///< > 0: only those in the same block of so many tokens, the blocks counted from the start of the sequence
  bool causal = false;  ///< only earlier ones, and the query itself
};

/// How far the weights themselves reach. With w_ij the weight that query i gives to key j, itself included,
///
///   d_i = sum_j w_ij |t_i - t_j| / sum_j w_ij,     mean() = sum_i d_i / (number of i).
///
/// The division makes relu2 and laplace, whose weights do not add up to one, comparable with softmax. Unlike AttentionSpan a query that looks at
/// itself alone counts, with distance 0: it weighs nothing else. A query whose weights are all zero (relu2) has no distance and is left out.
struct WeightedSpan {
  double total = 0;     ///< sum of d_i
  int64_t queries = 0;  ///< those that weigh anything
  double mean() const { return queries > 0 ? total / static_cast<double>(queries) : 0.0; }
};

/// Activated tokens among tokens.
struct Share {
  int64_t tokens = 0;
  int64_t active = 0;
  double rate() const { return tokens > 0 ? static_cast<double>(active) / static_cast<double>(tokens) : 0.0; }  ///< 0 before any token
  void add(bool is_active) {
    ++tokens;
    active += is_active ? 1 : 0;
  }
};

/// Mean and spread of numbers that come one by one, each with the same weight.
class Spread {
 public:
  void add(double value);
  int64_t count() const { return count_; }
  double mean() const { return mean_; }
  double deviation() const;  ///< the sample's standard deviation, over count - 1; 0 of fewer than two

 private:
  int64_t count_ = 0;
  double mean_ = 0;
  double squares_ = 0;  ///< sum of the squared distances from the mean
};

/// How often each whole number came.
class Histogram {
 public:
  void add(int64_t value) { ++counts_[value]; }
  int64_t count() const;
  double mean() const;    ///< 0 of nothing, as the other two
  double median() const;  ///< of an even number, the mean of the middle two
  int64_t max() const { return counts_.empty() ? 0 : counts_.rbegin()->first; }

 private:
  std::map<int64_t, int64_t> counts_;
};

/// A part of a layer that runs on the tokens that are activated for it.
struct Module {
  std::string name = "attention";
  bool attends = true;  ///< false: it looks at each token alone (a feed-forward block), and has no span
  AttentionReach reach = {};
};

/// A way to sort tokens into classes: by what they are, say. A task tells for each token the number of its label.
struct Grouping {
  std::string name;                 ///< "class"
  std::vector<std::string> labels;  ///< at most 256
};

/// Bins of the position: by the tenth of its sequence that a token lies in, floor(10 t / T), and by its time t: 0, 1, 2-3, 4-7, 8-15, ...
inline constexpr int kTenths = 10;
inline constexpr int kPositionBins = 64;
int position_bin(int64_t time);           ///< of a time >= 0
std::string position_bin_label(int bin);  ///< "0", "1", "2-3", ...
std::string tenth_label(int tenth);       ///< "0-10 %", ...

/// What is known of one module of one layer.
struct ModuleActivation {
  Share all;
  AttentionSpan span;
  // What follows only with StatsOptions::details.
  Spread sequences;                          ///< rates of single sequences (of a stream: of its pieces): the official "ACT_Time", without padding
  std::vector<Share> by_tenth;               ///< (kTenths); a stream has no end and no tenths
  std::vector<Share> by_position;            ///< (kPositionBins)
  std::vector<std::vector<Share>> by_group;  ///< for each grouping, for each label
  Histogram gaps;                            ///< t_{i+1} - t_i of neighbouring activated tokens: 1 = side by side
  WeightedSpan weighted_span;                ///< where distances are given
};

struct StatsOptions {
  int64_t layers = 0;
  std::vector<Module> modules = {{}};    ///< of every layer
  std::vector<Grouping> groupings = {};  ///< with details
  bool spans = true;                     ///< the attention span
  bool details = false;                  ///< everything else, too
};

/// One module's decisions on packed sequences.
struct Decisions {
  const uint8_t* active = nullptr;                    ///< (sum T) 1 = activated; nullptr: all of them
  std::span<const int64_t> cu_seqlens = {};           ///< (B+1)
  std::vector<std::span<const uint8_t>> groups = {};  ///< for each grouping (sum T) numbers of labels; empty: the groupings are left alone
  std::span<const double> distances = {};             ///< d_i of each activated token, in order, NaN = none; empty: the weighted span is left alone
};

/// Collects activation over batches, layer by layer and module by module. Everything is counted sequence by sequence in the order given, so that it
/// does not depend on how the sequences were cut into batches.
class ActivationStats {
 public:
  explicit ActivationStats(StatsOptions options);

  void add(int64_t layer, int64_t module, const Decisions& decisions);

  /// The next piece of one causal stream (one sequence), which goes on where the last piece ended: its queries also see what was activated before.
  void add_piece(int64_t layer, int64_t module, const Decisions& decisions);

  const StatsOptions& options() const { return options_; }
  int64_t layers() const { return options_.layers; }
  int64_t modules() const { return static_cast<int64_t>(options_.modules.size()); }
  const ModuleActivation& at(int64_t layer, int64_t module) const { return entry(layer, module).result; }

  /// Of each layer: the share of tokens activated by its modules, on average, in [0, 1]; 0 before any token.
  std::vector<double> activation_rate() const;
  /// Of each layer: AttentionSpan::mean() in tokens, over the queries of all modules that attend.
  std::vector<double> attention_span() const;
  /// Of each layer: WeightedSpan::mean() in tokens, likewise.
  std::vector<double> weighted_span() const;
  /// activation_rate() of all layers together.
  double mean_activation_rate() const;
  void reset();

 private:
  struct Entry {
    ModuleActivation result;
    int64_t time = 0;                 ///< of the stream
    int64_t last_active = -1;         ///< in the stream
    std::vector<int64_t> last_times;  ///< of the stream's activated tokens that a later query may still see
  };
  const Entry& entry(int64_t layer, int64_t module) const;
  Entry& entry(int64_t layer, int64_t module);
  /// `length` of the sequence; 0 = not known.
  void count(Entry* into, const Decisions& decisions, int64_t begin, int64_t end, int64_t first_time, int64_t length, int64_t last_active) const;
  static void add_distances(Entry* into, const Decisions& decisions);
  void add_spans(Entry* into, const Module& module, std::span<const int64_t> times, int64_t keys_only) const;

  StatsOptions options_;
  std::vector<Entry> entries_;  ///< layer after layer
};

}  // namespace seqboat::trace
