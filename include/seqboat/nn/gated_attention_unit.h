#pragma once

#include <torch/torch.h>

#include <string>

#include "seqboat/base/philox.h"
#include "seqboat/nn/linear.h"
#include "seqboat/nn/model_state.h"
#include "seqboat/nn/packed.h"
#include "seqboat/nn/sub_module.h"

namespace seqboat::nn {

/// Position bias of attention: simple | local | t5 hold a table (2M-1; local: M = 3W; t5: 32 buckets), rotary holds nothing.
class PositionBiasImpl : public torch::nn::Module {
 public:
  PositionBiasImpl(const std::string& kind, int64_t max_positions, PhiloxStream& random);
  const std::string& kind() const { return kind_; }
  torch::Tensor table;

 private:
  std::string kind_;
};
TORCH_MODULE(PositionBias);

struct AttentionOptions {
  std::string function = "softmax";  ///< softmax | relu2 | laplace
  std::string position = "simple";   ///< simple | local | rotary | t5
  int64_t max_positions = 1024;      ///< M of the simple table
  int64_t window = -1;               ///< W; negative = full
  bool causal = false;
  double dropout = 0.0;  ///< on the unit's output
};

/// Attention of packed active tokens by plain ATen calls, a dense matrix a sequence: reference of ops::window_attention, and the path of what
/// the kernel does not know (t5). Same arguments; table may be undefined (rotary).
torch::Tensor composite_attention(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, const torch::Tensor& positions,
                                  const torch::Tensor& active_cu_seqlens, const torch::Tensor& table, const AttentionOptions& options);

/// Its weights w_ij within one sequence: (n, n), zero for what a query does not see.
torch::Tensor attention_weights(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& positions, const torch::Tensor& table,
                                const AttentionOptions& options);

/// The bias b_ij that `options.position` adds to the scores of one sequence: (n, n), from the original times and the table; undefined for rotary.
torch::Tensor position_bias_matrix(const torch::Tensor& positions, const torch::Tensor& table, const AttentionOptions& options);

/// T5 bucket (0..31) of each relative distance t_j - t_i: 32 buckets, max distance 128; one-sided when causal.
torch::Tensor t5_bucket(const torch::Tensor& distance, bool causal);

/// Gated attention unit with single-head attention over packed tokens:
///
///   base = SiLU(in_proj m), split z (Z), r (H), v (H);  q, k = z * gamma[0|1] + beta[0|1];  out = out_proj(attention(q, k, v) * r)
///
/// Parameters: in_proj.{weight (Z+2H, D), bias}, out_proj.{weight (D, H), bias}, qk_gamma, qk_beta (2, Z), position.table.
class GatedAttentionUnitImpl : public SubModule {
 public:
  GatedAttentionUnitImpl(int64_t dim, int64_t d_attn, int64_t d_hidden, const AttentionOptions& options, PhiloxStream& random);

  /// m (K, D) packed active tokens, positions (K) original time, cu_seqlens (B+1) of the active tokens -> (K, D). trace: q, k, v and attention are
  /// recorded.
  /// state: keys and values of the sequences' earlier chunks, which the queries see as well; moved on to hold this chunk's. Causal, with a window.
  /// distances: written, how far each query looks (attention_distances.h).
  torch::Tensor apply(const torch::Tensor& m, const torch::Tensor& positions, const torch::Tensor& cu_seqlens, LayerTrace* trace = nullptr,
                      AttentionState* state = nullptr, torch::Tensor* distances = nullptr, const torch::Tensor& confidence = {});
  /// The same, dropped out on its way out.
  torch::Tensor forward(const torch::Tensor& m, const SubModuleCall& call) override;

  /// Sends the attention through composite_attention: the reference of the fused path.
  void use_composite(bool on) { composite_ = on; }
  bool uses_composite() const { return composite_; }
  const AttentionOptions& options() const { return options_; }

  Linear in_proj{nullptr}, out_proj{nullptr};
  torch::Tensor qk_gamma, qk_beta;
  PositionBias position{nullptr};

 private:
  torch::Tensor attend(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, const torch::Tensor& positions,
                       const torch::Tensor& cu_seqlens) const;
  torch::Tensor attend_with_state(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, const torch::Tensor& positions,
                                  const torch::Tensor& cu_seqlens, AttentionState* state, torch::Tensor* distances) const;

  int64_t d_attn_, d_hidden_;
  AttentionOptions options_;
  bool composite_ = false;
};
TORCH_MODULE(GatedAttentionUnit);

}  // namespace seqboat::nn
