#pragma once

#include <cstdint>
#include <span>
#include <vector>

/// How much of its input a model activates, and how far it looks: the two figures that `eval` prints for each layer.
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

/// Collects both figures over batches, layer by layer.
class ActivationStats {
 public:
  ActivationStats(int64_t layers, int64_t window, bool causal);

  /// One layer's decisions on a packed batch: active (sum T), offsets cu_seqlens (B+1). nullptr: a layer without router, everything activated.
  /// spans = false leaves the attention span alone, as training does.
  void add(int64_t layer, const uint8_t* active, std::span<const int64_t> cu_seqlens, bool spans = true);

  /// The next piece of one causal stream, which goes on where the last piece ended: its queries also see what was activated before.
  void add_piece(int64_t layer, const uint8_t* active, int64_t tokens, bool spans = true);

  int64_t layers() const { return static_cast<int64_t>(layers_.size()); }
  /// Share of tokens activated in each layer, in [0, 1]; 0 before any token.
  std::vector<double> activation_rate() const;
  /// AttentionSpan::mean() of each layer, in tokens.
  std::vector<double> attention_span() const;
  /// activation_rate() of all layers together.
  double mean_activation_rate() const;
  void reset();

 private:
  struct Layer {
    int64_t tokens = 0;
    int64_t active = 0;
    AttentionSpan span;
    int64_t time = 0;                 ///< of the stream
    std::vector<int64_t> last_times;  ///< of its last `window` activated tokens (of all, without a window)
  };
  std::vector<Layer> layers_;
  int64_t window_;
  bool causal_;
  std::vector<uint8_t> all_;  ///< ones, for layers without router
};

}  // namespace seqboat::trace
