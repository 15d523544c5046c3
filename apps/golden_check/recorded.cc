#include "recorded.h"

namespace golden {

void compare_record(const GoldenCase& golden, const std::string& module, const seqboat::nn::LayerTrace& record, const Unpadded& where, int64_t length,
                    Comparison& comparison) {
  const std::string router = "router." + module + ".", mid = "mid." + module + ".";
  const int64_t batch = static_cast<int64_t>(where.lengths.size());
  const int64_t* offsets = where.cu_seqlens.const_data_ptr<int64_t>();

  // Active tokens of each sequence, by time.
  const Tensor active = record.active.defined() ? record.active : torch::ones({offsets[batch]}, torch::kUInt8);
  std::vector<std::vector<int64_t>> times(static_cast<size_t>(batch));
  std::vector<int64_t> counts;
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t t = offsets[b]; t < offsets[b + 1]; ++t)
      if (active.const_data_ptr<uint8_t>()[t]) times[static_cast<size_t>(b)].push_back(t - offsets[b]);
    counts.push_back(static_cast<int64_t>(times[static_cast<size_t>(b)].size()));
  }
  if (golden.has(router + "active")) comparison.exact(router + "active", active, pack_batch_first(golden.at(router + "active"), where));
  if (golden.has(router + "num_active")) comparison.exact(router + "num_active", torch::tensor(counts, torch::kInt64));
  if (golden.has(router + "logits")) comparison.value(router + "logits", record.logits, pack_batch_first(golden.at(router + "logits"), where));
  if (golden.has(router + "probs")) {
    const Tensor both = torch::stack({1 - record.probability, record.probability}, 1);
    comparison.value(router + "probs", both, pack_batch_first(golden.at(router + "probs"), where));
  }
  if (golden.has(mid + "ema_out")) comparison.value(mid + "ema_out", record.ema_out, pack_time_first(golden.at(mid + "ema_out"), where));

  const auto compare_compressed = [&](const char* leaf, const Tensor& got) {
    const std::string name = mid + leaf;
    if (!golden.has(name)) return;
    const Tensor stored = golden.at(name);
    const int64_t width = stored.size(-1), buffer = stored.size(-2);
    const Tensor rows = stored.reshape({batch, buffer, width});
    bool compressed = buffer != length;
    if (golden.meta.contains("router") && golden.meta["router"].contains(module))
      compressed = golden.meta["router"][module].value("compressed", compressed);
    std::vector<int64_t> index;
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t i = 0; i < counts[static_cast<size_t>(b)]; ++i)
        index.push_back(b * buffer + (compressed ? i : times[static_cast<size_t>(b)][static_cast<size_t>(i)]));
    comparison.value(name, got, rows.flatten(0, 1).index_select(0, torch::tensor(index, torch::kInt64)));
  };
  compare_compressed("q", record.q);
  compare_compressed("k", record.k);
  compare_compressed("v", record.v);
  compare_compressed("attn_out", record.attention);
}

}  // namespace golden
