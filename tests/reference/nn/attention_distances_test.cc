// How far attention looks by its weights, against the definition: a dense float64 loop over every pair.

#include "seqboat/nn/attention_distances.h"

#include <cmath>

#include "seqboat/config/model_config.h"
#include "seqboat/nn/layer.h"
#include "seqboat/nn/model_state.h"
#include "support/torch_checks.h"

namespace seqboat {
namespace {

using torch::Tensor;

struct Case {
  const char* function;
  const char* position;
  int64_t window;
  bool causal;
};

class AttentionDistances : public ::testing::TestWithParam<Case> {};

/// The score's bias, from the pictures in kernels/window_attention.h.
double bias(const Case& c, const Tensor& table, int64_t i, int64_t j, int64_t ti, int64_t tj) {
  const std::string position = c.position;
  if (position == "rotary") return 0;
  const int64_t m = (table.size(0) + 1) / 2;
  const int64_t index = position == "local" ? m - 1 + c.window + j - i : m - 1 + tj - ti;
  return table[std::clamp<int64_t>(index, 0, 2 * m - 2)].item<double>();
}

double weight(const Case& c, double dot, double added, int64_t width, int64_t number, int64_t count) {
  const std::string function = c.function;
  if (function == "softmax") return std::exp(dot / std::sqrt(static_cast<double>(width)) + added);
  const int64_t over = c.window > 0 ? (c.causal ? c.window : 2 * c.window) : c.causal ? number + 1 : count;
  const double score = dot / static_cast<double>(over) + added;
  if (function == "relu2") return score > 0 ? score * score : 0;
  return 0.5 * (1 + std::erf((score - 0.707107) / (0.282095 * std::sqrt(2.0))));
}

Tensor by_definition(const Case& c, const Tensor& q, const Tensor& k, const Tensor& positions, const Tensor& offsets, const Tensor& table) {
  Tensor out = torch::empty({q.size(0)}, torch::kFloat64);
  const Tensor dots = torch::matmul(q.to(torch::kFloat64), k.to(torch::kFloat64).t());
  const Tensor times = positions.contiguous();
  for (int64_t b = 0; b + 1 < offsets.size(0); ++b) {
    const int64_t begin = offsets[b].item<int64_t>(), count = offsets[b + 1].item<int64_t>() - begin;
    for (int64_t i = 0; i < count; ++i) {
      double sum = 0, weights = 0;
      for (int64_t j = 0; j < (c.causal ? i + 1 : count); ++j) {
        if (c.window >= 0 && std::abs(i - j) > c.window) continue;
        const int64_t ti = times.const_data_ptr<int64_t>()[begin + i], tj = times.const_data_ptr<int64_t>()[begin + j];
        const double w = weight(c, dots[begin + i][begin + j].item<double>(), bias(c, table, i, j, ti, tj), q.size(1), i, count);
        sum += w * static_cast<double>(std::abs(ti - tj));
        weights += w;
      }
      out[begin + i] = sum / weights;
    }
  }
  return out;
}

TEST_P(AttentionDistances, AreTheDefinition) {
  const Case c = GetParam();
  nn::AttentionOptions options;
  options.function = c.function;
  options.position = c.position;
  options.window = c.window;
  options.causal = c.causal;
  torch::manual_seed(4);
  const Tensor cu = test::offsets({1, 0, 70, 9});
  // Far from zero, where distances are small differences.
  const Tensor positions = torch::cat({torch::tensor({4}), torch::arange(70) * 3 + 100000, torch::arange(9) * 5}).to(torch::kInt64);
  const Tensor table = torch::randn({std::string(c.position) == "local" ? 6 * c.window - 1 : 199}) * 0.5;
  const Tensor q = torch::randn({80, 6}) * 2, k = torch::randn({80, 6});
  const Tensor got = nn::attention_distances(q, k, positions, cu, std::string(c.position) == "rotary" ? Tensor() : table, options);
  const Tensor want = by_definition(c, q, k, positions, cu, table);
  ASSERT_EQ(got.scalar_type(), torch::kFloat64);
  ASSERT_TRUE(torch::equal(got.isnan(), want.isnan()));  // relu2 may give nothing any weight
  // Sums of at most 70 terms of times of 1e5, whose differences are the distances.
  const Tensor known = want.isnan().logical_not();
  const double error = (got - want).masked_select(known).abs().max().item<double>();
  EXPECT_LT(error, 70 * 2.3e-16 * 1e5) << "of distances up to " << want.masked_select(known).max().item<double>();
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const char* function : {"softmax", "relu2", "laplace"}) {
    for (const bool causal : {false, true}) {
      for (const int64_t window : {1, 5, 64}) cases.push_back({function, "local", window, causal});
      for (const int64_t window : {2, 7, -1}) cases.push_back({function, "simple", window, causal});
      cases.push_back({function, "rotary", 6, causal});
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(All, AttentionDistances, ::testing::ValuesIn(all_cases()));

config::ModelConfig model_of(const std::string& layer, bool causal) {
  config::ModelConfig m;
  m.layer = layer;
  m.d_model = 8;
  m.d_attn = 4;
  m.window_size = 6;
  m.n_layers = 1;
  m.n_heads = 2;
  m.causal = causal;
  m.max_positions = 64;
  m.position = layer == "seqboat-stride" ? "rotary" : "simple";
  return m;
}

/// Queries and keys that look at nothing in particular: then every key weighs the same, whatever the function.
void make_uniform(nn::Layer& layer) {
  const torch::NoGradGuard no_grad;
  for (auto& item : layer.named_parameters()) {
    const std::string& name = item.key();
    for (const char* part : {"qk_gamma", "qk_beta", "position", "in_proj"}) {
      if (name.find(part) != std::string::npos) item.value().zero_();
    }
  }
}

// A layer hands over what it attends with: its rotations, its chunks, its heads. With equal weights the mean distance of each query can be counted.
TEST(LayerDistances, OfEveryKindOfLayer) {
  for (const char* kind : {"seqboat", "seqboat-full", "seqboat-stride", "mega", "mega-chunk", "attention"}) {
    for (const bool causal : {false, true}) {
      SCOPED_TRACE(std::string(kind) + (causal ? ", causal" : ""));
      const config::ModelConfig model = model_of(kind, causal);
      PhiloxStream random(1, 0);
      const auto layer = nn::make_layer(model, 0, random);
      make_uniform(*layer);
      layer->eval();
      const Tensor cu = test::offsets({23, 1, 40});
      const nn::PackedLayout layout = nn::PackedLayout::make(cu, {});
      torch::manual_seed(2);
      std::vector<nn::LayerTrace> traces;
      nn::ForwardOptions options;
      options.trace = &traces;
      options.distances = true;
      layer->forward(torch::randn({64, 8}), layout, options, 0);
      const Tensor active = traces[0].active.defined() ? traces[0].active : torch::ones({64}, torch::kUInt8);
      const Tensor rows = active.nonzero().squeeze(1);
      ASSERT_EQ(traces[0].distances.size(0), rows.size(0));
      const bool window = std::string(kind) != "mega" && std::string(kind) != "mega-chunk", chunks = std::string(kind) == "mega-chunk";
      for (int64_t i = 0; i < rows.size(0); ++i) {
        double sum = 0, keys = 0;
        const int64_t row = rows[i].item<int64_t>(), t = layout.positions[row].item<int64_t>();
        for (int64_t j = 0; j < (causal ? i + 1 : rows.size(0)); ++j) {
          const int64_t other = rows[j].item<int64_t>(), s = layout.positions[other].item<int64_t>();
          if (layout.sequence_ids[row].item<int64_t>() != layout.sequence_ids[other].item<int64_t>()) continue;
          if ((window && std::abs(i - j) > 6) || (chunks && s / 6 != t / 6)) continue;
          sum += static_cast<double>(std::abs(s - t));
          ++keys;
        }
        EXPECT_NEAR(traces[0].distances[i].item<double>(), sum / keys, 1e-12) << "query " << i;
      }
    }
  }
}

// In pieces through a state the distances are those of the whole sequence, and the output stays what it is without them.
TEST(LayerDistances, OfAStreamAreThoseOfTheWhole) {
  for (const char* kind : {"seqboat", "mega-chunk", "attention"}) {
    SCOPED_TRACE(kind);
    const config::ModelConfig model = model_of(kind, true);
    PhiloxStream random(1, 0);
    const auto layer = nn::make_layer(model, 0, random);
    layer->eval();
    torch::manual_seed(2);
    const torch::NoGradGuard no_grad;
    const Tensor x = torch::randn({150, 8});
    const auto forward = [&](int64_t begin, int64_t end, nn::ModelState* state, bool distances, std::vector<nn::LayerTrace>* traces) {
      nn::ForwardOptions options;
      options.trace = traces;
      options.distances = distances;
      options.state = state;
      const nn::PackedLayout layout = nn::PackedLayout::make(test::offsets({end - begin}), {}, 0, torch::tensor({begin}));
      return layer->forward(x.narrow(0, begin, end - begin), layout, options, 0);
    };
    std::vector<nn::LayerTrace> whole, pieces, without;
    const Tensor y = forward(0, 150, nullptr, true, &whole);
    EXPECT_TRUE(torch::equal(y, forward(0, 150, nullptr, false, &without)));
    EXPECT_FALSE(without[0].distances.defined());
    nn::ModelState state;
    state.layers.resize(1);
    std::vector<Tensor> parts;
    for (const auto& [begin, end] : std::vector<std::pair<int64_t, int64_t>>{{0, 1}, {1, 70}, {70, 81}, {81, 150}}) {
      forward(begin, end, &state, true, &pieces);
      parts.push_back(pieces.back().distances);
    }
    EXPECT_LT((torch::cat(parts) - whole[0].distances).abs().max().item<double>(), 1e-9);
  }
}

}  // namespace
}  // namespace seqboat
