#pragma once

// Private to src/ops.

#include "ops/fused_operator.h"
#include "seqboat/ops/seqboat_layer.h"

namespace seqboat::ops {

template <>
struct FusedArguments<SeqBoatLayerArguments> {
  static constexpr const char* kName = "seqboat_layer";
  static constexpr const char* kSchema =
      "Tensor x, Tensor cu_seqlens, Tensor positions, Tensor sequence_ids, Tensor? forced, Tensor? norm_weight, Tensor? norm_bias, Tensor? "
      "norm_mean, Tensor? norm_var, Tensor encoder_decay, Tensor encoder_weight, Tensor encoder_skip, Tensor? router_weight, Tensor? router_bias, "
      "Tensor? log_temperature, Tensor skip_weight, Tensor skip_bias, Tensor? in_weight, Tensor? in_bias, Tensor? qk_gamma, Tensor? qk_beta, "
      "Tensor? bias_table, Tensor? out_weight, Tensor? out_bias, str norm, bool prenorm, bool batch_stats, float eps, bool causal, int "
      "truncation, int window, str position, str function, float act_bias, float dropout, int[] random, bool keep_inputs_only";

  template <class Arguments, class F>
  static void for_each(Arguments& a, const F& f) {
    f(a.x), f(a.cu_seqlens), f(a.positions), f(a.sequence_ids), f(a.forced), f(a.norm_weight), f(a.norm_bias), f(a.norm_mean), f(a.norm_var);
    f(a.encoder_decay), f(a.encoder_weight), f(a.encoder_skip), f(a.router_weight), f(a.router_bias), f(a.log_temperature), f(a.skip_weight),
        f(a.skip_bias);
    f(a.in_weight), f(a.in_bias), f(a.qk_gamma), f(a.qk_beta), f(a.bias_table), f(a.out_weight), f(a.out_bias);
    f(a.norm), f(a.prenorm), f(a.batch_stats), f(a.eps), f(a.causal), f(a.truncation), f(a.window), f(a.position), f(a.function), f(a.act_bias);
    f(a.dropout), f(a.random), f(a.keep_inputs_only);
  }
  template <class Arguments>
  static auto parameters(Arguments& a) {
    return std::tie(a.x, a.norm_weight, a.norm_bias, a.encoder_decay, a.encoder_weight, a.encoder_skip, a.router_weight, a.router_bias,
                    a.log_temperature, a.skip_weight, a.skip_bias, a.in_weight, a.in_bias, a.qk_gamma, a.qk_beta, a.bias_table, a.out_weight,
                    a.out_bias);
  }
};

}  // namespace seqboat::ops
