#include "seqboat/train/evaluate.h"

#include <gtest/gtest.h>

#include <cmath>

#include "seqboat/base/error.h"
#include "unit/base/temp_dir.h"
#include "unit/train/tiny_run.h"

namespace seqboat::train::test {
namespace {

using seqboat::test::expect_error;
using seqboat::test::TempDir;

/// A task with its test data, and models that nobody has trained.
class Evaluate : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { dir_ = new TempDir; }
  static void TearDownTestSuite() {
    delete dir_;
    dir_ = nullptr;
  }

  void load(const config::Recipe& recipe) {
    Listener listener;
    task_ = make_task(recipe, {});
    config_ = recipe.model;
    task_->complete(&config_);
    task_->load({data::Split::kTest}, listener);
  }
  void load_listops(const std::string& layer) {
    config::Recipe recipe = tiny_recipe(*dir_ / "data");
    recipe.model.layer = layer;
    recipe.model.temperature_init = 1.0;
    load(recipe);
  }
  /// A language model's stream of some text.
  void load_stream(const std::string& layer) {
    std::string text;
    for (int i = 0; i < 700; ++i) text += std::to_string(i * i) + (i % 7 == 0 ? "\n" : " a, ");
    write_file_atomically(*dir_ / "text", text);
    config::Recipe recipe = tiny_recipe(*dir_ / "text");
    recipe.model.layer = layer;
    recipe.model.task = "language-model";
    recipe.model.classes = 0;
    recipe.model.causal = true;
    recipe.data.name = "bytes";
    recipe.data.context = -1;
    recipe.data.valid_share = 0;
    recipe.data.test_share = 1;
    load(recipe);
  }
  Evaluation run(const EvaluateOptions& options, nn::Model* given = nullptr) {
    const auto model = given == nullptr ? nn::make_model(config_, 5) : nullptr;
    return evaluate(given == nullptr ? *model : *given, *task_, task_->split(data::Split::kTest), options);
  }
  /// The mean span where every token attends to all others of its sequence that sees(i, j) allows.
  double span_of(bool (*sees)(int64_t, int64_t)) const {
    const std::span<const int64_t> offsets = task_->split(data::Split::kTest).offsets();
    double total = 0;
    int64_t queries = 0;
    for (size_t b = 0; b + 1 < offsets.size(); ++b) {
      const int64_t length = offsets[b + 1] - offsets[b];
      for (int64_t i = 0; i < length; ++i) {
        double sum = 0, keys = 0;
        for (int64_t j = 0; j < length; ++j) {
          if (i == j || !sees(i, j)) continue;
          sum += static_cast<double>(std::abs(i - j));
          ++keys;
        }
        if (keys == 0) continue;
        total += sum / keys;
        ++queries;
      }
    }
    return total / static_cast<double>(queries);
  }

