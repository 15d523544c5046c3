#include "seqboat/nn/packed.h"

#include "seqboat/ops/ops.h"

namespace seqboat::nn {

PackedLayout PackedLayout::make(const torch::Tensor& cu_seqlens, const RandomKey& random, int64_t pass, const torch::Tensor& begin) {
  TORCH_CHECK(cu_seqlens.dim() == 1 && cu_seqlens.scalar_type() == torch::kInt64 && cu_seqlens.size(0) >= 1,
              "seqboat: cu_seqlens must be (B+1) int64, got ", cu_seqlens.scalar_type(), " ", cu_seqlens.sizes());
  PackedLayout layout{.cu_seqlens = cu_seqlens.contiguous(), .positions = {}, .sequence_ids = {}, .pass = pass};
  const int64_t batch = cu_seqlens.size(0) - 1;
  const int64_t* offsets = layout.cu_seqlens.const_data_ptr<int64_t>();
  TORCH_CHECK(offsets[0] == 0, "seqboat: cu_seqlens must begin at 0, got ", offsets[0]);
  for (int64_t b = 0; b < batch; ++b)
    TORCH_CHECK(offsets[b] <= offsets[b + 1], "seqboat: cu_seqlens must not decrease, got ", offsets[b], " then ", offsets[b + 1], " at ", b);
  layout.positions = torch::empty({offsets[batch]}, torch::kInt64);
  layout.sequence_ids = torch::empty({offsets[batch]}, torch::kInt64);
  TORCH_CHECK(!random.sequence_ids.defined() || random.sequence_ids.size(0) == batch, "seqboat: sequence_ids must be (", batch, "), got ",
              random.sequence_ids.sizes());
  TORCH_CHECK(!begin.defined() || (begin.dim() == 1 && begin.size(0) == batch && begin.scalar_type() == torch::kInt64),
              "seqboat: the state is one of ", begin.defined() ? begin.numel() : 0, " sequences, the batch has ", batch);
  const torch::Tensor from = begin.defined() ? begin.contiguous() : torch::Tensor();
  const torch::Tensor given = random.sequence_ids.defined() ? random.sequence_ids.contiguous() : torch::Tensor();
  int64_t* positions = layout.positions.mutable_data_ptr<int64_t>();
  int64_t* ids = layout.sequence_ids.mutable_data_ptr<int64_t>();
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t id = given.defined() ? given.const_data_ptr<int64_t>()[b] : b;
    const int64_t start = from.defined() ? from.const_data_ptr<int64_t>()[b] : 0;
    for (int64_t t = offsets[b]; t < offsets[b + 1]; ++t) {
      positions[t] = start + t - offsets[b];
      ids[t] = id;
    }
  }
  return layout;
}

torch::Tensor forced_decisions(const ForwardOptions& options, const PackedLayout& layout, int64_t layer) {
  const std::vector<torch::Tensor>& forced = layout.pass == 1 && !options.forced_active1.empty() ? options.forced_active1 : options.forced_active;
  if (forced.empty()) return {};
  TORCH_CHECK(static_cast<size_t>(layer) < forced.size(), "seqboat: forced_active has ", forced.size(), " layers, none for layer ", layer);
  return forced[static_cast<size_t>(layer)];
}

std::vector<int64_t> dropout_key(const RandomKey& random, const PackedLayout& layout, int64_t layer, int64_t site) {
  constexpr int64_t kSitesPerPass = 8;
  return {static_cast<int64_t>(random.seed), static_cast<int64_t>(random.update), static_cast<int64_t>(random.micro_batch), layer + 1,
          layout.pass * kSitesPerPass + site};
}

torch::Tensor dropout(const torch::Tensor& x, double p, bool training, const RandomKey& random, const PackedLayout& layout, int64_t layer,
                      int64_t site) {
  if (!training || p <= 0) return x;
  const std::vector<int64_t> key = dropout_key(random, layout, layer, site);
  return ops::dropout(x, p, key[0], key[1], key[2], key[3], key[4], layout.sequence_ids, layout.positions);
}

}  // namespace seqboat::nn
