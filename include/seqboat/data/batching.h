#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "seqboat/data/dataset.h"

namespace seqboat::data {

struct BatchOptions {
  int64_t batch_size = 0;  ///< most sequences in a batch; 0 = no limit
  int64_t max_tokens = 0;  ///< most tokens in a batch, a limit and not a target; 0 = no limit
  bool shuffle = true;     ///< a new order in every epoch; false: the order of the data, for validation
  uint64_t seed = 0;
  /// 0 = no lanes. Else the sequences are parts of one stream that is read in so many places at once: with n = size / lanes, batch k of an epoch
  /// holds sequence l n + k of every lane l, so each lane goes on where it was. What is left over beyond lanes * n is not used. Needs batch_size =
  /// lanes and no max_tokens; shuffle has no effect.
  int64_t lanes = 0;
};

/// Where a sampler stands. All that a checkpoint has to keep: the order of an epoch follows from seed and epoch.
struct BatchState {
  int64_t epoch = 0;
  int64_t cursor = 0;  ///< sequences of this epoch that have been given out
  friend bool operator==(const BatchState&, const BatchState&) = default;
};

/// The order of sequences 0 .. n-1 in an epoch: Fisher-Yates over Philox, keyed by seed and epoch. The same on every machine.
std::vector<int64_t> epoch_order(int64_t n, uint64_t seed, int64_t epoch);

/// Deals the sequences of a data set out in batches, one epoch after the other. Each batch takes the next sequences of the epoch's order until one
/// more would break a limit; no batch spans two epochs and every sequence comes once an epoch. Which batches come depends on lengths, options and
/// state alone, so a sampler restored from a state goes on exactly as the one that gave it.
///
/// Error (kData) on construction: no sequences, one longer than max_tokens (its number and length are named), or fewer than lanes. Error (kConfig): a
/// negative limit, or lanes with other limits than their own.
class BatchSampler {
 public:
  /// offsets as in SequenceDataset.
  BatchSampler(std::span<const int64_t> offsets, const BatchOptions& options);

  /// Numbers of the sequences of the next batch; begins the next epoch when the present one is used up.
  std::vector<int64_t> next();
  /// True after the last batch of an epoch, until next() is called.
  bool epoch_done() const { return state_.cursor == static_cast<int64_t>(order_.size()); }
  /// Batches of the epoch that the state is in, counted from its beginning.
  int64_t batches_in_epoch() const;

  int64_t size() const { return static_cast<int64_t>(lengths_.size()); }
  const BatchState& state() const { return state_; }
  /// Error (kModel) if the state cannot belong to this data.
  void restore(const BatchState& state);

 private:
  int64_t end_of_batch(int64_t begin) const;
  void order_epoch();

  std::vector<int64_t> lengths_;
  BatchOptions options_;
  BatchState state_;
  std::vector<int64_t> order_;
};

/// A packed batch as models take it.
struct Batch {
  std::vector<int64_t> tokens;      ///< (sum T)
  std::vector<int64_t> cu_seqlens;  ///< (B+1)
  std::vector<int64_t> labels;      ///< (B)
  std::vector<int64_t> indices;     ///< (B) numbers of the sequences in the data set
};

/// Gathers sequences into `batch`, whose memory is used again. Each index must be in [0, dataset.size()).
void gather(const SequenceDataset& dataset, std::span<const int64_t> indices, Batch* batch);

}  // namespace seqboat::data
