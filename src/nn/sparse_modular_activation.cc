#include "seqboat/nn/sparse_modular_activation.h"

#include "seqboat/nn/dropout_sites.h"
#include "seqboat/nn/initialization.h"
#include "seqboat/ops/ops.h"

namespace seqboat::nn {

using torch::Tensor;

Tensor activate(SubModule& module, const RouterDecision& decision, const Tensor& state, const PackedLayout& layout, const ForwardOptions& options,
                int64_t layer, int64_t number, AttentionState* carried, LayerTrace* details, Tensor* distances) {
  const int64_t key = layer + (number << 20);  // the first one's is the layer's own
  const auto call = [&](const PackedLayout& tokens) {
    return SubModuleCall{.tokens = tokens, .random = options.random, .layer = key, .state = carried, .details = details, .distances = distances};
  };
  if (!decision.active.defined()) {
    const Tensor h = module.forward(state, call(layout));
    return decision.p.defined() ? h * decision.p.unsqueeze(1) : h;
  }
  const auto [index, times, offsets] = ops::active_index(decision.active, layout.cu_seqlens);
  // Times count from the beginning of the sequence, which may lie before this chunk.
  const PackedLayout tokens{offsets, layout.positions.index_select(0, index), layout.sequence_ids.index_select(0, index), layout.pass};
  SubModuleCall of_tokens = call(tokens);
  const Tensor confidence = decision.p.defined() ? ops::compress(decision.p.unsqueeze(1), decision.active, index) : Tensor();
  if (options.memory_gradients && confidence.defined()) of_tokens.confidence = confidence.squeeze(1);
  Tensor h = module.forward(ops::compress(state, decision.active, index), of_tokens);
  TORCH_CHECK(h.dim() == 2 && h.size(0) == index.size(0), "seqboat::nn::SparseModularActivation: a sub-module must return a row for each of its ",
              index.size(0), " tokens, got ", h.sizes());
  if (confidence.defined()) h = h * confidence;
  return ops::extract(h, decision.active, index);
}

void SparseModularActivationImpl::add(const std::string& name, std::shared_ptr<SubModule> module, std::shared_ptr<Router> router) {
  TORCH_CHECK(module && router, "seqboat::nn::SparseModularActivation: sub-module '", name, "' needs a module and a router");
  register_module(name, module);
  register_module(name + "_router", router);
  parts_.push_back({name, std::move(module), std::move(router)});
}

Tensor SparseModularActivationImpl::forward(const Tensor& state, const PackedLayout& layout, const ForwardOptions& options, int64_t layer) {
  TORCH_CHECK(!parts_.empty(), "seqboat::nn::SparseModularActivation: no sub-module has been added");
  const int64_t tokens = state.size(0), count = size();
  Tensor forced = forced_decisions(options, layout, layer);
  if (forced.defined() && forced.dim() == 1 && count == 1) forced = forced.unsqueeze(0);
  TORCH_CHECK(!forced.defined() || forced.sizes() == at::IntArrayRef({count, tokens}),
              "seqboat::nn::SparseModularActivation: forced_active must be (", count, ", ", tokens, "), got ", forced.sizes());
  LayerState* carried = options.state != nullptr ? &options.state->layers.at(static_cast<size_t>(layer)) : nullptr;
  LayerTrace record;
  Tensor sum;
  for (int64_t j = 0; j < count; ++j) {
    Part& part = parts_[static_cast<size_t>(j)];
    TORCH_CHECK(carried == nullptr || j == 0 || part.module->pointwise(), "seqboat::nn::SparseModularActivation: sub-module '", part.name,
                "' cannot carry a state: all but the first must be pointwise");
    const RouterDecision decision = part.router->forward(state, {.layout = layout,
                                                                 .random = options.random,
                                                                 .layer = layer,
                                                                 .module = j,
                                                                 .forced = forced.defined() ? forced[j] : Tensor(),
                                                                 .carried = carried != nullptr && j == 0 ? &carried->router : nullptr});
    const Tensor h = activate(*part.module, decision, state, layout, options, layer, j, carried != nullptr && j == 0 ? &carried->attention : nullptr,
                              options.intermediates && j == 0 ? &record : nullptr,
                              options.trace != nullptr && options.distances && j == 0 ? &record.distances : nullptr);
    sum = sum.defined() ? sum + h : h;
    if (options.trace != nullptr) {
      const Tensor all = torch::ones({tokens}, torch::kUInt8);
      const auto kept = [&](const Tensor& t) { return t.defined() && !options.router_gradients ? t.detach() : t; };
      record.modules.push_back({part.name, decision.active.defined() ? decision.active : all, kept(decision.probability)});
    }
  }
  if (options.trace != nullptr) {
    if (count == 1) record.active = record.modules[0].active, record.probability = record.modules[0].probability;
    options.trace->push_back(std::move(record));
  }
  return sum;
}

FeedForwardModuleImpl::FeedForwardModuleImpl(int64_t dim, int64_t ffn_dim, double dropout, PhiloxStream& random) : dropout_(dropout) {
  fc1 = register_module("fc1", Linear(dim, ffn_dim));
  fc2 = register_module("fc2", Linear(ffn_dim, dim));
  fill_truncated_normal(fc1->weight, 0.02, random);
  fill_truncated_normal(fc2->weight, 0.02, random);
}

Tensor FeedForwardModuleImpl::forward(const Tensor& m, const SubModuleCall& call) {
  return dropout(fc2(ops::activation(fc1(m), "silu")), dropout_, is_training(), call.random, call.tokens, call.layer, kDropoutFeedForward);
}

}  // namespace seqboat::nn
