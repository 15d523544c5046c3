#include "seqboat/nn/classifier.h"

#include "seqboat/nn/dropout_sites.h"
#include "seqboat/nn/initialization.h"
#include "seqboat/ops/ops.h"

namespace seqboat::nn {

using torch::Tensor;

Tensor pool(const Tensor& x, const Tensor& cu_seqlens, const std::string& kind) {
  if (kind == "mean") return ops::segment_sum(x, cu_seqlens, true);
  TORCH_CHECK(kind == "first", "seqboat::nn::pool: kind must be mean or first, got '", kind, "'");
  const int64_t batch = cu_seqlens.size(0) - 1;
  TORCH_CHECK(cu_seqlens[batch].item<int64_t>() == x.size(0), "seqboat::nn::pool: cu_seqlens must end at ", x.size(0), ", got ",
              cu_seqlens[batch].item<int64_t>());
  const Tensor first = cu_seqlens.narrow(0, 0, batch).contiguous();
  const int64_t* offsets = cu_seqlens.const_data_ptr<int64_t>();
  Tensor chosen = torch::zeros({x.size(0)}, torch::kUInt8);
  for (int64_t b = 0; b < batch; ++b) {
    TORCH_CHECK(0 <= offsets[b] && offsets[b] < offsets[b + 1] && offsets[b + 1] <= x.size(0), "seqboat::nn::pool: sequence ", b,
                " is empty and has no first token");
    chosen.mutable_data_ptr<uint8_t>()[offsets[b]] = 1;
  }
  return ops::compress(x, chosen, first);
}

ClassifierImpl::ClassifierImpl(int64_t in, int64_t width, int64_t layers, int64_t classes, double dropout, PhiloxStream& random) : dropout_(dropout) {
  torch::nn::ModuleList list;
  for (int64_t i = 0; i < layers; ++i) {
    hidden.emplace_back(i == 0 ? in : width, width);
    fill_xavier_uniform(hidden.back()->weight, random);
    list->push_back(hidden.back());
  }
  if (layers > 0) register_module("hidden", list);
  out = register_module("out", Linear(layers > 0 ? width : in, classes, false));
  fill_xavier_uniform(out->weight, random);
}

Tensor ClassifierImpl::forward(Tensor features, const RandomKey& random) {
  // One row a sequence: its dropout is keyed by the sequence's id at position 0.
  const Tensor one_each = torch::arange(features.size(0) + 1, torch::kInt64);
  const PackedLayout layout = is_training() && dropout_ > 0 ? PackedLayout::make(one_each, random) : PackedLayout{};
  for (size_t i = 0; i < hidden.size(); ++i)
    features =
        ops::activation(dropout(hidden[i](features), dropout_, is_training(), random, layout, static_cast<int64_t>(i), kDropoutClassifier), "gelu");
  return out(features);
}

}  // namespace seqboat::nn
