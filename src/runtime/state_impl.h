#pragma once

// Private to src/runtime: what lies where in a state's block.

#include <memory>
#include <vector>

#include "runtime/memory.h"
#include "runtime/model_impl.h"
#include "seqboat/kernels/key_ring.h"
#include "seqboat/kernels/scan_step.h"
#include "seqboat/runtime/state.h"

namespace seqboat::runtime {

/// Queries that attend at once: what the ring has room for beside a window.
inline constexpr int64_t kQueryBlock = kernels::kAttentionBlock;

/// What one layer carries; pointers into the block, nullptr where there is nothing.
struct LayerState {
  float* encoder = nullptr;   ///< kernels/scan_step.h
  float* history = nullptr;   ///< its ring of inputs (L, D)
  double* scores = nullptr;   ///< top-share: (horizon - 1), that of time t in row t mod (horizon - 1), -infinity before the beginning
  std::byte* ring = nullptr;  ///< of each head, ring_bytes apart (kernels/key_ring.h)
  int64_t ring_bytes = 0;
  int64_t* positions = nullptr;  ///< (capacity)
  const float* table = nullptr;  ///< position bias: the layer's, or made for this max_context
  kernels::RingAttention attention = {};
};

struct StateHeader {
  int64_t time = 0;  ///< tokens fed
  uint64_t seed = 0;
  int64_t sequence_id = 0;
};

struct State::Impl {
  std::shared_ptr<const Model> model;
  int64_t max_context = 0;  ///< 0 = no end
  Buffer owned;             ///< or nothing, where the memory is the caller's
  std::byte* block = nullptr;
  int64_t bytes = 0;
  StateHeader* header = nullptr;
  int64_t* activated = nullptr;  ///< (n_layers)
  double* pooled = nullptr;      ///< classifiers: (D) the sum of a mean, or the first vector
  float* last = nullptr;         ///< language models: (D) the encoder's last output
  std::vector<LayerState> layers;
  int64_t place = 0;  ///< the runner's: number among the streams of a call

  /// Where everything lies; memory nullptr only counts.
  void lay_out(std::byte* memory);
  void fill_tables();
  void reset() noexcept;
};

/// The largest max_context that a state of the model may have.
int64_t most_context(const Model::Impl& model);

/// A layer's attention as the rings know it.
kernels::RingAttention ring_attention(const Attention& attention, Precision ring, int64_t max_context);

}  // namespace seqboat::runtime
