#pragma once

#include <torch/torch.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "seqboat/config/model_config.h"

/// The spellings of the official code's state dicts, and nowhere else. Shapes differ in three places: the official move.{delta,alpha,beta} and
/// t5 tables have a trailing axis of one, real embeddings lack the channel axis, and hx_proj holds the router's two rows above the skip projection's.
namespace seqboat::nn {

/// Where a part of an official tensor goes: our name, and the rows [row_begin, row_end) of the official one (row_end < 0: to the end).
struct OfficialPart {
  std::string ours;
  int64_t row_begin = 0;
  int64_t row_end = -1;
};

/// Whose state dict it is: the same names stand for other things in another layer.
enum class OfficialLayer { kSeqBoat, kSeqBoatWithoutRouter, kMega };
OfficialLayer official_layer(const config::ModelConfig& config);

/// Parts of a tensor of one official layer (SeqBoatUnit, the standalone file's SeqBoatLayer, MovingAverageGatedAttention). Empty: not a name of the
/// layer. A name that carries nothing gives one part with an empty name.
std::vector<OfficialPart> official_layer_parts(const std::string& name, OfficialLayer layer);

/// Parts of a tensor of an official S4D module (its C has a leading axis of one). Empty: not a name of the module.
std::vector<OfficialPart> official_s4d_parts(const std::string& name);

/// Parts of a tensor of an official model: LRAModel, SCRawModel, SeqBoatLanguageModel. Empty: not a name of a model. A name that carries nothing
/// (version markers; the tied output matrix) gives one part with an empty name.
std::vector<OfficialPart> official_model_parts(const std::string& name, OfficialLayer layer, bool tied_output);

/// The layer number and the rest of a name that belongs to a layer ("...layers.3.mega_layer.gamma" -> 3, "gamma"), the standalone seq_layers.<i> too.
struct OfficialLayerName {
  int64_t layer;
  std::string rest;
};
std::optional<OfficialLayerName> official_layer_name(const std::string& name);

using NamedTensors = std::map<std::string, torch::Tensor>;
using PartsOf = std::function<std::vector<OfficialPart>(const std::string&)>;

/// Our parameters and buffers of a module by name; what both parameters and buffers share is one tensor.
NamedTensors named_tensors(const torch::nn::Module& module);

/// Copies official tensors into the module's. Every tensor of the module must be filled and every official one used: anything else, or a wrong
/// number of elements, is a c10::Error that names it.
void load_official(torch::nn::Module& module, const NamedTensors& official, const PartsOf& parts_of);

/// The tensor of ours that stands for an official one, in the official shape: parts put together again. `ours` is looked up by `get`.
torch::Tensor assemble_official(const std::vector<OfficialPart>& parts, at::IntArrayRef shape,
                                const std::function<torch::Tensor(const std::string&)>& get);

}  // namespace seqboat::nn
