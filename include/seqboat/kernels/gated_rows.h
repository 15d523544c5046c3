#pragma once

#include <cstdint>

namespace seqboat::kernels {

// The row work of a gated attention layer between its matrix products: small passes over blocks of rows that lie in the cache. Strides are row
// strides in elements. Wherever a formula has several operations each is rounded by itself, never fused, in the order that the brackets say; so a
// result has the bits of the same formula computed tensor by tensor, on every SIMD target and whatever the cut into blocks of rows. An output may be
// one of the inputs of its own shape (then with the same stride), else nothing overlaps. Nothing is allocated; calling thread only.

/// Queries and keys from the shared projection: q[i,j] = z[i,j] gamma[0,j] + beta[0,j], k[i,j] = z[i,j] gamma[1,j] + beta[1,j].
/// z, q, k (rows, Z); gamma, beta (2, Z) contiguous.
template <class T>
void qk_affine_fwd(int64_t rows, int64_t d_attn, const T* z, int64_t z_stride, const T* gamma, const T* beta, T* q, int64_t q_stride, T* k,
                   int64_t k_stride) noexcept;

/// dz[i,j] = (dq[i,j] gamma[0,j]) + (dk[i,j] gamma[1,j]), written; dgamma[0,j] += sum_i dq[i,j] z[i,j], dbeta[0,j] += sum_i dq[i,j], with dk the same
/// for [1,j]: rows join what is there one after the other, in increasing order, in T. Give each fixed block of rows its own zeroed buffers and add
/// those in order.
template <class T>
void qk_affine_bwd(int64_t rows, int64_t d_attn, const T* z, int64_t z_stride, const T* gamma, const T* dq, int64_t dq_stride, const T* dk,
                   int64_t dk_stride, T* dz, int64_t dz_stride, T* dgamma, T* dbeta) noexcept;

/// out[i,j] = a[i,j] r[i,j], all (rows, H).
template <class T>
void gate_fwd(int64_t rows, int64_t d_hidden, const T* a, int64_t a_stride, const T* r, int64_t r_stride, T* out, int64_t out_stride) noexcept;

/// da[i,j] = dout[i,j] r[i,j], dr[i,j] = dout[i,j] a[i,j]. da or dr may be dout, da may be a, dr may be r.
template <class T>
void gate_bwd(int64_t rows, int64_t d_hidden, const T* dout, int64_t dout_stride, const T* a, int64_t a_stride, const T* r, int64_t r_stride, T* da,
              int64_t da_stride, T* dr, int64_t dr_stride) noexcept;

/// The end of a layer, for tokens t in [begin, end):
///
///   pre[t,:] = (skip[t,:] + e[t,:]) + x[t,:],   y[t,:] = SiLU(pre[t,:]) as activation_fwd has it
///   e[t,:]   = h[n,:] p[t] for the active tokens (h[n,:] where p is nullptr), 0 for the others
///
/// h (K, D) holds rows for active tokens only, in order: n = first_active for the first active token at or after `begin`, which is the number of
/// active tokens before it, and so on. active (tokens) 0 or 1, or nullptr: every token is active. p (tokens) or nullptr. skip, x, y (tokens, D); pre
/// (tokens, D), kept for the backward, or nullptr.
template <class T>
void branch_sum_fwd(int64_t begin, int64_t end, int64_t dim, const uint8_t* active, int64_t first_active, const T* h, int64_t h_stride, const T* p,
                    const T* skip, int64_t skip_stride, const T* x, int64_t x_stride, T* pre, int64_t pre_stride, T* y, int64_t y_stride) noexcept;

/// out[i] = sum_j a[i,j] b[i,j], out (rows). Element j joins sum j mod 16, in increasing order from zero; then sum l takes sum l + 8 for l < 8, then
/// l + 4, l + 2, l + 1. That order knows neither the width of the vectors nor the number of rows.
template <class T>
void row_dots(int64_t rows, int64_t dim, const T* a, int64_t a_stride, const T* b, int64_t b_stride, T* out) noexcept;

/// y[i,:] = p[i] x[i,:], p (rows).
template <class T>
void scale_rows(int64_t rows, int64_t dim, const T* p, const T* x, int64_t x_stride, T* y, int64_t y_stride) noexcept;

/// y[index[i],:] += h[i,:] for i in [0, rows), in that order; h (rows, D).
template <class T>
void scatter_add_rows(int64_t rows, int64_t dim, const int64_t* index, const T* h, int64_t h_stride, T* y, int64_t y_stride) noexcept;

/// y[i,j] += x[i,j].
template <class T>
void add_rows(int64_t rows, int64_t dim, const T* x, int64_t x_stride, T* y, int64_t y_stride) noexcept;

/// The end of Mega's layer: y[i,j] = x[i,j] + (s[i,j] (h[i,j] - x[i,j])) with the update gate s = sigma(u) as activation_fwd has it. All (rows, D).
template <class T>
void update_fwd(int64_t rows, int64_t dim, const T* u, int64_t u_stride, const T* h, int64_t h_stride, const T* x, int64_t x_stride, T* y,
                int64_t y_stride) noexcept;

/// dh[i,j] = dy[i,j] s[i,j], dx[i,j] = dy[i,j] - dh[i,j], du[i,j] = (dy[i,j] (h[i,j] - x[i,j])) (s[i,j] (1 - s[i,j])), all written. dh or dx may be
/// dy, dh may be h, du may be u.
template <class T>
void update_bwd(int64_t rows, int64_t dim, const T* u, int64_t u_stride, const T* h, int64_t h_stride, const T* x, int64_t x_stride, const T* dy,
                int64_t dy_stride, T* du, int64_t du_stride, T* dh, int64_t dh_stride, T* dx, int64_t dx_stride) noexcept;

}  // namespace seqboat::kernels
