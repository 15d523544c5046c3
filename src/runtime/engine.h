#pragma once

// Private to src/runtime: rows of tokens through a model. One code for streams (each segment goes on from a state) and for whole sequences of
// bidirectional models.

#include <cstdint>
#include <limits>
#include <vector>

#include "runtime/memory.h"
#include "runtime/model_impl.h"
#include "runtime/state_impl.h"
#include "runtime/team.h"

namespace seqboat::runtime {

/// What is asked for of a segment.
enum class Output {
  kNothing,
  kLast,     ///< one row of logits
  kAll,      ///< a row of logits a token
  kFeature,  ///< classifiers: the pooled vector (D), before the head
};

/// Consecutive rows of one stream, or one whole sequence.
struct Segment {
  State::Impl* state = nullptr;  ///< nullptr: a whole sequence, of a bidirectional model
  int64_t rows = 0;
  const int64_t* tokens = nullptr;
  const float* values = nullptr;
  Output output = Output::kNothing;
  float* out = nullptr;
  const uint8_t* forced = nullptr;  ///< of the first row in layer 0; the next layer's lies `stride` further, and so for the traces
  uint8_t* active = nullptr;
  float* probability = nullptr;
  int64_t stride = 0;
  uint64_t seed = 0;
  int64_t sequence_id = 0;

  // The engine's own, while it runs.
  int64_t begin = 0;         ///< first row
  int64_t time = 0;          ///< of that row
  int64_t active_begin = 0;  ///< in the present layer: its activated rows among all activated ones
  int64_t active_count = 0;
  int64_t number = 0;  ///< of the first of them among the stream's activated tokens
};

/// What is done to some columns of a product at once.
struct Then {
  bool activates = false;
  kernels::Activation activation = kernels::Activation::kSilu;
  Part columns = {0, std::numeric_limits<int64_t>::max()};
  static Then silu() { return {.activates = true}; }
  static Then silu(Part columns) { return {.activates = true, .columns = columns}; }
};

struct EngineShape {
  int64_t rows = 0, segments = 0;  ///< at most, of one run
  int64_t max_context = 0;         ///< of streams whose attention has no end
  bool whole = false;              ///< sequences of a bidirectional model
};

class Engine {
 public:
  /// memory: bytes_for() of them, aligned; nullptr: the engine cannot run, but tells bytes().
  Engine(const Model::Impl& model, Team* team, int64_t threads, const EngineShape& shape, std::byte* memory);
  int64_t bytes() const { return bytes_; }

  /// All segments through all layers and, as each asks, the head. States move on. Nothing is checked here. Allocates nothing.
  void run(Segment* segments, int64_t count) noexcept;

  /// The classifier's head on rows of features, one thread. (rows, features) -> (rows, classes). Allocates.
  static void classify(const Model::Impl& model, int64_t rows, const float* features, float* logits);

  /// Tables of layers that have none of their own, for whole sequences of up to this length.
  void make_tables(int64_t longest);

 private:
  struct Tile {
    Part rows, columns;
    bool empty() const { return rows.empty() || columns.empty(); }
  };
  struct HeadRow {
    const float* feature;
    float* out;
  };

  void lay_out(std::byte* memory);
  void work(int64_t thread) noexcept;
  void embed(int64_t thread) noexcept;
  void seqboat_layer(int64_t thread, int64_t number) noexcept;
  void mega_layer(int64_t thread, int64_t number) noexcept;
  void transformer_layer(int64_t thread, int64_t number) noexcept;
  void feed_forward(int64_t thread, int64_t number) noexcept;
  void head(int64_t thread) noexcept;
  void pool(int64_t thread) noexcept;

  void apply_norm(const Norm& norm, Part rows, const float* from, float* to) noexcept;
  void scan(int64_t thread, int64_t number, const float* from, float* to) noexcept;
  void route_rows(int64_t number, Part rows) noexcept;
  void choose_top_share(int64_t number, Segment& segment) noexcept;
  void index_active(int64_t number) noexcept;
  void gather(Part rows) noexcept;
  void add_branches(int64_t number, Part rows) noexcept;
  void unit_attention(int64_t thread, int64_t number, const float* z, int64_t z_stride, const float* v, int64_t v_stride) noexcept;

