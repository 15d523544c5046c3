#pragma once

#include <torch/torch.h>

#include <memory>
#include <string>
#include <vector>

#include "seqboat/nn/packed.h"
#include "seqboat/nn/router.h"
#include "seqboat/nn/sub_module.h"

namespace seqboat::nn {

/// Sparse modular activation (Ren et al., arXiv 2306.11197, section 3.1): any number J of sub-modules, each with a router that activates it token by
/// token. With the state m_t of a token, the decisions a_tj in {0, 1} and confidences p_tj of the routers,
///
///   y_t = sum over j with a_tj = 1 of p_tj f_j(m at the tokens with a_j = 1)_t
///
/// A sub-module runs on its activated tokens alone, packed sequence after sequence: what is not activated costs nothing, forward or backward. Routers
/// decide by themselves, so each of the 2^J patterns of activation can occur at each token.
///
/// Parameters: <name>.* of each sub-module, <name>_router.* of its router, in the order in which they were added.
class SparseModularActivationImpl : public torch::nn::Module {
 public:
  /// `name` must be new, and a name that torch allows for a child module.
  void add(const std::string& name, std::shared_ptr<SubModule> module, std::shared_ptr<Router> router);
  int64_t size() const { return static_cast<int64_t>(parts_.size()); }

  /// state (M, D) -> (M, D); at least one sub-module. `layer` keys random numbers and finds what options has for each layer:
  ///   options.forced_active[layer]: decisions (M) for one sub-module, (J, M) for J of them, uint8
  ///   options.state: what is carried; then all sub-modules but the first must be pointwise, and only the first router may remember
  ///   options.trace: one entry is appended, with the decisions of each sub-module in `modules`.
  torch::Tensor forward(const torch::Tensor& state, const PackedLayout& layout, const ForwardOptions& options, int64_t layer);

 private:
  struct Part {
    std::string name;
    std::shared_ptr<SubModule> module;
    std::shared_ptr<Router> router;
  };
  std::vector<Part> parts_;
};
TORCH_MODULE(SparseModularActivation);

/// One sub-module's part of the sum: extract(p f(compress(state))), (M, D). `number` is its place among the layer's.
torch::Tensor activate(SubModule& module, const RouterDecision& decision, const torch::Tensor& state, const PackedLayout& layout,
                       const ForwardOptions& options, int64_t layer, int64_t number, AttentionState* carried, LayerTrace* details,
                       torch::Tensor* distances);

/// fc2(SiLU(fc1 m)), dropped out on its way out: a pointwise sub-module. Parameters: fc1.{weight (F, D), bias}, fc2.{weight (D, F), bias}, the
/// weights truncated normals of 0.02.
class FeedForwardModuleImpl : public SubModule {
 public:
  FeedForwardModuleImpl(int64_t dim, int64_t ffn_dim, double dropout, PhiloxStream& random);

  torch::Tensor forward(const torch::Tensor& m, const SubModuleCall& call) override;
  bool pointwise() const override { return true; }

  Linear fc1{nullptr}, fc2{nullptr};

 private:
  double dropout_;
};
TORCH_MODULE(FeedForwardModule);

}  // namespace seqboat::nn
