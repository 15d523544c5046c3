#include "seqboat/nn/adaptive.h"

#include <cmath>
#include <string>

#include "seqboat/nn/initialization.h"

namespace seqboat::nn {

using torch::Tensor;

AdaptiveInputImpl::AdaptiveInputImpl(int64_t pad, int64_t d_input, double factor, int64_t d_model, const std::vector<int64_t>& cutoff,
                                     PhiloxStream& random)
    : pad_(pad), cutoff_(cutoff) {
  for (size_t i = 0; i < cutoff.size(); ++i) {
    const int64_t size = cutoff[i] - (i > 0 ? cutoff[i - 1] : 0);
    const int64_t width = static_cast<int64_t>(static_cast<double>(d_input) / std::pow(factor, static_cast<double>(i)));
    TORCH_CHECK(size > 0 && width > 0, "seqboat::nn::AdaptiveInput: band ", i, " would be ", size, " words of width ", width);
    const std::string name = "band" + std::to_string(i);
    weight.push_back(register_parameter(name + "_weight", torch::empty({size, width})));
    proj.push_back(register_parameter(name + "_proj", torch::empty({d_model, width})));
    fill_normal(weight.back(), 1.0 / std::sqrt(static_cast<double>(width)), random);
    fill_normal(proj.back(), 1.0 / std::sqrt(static_cast<double>(width)), random);
    torch::NoGradGuard no_grad;
    if (pad < size) weight.back()[pad].zero_();
  }
}

Tensor AdaptiveInputImpl::forward(const Tensor& tokens) {
  Tensor y = torch::zeros({tokens.size(0), proj[0].size(0)}, weight[0].options());
  for (size_t i = 0; i < weight.size(); ++i) {
    const int64_t begin = i > 0 ? cutoff_[i - 1] : 0;
    const Tensor rows = ((tokens >= begin) & (tokens < cutoff_[i])).nonzero().squeeze(1);
    if (rows.numel() == 0) continue;
    // Only the first band's row `pad` is a padding row and gets no gradient from here, as in the official code.
    const Tensor words = torch::embedding(weight[i], tokens.index_select(0, rows) - begin, i == 0 && pad_ < weight[i].size(0) ? pad_ : -1);
    y = y.index_copy(0, rows, torch::matmul(words, proj[i].t()));
  }
  return y;
}

AdaptiveSoftmaxImpl::AdaptiveSoftmaxImpl(int64_t d_model, double factor, const std::vector<int64_t>& cutoff, AdaptiveInput tied, bool tied_proj,
                                         PhiloxStream& random)
    : cutoff_(cutoff), tied_(tied), tied_proj_(tied_proj) {
  TORCH_CHECK(!tied_proj || tied, "seqboat::nn::AdaptiveSoftmax: projections can be tied only where the words are");
  const int64_t clusters = static_cast<int64_t>(cutoff.size()) - 1;
  if (tied) {
    head_class = register_parameter("head_class", torch::empty({clusters, d_model}));
    fill_xavier_uniform(head_class, random);
    if (tied->weight[0].size(1) != d_model) {
      head_word_proj = register_parameter("head_word_proj", torch::empty({tied->weight[0].size(1), d_model}));
      fill_xavier_uniform(head_word_proj, random);
    }
  } else {
    head = register_parameter("head", torch::empty({cutoff[0] + clusters, d_model}));
    fill_xavier_uniform(head, random);
  }
  for (int64_t i = 0; i < clusters; ++i) {
    const size_t band = static_cast<size_t>(i) + 1;
    const int64_t width = tied ? tied->weight[band].size(1)
                               : static_cast<int64_t>(std::floor(static_cast<double>(d_model) / std::pow(factor, static_cast<double>(i + 1))));
    const std::string name = "tail" + std::to_string(i);
    if (!tied_proj) {
      tail_proj.push_back(register_parameter(name + "_proj", torch::empty({width, d_model})));
      fill_xavier_uniform(tail_proj.back(), random);
    }
    if (!tied) {
      tail_words.push_back(register_parameter(name + "_words", torch::empty({cutoff[band] - cutoff[band - 1], width})));
      fill_xavier_uniform(tail_words.back(), random);
    }
  }
}

Tensor AdaptiveSoftmaxImpl::head_logits(const Tensor& x) {
  if (!tied_) return torch::matmul(x, head.t());
  const Tensor words = head_word_proj.defined() ? torch::matmul(x, head_word_proj.t()) : x;
  return torch::cat({torch::matmul(words, tied_->weight[0].t()), torch::matmul(x, head_class.t())}, 1);
}

Tensor AdaptiveSoftmaxImpl::tail_logits(size_t band, const Tensor& x) {
  const Tensor h = tied_proj_ ? torch::matmul(x, tied_->proj[band + 1]) : torch::matmul(x, tail_proj[band].t());
  return torch::matmul(h, (tied_ ? tied_->weight[band + 1] : tail_words[band]).t());
}

Tensor AdaptiveSoftmaxImpl::loss(const Tensor& x, const Tensor& targets, int64_t pad) {
  const auto nll = [pad](const Tensor& logits, const Tensor& wanted) {
    return torch::nn::functional::cross_entropy(logits, wanted,
                                                torch::nn::functional::CrossEntropyFuncOptions().ignore_index(pad).reduction(torch::kSum));
  };
  Tensor head_targets = targets.clone();
  Tensor sum = torch::zeros({}, x.options());
  for (size_t band = 0; band + 1 < cutoff_.size(); ++band) {
    const Tensor rows = ((targets >= cutoff_[band]) & (targets < cutoff_[band + 1])).nonzero().squeeze(1);
    if (rows.numel() == 0) continue;
    head_targets.index_fill_(0, rows, cutoff_[0] + static_cast<int64_t>(band));
    sum = sum + nll(tail_logits(band, x.index_select(0, rows)), targets.index_select(0, rows) - cutoff_[band]);
  }
  return sum + nll(head_logits(x), head_targets);
}

Tensor AdaptiveSoftmaxImpl::log_probabilities(const Tensor& x) {
  const Tensor head_lp = torch::log_softmax(head_logits(x), 1);
  std::vector<Tensor> bands{head_lp.narrow(1, 0, cutoff_[0])};
  for (size_t band = 0; band + 1 < cutoff_.size(); ++band)
    bands.push_back(torch::log_softmax(tail_logits(band, x), 1) + head_lp.narrow(1, cutoff_[0] + static_cast<int64_t>(band), 1));
  return torch::cat(bands, 1);
}

}  // namespace seqboat::nn
