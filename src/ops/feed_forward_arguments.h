#pragma once

// Private to src/ops.

#include "ops/fused_operator.h"
#include "seqboat/ops/feed_forward.h"

namespace seqboat::ops {

template <>
struct FusedArguments<FeedForwardArguments> {
  static constexpr const char* kName = "feed_forward";
  static constexpr const char* kSchema =
      "Tensor x, Tensor positions, Tensor sequence_ids, Tensor? norm_weight, Tensor? norm_bias, Tensor? norm_mean, Tensor? norm_var, Tensor "
      "in_weight, "
      "Tensor in_bias, Tensor out_weight, Tensor out_bias, str norm, bool prenorm, bool batch_stats, float eps, float dropout, int[] random, bool "
      "keep_inputs_only";

  template <class Arguments, class F>
  static void for_each(Arguments& a, const F& f) {
    f(a.x), f(a.positions), f(a.sequence_ids), f(a.norm_weight), f(a.norm_bias), f(a.norm_mean), f(a.norm_var), f(a.in_weight), f(a.in_bias);
    f(a.out_weight), f(a.out_bias), f(a.norm), f(a.prenorm), f(a.batch_stats), f(a.eps), f(a.dropout), f(a.random), f(a.keep_inputs_only);
  }
  template <class Arguments>
  static auto parameters(Arguments& a) {
    return std::tie(a.x, a.norm_weight, a.norm_bias, a.in_weight, a.in_bias, a.out_weight, a.out_bias);
  }
  static c10::SymInt kept_row(const FeedForwardArguments& a) { return a.in_weight.sym_size(0) + 2 + (a.prenorm ? c10::SymInt(0) : a.x.sym_size(1)); }
};

}  // namespace seqboat::ops
