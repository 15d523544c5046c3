// Initial values by their statistics: spec of the official code, checked with bounds from the sampling error.

#include "seqboat/nn/initialization.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "seqboat/base/file_io.h"
#include "seqboat/base/philox.h"
#include "seqboat/nn/model.h"
#include "seqboat/nn/official_names.h"
#include "seqboat/nn/s4d.h"
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

// Beside the bounds of the definition stand the values of an official module.
TEST(Initialization, S4d) {
  const auto official = nlohmann::json::parse(read_file(std::string(SEQBOAT_SOURCE_DIR) + "/tests/golden/peers/s4d_init.json"));
  const int64_t dim = official.at("embed_dim").get<int64_t>(), n_state = official.at("ndim").get<int64_t>();
  PhiloxStream random(1, 1);
  nn::S4d s4d(dim, n_state, official.at("bidirectional").get<bool>(), 0, random);
  auto ours = nn::named_tensors(*s4d);
  EXPECT_EQ(ours.size(), official.at("shapes").size());
  for (const auto& [name, shape] : official.at("shapes").items()) {
    const auto parts = nn::official_s4d_parts(name);
    ASSERT_EQ(parts.size(), 1u) << name;
    const Tensor t = ours.at(parts[0].ours);
    const auto want = shape.get<std::vector<int64_t>>();
    // The official C has an axis of one in front.
    EXPECT_EQ(t.sizes(), at::IntArrayRef(want).slice(want.front() == 1 ? 1 : 0)) << name;
  }
  const Tensor dt = s4d->log_dt.detach(), c = s4d->c.detach(), skip = s4d->skip.detach();
  const auto rows = 2 * dim;
  for (const auto& [row, name] : {std::pair(int64_t{0}, "A_imag_row_first"), std::pair(rows - 1, "A_imag_row_last")}) {
    const Tensor want = torch::tensor(official.at(name).get<std::vector<double>>());
    EXPECT_TRUE(test::close(s4d->a_imag[row], want.to(torch::kFloat32), test::Tolerance::ulps<float>(1, want.max().item<double>()))) << name;
  }
  EXPECT_TRUE((s4d->a_imag.slice(0, 0, dim) == s4d->a_imag[0]).all().item<bool>());
  EXPECT_TRUE((s4d->a_imag.slice(0, dim) == s4d->a_imag[rows - 1]).all().item<bool>());
  EXPECT_TRUE((s4d->log_a_real == official.at("inv_A_real_unique").at(0).get<float>()).all().item<bool>());
  EXPECT_TRUE((s4d->b == torch::tensor(official.at("B_unique").at(0).get<std::vector<float>>())).all().item<bool>());

  const double low = std::log(0.001), high = std::log(0.1);
  expect_statistics(dt, (low + high) / 2, (high - low) / std::sqrt(12.0), (high - low) / 2, "log_dt");
  EXPECT_LT(dt.min().item<double>(), low + 0.02 * (high - low));
  EXPECT_GT(dt.max().item<double>(), high - 0.02 * (high - low));
  for (const int64_t part : {0, 1}) expect_statistics(c.select(2, part), 0, std::sqrt(0.5), 0, part == 0 ? "re c" : "im c");
  expect_statistics(skip, 0, kTruncatedSpread, 2, "skip");
  EXPECT_LT(std::abs((c.select(2, 0) * c.select(2, 1)).mean().item<double>()), 5 * 0.5 / std::sqrt(static_cast<double>(c.numel()) / 2));

  // Two samples of one distribution: the official one's statistics lie within five standard errors of both.
  const auto& stds = official.at("C_std_re_im");
  const double n_c = static_cast<double>(c.numel()) / 2;
  for (const int64_t part : {0, 1})
    EXPECT_NEAR(c.select(2, part).std().item<double>(), stds.at(static_cast<size_t>(part)).get<double>(), 5 * std::sqrt(0.5) / std::sqrt(n_c));
  EXPECT_NEAR(dt.mean().item<double>(), official.at("log_dt_min_max_mean").at(2).get<double>(),
              5 * (high - low) / std::sqrt(12.0) * std::sqrt(2.0 / static_cast<double>(dt.numel())));
  EXPECT_NEAR(skip.std().item<double>(), official.at("D_std").get<double>(), 5 * kTruncatedSpread / std::sqrt(static_cast<double>(dim)));
}

}  // namespace
}  // namespace seqboat
