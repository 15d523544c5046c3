// Cases of one Mega layer and of Mega's feed-forward block.

#include <algorithm>

#include "golden_case.h"
#include "seqboat/base/philox.h"
#include "seqboat/nn/feed_forward.h"
#include "seqboat/nn/mega_layer.h"
#include "seqboat/nn/official_names.h"
#include "seqboat/ops/ops.h"

namespace golden {

using seqboat::PhiloxStream;
namespace nn = seqboat::nn;
namespace ops = seqboat::ops;

namespace {

/// The weights that the attention of one block gives: functions of q and k alone, so that the stored ones can be held against them.
Tensor block_weights(const nn::MegaLayerOptions& options, const Tensor& q, const Tensor& k, const Tensor& table) {
  const int64_t n = q.size(0), reach = (table.size(0) + 1) / 2;
  const Tensor number = torch::arange(n, torch::kInt64), apart = number.unsqueeze(0) - number.unsqueeze(1);  // j - i
  const Tensor bias = table.index({(apart + reach - 1).clamp(0, table.size(0) - 1)});
  const Tensor dots = torch::matmul(q, k.t()), unseen = options.causal ? apart > 0 : torch::zeros_like(apart, torch::kBool);
  if (options.function == "softmax") {
    const Tensor scores = dots / std::sqrt(static_cast<double>(q.size(1))) + bias;
    return torch::softmax(scores.masked_fill(unseen, -std::numeric_limits<double>::infinity()), 1);
  }
  const Tensor keys = options.causal ? (number + 1).to(q.scalar_type()).unsqueeze(1) : torch::full({n, 1}, static_cast<double>(n), q.options());
  return ops::activation(dots / keys + bias, options.function).masked_fill(unseen, 0.0);
}

/// Stored intermediates are padded, in blocks: q and k (B, blocks, C, Z), attn (B, blocks, C, C).
void compare_intermediates(const GoldenCase& golden, nn::MegaLayer& layer, const nn::MegaLayerOptions& options, const nn::LayerTrace& record,
                           const Unpadded& where, Comparison& comparison) {
  if (golden.has("mid.layer.ema_out"))
    comparison.value("mid.layer.ema_out", ops::activation(record.ema_out, "silu"), pack_time_first(golden.at("mid.layer.ema_out"), where));
  if (golden.has("mid.layer.h_in"))
    comparison.value("mid.layer.h_in", record.attention * record.reset, pack_time_first(golden.at("mid.layer.h_in"), where));
  const auto packed_rows = [&](const Tensor& stored) {
    const Tensor rows = stored.reshape({stored.size(0), -1, stored.size(3)});  // (B, T, ...)
    return rows.flatten(0, 1).index_select(0, where.batch_first);
  };
  for (const auto& [name, got] : {std::pair{"mid.layer.q", record.q}, std::pair{"mid.layer.k", record.k}})
    if (golden.has(name)) comparison.value(name, got, packed_rows(golden.at(name)));
  if (!golden.has("mid.layer.attn")) return;
  const Tensor stored = packed_rows(golden.at("mid.layer.attn"));
  const Tensor blocks = nn::chunk_offsets(where.cu_seqlens, options.chunk_size);
  const int64_t* offsets = blocks.const_data_ptr<int64_t>();
  std::vector<Tensor> got, want;
  for (int64_t i = 0; i + 1 < blocks.size(0); ++i) {
    const int64_t begin = offsets[i], count = offsets[i + 1] - begin;
    if (count == 0) continue;
    const Tensor table = layer->position->table_for(count);
    got.push_back(block_weights(options, record.q.narrow(0, begin, count), record.k.narrow(0, begin, count), table).flatten());
    want.push_back(stored.narrow(0, begin, count).narrow(1, 0, count).flatten());
  }
  comparison.value("mid.layer.attn", torch::cat(got), torch::cat(want));
}

}  // namespace

void check_mega_layer(const GoldenCase& golden, Comparison& comparison) {
  const json& ctor = golden.meta.at("ctor");
  nn::MegaLayerOptions options;
  options.d_model = integer(ctor, "embed_dim");
  options.d_attn = integer(ctor, "zdim");
  options.d_hidden = integer(ctor, "hdim");
  options.d_state = integer(ctor, "ndim");
  options.truncation = integer(ctor, "truncation");
  options.causal = !flag(ctor, "bidirectional");
  options.chunk_size = integer(ctor, "chunk_size", -1);
  options.function = word(ctor, "attention_activation", "softmax");
  options.position = word(ctor, "rel_pos_bias", "simple");
  options.max_positions = integer(ctor, "max_positions", 1024);
  options.activation = word(ctor, "activation", "silu");
  options.norm = norm_word(ctor, "norm_type");
  options.norm_affine = flag(ctor, "norm_affine", true);
  options.prenorm = flag(ctor, "prenorm", true);
  json others = ctor;
  others.erase("activation");  // the layer's own option, unlike SeqBoat's
  refuse_unsupported(others);

  PhiloxStream random(0, 0);
  nn::MegaLayer layer(options, random);
  layer->to(comparison.dtype());
  const auto parts_of = [](const std::string& name) { return nn::official_layer_parts(name, nn::OfficialLayer::kMega); };
  nn::load_official(*layer, official_tensors(golden), parts_of);
  layer->train(flag(golden.meta, "train", true));

  const Tensor padded = golden.at("input.x");
  const int64_t length = padded.size(0), batch = padded.size(1);
  const Unpadded where = unpad(batch, length, golden.has("input.padding_mask") ? golden.at("input.padding_mask") : Tensor());
  Tensor x = pack_time_first(padded, where).to(comparison.dtype()).requires_grad_(true);
  std::vector<nn::LayerTrace> trace;
  nn::ForwardOptions forward;
  forward.trace = &trace;
  forward.intermediates = true;
  const Tensor y = layer->forward(x, nn::PackedLayout::make(where.cu_seqlens, {}), forward, 0);
  const Tensor loss = weighted_sum(y, pack_time_first(golden.at("loss_w"), where));
  loss.backward();

  comparison.output("out.f64", y, pack_time_first(golden.at("out.f64"), where));
  comparison.loss(loss);
  comparison.gradient("grad.input.x", x.grad(), pack_time_first(golden.at("grad.input.x"), where));
  const nn::NamedTensors ours = nn::named_tensors(*layer);
  for (const auto& [name, want] : golden.with_prefix("grad.param."))
    comparison.gradient("grad.param." + name,
                        nn::assemble_official(parts_of(name), want.sizes(), [&](const std::string& key) { return ours.at(key).grad(); }));
  for (const auto& [name, want] : golden.with_prefix("buffer_after.")) {
    const auto parts = parts_of(name);
    if (!parts.empty() && parts[0].ours.empty()) {
      comparison.seen("buffer_after." + name);
      continue;
    }
    comparison.value("buffer_after." + name, nn::assemble_official(parts, want.sizes(), [&](const std::string& key) { return ours.at(key); }));
  }
  torch::NoGradGuard no_grad;
  compare_intermediates(golden, layer, options, trace.at(0), where, comparison);
}

void check_mega_ffn(const GoldenCase& golden, Comparison& comparison) {
  const json& ctor = golden.meta.at("ctor");
  refuse_unsupported(ctor);
  PhiloxStream random(0, 0);
  nn::FeedForward ffn(integer(ctor, "embed_dim"), integer(ctor, "ffn_hidden_dim"), norm_word(ctor, "norm_type"), flag(ctor, "prenorm", true),
                      flag(ctor, "norm_affine", true), 0.0, false, random);
  ffn->to(comparison.dtype());
  const auto parts_of = [](const std::string& name) {
    if (name.rfind("norm.", 0) == 0) return nn::official_layer_parts(name, nn::OfficialLayer::kMega);
    return std::vector<nn::OfficialPart>{{name}};
  };
  nn::load_official(*ffn, official_tensors(golden), parts_of);
  ffn->train(flag(golden.meta, "train", true));
  Tensor x = golden.at("input.x").to(comparison.dtype()).requires_grad_(true);
  const Tensor rows = x.flatten(0, 1);
  const nn::PackedLayout layout = nn::PackedLayout::make(torch::tensor({int64_t{0}, rows.size(0)}), {});
  const Tensor y = ffn(rows, layout, nn::RandomKey{}, int64_t{0}).reshape(x.sizes());
  const Tensor loss = weighted_sum(y, golden.at("loss_w"));
  loss.backward();
  comparison.output("out.f64", y);
  comparison.loss(loss);
  comparison.gradient("grad.input.x", x.grad());
  const nn::NamedTensors ours = nn::named_tensors(*ffn);
  for (const auto& [name, want] : golden.with_prefix("grad.param."))
    comparison.gradient("grad.param." + name,
                        nn::assemble_official(parts_of(name), want.sizes(), [&](const std::string& key) { return ours.at(key).grad(); }));
  for (const auto& [name, want] : golden.with_prefix("buffer_after."))
    comparison.value("buffer_after." + name,
                     nn::assemble_official(parts_of(name), want.sizes(), [&](const std::string& key) { return ours.at(key); }));
}

}  // namespace golden
