#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace seqboat::runtime {

/// How the next token is chosen from a model's logits. Applied in this order: temperature, then top_k, then top_p.
struct SamplerOptions {
  double temperature = 1;  ///< logits are divided by it; 0 = the largest logit, always
  int64_t top_k = 0;       ///< only the k most probable tokens; 0 or more than there are = all
  double top_p = 1;        ///< of what top_k leaves only the most probable tokens that together reach this share of it, at least one; in (0, 1]
  uint64_t seed = 0;       ///< key of the draws
};

/// Draws tokens. Draw number n of a seed is one number in [0, 1), whatever was drawn before it: a text that is continued from a saved state goes on
/// as if it had never been interrupted.
///
///   p_i = exp(l_i / temperature) / sum      tokens by falling p, of equal ones the lowest first:   p_3 p_0 p_7 | p_1 p_2 ...
///                                           u (p_3 + p_0 + p_7) falls upon one of the kept        ------------
///
/// In double precision. Belongs to one caller; allocates in its constructor alone.
class Sampler {
 public:
  /// For logits of `vocab` tokens. Error (kUsage) for a temperature that is negative or not finite, a negative top_k, a top_p outside (0, 1], a vocab
  /// below 1.
  Sampler(const SamplerOptions& options, int64_t vocab);

  /// The number in [0, vocab) of the token that draw `number` chooses from `vocab` logits. A logit of -infinity is a token that cannot come. Error
  /// (kDiverged) naming place and value for NaN or +infinity, or where no token is possible; kUsage for another number of logits.
  int64_t sample(std::span<const float> logits, int64_t number);

  const SamplerOptions& options() const { return options_; }

 private:
  int64_t largest(std::span<const float> logits) const;

  SamplerOptions options_;
  std::vector<int32_t> order_;  ///< (vocab) tokens, those that may come first
  std::vector<double> weight_;  ///< (vocab) exp((l_i - max) / temperature)
};

}  // namespace seqboat::runtime
