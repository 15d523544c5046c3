#include "seqboat/nn/official_names.h"

#include <regex>
#include <set>

namespace seqboat::nn {

using torch::Tensor;

namespace {

bool starts_with(const std::string& s, const std::string& prefix) {
  return s.rfind(prefix, 0) == 0;
}

/// "norm.weight" of "norm.norm.weight" and "norm.scalar"; the scale norm's number is our weight.
std::vector<OfficialPart> norm_parts(const std::string& rest, const std::string& ours) {
  if (!starts_with(rest, "norm.")) return {};
  const std::string leaf = rest.substr(5);
  static const std::set<std::string> known{"weight", "bias", "scalar", "running_mean", "running_var", "num_batches_tracked"};
  if (known.count(leaf) == 0) return {};
  return {{ours + "." + (leaf == "scalar" ? "weight" : leaf)}};
}

std::vector<OfficialPart> prefixed(std::vector<OfficialPart> parts, const std::string& prefix) {
  for (OfficialPart& part : parts) part.ours = prefix + part.ours;
  return parts;
}

std::vector<OfficialPart> mega_layer_parts(const std::string& name) {
  static const std::map<std::string, std::string> simple{
      {"gamma", "qk_gamma"},
      {"beta", "qk_beta"},
      {"rel_pos_bias.rel_pos_bias", "position.table"},
      {"rel_pos_bias.alpha", "position.alpha"},
      {"rel_pos_bias.beta", "position.beta"},
      {"rel_pos_bias._float_tensor", ""},  // one number that nobody has set
      {"v_proj.weight", "v_proj.weight"},
      {"v_proj.bias", "v_proj.bias"},
      {"mx_proj.weight", "in_proj.weight"},
      {"mx_proj.bias", "in_proj.bias"},
      {"h_proj.weight", "out_proj.weight"},
      {"h_proj.bias", "out_proj.bias"},
  };
  if (const auto found = simple.find(name); found != simple.end()) return {{found->second}};
  if (starts_with(name, "norm.")) return norm_parts(name.substr(5), "norm");
  if (starts_with(name, "move.")) return {{"ema." + name.substr(5)}};
  return {};
}

}  // namespace

OfficialLayer official_layer(const config::ModelConfig& config) {
  if (config.is_mega()) return OfficialLayer::kMega;
  return config.uses_router() ? OfficialLayer::kSeqBoat : OfficialLayer::kSeqBoatWithoutRouter;
}

std::vector<OfficialPart> official_layer_parts(const std::string& name, OfficialLayer layer) {
  if (layer == OfficialLayer::kMega) return mega_layer_parts(name);
  static const std::map<std::string, std::string> simple{
      {"gamma", "attention.qk_gamma"},
      {"beta", "attention.qk_beta"},
      {"rel_pos_bias.rel_pos_bias", "attention.position.table"},
      {"rel_pos_bias.relative_attention_bias", "attention.position.table"},
      {"q_router.temp", "router.log_temperature"},
      {"mx_proj.weight", "attention.in_proj.weight"},
      {"mx_proj.bias", "attention.in_proj.bias"},
      {"h_proj.weight", "attention.out_proj.weight"},
      {"h_proj.bias", "attention.out_proj.bias"},
  };
  if (const auto found = simple.find(name); found != simple.end()) return {{found->second}};
  if (starts_with(name, "norm.")) return norm_parts(name.substr(5), "norm");
  for (const char* leaf : {"weight", "bias"}) {
    if (name != std::string("hx_proj.") + leaf) continue;
    if (layer == OfficialLayer::kSeqBoatWithoutRouter) return {{std::string("skip_proj.") + leaf}};
    return {{std::string("router.proj.") + leaf, 0, 2}, {std::string("skip_proj.") + leaf, 2, -1}};
  }
  for (const char* encoder : {"move.", "ssm."})
    if (starts_with(name, encoder)) return {{"ema." + name.substr(std::string(encoder).size())}};
  return {};
}

std::vector<OfficialPart> official_s4d_parts(const std::string& name) {
  static const std::map<std::string, std::string> simple{
      {"D", "skip"},         {"ssm.kernel.log_dt", "log_dt"}, {"ssm.kernel.inv_A_real", "log_a_real"}, {"ssm.kernel.A_imag", "a_imag"},
      {"ssm.kernel.B", "b"}, {"ssm.kernel.C", "c"},
  };
  if (const auto found = simple.find(name); found != simple.end()) return {{found->second}};
  return {};
}

std::optional<OfficialLayerName> official_layer_name(const std::string& name) {
  static const std::regex pattern(R"((?:^|.*\.)(?:layers\.(\d+)\.(?:mega_layer|slag_layer)|seq_layers\.(\d+))(?:\.(.*))?$)");
  std::smatch match;
  if (!std::regex_match(name, match, pattern)) return std::nullopt;
  return OfficialLayerName{std::stoll(match[1].matched ? match[1].str() : match[2].str()), match[3].str()};
}

std::vector<OfficialPart> official_model_parts(const std::string& name, OfficialLayer layer, bool tied_output) {
  if (const auto in_layer = official_layer_name(name))
    return prefixed(official_layer_parts(in_layer->rest, layer), "encoder.layers." + std::to_string(in_layer->layer) + ".layer.");
  std::smatch match;
  static const std::regex feed_forward(R"(.*layers\.(\d+)\.nffn\.(.*)$)");
  if (std::regex_match(name, match, feed_forward)) {
    const std::string prefix = "encoder.layers." + match[1].str() + ".ffn.", rest = match[2].str();
    if (starts_with(rest, "norm.")) return prefixed(norm_parts(rest.substr(5), "norm"), prefix);
    if (starts_with(rest, "fc1.") || starts_with(rest, "fc2.")) return {{prefix + rest}};
    return {};
  }
  static const std::regex classifier(R"(classifier\.(\d+)\.0\.(weight|bias)$)");
  if (std::regex_match(name, match, classifier)) return {{"classifier.hidden." + match[1].str() + "." + match[2].str()}};
  static const std::regex norm(R"((?:.*\.)?(embed_norm|final_norm)\.(norm\..*)$)");
  if (std::regex_match(name, match, norm))
    return norm_parts(match[2].str(), match[1].str() == "embed_norm" ? "embedding_norm" : "encoder.final_norm");
  static const std::map<std::string, std::string> simple{
      {"sentence_projection_layer.weight", "classifier.out.weight"}, {"encoder.encoder.embed_tokens.embed.weight", "embedding.weight"},
      {"encoder.encoder.embed_tokens.weight", "embedding.weight"},   {"encoder.encoder.embed_tokens.bias", "embedding.bias"},
      {"encoder.encoder.pos_emb.scale", "positions.scale"},          {"encoder.encoder.pos_emb.inv_freq", "positions.inv_freq"},
      {"decoder.embed_tokens.weight", "embedding.weight"},           {"decoder.project_in_dim.weight", "input_proj.weight"},
  };
  if (const auto found = simple.find(name); found != simple.end()) return {{found->second}};
  if (name == "decoder.output_projection.weight") return {{tied_output ? "" : "output.weight"}};
  if (name == "decoder.version" || name == "decoder.adaptive_softmax.version") return {{""}};
  return {};
}

NamedTensors named_tensors(const torch::nn::Module& module) {
  NamedTensors all;
  for (const auto& item : module.named_parameters()) all[item.key()] = item.value();
  for (const auto& item : module.named_buffers()) all[item.key()] = item.value();
  return all;
}

void load_official(torch::nn::Module& module, const NamedTensors& official, const PartsOf& parts_of) {
  torch::NoGradGuard no_grad;
  NamedTensors ours = named_tensors(module);
  std::set<std::string> filled;
  for (const auto& [name, value] : official) {
    const auto parts = parts_of(name);
    TORCH_CHECK(!parts.empty(), "seqboat: official tensor ", name, " has no place in this model");
    for (const OfficialPart& part : parts) {
      if (part.ours.empty()) continue;
      const auto target = ours.find(part.ours);
      TORCH_CHECK(target != ours.end(), "seqboat: official tensor ", name, " goes to ", part.ours, ", which this model does not have");
      const bool whole = part.row_begin == 0 && part.row_end < 0;
      const Tensor rows = whole ? value : value.slice(0, part.row_begin, part.row_end < 0 ? value.size(0) : part.row_end);
      TORCH_CHECK(rows.numel() == target->second.numel(), "seqboat: official tensor ", name, " has ", rows.numel(), " elements for ", part.ours, " ",
                  target->second.sizes());
      target->second.copy_(rows.reshape(target->second.sizes()));
      filled.insert(part.ours);
    }
  }
  for (const auto& [name, tensor] : ours) TORCH_CHECK(filled.count(name) > 0, "seqboat: no official tensor fills ", name);
}

Tensor assemble_official(const std::vector<OfficialPart>& parts, at::IntArrayRef shape, const std::function<Tensor(const std::string&)>& get) {
  std::vector<Tensor> pieces;
  for (const OfficialPart& part : parts) pieces.push_back(get(part.ours));
  if (pieces.size() == 1) return pieces[0].reshape(shape);
  for (Tensor& piece : pieces) {
    if (!piece.defined()) return {};
  }
  return torch::cat(pieces, 0).reshape(shape);
}

}  // namespace seqboat::nn
