#pragma once

#include <cstdint>

namespace seqboat::kernels {

/// Second level of packing: the active tokens of all sequences, in order.
///
///   token          0 1 2 3 4 | 5 6 7        cu_seqlens        0 5 8
///   active         1 0 0 1 1 | 0 1 0        active_cu_seqlens 0 3 4
///   active_index   0 3 4 6                  positions         0 3 4 1     (original time within the sequence)
///
/// active (sum T) 0/1; cu_seqlens (B+1). Writes active_cu_seqlens (B+1) and returns K, the number of active tokens.
int64_t count_active(int64_t batch, const int64_t* cu_seqlens, const uint8_t* active, int64_t* active_cu_seqlens) noexcept;

/// Fills active_index (K) and positions (K) (either may be nullptr).
void fill_active_index(int64_t batch, const int64_t* cu_seqlens, const uint8_t* active, int64_t* active_index, int64_t* positions) noexcept;

/// out[i] = x[active_index[i]] for i in [begin, end): the gather. x (sum T, D), out (K, D), row strides in elements. Exact copies.
template <class T>
void compress_rows(int64_t begin, int64_t end, int64_t dim, const int64_t* active_index, const T* x, int64_t x_stride, T* out,
                   int64_t out_stride) noexcept;

/// out[t] = active[t] ? h[number of t among the active] : 0 for t in [begin, end): the scatter, adjoint of compress_rows.
/// h (K, D); first_active: number of active tokens before `begin`. Every row of [begin, end) is written.
template <class T>
void extract_rows(int64_t begin, int64_t end, int64_t dim, const uint8_t* active, int64_t first_active, const T* h, int64_t h_stride, T* out,
                  int64_t out_stride) noexcept;

}  // namespace seqboat::kernels
