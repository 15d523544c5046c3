#pragma once

#include <cstddef>
#include <cstdint>

#include "seqboat/kernels/window_attention.h"

namespace seqboat::kernels {

enum class RingType {
  kFloat32,
  kBf16,  ///< rounded to the nearest, ties to even, when appended
};

/// Keys and values of the last activated tokens of ONE stream and one head. Tokens have numbers 0, 1, 2, ... in the order of activation; number i
/// lies in row i % capacity, so it is there until number i + capacity is appended.
///
///   capacity 4, after numbers 0 .. 5     row      0  1  2  3
///                                        number   4  5  2  3
///
/// Numbers count from where attention begins. Where it begins anew (at each chunk of mega-chunk) the caller counts from 0 again and may go on with
/// the ring as it is: what lies in rows that no number below has reached is not seen. So blocks of 64 keys and the scale 1 / (i + 1) count within the
/// chunk.
struct KeyRingShape {
  int64_t capacity;  ///< rows, a multiple of kAttentionBlock
  int64_t d_attn;    ///< Z
  int64_t d_hidden;  ///< H
  RingType type;
};

/// Columns of a tile of values: where the sum over the keys may be cut.
inline constexpr int64_t kValueTile = 64;

/// Least capacity for queries that come `most_queries` at a time: window + most_queries, rounded up to a block. (A decoder's most_queries is 1.
/// Without a window: the most tokens that a stream may have, rounded up.)
int64_t key_ring_capacity(int64_t window, int64_t most_queries) noexcept;

/// Bytes of a ring: those of capacity (Z + H) elements, with H rounded up to 16. A stream begins with a ring of zero bytes; a caller may copy, save
/// and load the bytes, at any 64-byte aligned address. The layout is the same on every SIMD target: first the keys, in blocks of 64 rows that lie
/// transposed, (capacity / 64, Z, 64), then the values in tiles of 64 columns, (H / 64, capacity, 64), the last tile of 16, 32, 48 or 64.
size_t key_ring_bytes(const KeyRingShape& shape) noexcept;

/// Numbers first .. first + n - 1: k (n, Z), v (n, H) with row strides in elements, any alignment. n <= capacity. Overwrites what was in their rows.
/// Calling thread only, and no attention on this ring meanwhile; allocates nothing.
void key_ring_append(const KeyRingShape& shape, int64_t first, int64_t n, const float* k, int64_t k_stride, const float* v, int64_t v_stride,
                     void* ring) noexcept;

/// The same for original times, a ring of `capacity` int64 which the heads of a layer share. Needed for kOriginalDistance alone.
void position_ring_append(int64_t capacity, int64_t first, int64_t n, const int64_t* positions, int64_t* ring) noexcept;

/// Causal attention of queries to the keys of a ring.
struct RingAttention {
  KeyRingShape ring;
  int64_t window;  ///< W: number i sees [i - W, i]; negative: [0, i]
  AttentionFunction function;
  PositionBias bias = PositionBias::kNone;
  int64_t max_positions = 0;  ///< M; the table has 2M-1 entries
};

/// All functions below compute rows of window_attention_fwd() (its header has formulas, scales and order of sums), causal, with the ring's keys and
/// values as k and v: with a float32 ring the bits of window_attention_fwd() on the whole sequence, with a bf16 ring those for keys and values
/// rounded to bf16. A row depends on its query alone: the same bits from one step or a block of queries, however the work is cut. Condition: for
/// queries [first, first + count), everything they see is in the ring, themselves included. If last is the highest number appended, first + count <=
/// last + 1 and last - capacity < max(0, first - W) (without a window: last < capacity). positions: ring of original times, read for
/// kOriginalDistance; bias_table (2M-1) or nullptr; indices into it are clamped to its ends. ring, positions and table are only read: threads may
/// share them. workspace: 64-byte aligned. Calling thread only; allocates nothing.

/// One query, in two stages, each of which threads may share. First the scores, by blocks of 64 keys: items [0, key_ring_step_items()), at most
/// capacity / 64 + 1. Then, when all items are done, the columns [col_begin, col_end) of the row of out, both multiples of kValueTile, or col_end =
/// H.
///   q (Z), out (H; column 0 whatever the range); scores: key_ring_step_scores_size() floats, 64-byte aligned, shared by the stages; workspace:
///   key_ring_step_workspace_size() floats for each caller of the second stage.
/// The second stage makes the weights again in each call (capacity of them): cheap beside 64 columns or more for each.
int64_t key_ring_step_items(const RingAttention& attention, int64_t number) noexcept;
void key_ring_step_scores(const RingAttention& attention, int64_t number, int64_t item_begin, int64_t item_end, const float* q, const void* ring,
                          const int64_t* positions, const float* bias_table, float* scores) noexcept;
void key_ring_step_sum(const RingAttention& attention, int64_t number, int64_t col_begin, int64_t col_end, const float* scores, const void* ring,
                       float* out, float* workspace) noexcept;
size_t key_ring_step_scores_size(const RingAttention& attention) noexcept;
size_t key_ring_step_workspace_size(const RingAttention& attention) noexcept;

/// Queries [first, first + count), count <= kAttentionBlock: q (count, Z), out (count, H) with row strides in elements. Larger counts are cut by the
/// caller, at any borders; threads may share the pieces. workspace: key_ring_attention_workspace_size() floats, 64-byte aligned, for each thread.
void key_ring_attention(const RingAttention& attention, int64_t first, int64_t count, const float* q, int64_t q_stride, const void* ring,
                        const int64_t* positions, const float* bias_table, float* out, int64_t out_stride, float* workspace) noexcept;
size_t key_ring_attention_workspace_size(const RingAttention& attention) noexcept;

}  // namespace seqboat::kernels
