#include "seqboat/nn/router.h"

#include <cmath>
#include <limits>

#include "nn/token_random.h"
#include "seqboat/nn/fixed_choice.h"
#include "seqboat/nn/initialization.h"
#include "seqboat/ops/ops.h"

namespace seqboat::nn {

using torch::Tensor;

namespace {

/// A layer's number and a sub-module's in one, as a key of random numbers: the first sub-module's is the layer's own.
int64_t key_of(const RouterCall& call) {
  return call.layer + (call.module << 20);
}

void check_forced(const RouterCall& call, int64_t tokens) {
  TORCH_CHECK(!call.forced.defined() || (call.forced.sizes() == at::IntArrayRef({tokens}) && call.forced.scalar_type() == torch::kUInt8),
              "seqboat::nn::Router: forced must be (", tokens, ") uint8, got ", call.forced.sizes(), " ", call.forced.scalar_type());
}

Tensor flags(const Tensor& condition) {
  return condition.to(torch::kUInt8);
}

/// always, never, random, stride: nothing is learned.
class FixedRouter : public Router {
 public:
  explicit FixedRouter(const RouterOptions& options) : kind_(options.kind), rate_(options.rate) {}

  RouterDecision forward(const Tensor& state, const RouterCall& call) override {
    check_forced(call, state.size(0));
    RouterDecision out;
    if (call.forced.defined()) {
      out.active = call.forced;
    } else if (kind_ == "never") {
      out.active = torch::zeros({state.size(0)}, torch::kUInt8);
    } else if (kind_ != "always") {
      out.active = fixed_choice(kind_, rate_, call.layout, call.random, key_of(call));
    }
    return out;
  }

 private:
  std::string kind_;
  double rate_;
};

/// Parameters: proj.{weight (1, D), bias (1)}.
class SigmoidThresholdRouter : public Router {
 public:
  SigmoidThresholdRouter(const RouterOptions& options, int64_t dim, PhiloxStream& random)
      : limit_(std::log(options.threshold / (1 - options.threshold))), proj_(register_module("proj", Linear(dim, 1))) {
    TORCH_CHECK(options.threshold > 0 && options.threshold < 1, "seqboat::nn::Router: the threshold must lie in (0, 1), got ", options.threshold);
    fill_truncated_normal(proj_->weight, 0.02, random);
  }

  RouterDecision forward(const Tensor& state, const RouterCall& call) override {
    check_forced(call, state.size(0));
    RouterDecision out;
    out.logits = proj_(state);
    const Tensor u = out.logits.select(1, 0);
    out.active = call.forced.defined() ? call.forced : flags(u > limit_);
    out.probability = ops::activation(u, "sigmoid");
    out.p = out.probability * out.active;
    return out;
  }

 private:
  double limit_;
  Linear proj_;
};

/// Parameters: proj.{weight (2, D), bias (2)}.
class GumbelRouter : public Router {
 public:
  GumbelRouter(const RouterOptions& options, int64_t dim, PhiloxStream& random)
      : temperature_(options.temperature), hard_(options.kind == "gumbel-hard"), proj_(register_module("proj", Linear(dim, 2))) {
    TORCH_CHECK(temperature_ > 0, "seqboat::nn::Router: the temperature must be above 0, got ", temperature_);
    fill_truncated_normal(proj_->weight, 0.02, random);
  }

  RouterDecision forward(const Tensor& state, const RouterCall& call) override {
    check_forced(call, state.size(0));
    RouterDecision out;
    out.logits = proj_(state);
    // Noisy logits fall this way with the noiseless softmax's probability.
    out.probability = ops::activation(out.logits.select(1, 1) - out.logits.select(1, 0), "sigmoid");
    const Tensor noise = is_training() ? gumbel_noise(out.logits, call) : Tensor();
    const Tensor heard = noise.defined() ? out.logits.detach() + noise : out.logits.detach();
    out.active = call.forced.defined() ? call.forced : flags(heard.select(1, 1) > heard.select(1, 0));
    if (!is_training()) {
      out.p = out.active.to(heard.scalar_type());
    } else {
      const Tensor soft = gumbel_weights(out.logits, noise, temperature_, false).select(1, 1);
      out.p = hard_ ? out.active + (soft - soft.detach()) : soft * out.active;
    }
    return out;
  }

