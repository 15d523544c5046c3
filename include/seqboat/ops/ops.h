#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <tuple>

/// The operators of seqboat on packed data, as C++ functions over the dispatcher (torch.ops.seqboat.* in Python). Each is differentiable unless
/// said otherwise, for float32 and float64; misuse is a c10::Error that names the operator, what was expected and what was found.
/// Gradients can be differentiated again through compress, extract, rotary and dropout; elsewhere create_graph is an error.
/// Shapes: M packed tokens, B sequences, D channels, K active tokens, Z query/key width, H value width, N EMA states, P S4D modes.
/// Given the same input row (and its own sequence) a row of the output has the same bits in any batch and at any thread count.
namespace seqboat::ops {

using at::Tensor;

/// y = x W^T + b. x (M, in), weight (out, in), bias (out) -> (M, out). Our GEMM, not MKL: docs/ARCHITECTURE.md says why.
Tensor linear(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias);

/// Element-wise activation by name: silu | gelu | relu2 | laplace | sigmoid (formulas: kernels/elementwise.h).
Tensor activation(const Tensor& x, const std::string& function);

/// Multi-head EMA (kernels/ema_scan.h). x (M, D), cu_seqlens (B+1), q and c (D, N), or (2D, N) when bidirectional (second half: reversed time),
/// omega (D). truncation 0 = none. state (B, D, N) and history (B, truncation, D): causal only, from an earlier chunk.
/// Returns y (M, D) and the final state (B, D, N) (empty when bidirectional).
std::tuple<Tensor, Tensor> ema_scan(const Tensor& x, const Tensor& cu_seqlens, const Tensor& q, const Tensor& c, const Tensor& omega,
                                    int64_t truncation, bool bidirectional, const std::optional<Tensor>& state, const std::optional<Tensor>& history);

/// S4D (kernels/s4d_scan.h). As ema_scan, but for d and w (D, P, 2), or (2D, P, 2) when bidirectional: complex numbers [re, im]; skip (D); state and
/// final state (B, D, P, 2).
std::tuple<Tensor, Tensor> s4d_scan(const Tensor& x, const Tensor& cu_seqlens, const Tensor& d, const Tensor& w, const Tensor& skip,
                                    int64_t truncation, bool bidirectional, const std::optional<Tensor>& state, const std::optional<Tensor>& history);

/// Tempered softmax router (kernels/router.h). logits (M, 2), log_temperature (1), forced (M) uint8 or none.
/// Returns active (M) uint8, p (M) = confidence of active tokens, else 0, and probability (M) = P(active) of every token. p and probability are
/// differentiable, the decision is not.
std::tuple<Tensor, Tensor, Tensor> router(const Tensor& logits, const Tensor& log_temperature, double act_bias, const std::optional<Tensor>& forced);

/// active (M) uint8 -> active_index (K), positions (K) = time within the sequence, active_cu_seqlens (B+1); all int64. K depends on the data.
std::tuple<Tensor, Tensor, Tensor> active_index(const Tensor& active, const Tensor& cu_seqlens);

/// Rows of x at active_index: (M, D) -> (K, D). Adjoint of extract.
Tensor compress(const Tensor& x, const Tensor& active, const Tensor& active_index);

/// Puts the K rows of h back at the active tokens, zero elsewhere: (K, D) -> (M, D). Adjoint of compress.
Tensor extract(const Tensor& h, const Tensor& active, const Tensor& active_index);

/// Rotates pairs (2i, 2i+1) of x (K, Z) by positions (K) * 10000^(-2i/Z).
Tensor rotary(const Tensor& x, const Tensor& positions, bool inverse = false);

/// Window attention (kernels/window_attention.h). function softmax | relu2 | laplace; bias none | simple | local with bias_table (2M-1).
/// window < 0 = full. Returns out (K, H) and lse (K; empty but for softmax; not differentiable).
std::tuple<Tensor, Tensor> window_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& positions,
                                            const Tensor& active_cu_seqlens, const std::optional<Tensor>& bias_table, const std::string& bias,
                                            int64_t window, bool causal, const std::string& function);

/// Norm of each row: kind layernorm | scalenorm | rmsnorm (kernels/norm.h); weight (D) or (1), bias (D), or none.
Tensor row_norm(const Tensor& x, const std::optional<Tensor>& weight, const std::optional<Tensor>& bias, const std::string& kind, double eps);

/// Mean and biased variance of each channel over all M tokens. Not differentiable by itself; see batch_norm.
std::tuple<Tensor, Tensor> batch_norm_stats(const Tensor& x);

/// (x - mean) / sqrt(var + eps) * weight + bias. batch_stats: mean and var are those of x, and the gradient counts them as functions of x.
Tensor batch_norm(const Tensor& x, const std::optional<Tensor>& weight, const std::optional<Tensor>& bias, const Tensor& mean, const Tensor& var,
                  bool batch_stats, double eps);

/// scale_b * sum of the rows of sequence b: (M, D) -> (B, D). mean: scale 1/length (an empty sequence gives 0), else 1.
Tensor segment_sum(const Tensor& x, const Tensor& cu_seqlens, bool mean);

/// Rows of weight (V, D) at tokens (M) int64. An id outside [0, V) is an error that names it.
Tensor embedding(const Tensor& weight, const Tensor& tokens);

/// Dropout whose mask depends on the keys, each row's sequence id and position, and the channel alone (kernels/dropout.h).
Tensor dropout(const Tensor& x, double p, int64_t seed, int64_t update, int64_t micro_batch, int64_t layer, int64_t site, const Tensor& sequence_ids,
               const Tensor& positions);

/// sum_i -log softmax(logits_i)[targets_i], (1). logits (M, V), targets (M) int64. Rows are summed in order, in double.
Tensor cross_entropy_sum(const Tensor& logits, const Tensor& targets);

}  // namespace seqboat::ops
