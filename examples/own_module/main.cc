// A sub-module of one's own beside two of the library's, each activated token by token by its own router. They learn to compare: a sequence is 60
// digits, two of them marked, and the answer is the larger of those two. docs/MODULES.md explains the class.

#include <fmt/format.h>
#include <torch/torch.h>

#include <cstdlib>

#include "seqboat/nn/gated_attention_unit.h"
#include "seqboat/nn/multi_head_ema.h"
#include "seqboat/nn/sparse_modular_activation.h"

namespace nn = seqboat::nn;
using torch::Tensor;

// [page]
/// Mixes each activated token with the activated one before it in its sequence.
class MixWithPrevious : public nn::SubModule {
 public:
  explicit MixWithPrevious(int64_t dim) : proj_(register_module("proj", torch::nn::Linear(2 * dim, dim))) {}

  Tensor forward(const Tensor& m, const nn::SubModuleCall& call) override {
    const Tensor index = torch::arange(m.size(0));                                  // K activated tokens, sequence after sequence
    const Tensor begins = torch::isin(index, call.tokens.cu_seqlens).unsqueeze(1);  // the first of each has none before it
    const Tensor before = m.index_select(0, (index - 1).clamp_min(0)).masked_fill(begins, 0);
    return torch::gelu(proj_(torch::cat({m, before}, 1)));
  }

 private:
  torch::nn::Linear proj_{nullptr};
};
// [end]

constexpr int64_t kDim = 32, kLength = 60, kBatch = 32;

class Larger : public torch::nn::Module {
 public:
  explicit Larger(seqboat::PhiloxStream& random)
      : embedding_(register_module("embedding", torch::nn::Embedding(20, kDim))),
        encoder_(register_module("encoder", nn::MultiHeadEma(kDim, 8, /*bidirectional=*/true, /*truncation=*/0, random))),
        skip_(register_module("skip", torch::nn::Linear(kDim, kDim))),
        classifier_(register_module("classifier", torch::nn::Linear(kDim, 10))) {
    const auto router = [&](const char* kind) {
      nn::RouterOptions options;
      options.kind = kind;
      return nn::make_router(options, kDim, random);
    };
    nn::AttentionOptions window;
    window.window = 8;
    window.max_positions = kLength;
    modules_ = register_module("modules", nn::SparseModularActivation());
    modules_->add("attention", nn::GatedAttentionUnit(kDim, 16, 64, window, random).ptr(), router("tempered-softmax"));
    modules_->add("ffn", nn::FeedForwardModule(kDim, 64, 0.0, random).ptr(), router("sigmoid-threshold"));
    modules_->add("mix", std::make_shared<MixWithPrevious>(kDim), router("tempered-softmax"));
  }

  /// tokens (M) of packed sequences -> logits (B, 10).
  Tensor forward(const Tensor& tokens, const nn::PackedLayout& layout, const nn::ForwardOptions& options) {
    const Tensor x = embedding_(tokens);
    const Tensor m = torch::silu(encoder_(x, layout.cu_seqlens));
    const Tensor y = torch::silu(x + skip_(m) + modules_(m, layout, options, 0));
    return classifier_(y.reshape({kBatch, kLength, kDim}).amax(1));
  }

 private:
  torch::nn::Embedding embedding_{nullptr};
  nn::MultiHeadEma encoder_{nullptr};
  torch::nn::Linear skip_{nullptr}, classifier_{nullptr};
  nn::SparseModularActivation modules_{nullptr};
};

int main(int argc, char** argv) {
  const int64_t steps = argc > 1 ? std::atoll(argv[1]) : 400;
  torch::manual_seed(1);
  seqboat::PhiloxStream random(1, 0);
  Larger model(random);
  torch::optim::Adam optimizer(model.parameters(), torch::optim::AdamOptions(3e-3));
  const Tensor cu_seqlens = torch::arange(kBatch + 1) * kLength;
  for (int64_t step = 1; step <= steps; ++step) {
    const Tensor digits = torch::randint(10, {kBatch, kLength}), marked = torch::rand({kBatch, kLength}).argsort(int64_t{1}, false).narrow(1, 0, 2);
    const Tensor target = digits.gather(1, marked).amax(1);
    const Tensor tokens = (digits + 10 * torch::zeros_like(digits).scatter(1, marked, 1)).reshape({-1});

    std::vector<nn::LayerTrace> trace;
    nn::ForwardOptions options;
    options.trace = &trace;
    options.random.update = static_cast<uint64_t>(step);
    const Tensor logits = model.forward(tokens, nn::PackedLayout::make(cu_seqlens, options.random), options);
    const Tensor loss = torch::cross_entropy_loss(logits, target);
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
    if (step != 1 && step % 100 != 0 && step != steps) continue;
    const double right = (logits.argmax(1) == target).to(torch::kFloat64).mean().item<double>();
    fmt::print("step {:4}  loss {:.3f}  right {:.2f}  activated", step, loss.item<double>(), right);
    for (const nn::ModuleTrace& module : trace[0].modules)
      fmt::print("  {} {:.2f}", module.name, module.active.to(torch::kFloat64).mean().item<double>());
    fmt::print("\n");
  }
}