 private:
  Tensor gumbel_noise(const Tensor& logits, const RouterCall& call) const {
    constexpr uint64_t kNoiseStream = 0x67756d6200000000;
    const int64_t* times = call.layout.positions.const_data_ptr<int64_t>();
    const int64_t* sequences = call.layout.sequence_ids.const_data_ptr<int64_t>();
    const Tensor noise = torch::empty(logits.sizes(), torch::kFloat64);
    double* out = noise.mutable_data_ptr<double>();
    for (int64_t i = 0; i < logits.size(0); ++i) {
      const auto words = token_words(call.random, kNoiseStream, key_of(call), sequences[i], times[i]);
      for (int64_t j = 0; j < 2; ++j) out[2 * i + j] = -std::log(-std::log((words[static_cast<size_t>(j)] + 0.5) / 4294967296.0));
    }
    return noise.to(logits.scalar_type());
  }

  double temperature_;
  bool hard_;
  Linear proj_;
};

/// Parameters: proj.{weight (1, D), bias (1)}. Carries the last horizon - 1 scores of each sequence (B, horizon - 1), oldest first, -infinity before
/// the beginning.
class TopShareRouter : public Router {
 public:
  TopShareRouter(const RouterOptions& options, int64_t dim, PhiloxStream& random)
      : rate_(options.rate), horizon_(options.horizon), proj_(register_module("proj", Linear(dim, 1))) {
    TORCH_CHECK(horizon_ > 0, "seqboat::nn::Router: the horizon must be at least 1, got ", horizon_);
    fill_truncated_normal(proj_->weight, 0.02, random);
  }

  RouterDecision forward(const Tensor& state, const RouterCall& call) override {
    check_forced(call, state.size(0));
    RouterDecision out;
    out.logits = proj_(state);
    const Tensor score = out.logits.select(1, 0);
    const Tensor chosen = choose(score.detach().to(torch::kFloat64).contiguous(), call);
    out.active = call.forced.defined() ? call.forced : chosen;
    out.probability = ops::activation(score, "sigmoid");
    out.p = out.probability * out.active;
    return out;
  }

 private:
  Tensor choose(const Tensor& scores, const RouterCall& call) const {
    const int64_t* offsets = call.layout.cu_seqlens.const_data_ptr<int64_t>();
    const int64_t* times = call.layout.positions.const_data_ptr<int64_t>();
    const int64_t batch = call.layout.cu_seqlens.size(0) - 1, kept = horizon_ - 1;
    Tensor past = call.carried != nullptr ? *call.carried : Tensor();
    if (!past.defined()) past = torch::full({batch, kept}, -std::numeric_limits<double>::infinity(), torch::kFloat64);
    TORCH_CHECK(past.sizes() == at::IntArrayRef({batch, kept}), "seqboat::nn::Router: the carried scores must be (", batch, ", ", kept, "), got ",
                past.sizes());
    const Tensor active = torch::empty({scores.size(0)}, torch::kUInt8), last = torch::empty({batch, kept}, torch::kFloat64);
    uint8_t* out = active.mutable_data_ptr<uint8_t>();
    std::vector<double> all;
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t length = offsets[b + 1] - offsets[b];
      all.resize(static_cast<size_t>(kept + length));
      std::copy_n(past.const_data_ptr<double>() + b * kept, kept, all.data());
      std::copy_n(scores.const_data_ptr<double>() + offsets[b], length, all.data() + kept);
      for (int64_t t = 0; t < length; ++t) {
        const double own = all[static_cast<size_t>(kept + t)];
        int64_t above = 0;  // those before the beginning never are
        for (int64_t i = 0; i < kept; ++i) above += all[static_cast<size_t>(t + i)] >= own ? 1 : 0;
        const int64_t among = std::min(times[offsets[b] + t] + 1, horizon_);
        out[offsets[b] + t] = static_cast<double>(above) < rate_ * static_cast<double>(among) ? 1 : 0;
      }
      std::copy_n(all.data() + length, kept, last.mutable_data_ptr<double>() + b * kept);
    }
    if (call.carried != nullptr) *call.carried = last;
    return active;
  }

