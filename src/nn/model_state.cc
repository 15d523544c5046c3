#include "seqboat/nn/model_state.h"

#include <map>

#include "seqboat/base/error.h"

namespace seqboat::nn {
namespace {

/// Every tensor of a layer's state with its name, so that detaching, saving and loading go by one list.
template <class State, class F>
void for_each_tensor(State& layer, const F& f) {
  f("encoder", layer.encoder);
  f("history", layer.history);
  f("router", layer.router);
  f("attention.k", layer.attention.k);
  f("attention.v", layer.attention.v);
  f("attention.positions", layer.attention.positions);
  f("attention.offsets", layer.attention.offsets);
  f("attention.first", layer.attention.first);
}

}  // namespace

void ModelState::detach() {
  for (LayerState& layer : layers) {
    for_each_tensor(layer, [](const char*, torch::Tensor& tensor) {
      if (tensor.defined()) tensor = tensor.detach();
    });
  }
}

std::vector<std::pair<std::string, torch::Tensor>> ModelState::named() const {
  std::vector<std::pair<std::string, torch::Tensor>> out;
  if (fresh()) return out;
  out.emplace_back("time", time);
  for (size_t i = 0; i < layers.size(); ++i) {
    for_each_tensor(layers[i], [&](const char* name, const torch::Tensor& tensor) {
      if (tensor.defined()) out.emplace_back("layers." + std::to_string(i) + "." + name, tensor.detach());
    });
  }
  return out;
}

ModelState ModelState::from_named(const std::vector<std::pair<std::string, torch::Tensor>>& tensors, const config::ModelConfig& config) {
  ModelState state;
  if (tensors.empty()) return state;
  std::map<std::string, torch::Tensor> by_name(tensors.begin(), tensors.end());
  const auto take = [&](const std::string& name, at::ScalarType dtype, at::IntArrayRef shape) {  // -1: any extent
    const auto found = by_name.find(name);
    TORCH_CHECK(found != by_name.end(), "seqboat: the state has no tensor ", name);
    const torch::Tensor tensor = found->second;
    bool fits = tensor.scalar_type() == dtype && tensor.dim() == static_cast<int64_t>(shape.size());
    for (size_t i = 0; fits && i < shape.size(); ++i) fits = shape[i] < 0 || tensor.size(static_cast<int64_t>(i)) == shape[i];
    TORCH_CHECK(fits, "seqboat: the state's ", name, " must be ", dtype, " ", shape, ", got ", tensor.scalar_type(), " ", tensor.sizes());
    by_name.erase(found);
    return tensor;
  };
  state.time = take("time", torch::kInt64, {-1});
  const int64_t batch = state.time.size(0);
  for (int64_t i = 0; i < config.n_layers; ++i) {
    const std::string prefix = "layers." + std::to_string(i) + ".";
    LayerState layer;
    const bool transformer = config.layer == "attention";
    const bool is_s4d = config.state_encoder() == "s4d";
    std::vector<int64_t> encoded{batch, config.d_model, is_s4d ? config.d_state / 2 : config.d_state};
    if (is_s4d) encoded.push_back(2);
    if (!transformer) layer.encoder = take(prefix + "encoder", torch::kFloat32, encoded);
    if (!transformer && config.truncation > 0) layer.history = take(prefix + "history", torch::kFloat32, {batch, config.truncation, config.d_model});
    if (config.uses_router() && config.router == "top-share")
      layer.router = take(prefix + "router", torch::kFloat64, {batch, config.router_horizon - 1});
    if (config.layer == "ema" || config.layer == "s4d") {
      state.layers.push_back(std::move(layer));
      continue;
    }
    AttentionState& attention = layer.attention;
    attention.offsets = take(prefix + "attention.offsets", torch::kInt64, {batch + 1});
    attention.first = take(prefix + "attention.first", torch::kInt64, {batch});
    const int64_t rows = attention.offsets[-1].item<int64_t>();
    attention.k = take(prefix + "attention.k", torch::kFloat32, {rows, transformer ? config.d_model : config.d_attn});
    attention.v = take(prefix + "attention.v", torch::kFloat32, {rows, transformer ? config.d_model : config.hidden()});
    attention.positions = take(prefix + "attention.positions", torch::kInt64, {rows});
    state.layers.push_back(std::move(layer));
  }
  TORCH_CHECK(by_name.empty(), "seqboat: the state has a tensor that this model has no place for: ", by_name.begin()->first);
  return state;
}

void ModelState::check_can_carry(const config::ModelConfig& config) {
  SEQBOAT_CHECK(config.causal, ErrorKind::kConfig, "model.causal must be true to carry a state, found false: a bidirectional model needs the future");
  SEQBOAT_CHECK(config.layer != "mega", ErrorKind::kConfig,
                "model.layer must not be \"mega\" to carry a state: its attention without an end needs every token there was; mega-chunk can");
  SEQBOAT_CHECK(config.window_size > 0 || config.layer == "mega-chunk" || config.layer == "ema" || config.layer == "s4d", ErrorKind::kConfig,
                "model.window_size must be at least 1 to carry a state, found 0: attention without an end needs every token there was");
  SEQBOAT_CHECK(config.position != "t5", ErrorKind::kConfig,
                "model.position must not be \"t5\" to carry a state: its path has no fixed blocks, and bits would depend on the chunks");
}

}  // namespace seqboat::nn
