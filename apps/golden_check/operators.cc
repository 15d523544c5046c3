// Cases of single operators, optimisers and schedules.

#include <cmath>

#include "golden_case.h"
#include "seqboat/base/error.h"
#include "seqboat/base/philox.h"
#include "seqboat/nn/embedding.h"
#include "seqboat/nn/feed_forward.h"
#include "seqboat/nn/gated_attention_unit.h"
#include "seqboat/nn/norm.h"
#include "seqboat/nn/official_names.h"
#include "seqboat/nn/router.h"
#include "seqboat/ops/ops.h"
#include "seqboat/trace/activation_stats.h"

namespace golden {

using seqboat::PhiloxStream;
namespace nn = seqboat::nn;
namespace ops = seqboat::ops;

namespace {

Tensor leaf(const Tensor& t, const Comparison& comparison) {
  return t.detach().to(comparison.dtype()).clone().requires_grad_(true);
}

/// Norm and feed-forward: a module over (T, B, D) without padding.
template <class Module, class Forward>
void check_module(const GoldenCase& golden, Module& module, const nn::PartsOf& parts_of, const Forward& forward, Comparison& comparison) {
  module->to(comparison.dtype());
  nn::load_official(*module, official_tensors(golden), parts_of);
  module->train(flag(golden.meta, "train", true));
  Tensor x = leaf(golden.at("input.x"), comparison);
  const Tensor y = forward(x);
  const Tensor loss = weighted_sum(y, golden.at("loss_w"));
  loss.backward();
  comparison.output("out.f64", y);
  comparison.loss(loss);
  comparison.gradient("grad.input.x", x.grad());
  const nn::NamedTensors ours = nn::named_tensors(*module);
  const auto get_grad = [&](const std::string& key) { return ours.at(key).grad(); };
  const auto get = [&](const std::string& key) { return ours.at(key); };
  for (const auto& [name, want] : golden.with_prefix("grad.param."))
    comparison.gradient("grad.param." + name, nn::assemble_official(parts_of(name), want.sizes(), get_grad));
  for (const auto& [name, want] : golden.with_prefix("buffer_after."))
    comparison.value("buffer_after." + name, nn::assemble_official(parts_of(name), want.sizes(), get));
}

void check_norm(const GoldenCase& golden, Comparison& comparison) {
  const Tensor x = golden.at("input.x");
  nn::Norm norm(norm_word(golden.meta, "norm_type"), x.size(2), flag(golden.meta, "affine", true));
  // The case's names are those of the official wrapper: norm.weight, norm.scalar, ...
  const auto parts_of = [](const std::string& name) {
    auto parts = nn::official_layer_parts("norm." + name, nn::OfficialLayer::kSeqBoat);
    for (auto& part : parts) part.ours = part.ours.substr(std::string("norm.").size());
    return parts;
  };
  check_module(
      golden, norm, parts_of, [&](const Tensor& in) { return norm(in.flatten(0, 1)).reshape(in.sizes()); }, comparison);
}

void check_feed_forward(const GoldenCase& golden, Comparison& comparison) {
  const Tensor x = golden.at("input.x");
  PhiloxStream random(0, 0);
  const std::string kind = norm_word(golden.meta, golden.meta.contains("norm_type") ? "norm_type" : "norm");
  nn::FeedForward ffn(x.size(2), golden.meta.at("ffn_hidden").get<int64_t>(), kind, flag(golden.meta, "prenorm", true),
                      flag(golden.meta, "affine", flag(golden.meta, "norm_affine", true)), 0.0, false, random);
  const auto parts_of = [](const std::string& name) {
    if (name.rfind("norm.", 0) == 0) return nn::official_layer_parts(name, nn::OfficialLayer::kSeqBoat);
    return std::vector<nn::OfficialPart>{{name}};
  };
  check_module(
      golden, ffn, parts_of,
      [&](const Tensor& in) {
        const Tensor packed = in.flatten(0, 1);
        return ffn(packed, nn::PackedLayout::make(torch::tensor({int64_t{0}, packed.size(0)}), {}), nn::RandomKey{}, int64_t{0}).reshape(in.sizes());
      },
      comparison);
}

void check_router(const GoldenCase& golden, Comparison& comparison) {
  Tensor logits = leaf(golden.at("input.u"), comparison), temperature = leaf(golden.at("param.temp"), comparison);
  const Tensor flat = logits.reshape({-1, 2});
  const double act_bias = static_cast<double>(static_cast<float>(number(golden.meta, "act_bias", 0.0)));
  // Every token is forced to be active, so that its probability carries a gradient.
  auto [active, p, probability] = ops::router(flat, temperature, act_bias, torch::ones({flat.size(0)}, torch::kUInt8));
  const Tensor probs = torch::stack({1 - p, p}, 1);
  (probs * golden.at("loss_w").to(comparison.dtype()).reshape({-1, 2})).sum().backward();
  comparison.output("probs.f64", probs);
  comparison.exact("free decisions", std::get<0>(ops::router(flat, temperature, act_bias, std::nullopt)),
                   (golden.at("probs.f64").select(-1, 1) > golden.at("probs.f64").select(-1, 0)).to(torch::kUInt8));
  comparison.value("temp_exp", temperature.exp());
  comparison.gradient("grad.u", logits.grad());
  comparison.gradient("grad.param.temp", temperature.grad());
}

/// The stored tensors tell what was run: <softmax | sigmoid>_hard<0 | 1>_tau<t>.{out, grad} on given uniform numbers, and the router's own two paths.
void check_gumbel(const GoldenCase& golden, Comparison& comparison) {
  const auto flat = [](const Tensor& t) { return t.reshape({-1, t.size(-1)}); };
  const auto wide = [&](const std::string& name) { return golden.at(name).to(comparison.dtype()); };
  const Tensor w = wide("loss_w");
  for (const auto& [name, want] : golden.with_prefix("")) {
    const size_t end = name.rfind(".out"), hard = name.find("_hard"), tau = name.find("_tau");
    if (end == std::string::npos || end + 4 != name.size() || hard == std::string::npos || tau == std::string::npos) continue;
    const std::string kind = name.substr(0, hard), run = name.substr(0, end);
    const Tensor uniform = wide(kind == "sigmoid" ? "uniforms_sigmoid" : "input.uniforms");
    const int64_t options = uniform.size(-1);
    Tensor logits = leaf(golden.at("input.logits").narrow(-1, 0, options).contiguous(), comparison);
    const double temperature = std::stod(name.substr(tau + 4, end - tau - 4));
    const Tensor out =
        nn::gumbel_weights(flat(logits), -torch::log(-torch::log(flat(uniform))), temperature, name[hard + 5] == '1').reshape(want.sizes());
    (out * w.narrow(-1, 0, options)).sum().backward();
    comparison.value(name, out);
    comparison.value(run + ".grad", logits.grad());
  }
  const Tensor u = golden.at("input.latent_u");
  for (const auto& [name, want] : golden.with_prefix("latent.train_probs_tau")) {
    const Tensor noise = -torch::log(flat(wide("latent.exponential_noise")));
    comparison.value("latent.train_probs_tau" + name,
                     nn::gumbel_weights(flat(u.to(comparison.dtype())), noise, std::stod(name), false).reshape(want.sizes()));
  }
  for (const char* input : {"latent.exponential_noise", "uniforms_sigmoid"}) comparison.seen(input);
  // Evaluation hears no noise.
  const Tensor chosen = nn::gumbel_weights(flat(u.to(comparison.dtype())), {}, 1.0, true).reshape(u.sizes());
  comparison.exact("latent.eval_probs", chosen.to(golden.at("latent.eval_probs").scalar_type()), golden.at("latent.eval_probs"));
}

void check_compress(const GoldenCase& golden, Comparison& comparison) {
  const Tensor mask = golden.at("input.mask");
  const int64_t batch = mask.size(0), length = mask.size(1), dim = golden.at("input.x").size(2), buffer = golden.at("compress.out").size(1);
  const Tensor active = mask.reshape({-1}).to(torch::kUInt8).contiguous();
  auto [index, positions, offsets] = ops::active_index(active, torch::arange(batch + 1, torch::kInt64) * length);
  const int64_t* start = offsets.const_data_ptr<int64_t>();
  // Where the i-th active token of row b lies in the official (B, max active) buffer, and its 1-based number in row b.
  std::vector<int64_t> place;
  Tensor number = torch::zeros({batch * length}, torch::kInt64);
  int64_t densest = 0;
  for (int64_t b = 0; b < batch; ++b) {
    densest = std::max(densest, start[b + 1] - start[b]);
    for (int64_t i = start[b]; i < start[b + 1]; ++i) {
      place.push_back(b * buffer + i - start[b]);
      number[b * length + positions[i].item<int64_t>()] = i - start[b] + 1;
    }
  }
  const Tensor places = torch::tensor(place, torch::kInt64);
  const auto from_buffer = [&](const Tensor& t) { return t.reshape({batch * buffer, dim}).index_select(0, places); };
  const auto to_buffer = [&](const Tensor& t) { return torch::zeros({batch * buffer, dim}, t.options()).index_copy(0, places, t); };
  comparison.exact("index", number);
  comparison.exact("max_active", torch::tensor(densest, torch::kInt64));

  Tensor x = leaf(golden.at("input.x").reshape({-1, dim}), comparison);
  const Tensor packed = ops::compress(x, active, index);
  (packed * from_buffer(golden.at("compress.w")).to(comparison.dtype())).sum().backward();
  comparison.output("compress.out", to_buffer(packed));
  comparison.gradient("compress.grad_x", x.grad());

  Tensor h = leaf(from_buffer(golden.at("extract.in")), comparison);
  const Tensor restored = ops::extract(h, active, index);
  (restored * golden.at("extract.w").to(comparison.dtype()).reshape({-1, dim})).sum().backward();
  comparison.output("extract.out", restored);
  comparison.gradient("extract.grad_h", to_buffer(h.grad()));
}

void check_rotary(const GoldenCase& golden, Comparison& comparison) {
  const Tensor stored = golden.at("input.q");
  const int64_t batch = stored.size(0), length = stored.size(1), width = stored.size(2);
  Tensor q = leaf(stored, comparison);
  const Tensor positions = torch::arange(length, torch::kInt64).repeat({batch});
  const Tensor y = ops::rotary(q.reshape({-1, width}), positions);
  (y * golden.at("loss_w").to(comparison.dtype()).reshape({-1, width})).sum().backward();
  comparison.output("out.f64", y);
  comparison.gradient("grad.q", q.grad());
  if (golden.has("freqs_cis.f64")) {
    const Tensor want = golden.at("freqs_cis.f64");
    Tensor unit = torch::zeros({want.size(0), want.size(1), 2}, comparison.dtype());
    unit.select(2, 0).fill_(1);
    const Tensor rotated = ops::rotary(unit.reshape({want.size(0), -1}), torch::arange(want.size(0), torch::kInt64));
    comparison.output("freqs_cis.f64", rotated);
  }
}

void check_position_bias(const GoldenCase& golden, const std::string& op, Comparison& comparison) {
  nn::AttentionOptions options;
  options.causal = flag(golden.meta, "causal");
  if (op == "simple_bias") {
    Tensor table = leaf(golden.at("param.rel_pos_bias"), comparison);
    options.position = "simple";
    const Tensor bias = nn::position_bias_matrix(torch::arange(golden.meta.at("seq_len").get<int64_t>(), torch::kInt64), table, options);
    (bias * golden.at("loss_w").to(comparison.dtype())).sum().backward();
    comparison.output("out.f64", bias);
    comparison.gradient("grad.param.rel_pos_bias", table.grad());
  } else if (op == "local_pos_bias") {
    const Tensor table = golden.at("param.rel_pos_bias").to(comparison.dtype()), want = golden.at("out");
    const int64_t window = golden.meta.at("window").get<int64_t>();
    options.position = "local";
    options.window = window;
    // The official slice: queries of one block of W against the keys of the block before, its own (and the one behind).
    const Tensor bias = nn::position_bias_matrix(torch::arange(want.size(1), torch::kInt64), table, options);
    comparison.value("out", bias.narrow(0, window, window));
  } else {
    Tensor table = leaf(golden.at("param.relative_attention_bias").reshape({-1}), comparison);
    const Tensor positions = golden.at("input.pos").reshape({-1}).to(torch::kInt64);
    options.position = "t5";
    comparison.exact("bucket", nn::t5_bucket(positions.unsqueeze(0) - positions.unsqueeze(1), options.causal));
    const Tensor bias = nn::position_bias_matrix(positions, table, options) * number(golden.meta, "scale", 1.0);
    (bias * golden.at("loss_w").to(comparison.dtype()).reshape(bias.sizes())).sum().backward();
    comparison.output("out.f64", bias);
    comparison.gradient("grad.param.relative_attention_bias", table.grad());
  }
}

void check_activations(const GoldenCase& golden, Comparison& comparison) {
  for (const char* name : {"relu2", "laplace", "silu", "gelu"}) {
    const std::string function = name;
    if (!golden.has(function + ".f64")) continue;
    Tensor x = leaf(golden.at("input.x"), comparison);
    const Tensor y = ops::activation(x, function);
    y.sum().backward();
    comparison.output(function + ".f64", y);
    comparison.gradient(function + ".grad", x.grad());
  }
}

void check_real_embedding(const GoldenCase& golden, Comparison& comparison) {
  const Tensor stored = golden.at("input.x");
  const int64_t batch = stored.size(0), length = stored.size(1), dim = golden.at("param.embed_tokens.weight").size(0);
  const bool positions_too = golden.has("param.pos_emb.scale");
  PhiloxStream random(0, 0);
  nn::RealEmbedding embedding(1, dim, random);
  nn::SinusoidalPositions positions(dim);
  embedding->to(comparison.dtype());
  positions->to(comparison.dtype());
  nn::NamedTensors first, second;
  for (const auto& [name, value] : official_tensors(golden))
    (name.rfind("pos_emb.", 0) == 0 ? second : first)[name.substr(name.find('.') + 1)] = value;
  const auto same = [](const std::string& name) { return std::vector<nn::OfficialPart>{{name}}; };
  nn::load_official(*embedding, first, same);
  if (positions_too) nn::load_official(*positions, second, same);
  Tensor x = leaf(stored, comparison);
  Tensor y = embedding(x.reshape({-1, 1}));
  if (positions_too) y = positions(y, torch::arange(length, torch::kInt64).repeat({batch}));
  const Tensor loss = weighted_sum(y, golden.at("loss_w").reshape(y.sizes()));
  loss.backward();
  comparison.output("out.f64", y);
  comparison.loss(loss);
  comparison.gradient("grad.input.x", x.grad());
  comparison.gradient("grad.param.embed_tokens.weight", embedding->weight.grad());
  comparison.gradient("grad.param.embed_tokens.bias", embedding->bias.grad());
  if (positions_too) comparison.gradient("grad.param.pos_emb.scale", positions->scale.grad());
}

/// Attention spans of several settings, each with times that count from 1 and are filled up with zeros: of every query, and their mean as printed.
void check_span(const GoldenCase& golden, Comparison& comparison) {
  const auto windows = golden.meta.at("wins").get<std::vector<int64_t>>();
  const auto causal = golden.meta.at("causal").get<std::vector<bool>>();
  for (size_t c = 0; c < windows.size(); ++c) {
    const std::string name = std::to_string(c) + ".";
    const Tensor ticks = golden.at(name + "ticks").contiguous();
    comparison.seen(name + "ticks");
    const int64_t length = ticks.size(-1), rows = ticks.numel() / length;
    Tensor spans = torch::zeros({rows, length}, torch::kFloat64);
    seqboat::trace::AttentionSpan all;
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t* values = ticks.const_data_ptr<int64_t>() + row * length;
      std::vector<int64_t> times(values, values + length);
      std::erase(times, 0);
      all += seqboat::trace::attention_span_of_times(times, windows[c], causal[c]);
      const std::vector<double> each = seqboat::trace::query_spans(times, windows[c], causal[c]);
      std::copy(each.begin(), each.end(), spans[row].mutable_data_ptr<double>());
    }
    comparison.value(name + "span", spans);
    comparison.value(name + "printed", torch::full({1}, all.mean(), torch::kFloat64));
  }
}

}  // namespace

void check_op(const GoldenCase& golden, Comparison& comparison) {
  const std::string op = golden.meta.at("op").get<std::string>();
  if (op == "norm") return check_norm(golden, comparison);
  if (op == "router") return check_router(golden, comparison);
  if (op == "gumbel") return check_gumbel(golden, comparison);
  if (op == "compress") return check_compress(golden, comparison);
  if (op == "rotary") return check_rotary(golden, comparison);
  if (op == "simple_bias" || op == "local_pos_bias" || op == "t5_bias") return check_position_bias(golden, op, comparison);
  if (op == "activations") return check_activations(golden, comparison);
  if (op == "feed_forward") return check_feed_forward(golden, comparison);
  if (op == "real_embedding") return check_real_embedding(golden, comparison);
  if (op == "span") return check_span(golden, comparison);
  if (op == "adaptive") return check_adaptive_op(golden, comparison);
  seqboat::fail(seqboat::ErrorKind::kData, "{}: unknown op '{}'", golden.name, op);
}

}  // namespace golden
