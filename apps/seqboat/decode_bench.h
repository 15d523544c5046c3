#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "latencies.h"
#include "seqboat/runtime/model.h"
#include "seqboat/runtime/runner.h"
#include "seqboat/runtime/state.h"

namespace seqboat::app {

struct DecodeBenchOptions {
  int64_t streams = 1;
  int64_t threads = 1;
  int64_t context = 0;          ///< tokens that every stream has seen before the clock begins
  int64_t length = 1;           ///< tokens of a prefill; of decode those that there must be room for where attention has no window
  double activation_rate = -1;  ///< decisions are forced at this rate; negative = the routers decide
  uint64_t seed = 0;
};

/// Streams of one model on made-up input that are fed and timed: a token at a time (decode), or `length` at once (prefill). The input of a token is a
/// function of its stream and time.
class DecodeBench {
 public:
  DecodeBench(std::shared_ptr<const runtime::Model> model, const DecodeBenchOptions& options);

  /// One token of each stream, with its logits.
  void decode_step();
  /// `length` tokens of each stream after the context, with the last one's logits, on states that are then thrown away.
  void prefill_step();

  /// What was fed until now was to warm up.
  void begin_timing();
  const Latencies& times() const { return times_; }
  double fastest_seconds() const { return fastest_; }
  std::vector<double> activation_rate() const;  ///< by layer, of the timed tokens
  int64_t state_bytes() const { return states_[0].size_bytes(); }
  int64_t workspace_bytes() const { return runner_.workspace_bytes(); }

 private:
  void prepare(int64_t tokens, runtime::Want want);
  void timed_feed();
  void count(int64_t tokens, const std::vector<int64_t>& before);
  std::vector<int64_t> activated() const;

  std::shared_ptr<const runtime::Model> model_;
  DecodeBenchOptions options_;
  int64_t channels_;  ///< 0 = tokens
  std::vector<runtime::State> states_;
  runtime::Runner runner_;
  std::vector<runtime::State> after_context_;
  std::vector<int64_t> tokens_;
  std::vector<float> values_, logits_;
  std::vector<uint8_t> forced_;
  std::vector<runtime::Feed> feeds_;
  std::vector<int64_t> activated_;
  int64_t counted_ = 0;
  Latencies times_;
  double fastest_ = 0;
};

}  // namespace seqboat::app