  double rate_;
  int64_t horizon_;
  Linear proj_;
};

}  // namespace

Tensor gumbel_weights(const Tensor& logits, const Tensor& noise, double temperature, bool hard) {
  TORCH_CHECK(logits.dim() == 2 && (logits.size(1) == 1 || logits.size(1) == 2), "seqboat::nn::gumbel_weights: logits must be (M, 1 or 2), got ",
              logits.sizes());
  const Tensor heard = noise.defined() ? logits + noise : logits;
  const bool two = logits.size(1) == 2;
  const Tensor z = (two ? heard.select(1, 1) - heard.select(1, 0) : heard.select(1, 0)) / temperature;
  const Tensor last = ops::activation(z, "sigmoid");
  const Tensor soft = two ? torch::stack({ops::activation(-z, "sigmoid"), last}, 1) : last.unsqueeze(1);
  if (!hard) return soft;
  const Tensor chosen = (z > 0).to(logits.scalar_type());
  return (two ? torch::stack({1 - chosen, chosen}, 1) : chosen.unsqueeze(1)) + (soft - soft.detach());
}

TemperedSoftmaxRouterImpl::TemperedSoftmaxRouterImpl(int64_t dim, double temperature_init, double act_bias, PhiloxStream& random)
    : act_bias_(static_cast<double>(static_cast<float>(act_bias))) {  // the official constant is rounded to float32
  proj = register_module("proj", Linear(dim, 2));
  fill_truncated_normal(proj->weight, 0.02, random);
  log_temperature = register_parameter("log_temperature", torch::full({1}, std::log(temperature_init * std::sqrt(static_cast<double>(dim)))));
}

RouterDecision TemperedSoftmaxRouterImpl::decide(const Tensor& state, const Tensor& forced) {
  const Tensor logits = proj(state);
  auto [active, p, probability] = ops::router(logits, log_temperature, act_bias_, forced.defined() ? std::optional<Tensor>(forced) : std::nullopt);
  return {active, p, probability, logits};
}

RouterDecision TemperedSoftmaxRouterImpl::forward(const Tensor& state, const RouterCall& call) {
  return decide(state, call.forced);
}

std::shared_ptr<Router> make_router(const RouterOptions& options, int64_t dim, PhiloxStream& random) {
  const std::string& kind = options.kind;
  if (kind == "tempered-softmax") return std::make_shared<TemperedSoftmaxRouterImpl>(dim, options.temperature_init, options.bias, random);
  if (kind == "sigmoid-threshold") return std::make_shared<SigmoidThresholdRouter>(options, dim, random);
  if (kind == "gumbel-soft" || kind == "gumbel-hard") return std::make_shared<GumbelRouter>(options, dim, random);
  const bool chooses = kind == "top-share" || kind == "random" || kind == "stride";
  TORCH_CHECK(!chooses || (options.rate >= 0 && options.rate <= 1), "seqboat::nn::Router: the rate must lie in [0, 1], got ", options.rate);
  if (kind == "top-share") return std::make_shared<TopShareRouter>(options, dim, random);
  TORCH_CHECK(kind == "always" || kind == "never" || kind == "random" || kind == "stride",
              "seqboat::nn::Router: kind must be tempered-softmax, sigmoid-threshold, gumbel-soft, gumbel-hard, top-share, always, never, random or "
              "stride, got '",
              kind, "'");
  return std::make_shared<FixedRouter>(options);
}

}  // namespace seqboat::nn
