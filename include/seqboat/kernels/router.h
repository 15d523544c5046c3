#pragma once

#include <cstdint>

namespace seqboat::kernels {

/// The paper's router: tempered softmax over two logits, index 1 = active.
///
///   z[t] = (u[t,1] - u[t,0] - act_bias) / exp(log_temperature),  P[t] = 1 / (1 + exp(-z[t])),  active[t] = z[t] > 0  (a tie is inactive)
///   p[t] = active[t] ? P[t] : 0
///
/// u (tokens, 2) with row stride; forced (tokens) or nullptr: 1 = active, 0 = inactive, decides in the logits' place (P stays the logits').
/// active (tokens) 0 or 1; p (tokens), the confidence that weighs the module's output; probability (tokens) or nullptr, P for every token.
/// Allocates nothing; calling thread only; tokens are independent.
template <class T>
void router_fwd(int64_t tokens, int64_t u_stride, const T* u, T act_bias, T log_temperature, const uint8_t* forced, uint8_t* active, T* p,
                T* probability) noexcept;

/// With g[t] = (active[t] dp[t] + dprobability[t]) P (1 - P): du[t,1] = -du[t,0] = g[t] / exp(log_temperature); the decision has no gradient. Returns
/// dlog_temperature = -sum_t g[t] z[t], summed in a fixed order in double. dp and dprobability (tokens), each may be nullptr (zero). du has row
/// stride du_stride and is written.
template <class T>
double router_bwd(int64_t tokens, int64_t u_stride, const T* u, T act_bias, T log_temperature, const uint8_t* active, const T* dp,
                  const T* dprobability, int64_t du_stride, T* du) noexcept;

}  // namespace seqboat::kernels
