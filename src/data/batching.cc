#include "seqboat/data/batching.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "seqboat/base/error.h"
#include "seqboat/base/philox.h"

namespace seqboat::data {
namespace {

// The upper byte of a Philox stream tells its users apart (data generators have others), so that equal seeds do not make equal numbers.
constexpr uint64_t kShuffleStream = uint64_t{0xb1} << 56;

}  // namespace

std::vector<int64_t> epoch_order(int64_t n, uint64_t seed, int64_t epoch) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  PhiloxStream random(seed, kShuffleStream | static_cast<uint64_t>(epoch));
  for (int64_t i = n - 1; i > 0; --i) std::swap(order[i], order[random.next_below(static_cast<uint64_t>(i) + 1)]);
  return order;
}

BatchSampler::BatchSampler(std::span<const int64_t> offsets, const BatchOptions& options) : options_(options) {
  SEQBOAT_CHECK(options.batch_size >= 0, ErrorKind::kConfig, "batch_size: expected 0 (no limit) or more, found {}", options.batch_size);
  SEQBOAT_CHECK(options.max_tokens >= 0, ErrorKind::kConfig, "max_tokens: expected 0 (no limit) or more, found {}", options.max_tokens);
  SEQBOAT_CHECK(options.lanes == 0 || (options.lanes > 0 && options.batch_size == options.lanes && options.max_tokens == 0), ErrorKind::kConfig,
                "{} lanes: expected as many sequences in a batch and no limit of tokens, found {} and {}", options.lanes, options.batch_size,
                options.max_tokens);
  SEQBOAT_CHECK(offsets.size() >= 2, ErrorKind::kData, "the data hold no sequences: expected at least one");
  lengths_.reserve(offsets.size() - 1);
  for (size_t i = 0; i + 1 < offsets.size(); ++i) {
    const int64_t length = offsets[i + 1] - offsets[i];
    SEQBOAT_CHECK(options.max_tokens == 0 || length <= options.max_tokens, ErrorKind::kData,
                  "sequence {} has {} tokens, which fits into no batch: max_tokens is {}", i, length, options.max_tokens);
    lengths_.push_back(length);
  }
  SEQBOAT_CHECK(options.lanes <= size(), ErrorKind::kData, "the data hold {} sequences: expected at least one for each of the {} lanes", size(),
                options.lanes);
  order_epoch();
}

void BatchSampler::order_epoch() {
  if (options_.lanes > 0) {
    if (!order_.empty()) return;
    const int64_t length = size() / options_.lanes;
    for (int64_t k = 0; k < length; ++k) {
      for (int64_t lane = 0; lane < options_.lanes; ++lane) order_.push_back(lane * length + k);
    }
  } else if (options_.shuffle) {
    order_ = epoch_order(size(), options_.seed, state_.epoch);
  } else if (order_.empty()) {
    order_.resize(lengths_.size());
    std::iota(order_.begin(), order_.end(), int64_t{0});
  }
}

int64_t BatchSampler::end_of_batch(int64_t begin) const {
  int64_t end = begin;
  int64_t tokens = 0;
  while (end < static_cast<int64_t>(order_.size())) {
    tokens += lengths_[order_[end]];
    if (options_.max_tokens > 0 && tokens > options_.max_tokens) break;  // never the first one: the constructor saw to that
    ++end;
    if (options_.batch_size > 0 && end - begin == options_.batch_size) break;
  }
  return end;
}

std::vector<int64_t> BatchSampler::next() {
  if (epoch_done()) {
    state_ = {state_.epoch + 1, 0};
    order_epoch();
  }
  const int64_t end = end_of_batch(state_.cursor);
  std::vector<int64_t> indices(order_.begin() + state_.cursor, order_.begin() + end);
  state_.cursor = end;
  return indices;
}

int64_t BatchSampler::batches_in_epoch() const {
  int64_t count = 0;
  for (int64_t begin = 0; begin < static_cast<int64_t>(order_.size()); begin = end_of_batch(begin)) ++count;
  return count;
}

void BatchSampler::restore(const BatchState& state) {
  SEQBOAT_CHECK(state.epoch >= 0 && state.cursor >= 0 && state.cursor <= static_cast<int64_t>(order_.size()), ErrorKind::kModel,
                "the state of the data order does not fit: epoch {}, sequence {} of {}", state.epoch, state.cursor, order_.size());
  state_ = state;
  order_epoch();
}

void gather(const SequenceDataset& dataset, std::span<const int64_t> indices, Batch* batch) {
  batch->tokens.clear();
  batch->cu_seqlens.assign(1, 0);
  batch->labels.clear();
  batch->indices.assign(indices.begin(), indices.end());
  for (int64_t index : indices) {
    SEQBOAT_DCHECK(index >= 0 && index < dataset.size());
    const std::span<const int32_t> sequence = dataset.sequence(index);
    batch->tokens.insert(batch->tokens.end(), sequence.begin(), sequence.end());
    batch->cu_seqlens.push_back(static_cast<int64_t>(batch->tokens.size()));
    batch->labels.push_back(dataset.labels[index]);
  }
}

}  // namespace seqboat::data
