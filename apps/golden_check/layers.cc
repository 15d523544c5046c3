// Cases of one state encoder (EMA, S4D) and of one layer.

#include <algorithm>

#include "golden_case.h"
#include "recorded.h"
#include "seqboat/base/error.h"
#include "seqboat/base/philox.h"
#include "seqboat/nn/multi_head_ema.h"
#include "seqboat/nn/official_names.h"
#include "seqboat/nn/s4d.h"
#include "seqboat/nn/seqboat_layer.h"

namespace golden {

using seqboat::PhiloxStream;
namespace nn = seqboat::nn;

namespace {

std::vector<nn::OfficialPart> same_name(const std::string& name) {
  return {{name}};
}

nn::MultiHeadEma make_ema(const GoldenCase& golden, torch::ScalarType dtype) {
  PhiloxStream random(0, 0);
  nn::MultiHeadEma ema(golden.meta.at("D").get<int64_t>(), golden.meta.at("ndim").get<int64_t>(), flag(golden.meta, "bidirectional"),
                       integer(golden.meta, "truncation", 0), random);
  ema->to(dtype);
  nn::load_official(*ema, golden.with_prefix("param."), same_name);
  return ema;
}

/// Output, loss and all gradients of a state encoder over (T, B, D), which may be padded.
template <class Encoder>
void check_encoder(const GoldenCase& golden, Encoder& encoder, const nn::PartsOf& parts_of, Comparison& comparison) {
  const Tensor padded = golden.at("input.x");
  const int64_t length = padded.size(0), batch = padded.size(1);
  const Unpadded where = unpad(batch, length, golden.has("input.padding_mask") ? golden.at("input.padding_mask") : Tensor());
  Tensor x = pack_time_first(padded, where).to(comparison.dtype()).requires_grad_(true);
  const Tensor weights = pack_time_first(golden.at("loss_w"), where);
  const Tensor y = encoder(x, where.cu_seqlens);
  const Tensor loss = weighted_sum(y, weights);
  loss.backward();
  comparison.output("out.f64", y, pack_time_first(golden.at("out.f64"), where));
  comparison.loss(loss);
  comparison.gradient("grad.input.x", x.grad(), pack_time_first(golden.at("grad.input.x"), where));
  const nn::NamedTensors ours = nn::named_tensors(*encoder);
  for (const auto& [name, want] : golden.with_prefix("grad.param."))
    comparison.gradient("grad.param." + name,
                        nn::assemble_official(parts_of(name), want.sizes(), [&](const std::string& key) { return ours.at(key).grad(); }));
}

}  // namespace

void check_ema(const GoldenCase& golden, Comparison& comparison) {
  nn::MultiHeadEma ema = make_ema(golden, comparison.dtype());
  check_encoder(golden, ema, same_name, comparison);
  if (golden.has("kernel.f64")) {
    torch::NoGradGuard no_grad;
    auto [q, c] = ema->coefficients();
    const Tensor want = golden.at("kernel.f64");
    std::vector<Tensor> columns;
    Tensor power = torch::ones_like(q);
    for (int64_t l = 0; l < want.size(1); ++l, power = power * q) columns.push_back((c * power).sum(1));
    comparison.value("kernel.f64", torch::stack(columns, 1));
  }
}

void check_s4d(const GoldenCase& golden, Comparison& comparison) {
  const json& ctor = golden.meta.at("ctor");
  PhiloxStream random(0, 0);
  nn::S4d s4d(ctor.at("embed_dim").get<int64_t>(), integer(ctor, "ndim", 2), flag(ctor, "bidirectional"), integer(ctor, "truncation", 0), random);
  s4d->to(comparison.dtype());
  nn::load_official(*s4d, golden.with_prefix("param."), nn::official_s4d_parts);
  check_encoder(golden, s4d, nn::official_s4d_parts, comparison);
  if (golden.has("mid.ssm.kernel")) {
    torch::NoGradGuard no_grad;
    auto [d, w] = s4d->coefficients();
    const Tensor want = golden.at("mid.ssm.kernel"), decay = torch::view_as_complex(d);
    std::vector<Tensor> columns;
    Tensor term = torch::view_as_complex(w);
    for (int64_t l = 0; l < want.size(2); ++l, term = term * decay) columns.push_back(2 * torch::real(term).sum(1));
    comparison.value("mid.ssm.kernel", torch::stack(columns, 1));
  }
}

void check_ema_incremental(const GoldenCase& golden, Comparison& comparison) {
  torch::NoGradGuard no_grad;
  nn::MultiHeadEma ema = make_ema(golden, comparison.dtype());
  const Tensor padded = golden.at("input.x").to(comparison.dtype());
  const int64_t length = padded.size(0), batch = padded.size(1), dim = padded.size(2);
  const int64_t truncation = integer(golden.meta, "truncation", 0);
  const auto pack = [&](const Tensor& t) { return t.transpose(0, 1).reshape({-1, dim}).contiguous(); };
  const auto unpack = [&](const Tensor& t, int64_t steps) { return t.reshape({batch, steps, dim}).transpose(0, 1); };
  const Tensor whole = unpack(ema(pack(padded), torch::arange(batch + 1, torch::kInt64) * length), length);

  Tensor state, history = truncation > 0 ? torch::zeros({batch, truncation, dim}, comparison.dtype()) : Tensor();
  std::vector<Tensor> steps;
  int64_t begin = 0;
  for (const int64_t chunk : golden.meta.at("chunks").get<std::vector<int64_t>>()) {
    const Tensor part = padded.narrow(0, begin, chunk);
    auto [y, next] = ema->forward_with_state(pack(part), torch::arange(batch + 1, torch::kInt64) * chunk, state, history);
    steps.push_back(unpack(y, chunk));
    state = next;
    if (truncation > 0) history = torch::cat({history, part.transpose(0, 1)}, 1).narrow(1, chunk, truncation).contiguous();
    begin += chunk;
  }
  const Tensor incremental = torch::cat(steps, 0);
  bool any = false;
  for (const char* parallel : {"out_parallel.f64", "out.f64"}) {
    if (!golden.has(parallel)) continue;
    any = true;
    comparison.output(parallel, whole);
    comparison.output(parallel, incremental);
  }
  if (!any) comparison.fail("neither out_parallel.f64 nor out.f64 is there");
  // Where the official steps ignore the truncation ours obey it, as the parallel form does: only that one is compared.
  const auto flags = flags_of(golden.meta);
  if (std::find(flags.begin(), flags.end(), "incremental_ignores_truncation") != flags.end()) {
    comparison.seen("out_incremental.f64");
    comparison.seen("state.f64");
    return;
  }
  if (golden.has("out_incremental.f64")) comparison.output("out_incremental.f64", incremental);
  // The official state carries the factor p beta that ours leaves to the coefficients.
  const Tensor p_beta = torch::sigmoid(ema->delta) * ema->beta;
  if (golden.has("state.f64")) comparison.output("state.f64", state * p_beta);
}

void check_layer(const GoldenCase& golden, Comparison& comparison) {
  const json& ctor = golden.meta.at("ctor");
  refuse_unsupported(ctor);
  const bool always = flag(ctor, "always_act");
  const int64_t window = integer(ctor, "chunk_size", integer(ctor, "window_size", integer(ctor, "mem_size", -1)));
  const bool local = window > 0;
  nn::SeqBoatLayerOptions options;
  options.d_model = ctor.at("embed_dim").get<int64_t>();
  options.d_attn = integer(ctor, "zdim", integer(ctor, "d_qk", 0));
  options.d_hidden = integer(ctor, "hdim", 2 * options.d_model);
  options.d_state = integer(ctor, "ndim", integer(ctor, "d_ema", 0));
  options.truncation = integer(ctor, "truncation", 0);
  options.causal = !flag(ctor, "bidirectional");
  options.attention.function = word(ctor, "attention_activation", "relu2");
  options.attention.position = position_word(ctor, window);
  options.attention.max_positions = integer(ctor, "max_positions", 1024);
  options.attention.window = local ? window : -1;
  options.norm = norm_word(ctor, "norm_type");
  options.norm_affine = flag(ctor, "norm_affine", true);
  options.prenorm = flag(ctor, "prenorm", true);
  if (always) options.router.kind = "always";
  options.router.temperature_init = number(ctor, "init_temp_scale", 0.3);
  options.router.bias = number(golden.meta, "act_bias", number(ctor, "act_bias", 0.0));

  PhiloxStream random(0, 0);
  nn::SeqBoatLayer layer(options, random);
  layer->to(comparison.dtype());
  const auto official = always ? nn::OfficialLayer::kSeqBoatWithoutRouter : nn::OfficialLayer::kSeqBoat;
  const auto parts_of = [&](const std::string& name) { return nn::official_layer_parts(name, official); };
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
  const Tensor y = layer(x, nn::PackedLayout::make(where.cu_seqlens, {}), forward, 0);
  const Tensor loss = weighted_sum(y, pack_time_first(golden.at("loss_w"), where));
  loss.backward();

  comparison.output("out.f64", y, pack_time_first(golden.at("out.f64"), where));
  comparison.loss(loss);
  comparison.gradient("grad.input.x", x.grad(), pack_time_first(golden.at("grad.input.x"), where));
  const nn::NamedTensors ours = nn::named_tensors(*layer);
  for (const auto& [name, want] : golden.with_prefix("grad.param."))
    comparison.gradient("grad.param." + name,
                        nn::assemble_official(parts_of(name), want.sizes(), [&](const std::string& key) { return ours.at(key).grad(); }));
  for (const auto& [name, want] : golden.with_prefix("buffer_after."))
    comparison.value("buffer_after." + name,
                     nn::assemble_official(parts_of(name), want.sizes(), [&](const std::string& key) { return ours.at(key); }));
  compare_record(golden, "layer", trace.at(0), where, length, comparison);
}

}  // namespace golden
