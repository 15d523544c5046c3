#pragma once

#include <torch/torch.h>

#include <string>

#include "seqboat/base/philox.h"
#include "seqboat/nn/gated_attention_unit.h"
#include "seqboat/nn/layer.h"
#include "seqboat/nn/linear.h"
#include "seqboat/nn/model_state.h"
#include "seqboat/nn/multi_head_ema.h"
#include "seqboat/nn/norm.h"
#include "seqboat/nn/packed.h"
#include "seqboat/nn/router.h"
#include "seqboat/nn/s4d.h"
#include "seqboat/nn/state_encoder.h"

namespace seqboat::nn {

struct SeqBoatLayerOptions {
  int64_t d_model = 0;         ///< D
  int64_t d_attn = 0;          ///< Z
  int64_t d_hidden = 0;        ///< H
  int64_t d_state = 16;        ///< N
  int64_t truncation = 0;      ///< EMA kernel length; 0 = none
  bool causal = false;         ///< causal EMA and attention
  AttentionOptions attention;  ///< its `causal` is set from the layer's
  std::string norm = "layernorm";
  bool norm_affine = true;
  bool prenorm = true;
  std::string encoder = "ema";  ///< ema | s4d
  RouterOptions router;         ///< its kind `always`: every token is activated with confidence 1 (seqboat-full)
  bool use_attention = true;    ///< false: nothing is activated, the layer is encoder and skip path (the router's kind must be `never`)
  double dropout = 0.0;
};

/// One SeqBoat layer over packed tokens (official "unit"):
///
///   m = dropout(SiLU(encoder(prenorm ? norm(x) : x)));   router(m) activates the tokens whose attention is worth paying for
///   h = extract(p * GAU(compress(m)));   y = SiLU(skip_proj(m) + h + x);   postnorm: y = norm(y)
///
/// It is sparse modular activation with one sub-module. Without attention y = SiLU(skip_proj(m) + x). Parameters: norm.*, ema.* or s4d.*, router.*,
/// skip_proj.{weight (D, D), bias} (the other rows of the official hx_proj), attention.*.
class SeqBoatLayerImpl : public Layer {
 public:
  SeqBoatLayerImpl(const SeqBoatLayerOptions& options, PhiloxStream& random);

  /// x (M, D) -> (M, D). `layer` is the number in the stack: a key of dropout, index into options.forced_active.
  torch::Tensor forward(const torch::Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t layer) override;

  /// Whether forward may take the fused operator (ops/seqboat_layer.h): on by default. Off, or where the operator cannot do what is asked (a carried
  /// state, T5 buckets, a batch norm that comes last), the layer is composed of single operators: the reference, with the same bits. Intermediates
  /// are recorded by the composite, beside the fused operator's output.
  void use_fused(bool on) { fused_ = on; }

  Norm norm{nullptr};
  MultiHeadEma ema{nullptr};              ///< this or
  S4d s4d{nullptr};                       ///< that is the encoder
  TemperedSoftmaxRouter router{nullptr};  ///< of this kind; others are told by their parameters' names alone
  Linear skip_proj{nullptr};
  GatedAttentionUnit attention{nullptr};

 private:
  /// first_norm: statistics of x for a norm that comes first, taken once.
  torch::Tensor forward_fused(const torch::Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t layer,
                              const NormImpl::Statistics& first_norm);
  torch::Tensor forward_composite(const torch::Tensor& x, const PackedLayout& layout, const ForwardOptions& options, int64_t layer,
                                  const NormImpl::Statistics& first_norm);

  SeqBoatLayerOptions options_;
  std::shared_ptr<StateEncoder> encoder_;
  std::shared_ptr<Router> router_;  ///< nullptr: everything is activated, or nothing can be
  bool learns_ = false;             ///< the router gives probabilities
  bool fused_ = true;
};
TORCH_MODULE(SeqBoatLayer);

}  // namespace seqboat::nn
