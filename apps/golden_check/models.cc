// Cases of whole models: LRA classifiers and retrieval, raw speech, language models, the standalone file's model.

#include <algorithm>
#include <sstream>

#include "golden_case.h"
#include "model_cases.h"
#include "recorded.h"
#include "seqboat/base/error.h"
#include "seqboat/base/philox.h"
#include "seqboat/nn/adaptive.h"
#include "seqboat/nn/classifier.h"
#include "seqboat/nn/embedding.h"
#include "seqboat/nn/encoder.h"
#include "seqboat/nn/model.h"
#include "seqboat/nn/model_state.h"
#include "seqboat/nn/official_names.h"
#include "seqboat/ops/ops.h"

namespace golden {

using seqboat::PhiloxStream;
using seqboat::config::ModelConfig;
namespace nn = seqboat::nn;
namespace ops = seqboat::ops;

bool is_language_model(const json& config) {
  return config.contains("decoder_layers");
}

namespace {

/// Mega's models are configured like SeqBoat's: the case's kind tells them apart.
bool is_mega_case(const GoldenCase& golden) {
  return golden.kind.rfind("mega_", 0) == 0;
}

/// What LRA, speech and language-model configs have in common.
void common_keys(const json& config, const char* norm_key, bool is_mega, ModelConfig& model) {
  refuse_unsupported(config, is_mega ? "mega" : "slag");
  if (is_mega) {
    model.layer = model.window_size > 0 ? "mega-chunk" : "mega";
    if (model.ffn_dim == 0) model.ffn_dim = -1;
  } else {
    model.layer = flag(config, "always_act") ? "seqboat-full" : "seqboat";
  }
  model.truncation = integer(config, "truncation_length");
  model.attention = word(config, "attention_activation_fn", "relu2");
  model.position = is_mega ? word(config, "rel_pos_bias", "simple") : position_word(config, model.window_size);
  model.norm = norm_word(config, norm_key);
  model.temperature_init = number(config, "init_temp_scale", 0.3);
  model.router_bias = number(config, "act_bias", 0.0);
}

}  // namespace

ModelConfig classifier_config(const GoldenCase& golden, const json& config) {
  ModelConfig model;
  const bool speech = golden.meta.at("module") == "SCRawModel";
  model.n_layers = integer(config, "encoder_layers");
  model.d_model = integer(config, "encoder_embed_dim");
  model.d_hidden = integer(config, "encoder_hidden_dim");
  model.d_attn = integer(config, "z_dim");
  model.d_state = integer(config, "n_dim");
  model.window_size = std::max<int64_t>(0, integer(config, "chunk_size"));
  model.ffn_dim = std::max<int64_t>(0, integer(config, "encoder_ffn_embed_dim"));
  const bool is_mega = is_mega_case(golden);
  common_keys(config, "norm_type", is_mega, model);
  model.max_positions = integer(config, "max_positions");
  model.prenorm = flag(config, "encoder_normalize_before");
  model.embedding_norm = flag(config, "normalize_embedding") && !model.prenorm;
  model.sinusoidal = (speech && !is_mega) || flag(config, "add_apos");
  model.input = speech || word(config, "input_type", "text") != "text" ? "real" : "tokens";
  model.vocab_size = integer(golden.meta, "vocab");
  model.task = golden.has("input.tokens1") ? "retrieval" : "classification";
  model.classes = integer(config, "sentence_class_num");
  model.pool = word(config, "sen_rep_type", "mp") == "mp" ? "mean" : "first";
  model.nli = flag(config, "use_nli");
  model.classifier_layers = integer(config, "classifier_layers");
  model.d_classifier = integer(config, "classifier_out_dim");
  return model;
}

ModelConfig language_model_config(const GoldenCase& golden, const json& config) {
  ModelConfig model;
  model.task = "language-model";
  model.causal = true;
  model.n_layers = integer(config, "decoder_layers");
  model.d_model = integer(config, "decoder_embed_dim");
  model.d_embedding = integer(config, "decoder_input_dim");
  model.d_hidden = integer(config, "decoder_hidden_dim");
  model.d_attn = integer(config, "decoder_z_dim");
  model.d_state = integer(config, "decoder_n_dim");
  model.window_size = std::max<int64_t>(0, integer(config, "decoder_chunk_size"));
  model.ffn_dim = std::max<int64_t>(0, integer(config, "decoder_ffn_embed_dim"));
  common_keys(config, "normalization_type", is_mega_case(golden), model);
  model.max_positions = integer(config, "max_target_positions");
  model.prenorm = flag(config, "normalize_before");
  model.embedding_norm = flag(config, "normalize_embedding");
  model.final_norm_affine = !flag(config, "no_affine_final_norm");
  model.scale_embedding = !flag(config, "no_scale_embedding");
  model.tie_embedding = flag(config, "share_decoder_input_output_embed");
  model.vocab_size = integer(golden.meta, "vocab");
  return model;
}

namespace {

/// A module's name in the case, e.g. "decoder.layers.0.slag_layer" or "...#call1": which layer and which pass.
void compare_records(const GoldenCase& golden, const std::vector<nn::LayerTrace>& trace, int64_t n_layers, const std::vector<Unpadded>& passes,
                     const std::vector<int64_t>& lengths, Comparison& comparison) {
  std::set<std::string> modules;
  for (const std::string section : {"router.", "mid."})
    for (const auto& [name, value] : golden.with_prefix(section)) modules.insert(name.substr(0, name.rfind('.')));
  for (const std::string& module : modules) {
    const size_t hash = module.find("#call");
    const int64_t pass = hash == std::string::npos ? 0 : std::stoll(module.substr(hash + 5));
    const auto layer = nn::official_layer_name(module.substr(0, hash));
    if (!layer) seqboat::fail(seqboat::ErrorKind::kData, "{}: module {} is no layer", golden.name, module);
    compare_record(golden, module, trace.at(static_cast<size_t>(pass * n_layers + layer->layer)), passes.at(static_cast<size_t>(pass)),
                   lengths.at(static_cast<size_t>(pass)), comparison);
  }
}

void compare_gradients_and_buffers(const GoldenCase& golden, const nn::NamedTensors& ours, const nn::PartsOf& parts_of, Comparison& comparison) {
  for (const auto& [name, want] : golden.with_prefix("grad.param.")) {
    const auto parts = parts_of(name);
    if (parts.empty() || parts[0].ours.empty()) {
      comparison.fail("grad.param." + name + " has no place in the model");
      continue;
    }
    comparison.gradient("grad.param." + name,
                        nn::assemble_official(parts, want.sizes(), [&](const std::string& key) { return ours.at(key).grad(); }));
  }
  for (const auto& [name, want] : golden.with_prefix("buffer_after."))
    comparison.value("buffer_after." + name,
                     nn::assemble_official(parts_of(name), want.sizes(), [&](const std::string& key) { return ours.at(key); }));
}

/// One padded document batch of a case as packed input. Real input is (B, T) numbers; tokens are padded with the pad symbol, or by length.
struct Document {
  nn::PackedSequences packed;
  Unpadded where;
  int64_t length;
};

Document read_document(const GoldenCase& golden, const std::string& key, const std::string& lengths_key, bool real, torch::ScalarType dtype) {
  const Tensor padded = golden.at(key);
  Document document;
  document.length = padded.size(1);
  Tensor padding;
  if (!real && golden.meta.contains("pad_idx") && golden.meta["pad_idx"].is_number()) padding = padded == golden.meta["pad_idx"].get<int64_t>();
  if (!padding.defined() && golden.has(lengths_key)) padding = torch::arange(document.length).unsqueeze(0) >= golden.at(lengths_key).unsqueeze(1);
  document.where = unpad(padded.size(0), document.length, padding);
  document.packed.cu_seqlens = document.where.cu_seqlens;
  const Tensor rows = pack_batch_first(padded, document.where);
  if (real) {
    document.packed.values = rows.reshape({rows.size(0), -1}).to(dtype).detach().requires_grad_(true);
  } else {
    document.packed.tokens = rows.to(torch::kInt64).contiguous();
  }
  return document;
}

void check_classifier(const GoldenCase& golden, Comparison& comparison) {
  const ModelConfig config = classifier_config(golden, golden.meta.at("config"));
  auto model = nn::make_model(config, 0);
  model->to(comparison.dtype());
  const auto parts_of = [&](const std::string& name) { return nn::official_model_parts(name, nn::official_layer(config), true); };
  nn::load_official(*model, official_tensors(golden), parts_of);
  model->train(flag(golden.meta, "train", true));

  const bool real = config.input == "real";
  std::vector<nn::LayerTrace> trace;
  nn::ForwardOptions options;
  options.trace = &trace;
  options.intermediates = true;
  Document first = read_document(golden, "input.tokens", "input.lengths", real, comparison.dtype()), second;
  const bool pair = config.task == "retrieval";
  if (pair) second = read_document(golden, "input.tokens1", "input.lengths1", real, comparison.dtype());
  const Tensor logits = model->forward(first.packed, pair ? &second.packed : nullptr, options);
  const Tensor loss = ops::cross_entropy_sum(logits, golden.at("input.target").to(torch::kInt64).reshape({-1}).contiguous());
  loss.backward();

  comparison.output("out.f64", logits);
  comparison.loss(loss);
  if (golden.has("grad.input.tokens"))
    comparison.gradient("grad.input.tokens", first.packed.values.grad(), pack_batch_first(golden.at("grad.input.tokens"), first.where));
  if (golden.has("grad.input.tokens1"))
    comparison.gradient("grad.input.tokens1", second.packed.values.grad(), pack_batch_first(golden.at("grad.input.tokens1"), second.where));
  compare_gradients_and_buffers(golden, nn::named_tensors(*model), parts_of, comparison);
  std::vector<Unpadded> passes{first.where};
  std::vector<int64_t> lengths{first.length};
  if (pair) {
    passes.push_back(second.where);
    lengths.push_back(second.length);
  }
  compare_records(golden, trace, config.n_layers, passes, lengths, comparison);
}

void check_language_model(const GoldenCase& golden, Comparison& comparison) {
  const ModelConfig config = language_model_config(golden, golden.meta.at("config"));
  auto model = nn::make_model(config, 0);
  model->to(comparison.dtype());
  const auto parts_of = [&](const std::string& name) { return nn::official_model_parts(name, nn::official_layer(config), config.tie_embedding); };
  nn::load_official(*model, official_tensors(golden), parts_of);
  model->train(flag(golden.meta, "train", true));

  std::vector<nn::LayerTrace> trace;
  nn::ForwardOptions options;
  options.trace = &trace;
  options.intermediates = true;
  const Document document = read_document(golden, "input.tokens", "input.lengths", false, comparison.dtype());
  const Tensor logits = model->forward(document.packed, nullptr, options);
  const Tensor targets = pack_batch_first(golden.at("input.target"), document.where).to(torch::kInt64).contiguous();
  const Tensor scored = (targets != golden.meta.at("pad_idx").get<int64_t>()).nonzero().squeeze(1);
  const bool all = scored.size(0) == targets.size(0);
  const Tensor loss = ops::cross_entropy_sum(all ? logits : logits.index_select(0, scored), all ? targets : targets.index_select(0, scored));
  loss.backward();

  comparison.output("out.f64", logits, pack_batch_first(golden.at("out.f64"), document.where));
  comparison.loss(loss);
  compare_gradients_and_buffers(golden, nn::named_tensors(*model), parts_of, comparison);
  compare_records(golden, trace, config.n_layers, {document.where}, {document.length}, comparison);
}

std::vector<int64_t> cutoffs(const json& text, int64_t vocab) {
  std::vector<int64_t> ends;
  if (text.is_array()) {
    ends = text.get<std::vector<int64_t>>();
  } else {
    std::stringstream stream(text.get<std::string>());
    for (std::string end; std::getline(stream, end, ',');) ends.push_back(std::stoll(end));
  }
  if (ends.empty() || ends.back() != vocab) ends.push_back(vocab);
  return ends;
}

}  // namespace

/// Names of adaptive input and softmax below a prefix ("decoder." or ""). Empty: not one of them.
static std::vector<nn::OfficialPart> adaptive_parts(const std::string& name, const std::string& prefix, bool tied, bool tied_proj) {
  if (name.rfind(prefix, 0) != 0) return {};
  const std::string rest = name.substr(prefix.size());
  if (rest == "version" || rest == "adaptive_softmax.version") return {{""}};
  std::vector<std::string> words;
  std::stringstream stream(rest);
  for (std::string part; std::getline(stream, part, '.');) words.push_back(part);
  if (words.size() == 5 && words[0] == "embed_tokens" && words[1] == "embeddings" && words[4] == "weight")
    return {{"input.band" + words[2] + (words[3] == "0" ? "_weight" : "_proj")}};
  if (words.size() >= 3 && words[0] == "adaptive_softmax") {
    if (rest == "adaptive_softmax.head.weight") return {{"softmax.head"}};
    if (rest == "adaptive_softmax.head.class_proj.weight") return {{"softmax.head_class"}};
    if (rest == "adaptive_softmax.head.word_proj.0.weight") return {{"softmax.head_word_proj"}};
    if (rest == "adaptive_softmax.head.word_proj.weight" || rest == "adaptive_softmax.head.word_proj.1.weight") return {{"input.band0_weight"}};
    if (words.size() == 5 && words[1] == "tail" && words[3] == "0")
      return {{tied_proj ? "input.band" + std::to_string(std::stoll(words[2]) + 1) + "_proj" : "softmax.tail" + words[2] + "_proj"}};
    if (words.size() == 5 && words[1] == "tail" && words[3] == "2")
      return {{tied ? "input.band" + std::to_string(std::stoll(words[2]) + 1) + "_weight" : "softmax.tail" + words[2] + "_words"}};
  }
  return {};
}

/// A language model with adaptive input, adaptive softmax, or both, from the library's modules; the op's case has only those two.
struct AdaptiveModel : torch::nn::Module {
  nn::AdaptiveInput input{nullptr};
  nn::TokenEmbedding embedding{nullptr};  // in the adaptive input's place
  nn::Linear input_proj{nullptr};
  nn::Norm embedding_norm{nullptr};
  nn::Encoder encoder{nullptr};
  nn::AdaptiveSoftmax softmax{nullptr};
  nn::Linear output{nullptr};  // in the adaptive softmax's place
};

static void load_adaptive(AdaptiveModel& model, const GoldenCase& golden, const nn::PartsOf& parts_of) {
  nn::NamedTensors official = official_tensors(golden);
  // Tied matrices stand twice in the state dict: one is loaded, the other held against it.
  std::map<std::string, Tensor> again;
  for (auto it = official.begin(); it != official.end();) {
    const auto parts = parts_of(it->first);
    const bool second = !parts.empty() && parts[0].ours.rfind("input.", 0) == 0 && it->first.find("embed_tokens") == std::string::npos;
    if (second) again[it->first] = it->second;
    it = second ? official.erase(it) : std::next(it);
  }
  nn::load_official(model, official, parts_of);
  const nn::NamedTensors ours = nn::named_tensors(model);
  for (const auto& [name, value] : again) {
    const Tensor twin = ours.at(parts_of(name)[0].ours).detach();
    TORCH_CHECK(twin.sizes() == value.sizes() && torch::equal(twin, value.to(twin.scalar_type())), "golden_check: ", name, " is not tied to ",
                parts_of(name)[0].ours);
  }
}

void check_adaptive_op(const GoldenCase& golden, Comparison& comparison) {
  const json& meta = golden.meta;
  const bool tied = flag(meta, "tie"), tied_proj = tied && flag(meta, "tie_proj");  // projections are tied only where the words are
  const int64_t pad = meta.at("pad").get<int64_t>(), dim = meta.at("D").get<int64_t>();
  const double factor = meta.at("factor").get<double>();
  const auto ends = cutoffs(meta.at("cutoff"), meta.at("V").get<int64_t>());
  PhiloxStream random(0, 0);
  AdaptiveModel model;
  model.input = model.register_module("input", nn::AdaptiveInput(pad, dim, factor, dim, ends, random));
  model.softmax =
      model.register_module("softmax", nn::AdaptiveSoftmax(dim, factor, ends, tied ? model.input : nn::AdaptiveInput(nullptr), tied_proj, random));
  model.to(comparison.dtype());
  const auto parts_of = [&](const std::string& name) { return adaptive_parts(name, "", tied, tied_proj); };
  load_adaptive(model, golden, parts_of);
  const Tensor tokens = golden.at("input.tokens").reshape({-1}).contiguous(), targets = golden.at("input.target").reshape({-1}).contiguous();
  const Tensor x = torch::tanh(model.input(tokens));
  const Tensor loss = model.softmax->loss(x, targets, pad);
  loss.backward();
  comparison.output("out.f64", model.softmax->log_probabilities(x.detach()));
  comparison.loss(loss);
  compare_gradients_and_buffers(golden, nn::named_tensors(model), parts_of, comparison);
}

static void check_adaptive_language_model(const GoldenCase& golden, Comparison& comparison) {
  const json& config = golden.meta.at("config");
  ModelConfig model_config = language_model_config(golden, config);
  const bool tied = flag(config, "tie_adaptive_weights"), tied_proj = tied && flag(config, "tie_adaptive_proj");
  const int64_t pad = golden.meta.at("pad_idx").get<int64_t>(), vocab = model_config.vocab_size;
  const bool adaptive_input = flag(config, "adaptive_input"), adaptive_softmax = !config.value("adaptive_softmax_cutoff", json()).is_null();
  const int64_t d_embedding = model_config.d_embedding > 0 ? model_config.d_embedding : model_config.d_model;
  PhiloxStream random(0, 0);
  AdaptiveModel model;
  if (adaptive_input) {
    model.input = model.register_module("input", nn::AdaptiveInput(pad, d_embedding, number(config, "adaptive_input_factor", 4.0),
                                                                   model_config.d_model, cutoffs(config.at("adaptive_input_cutoff"), vocab), random));
  } else {
    model.embedding = model.register_module("embedding", nn::TokenEmbedding(vocab, d_embedding, true, random));
    if (d_embedding != model_config.d_model)
      model.input_proj = model.register_module("input_proj", nn::Linear(d_embedding, model_config.d_model, false));
  }
  if (model_config.embedding_norm)
    model.embedding_norm = model.register_module("embedding_norm", nn::Norm(model_config.norm, model_config.d_model, model_config.norm_affine));
  model.encoder = model.register_module("encoder", nn::Encoder(model_config, random));
  if (adaptive_softmax) {
    model.softmax = model.register_module("softmax", nn::AdaptiveSoftmax(model_config.d_model, number(config, "adaptive_softmax_factor", 4.0),
                                                                         cutoffs(config.at("adaptive_softmax_cutoff"), vocab),
                                                                         tied ? model.input : nn::AdaptiveInput(nullptr), tied_proj, random));
  } else {
    model.output = model.register_module("output", nn::Linear(model_config.d_model, vocab, false));
  }
  model.to(comparison.dtype());
  const auto parts_of = [&](const std::string& name) {
    auto parts = adaptive_parts(name, "decoder.", tied, tied_proj);
    return parts.empty() ? nn::official_model_parts(name, nn::official_layer(model_config), adaptive_softmax) : parts;
  };
  load_adaptive(model, golden, parts_of);
  model.train(flag(golden.meta, "train", true));

  std::vector<nn::LayerTrace> trace;
  nn::ForwardOptions options;
  options.trace = &trace;
  options.intermediates = true;
  const Document document = read_document(golden, "input.tokens", "input.lengths", false, comparison.dtype());
  Tensor x = adaptive_input ? model.input(document.packed.tokens) : model.embedding(document.packed.tokens);
  if (model_config.scale_embedding) x = x * std::sqrt(static_cast<double>(model_config.d_model));
  if (model.input_proj) x = model.input_proj(x);
  if (model.embedding_norm) x = model.embedding_norm(x);
  const Tensor features = model.encoder(x, nn::PackedLayout::make(document.packed.cu_seqlens, {}), options);
  const Tensor targets = pack_batch_first(golden.at("input.target"), document.where).to(torch::kInt64).contiguous();
  const Tensor out = adaptive_softmax ? features : model.output(features);
  const Tensor loss = adaptive_softmax ? model.softmax->loss(features, targets, pad)
                                       : torch::nn::functional::cross_entropy(
                                             out, targets, torch::nn::functional::CrossEntropyFuncOptions().ignore_index(pad).reduction(torch::kSum));
  loss.backward();
  comparison.output("out.f64", out, pack_batch_first(golden.at("out.f64"), document.where));
  comparison.loss(loss);
  compare_gradients_and_buffers(golden, nn::named_tensors(model), parts_of, comparison);
  compare_records(golden, trace, model_config.n_layers, {document.where}, {document.length}, comparison);
}

/// The standalone file's model: Linear, layers, mean over time, Linear.
struct StandaloneModel : torch::nn::Module {
  nn::Linear input{nullptr}, output{nullptr};
  nn::Encoder encoder{nullptr};
};

static void check_standalone_model(const GoldenCase& golden, Comparison& comparison) {
  const json& ctor = golden.meta.at("ctor");
  ModelConfig config;
  config.d_model = ctor.at("d_model").get<int64_t>();
  config.n_layers = ctor.at("n_layers").get<int64_t>();
  refuse_unsupported(ctor);
  config.prenorm = flag(ctor, "prenorm");
  config.max_positions = integer(ctor, "max_positions", 1024);
  config.d_attn = ctor.at("d_qk").get<int64_t>();
  config.d_hidden = integer(ctor, "d_hidden", integer(ctor, "hdim", 0));
  config.d_state = ctor.at("d_ema").get<int64_t>();
  config.window_size = std::max<int64_t>(0, integer(ctor, "mem_size", integer(ctor, "window_size", 0)));
  config.truncation = integer(ctor, "truncation", 0);
  config.norm = norm_word(ctor, "norm_type");
  config.norm_affine = flag(ctor, "norm_affine", true);
  config.position = position_word(ctor, config.window_size);
  config.attention = word(ctor, "attention_activation", "relu2");
  config.temperature_init = number(ctor, "init_temp_scale", 1.0);
  config.causal = !flag(ctor, "bidirectional", true);
  config.layer = flag(ctor, "always_act") ? "seqboat-full" : "seqboat";

  PhiloxStream random(0, 0);
  StandaloneModel model;
  const int64_t outputs = ctor.at("d_output").get<int64_t>();
  model.input = model.register_module("input", nn::Linear(ctor.at("d_input").get<int64_t>(), config.d_model));
  model.encoder = model.register_module("encoder", nn::Encoder(config, random));
  model.output = model.register_module("output", nn::Linear(config.d_model, outputs));
  model.to(comparison.dtype());
  const auto parts_of = [&](const std::string& name) -> std::vector<nn::OfficialPart> {
    if (name == "encoder.weight" || name == "encoder.bias") return {{"input." + name.substr(8)}};
    if (name == "decoder.weight" || name == "decoder.bias") return {{"output." + name.substr(8)}};
    return nn::official_model_parts(name, nn::official_layer(config), true);
  };
  nn::load_official(model, official_tensors(golden), parts_of);
  model.train(flag(golden.meta, "train", true));

  const Tensor padded = golden.at("input.x");
  const Unpadded where = unpad(padded.size(0), padded.size(1), golden.has("input.padding_mask") ? golden.at("input.padding_mask") : Tensor());
  Tensor x = pack_batch_first(padded, where).to(comparison.dtype()).detach().requires_grad_(true);
  std::vector<nn::LayerTrace> trace;
  nn::ForwardOptions options;
  options.trace = &trace;
  options.intermediates = true;
  const nn::PackedLayout layout = nn::PackedLayout::make(where.cu_seqlens, {});
  const Tensor logits = model.output(nn::pool(model.encoder(model.input(x), layout, options), layout.cu_seqlens, "mean"));
  const Tensor loss = weighted_sum(logits, golden.at("loss_w"));
  loss.backward();
  comparison.output("out.f64", logits);
  comparison.loss(loss);
  comparison.gradient("grad.input.x", x.grad(), pack_batch_first(golden.at("grad.input.x"), where));
  compare_gradients_and_buffers(golden, nn::named_tensors(model), parts_of, comparison);
  compare_records(golden, trace, config.n_layers, {where}, {padded.size(1)}, comparison);
}

void check_model(const GoldenCase& golden, Comparison& comparison) {
  if (golden.meta.contains("ctor")) return check_standalone_model(golden, comparison);
  const json& config = golden.meta.at("config");
  if (!is_language_model(config)) return check_classifier(golden, comparison);
  if (flag(config, "adaptive_input") || !config.value("adaptive_softmax_cutoff", json()).is_null())
    return check_adaptive_language_model(golden, comparison);
  check_language_model(golden, comparison);
}

void check_model_incremental(const GoldenCase& golden, Comparison& comparison) {
  torch::NoGradGuard no_grad;
  const ModelConfig config = language_model_config(golden, golden.meta.at("config"));
  auto model = nn::make_model(config, 0);
  model->to(comparison.dtype());
  nn::load_official(*model, official_tensors(golden),
                    [&](const std::string& name) { return nn::official_model_parts(name, nn::official_layer(config), config.tie_embedding); });
  model->eval();
  const Tensor tokens = golden.at("input.tokens");
  const int64_t batch = tokens.size(0), length = tokens.size(1);
  const auto run = [&](int64_t steps) {
    nn::PackedSequences input;
    input.tokens = tokens.narrow(1, 0, steps).reshape({-1}).to(torch::kInt64).contiguous();
    input.cu_seqlens = torch::arange(batch + 1, torch::kInt64) * steps;
    return model->forward(input, nullptr, {}).reshape({batch, steps, -1});
  };
  const Tensor whole = run(length);
  // Chunk after chunk through the model's state. A model that cannot carry one (attention without an end) is run over growing prefixes instead.
  const bool carries = config.causal && config.window_size > 0 && config.position != "t5";
  const auto run_in_chunks = [&](const std::vector<int64_t>& chunks) {
    nn::ModelState state;
    nn::ForwardOptions options;
    options.state = &state;
    std::vector<Tensor> steps;
    int64_t seen = 0;
    for (const int64_t chunk : chunks) {
      if (carries) {
        nn::PackedSequences input;
        input.tokens = tokens.narrow(1, seen, chunk).reshape({-1}).to(torch::kInt64).contiguous();
        input.cu_seqlens = torch::arange(batch + 1, torch::kInt64) * chunk;
        steps.push_back(model->forward(input, nullptr, options).reshape({batch, chunk, -1}));
      } else {
        steps.push_back(run(seen + chunk).narrow(1, seen, chunk));
      }
      seen += chunk;
    }
    return torch::cat(steps, 1);
  };
  // The official steps of some cases differ from the official parallel form, which ours agree with.
  const auto flags = flags_of(golden.meta);
  const bool differs = std::any_of(flags.begin(), flags.end(), [](const std::string& f) { return f.rfind("incremental_", 0) == 0; });
  std::vector<std::pair<std::string, std::vector<int64_t>>> runs;
  if (golden.meta.contains("splits")) {
    for (const json& split : golden.meta["splits"])
      runs.emplace_back("out_incremental_" + std::to_string(runs.size()) + ".f64", split.get<std::vector<int64_t>>());
  } else {
    runs.emplace_back("out_incremental.f64", golden.meta.at("chunks").get<std::vector<int64_t>>());
  }
  bool any = false;
  for (const auto& [stored, chunks] : runs) {
    const Tensor stepwise = run_in_chunks(chunks);
    for (const char* parallel : {"out_parallel.f64", "out.f64"}) {
      if (!golden.has(parallel)) continue;
      any = true;
      comparison.output(parallel, whole);
      comparison.output(parallel, stepwise, golden.at(parallel).narrow(1, 0, stepwise.size(1)));
    }
    if (differs) {
      comparison.seen(stored);
    } else if (golden.has(stored)) {
      comparison.output(stored, stepwise);
    }
  }
  if (!any) comparison.fail("neither out_parallel.f64 nor out.f64 is there");
}

}  // namespace golden
