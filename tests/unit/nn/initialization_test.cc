// Initial values by their statistics: spec of the official code, checked with bounds from the sampling error.

#include "seqboat/nn/initialization.h"

#include <cmath>

#include "seqboat/base/philox.h"
#include "seqboat/nn/model.h"
#include "support/torch_checks.h"

namespace seqboat {
namespace {

using torch::Tensor;

constexpr double kTruncatedSpread = 0.8796;  // standard deviation of a standard normal cut at +-2

/// Five standard errors of mean and standard deviation of n draws; largest magnitude where the distribution is bounded.
void expect_statistics(const Tensor& t, double mean, double std, double bound, const std::string& name) {
  const double n = static_cast<double>(t.numel());
  EXPECT_NEAR(t.mean().item<double>(), mean, 5 * std / std::sqrt(n)) << name;
  if (n > 50) {
    EXPECT_NEAR(t.std().item<double>(), std, 5 * std / std::sqrt(2 * n) + 1e-4 * std) << name;
  }
  if (bound > 0) {
    EXPECT_LE((t - mean).abs().max().item<double>(), bound * (1 + 1e-6)) << name;
  }
}

TEST(Initialization, ListOpsModel) {
  config::ModelConfig config;
  config.vocab_size = 22;
  config.d_model = 80;
  config.d_hidden = 160;
  config.d_attn = 64;
  config.n_layers = 6;
  config.window_size = 128;
  config.truncation = 1024;
  config.max_positions = 2002;
  config.classes = 10;
  config.d_classifier = 160;
  const auto model = nn::make_model(config, 1);
  int64_t count = 0;
  for (const auto& item : model->named_parameters()) {
    const std::string& name = item.key();
    const Tensor t = item.value().detach();
    count += t.numel();
    const auto ends = [&](const char* suffix) {
      return name.size() >= std::string(suffix).size() && name.rfind(suffix) == name.size() - std::string(suffix).size();
    };
    if (ends("embedding.weight")) {
      expect_statistics(t, 0, std::pow(80, -0.5), 0, name);
    } else if (ends("norm.weight")) {
      EXPECT_TRUE((t == 1).all().item<bool>()) << name;
    } else if (ends("log_temperature")) {
      EXPECT_NEAR(t.item<double>(), std::log(0.3 * std::sqrt(80.0)), 1e-6);
    } else if (ends("ema.delta") || ends("ema.alpha")) {
      expect_statistics(t, 0, kTruncatedSpread * 0.2, 0.4, name);
    } else if (ends("ema.beta")) {
      for (int64_t n = 0; n < t.size(1); ++n) expect_statistics(t.select(1, n), n % 2 == 0 ? 1 : -1, kTruncatedSpread * 0.02, 0.04, name);
    } else if (ends("ema.gamma") || ends("ema.omega")) {
      expect_statistics(t, 0, kTruncatedSpread, 2, name);
    } else if (ends("qk_beta") || ends(".bias")) {
      EXPECT_TRUE((t == 0).all().item<bool>()) << name;
    } else if (name.rfind("classifier.", 0) == 0) {
      const double bound = std::sqrt(6.0 / static_cast<double>(t.size(0) + t.size(1)));
      expect_statistics(t, 0, bound / std::sqrt(3.0), bound, name);
    } else {
      expect_statistics(t, 0, kTruncatedSpread * 0.02, 0.04, name);  // every projection, qk_gamma, position tables
    }
  }
  EXPECT_EQ(count, 408516);  // the official model's count for this vocabulary
}

TEST(Initialization, OfficialParameterCounts) {
  config::ModelConfig image;
  image.input = "real";
  image.sinusoidal = true;
  image.d_model = 160;
  image.d_hidden = 320;
  image.d_attn = 96;
  image.n_layers = 8;
  image.window_size = 128;
  image.truncation = 1024;
  image.max_positions = 1024;
  image.attention = "relu2";
  image.norm = "batchnorm";
  image.prenorm = true;
  image.temperature_init = 0.4;
  image.classes = 10;
  image.d_classifier = 320;
  const auto parameters = [](const config::ModelConfig& config) {
    int64_t count = 0;
    for (const auto& p : nn::make_model(config, 1)->parameters()) count += p.numel();
    return count;
  };
  EXPECT_EQ(parameters(image), 1810001);
  config::ModelConfig speech = image;
  speech.d_model = 60;
  speech.d_hidden = 120;
  speech.d_attn = 30;
  speech.position = "local";
  speech.truncation = 4000;
  speech.max_positions = 16000;
  speech.d_classifier = 120;
  EXPECT_EQ(parameters(speech), 298841);
  config::ModelConfig retrieval;
  retrieval.task = "retrieval";
  retrieval.nli = true;
  retrieval.vocab_size = 102;
  retrieval.d_model = 128;
  retrieval.d_hidden = 256;
  retrieval.d_attn = 64;
  retrieval.n_layers = 6;
  retrieval.window_size = 128;
  retrieval.truncation = 1024;
  retrieval.max_positions = 4002;
  retrieval.norm = "scalenorm";
  retrieval.classes = 2;
  retrieval.d_classifier = 256;
  EXPECT_EQ(parameters(retrieval), 1037354);
}

}  // namespace
}  // namespace seqboat