  static TempDir* dir_;
  std::unique_ptr<Task> task_;
  config::ModelConfig config_;
};
TempDir* Evaluate::dir_ = nullptr;

TEST_F(Evaluate, SpansAreOfTheLayersOwnAttention) {
  const auto all = [](int64_t, int64_t) { return true; };
  const auto chunk = [](int64_t i, int64_t j) { return i / 4 == j / 4; };
  const auto window = [](int64_t i, int64_t j) { return std::abs(i - j) <= 4; };
  const std::vector<std::pair<std::string, bool (*)(int64_t, int64_t)>> kinds = {
      {"mega", all}, {"mega-chunk", chunk}, {"attention", window}, {"seqboat-full", window}};
  for (const auto& [layer, sees] : kinds) {
    SCOPED_TRACE(layer);
    load_listops(layer);
    const Evaluation result = run({.weighted_span = true});
    EXPECT_EQ(result.activation_rate, (std::vector<double>{1, 1}));
    for (const double span : result.attention_span) EXPECT_NEAR(span, span_of(sees), 1e-6);
    for (const double span : result.stats.weighted_span()) {
      EXPECT_GT(span, 0);
      EXPECT_LT(span, 40);
    }
    EXPECT_EQ(result.flops.share(), 1);
  }
  load_listops("ema");
  const Evaluation result = run({.weighted_span = true});
  EXPECT_EQ(result.activation_rate, (std::vector<double>{0, 0}));
  EXPECT_EQ(result.attention_span, (std::vector<double>{0, 0}));
  EXPECT_EQ(result.stats.weighted_span(), (std::vector<double>{0, 0}));
  EXPECT_EQ(result.flops.share(), 1);
}

TEST_F(Evaluate, NothingDependsOnTheBatches) {
  load_listops("seqboat");
  const EvaluateOptions options{.details = true, .weighted_span = true, .interventions = {Intervention::kRandom}, .seed = 3};
  EvaluateOptions one_by_one = options;
  one_by_one.batch_size = 1;
  const Evaluation a = run(options), b = run(one_by_one);
  const auto same = [](const Evaluation& x, const Evaluation& y) {
    EXPECT_EQ(x.score.loss_sum, y.score.loss_sum);
    EXPECT_EQ(x.activation_rate, y.activation_rate);
    EXPECT_EQ(x.attention_span, y.attention_span);
    EXPECT_EQ(x.stats.weighted_span(), y.stats.weighted_span());
    EXPECT_EQ(x.flops.spent(), y.flops.spent());
    EXPECT_EQ(x.stats.at(1, 0).gaps.mean(), y.stats.at(1, 0).gaps.mean());
    EXPECT_EQ(x.stats.at(1, 0).sequences.deviation(), y.stats.at(1, 0).sequences.deviation());
    for (size_t label = 0; label < x.stats.at(1, 0).by_group[0].size(); ++label)
      EXPECT_EQ(x.stats.at(1, 0).by_group[0][label].active, y.stats.at(1, 0).by_group[0][label].active);
  };
  same(a, b);
  same(a.interventions[0], b.interventions[0]);
  EXPECT_NE(a.score.loss_sum, a.interventions[0].score.loss_sum);
}

TEST_F(Evaluate, DetailsChangeNothingElse) {
  load_listops("seqboat");
  const Evaluation plain = run({}),
                   full = run({.details = true, .weighted_span = true, .interventions = {kInterventions.begin(), kInterventions.end()}});
  EXPECT_EQ(plain.score.loss_sum, full.score.loss_sum);
  EXPECT_EQ(plain.activation_rate, full.activation_rate);
  EXPECT_EQ(plain.attention_span, full.attention_span);
  EXPECT_EQ(plain.stats.at(0, 0).gaps.count(), 0);
  EXPECT_EQ(plain.stats.at(0, 0).weighted_span.queries, 0);
  EXPECT_EQ(full.stats.at(0, 0).weighted_span.queries, full.stats.at(0, 0).all.active);
}

// Of whole sequences, and of a stream whose state each of the runs carries for itself.
TEST_F(Evaluate, InterventionsDoWhatTheirNamesSay) {
  for (const bool stream : {false, true}) {
    for (const char* layer : {"seqboat", "seqboat-random", "seqboat-stride"}) {
      SCOPED_TRACE(std::string(layer) + (stream ? ", stream" : ""));
      stream ? load_stream(layer) : load_listops(layer);
      const Evaluation own = run({.details = true, .interventions = {kInterventions.begin(), kInterventions.end()}});
      ASSERT_TRUE(own.complete);
      ASSERT_EQ(own.interventions.size(), 4u);
      const Evaluation &none = own.interventions[0], &all = own.interventions[1], &random = own.interventions[2], &inverted = own.interventions[3];
      EXPECT_EQ(none.activation_rate, (std::vector<double>{0, 0}));
      EXPECT_EQ(all.activation_rate, (std::vector<double>{1, 1}));
      EXPECT_EQ(random.activation_rate, own.activation_rate);
      for (size_t i = 0; i < 2; ++i) {
        EXPECT_GT(own.activation_rate[i], 0);
        EXPECT_LT(own.activation_rate[i], 1);
        EXPECT_NEAR(inverted.activation_rate[i], 1 - own.activation_rate[i], 1e-12);
      }
      EXPECT_EQ(random.flops.spent(), own.flops.spent());
      EXPECT_EQ(all.flops.spent(), all.flops.dense());
      EXPECT_EQ(all.flops.dense(), own.flops.dense());
      EXPECT_LT(none.flops.spent(), own.flops.spent());
      for (const Evaluation& each : own.interventions) {
        EXPECT_EQ(each.score.count, own.score.count);
        EXPECT_NE(each.score.loss_sum, own.score.loss_sum);
      }
    }
  }
}

// Everything activated with confidence 1 is the layer without a choice, whose weights have the same names.
TEST_F(Evaluate, AFixedChoiceOfEverythingIsTheFullLayer) {
  load_listops("seqboat-stride");
  const auto stride = nn::make_model(config_, 5);
  const Evaluation forced = run({.interventions = {Intervention::kAll}}, stride.get());
  config::ModelConfig full_config = config_;
  full_config.layer = "seqboat-full";
  const auto full = nn::make_model(full_config, 6);
  {
    const torch::NoGradGuard no_grad;
    for (const auto& item : stride->named_parameters()) full->named_parameters()[item.key()].copy_(item.value());
  }
  EXPECT_EQ(run({}, full.get()).score.loss_sum, forced.interventions[0].score.loss_sum);
}

TEST_F(Evaluate, NobodyToForceIsAnError) {
  for (const char* layer : {"seqboat-full", "mega", "mega-chunk", "attention", "ema"}) {
    load_listops(layer);
    expect_error(ErrorKind::kUsage, {layer, "nobody decides"}, [&] { run({.interventions = {Intervention::kAll}}); });
  }
}

TEST_F(Evaluate, ClassesOfAStream) {
  load_stream("seqboat");
  const Evaluation result = run({.details = true, .weighted_span = true});
  const trace::ModuleActivation& at = result.stats.at(0, 0);
  const auto& labels = result.stats.options().groupings.at(0).labels;
  std::map<std::string, int64_t> tokens;
  for (size_t i = 0; i < labels.size(); ++i) tokens[labels[i]] = at.by_group[0][i].tokens;
  EXPECT_EQ(tokens["newline"], 100);
  EXPECT_EQ(tokens["letter"], 600);
  EXPECT_EQ(tokens["punctuation"], 600);
  EXPECT_EQ(tokens["space"], 1200 - 1);  // the last byte is said and not read; </s> stands in front
  EXPECT_EQ(tokens["other"], 1);
  EXPECT_EQ(at.by_tenth[0].tokens, 0);
  EXPECT_EQ(at.by_position[0].tokens, 1);
  EXPECT_EQ(at.weighted_span.queries, at.all.active);
}

}  // namespace
}  // namespace seqboat::train::test
