#pragma once

#include <torch/torch.h>

#include <vector>

#include "seqboat/base/philox.h"

namespace seqboat::nn {

/// Adaptive input: band i holds the words cutoff[i-1] .. cutoff[i]-1 in width D0 / factor^i, projected to D without bias. Composite path.
/// Parameters: bands.<i>.{weight, proj}; N(0, 1/width), row `pad` of every band zero.
class AdaptiveInputImpl : public torch::nn::Module {
 public:
  /// cutoff: increasing ends of the bands, the last one is the vocabulary's size.
  AdaptiveInputImpl(int64_t pad, int64_t d_input, double factor, int64_t d_model, const std::vector<int64_t>& cutoff, PhiloxStream& random);
  torch::Tensor forward(const torch::Tensor& tokens);  ///< (M) -> (M, D)

  std::vector<torch::Tensor> weight;  ///< (band size, width)
  std::vector<torch::Tensor> proj;    ///< (D, width)

 private:
  int64_t pad_;
  std::vector<int64_t> cutoff_;
};
TORCH_MODULE(AdaptiveInput);

/// Adaptive softmax: a head over the first band's words and one logit a tail cluster, tails of width D / factor^(i+1). Composite path.
/// tied: word matrices are those of the adaptive input (head words: band 0, through its projection's own matrix head_word_proj if its width is not
/// D); tied_proj: tail projections are the transposed input projections. What is not tied is Xavier-uniform.
class AdaptiveSoftmaxImpl : public torch::nn::Module {
 public:
  AdaptiveSoftmaxImpl(int64_t d_model, double factor, const std::vector<int64_t>& cutoff, AdaptiveInput tied, bool tied_proj, PhiloxStream& random);

  /// Sum of the head's negative log-likelihood (word, or cluster) and the tail's for words out of the head. x (M, D), targets (M). As in the official
  /// code, `pad` is what every band ignores, numbered within the band: the word `pad` in the head, and word number `pad` of each tail in that tail.
  torch::Tensor loss(const torch::Tensor& x, const torch::Tensor& targets, int64_t pad);
  torch::Tensor log_probabilities(const torch::Tensor& x);  ///< (M, V)

  torch::Tensor head, head_class, head_word_proj;  ///< head (words + clusters, D) when untied; head_class (clusters, D) when tied
  std::vector<torch::Tensor> tail_proj;            ///< (width, D), untied projections
  std::vector<torch::Tensor> tail_words;           ///< (band size, width), untied words

 private:
  torch::Tensor head_logits(const torch::Tensor& x);
  torch::Tensor tail_logits(size_t band, const torch::Tensor& x);

  std::vector<int64_t> cutoff_;
  AdaptiveInput tied_{nullptr};
  bool tied_proj_;
};
TORCH_MODULE(AdaptiveSoftmax);

}  // namespace seqboat::nn
