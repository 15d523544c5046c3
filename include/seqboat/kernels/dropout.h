#pragma once

#include <cstdint>

namespace seqboat::kernels {

/// Which mask: two calls with equal keys draw the same one, which is how the backward makes it again.
struct DropoutKey {
  uint64_t seed;
  uint64_t update;
  uint32_t micro_batch;
  uint32_t layer;
  uint32_t site;  ///< which of the layer's dropouts
};

/// y[t,d] = keep(t,d) ? x[t,d] * (1 / (1 - q)) : 0, where keep has probability 1 - q and q is p rounded to a multiple of 2^-16. Scaled by what is
/// really drawn, the expected value of y is x, whatever p. The gradient is the same function of dy.
///
/// keep is drawn from Philox 4x32-10, keyed by the key, the id of the row's sequence, the row's position in it and the channel: never by the
/// row's place in the packed tensor, so neither packing nor batch nor the split of the work changes a mask. It is the same for float and
/// double and on every SIMD target.
///
///   Philox key                mix(packed ^ mix(seed + 0x9e3779b97f4a7c15)), mix = the finaliser of splitmix64, a bijection;
///                             packed = site | layer << 8 | micro_batch << 20 | update << 32
///   counter word 0            channel / 8 (22 bits) and position bits 32..41
///   counter word 1            position bits 0..31
///   counter words 2, 3        sequence id
///   result                    eight draws of 16 bits, for channel % 8 = 0, 1, ... the lower and upper half of words 1, 0, 3, 2 (in which order they
///                             come out of the last round); the channel is kept where its draw >= q 2^16
///
/// So no two channels of a run share a draw as long as update < 2^32, micro_batch < 4096, layer < 4096, site < 256, dim <= 2^25 and
/// position < 2^42; past the first four bounds the surplus is hashed into the seed, and keys differ but for a chance of 2^-64 a pair.
///
/// x, y (rows, dim) contiguous, y may be x; rows [row_begin, row_end) are written. sequence_ids, positions (rows), 0 <= position;
/// 0 <= p <= 1 (below 2^-17 copies, above 1 - 2^-17 gives zeros). A dropped NaN or infinity is zero. Allocates nothing; calling thread only.
template <class T>
void dropout(const DropoutKey& key, double p, int64_t row_begin, int64_t row_end, int64_t dim, const int64_t* sequence_ids, const int64_t* positions,
             const T* x, T* y) noexcept;

/// dx = SiLU'(x) dropout(dy), the backward of y = dropout(SiLU(x)), in one pass: the bits of dropout and activation_bwd one after the other. dx may
/// be x or dy. (The forward in one pass is no faster than its two.)
template <class T>
void silu_dropout_bwd(const DropoutKey& key, double p, int64_t row_begin, int64_t row_end, int64_t dim, const int64_t* sequence_ids,
                      const int64_t* positions, const T* x, const T* dy, T* dx) noexcept;

}  // namespace seqboat::kernels