  /// Rows of queries, keys and values of all heads, one head beside the other.
  struct Rows {
    const float *q, *k, *v;
    int64_t q_stride, k_stride, v_stride;
    bool appended = false;  ///< keys and values are in their rings
  };
  void attend(int64_t thread, int64_t number, const Rows& rows) noexcept;
  void attend_whole(int64_t thread, int64_t number, const Rows& rows) noexcept;
  void attend_alone(int64_t thread, int64_t number, const Rows& rows, const Segment& segment, int64_t head) noexcept;
  void attend_together(int64_t thread, int64_t number, const Rows& rows, const Segment& segment, int64_t head, int64_t* turn) noexcept;
  void append(int64_t number, const Rows& rows, const Segment& segment, int64_t head, int64_t at, int64_t count) noexcept;
  /// Where query `at` of a segment stands: its number where attention begins, and how many there may be in one block from there on.
  int64_t block_at(int64_t number, const Segment& segment, int64_t at, int64_t* first) const noexcept;

  /// Attention of a unit to one query, a decoder's: all threads share it by keys and then by columns, and go on with their columns of it. The
  /// thread that makes its key appends it, too: of barriers a token has enough.
  bool one_query() const { return !shape_.whole && n_active_ == 1 && threads_ > 1; }

  bool by_rows(int64_t rows) const { return rows >= kRowsOfOne * threads_ || threads_ == 1; }
  /// Where the work of a product goes: many rows are shared out by rows, few by columns, so that each weight is read by one thread.
  Tile tile_of(int64_t thread, int64_t rows, int64_t columns) const;
  Part rows_of(int64_t thread, int64_t rows) const { return part_of(rows, by_rows(rows) ? kRowGrain : 1, thread, threads_); }
  void barrier() noexcept { team_->barrier(); }
  /// After a product: where rows are shared out, a thread needs no one else's to go on with its own.
  void barrier_unless_by_rows(int64_t rows) noexcept {
    if (!by_rows(rows)) barrier();
  }
  static void multiply(const Matrix& matrix, const Tile& tile, const float* x, int64_t x_stride, float* y, int64_t y_stride, Then then = {}) noexcept;
  static void activate(kernels::Activation activation, const Tile& tile, float* y, int64_t y_stride) noexcept;

  static constexpr int64_t kRowsOfOne = 32;  ///< a thread's least rows where products are shared out by rows
  static constexpr int64_t kRowGrain = 8;
  static constexpr int64_t kProductRows = 128;
  static constexpr int64_t kSegmentsOfOne = 4;  ///< a thread's least streams where attention is shared out by streams
  static constexpr int64_t kHeadRows = 16;      ///< rows that go through a head together

  const Model::Impl& m_;
  Team* team_;
  const int64_t threads_;
  const EngineShape shape_;
  int64_t bytes_ = 0;
  std::vector<Floats> tables_;  ///< (n_layers)

  // Of the present run.
  Segment* segments_ = nullptr;
  int64_t n_segments_ = 0, rows_ = 0;
  int64_t n_active_ = 0;     ///< K, of the present layer
  int64_t most_active_ = 0;  ///< of one segment
  int64_t n_head_rows_ = 0;

  // Buffers, by their rows: tokens (rows), activated ones (active).
  int64_t width_ = 0;                                                                                ///< of a row of base_
  float *x_ = nullptr, *normed_ = nullptr, *state_ = nullptr, *skip_ = nullptr, *branch_ = nullptr;  ///< (rows, D)
  float* gathered_ = nullptr;                                                                        ///< (active, D)
  float* base_ = nullptr;  ///< (rows, width_): whatever a product makes first. One stride for all, so that a thread's rows are its own in every stage
  float *values_ = nullptr, *attention_ = nullptr;  ///< (active, H)
  float *q_ = nullptr, *k_ = nullptr;               ///< (active, Z)
  float *logits_ = nullptr, *probability_ = nullptr, *scratch_ = nullptr, *mean_ = nullptr, *rstd_ = nullptr;
  uint8_t *active_ = nullptr, *nobody_ = nullptr;
  int64_t *tokens_ = nullptr, *times_ = nullptr, *index_ = nullptr, *active_times_ = nullptr;
  int64_t *offsets_ = nullptr, *active_offsets_ = nullptr, *chunk_offsets_ = nullptr;
  int64_t n_chunks_ = 0;
  double *sums_ = nullptr, *scores_ = nullptr;
  float *features_ = nullptr, *head_in_ = nullptr, *head_out_ = nullptr, *head_logits_ = nullptr;
  HeadRow* head_rows_ = nullptr;
  float* step_scores_ = nullptr;  ///< of each thread, or two that all share; step_scores_size_ apart
  int64_t step_scores_size_ = 0;
  float* workspace_ = nullptr;  ///< of each thread, workspace_size_ apart
  int64_t workspace_size_ = 0;
};

}  // namespace seqboat::runtime
