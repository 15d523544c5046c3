#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/config/run_dir.h"
#include "seqboat/kernels/simd.h"
#include "seqboat/nn/model_state.h"
#include "seqboat/train/commands.h"
#include "seqboat/train/evaluate.h"
#include "seqboat/train/model_io.h"
#include "seqboat/train/process.h"
#include "seqboat/train/task.h"
#include "train/activation_report.h"
#include "train/model_source.h"
#include "train/run_log.h"
#include "train/text.h"

namespace seqboat::train {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

config::Recipe recipe_for(const EvalRequest& request, const config::ModelConfig& model) {
  config::Recipe recipe = recipe_of_model(request.model, model, request.data_dir, request.overrides);
  if (request.context == EvalRequest::kOwnContext) return recipe;
  SEQBOAT_CHECK(model.task == "language-model", ErrorKind::kUsage, "--context is for language models, and {} is a model for {}",
                request.model.string(), model.task);
  if (request.context == EvalRequest::kStreamContext) {
    nn::ModelState::check_can_carry(model);
  } else {
    // As many bytes are scored a block as the recipe says; more or fewer are shown before them.
    recipe.data.block_length += request.context - std::max<int64_t>(0, recipe.data.context);
  }
  recipe.data.context = request.context;
  return recipe;
}

std::string span_text(const std::vector<double>& spans) {
  std::string out;
  for (const double span : spans) out += fmt::format("{}{:.1f}", out.empty() ? "" : " ", span);
  return out;
}

/// What of an evaluation stands beside another: the members that both have.
ordered_json summary_json(const char* decisions, const Evaluation& of) {
  return {{"decisions", decisions},
          {"value", of.metric.value},
          {"ci95", {of.metric.low, of.metric.high}},
          {"loss", of.score.loss()},
          {"activation_rate", of.activation_rate},
          {"attention_span", of.attention_span},
          {"flops", {{"spent", of.flops.spent()}, {"dense", of.flops.dense()}, {"share", of.flops.share()}}}};
}

/// What decides in the model's place: --force has one, --interventions all of them.
std::vector<Intervention> interventions_of(const EvalRequest& request, const config::ModelConfig& model) {
  if (request.force.empty() && !request.interventions) return {};
  SEQBOAT_CHECK(request.force.empty() || !request.interventions, ErrorKind::kUsage, "--force and --interventions exclude each other");
  SEQBOAT_CHECK(model.chooses(), ErrorKind::kUsage,
                "{}: in model.layer = \"{}\" nobody decides what is activated; expected seqboat, seqboat-random or seqboat-stride",
                request.interventions ? "--interventions" : "--force " + request.force, model.layer);
  if (request.interventions) return {kInterventions.begin(), kInterventions.end()};
  return {parse_intervention(request.force)};
}

/// --window and --truncation: a model that sees less than it was trained to see.
void cut(const EvalRequest& request, config::ModelConfig* model) {
  const std::string where = request.model.string();
  SEQBOAT_CHECK(request.window == 0 || (model->has_unit() && model->attends()), ErrorKind::kUsage,
                "--window {}: {} is a model of model.layer = \"{}\"; expected one that attends to a window of activated tokens", request.window,
                where, model->layer);
  SEQBOAT_CHECK(request.window == 0 || model->position != "local", ErrorKind::kUsage,
                "--window {}: {} has a bias for each distance in its own window (model.position = \"local\"), which fits no other", request.window,
                where);
  SEQBOAT_CHECK(request.truncation == 0 || model->state_encoder() == "ema", ErrorKind::kUsage,
                "--truncation {}: {} is a model of model.layer = \"{}\" without an EMA", request.truncation, where, model->layer);
  if (request.window > 0) model->window_size = request.window;
  if (request.truncation > 0) model->truncation = request.truncation;
}

/// What came of each sequence, as a table that anything reads. Losses have as many digits as tell doubles apart.
std::string items_table(const std::vector<ItemScore>& items) {
  std::string out = "item\tcount\tcorrect\tloss\n";
  for (size_t i = 0; i < items.size(); ++i) out += fmt::format("{}\t{}\t{}\t{}\n", i, items[i].count, items[i].correct, items[i].loss);
  return out;
}

int evaluate_model(const EvalRequest& request, Reporter& reporter) {
  RunLog log(reporter, request.stop_signal);
  const fs::path dir = config::find_model_dir(request.model);
  config::ModelConfig of_file = config::read_model_config(dir);
  cut(request, &of_file);
  const config::Recipe recipe = recipe_for(request, of_file);
  const data::Split split = data::parse_split(request.split);
  const std::vector<Intervention> interventions = interventions_of(request, recipe.model);
  const bool weighted_span = request.weighted_span || request.activations;
  const int64_t threads = prepare_process(request.threads > 0 ? request.threads : recipe.train.threads);
  log.log(fmt::format("seqboat eval {}: cpu, {}, {} {}", dir.string(), kernels::simd_target(), threads, threads == 1 ? "thread" : "threads"));

  if (!request.items.empty()) {
    const fs::path folder = fs::absolute(request.items).parent_path();
    std::error_code error;
    SEQBOAT_CHECK(fs::is_directory(folder, error), ErrorKind::kUsage, "--items {}: there is no folder {}", request.items.string(), folder.string());
    SEQBOAT_CHECK(!fs::is_directory(request.items, error), ErrorKind::kUsage, "--items {}: expected a file, found a folder", request.items.string());
  }
  const auto model = load_model(dir, [&](config::ModelConfig* changed) { cut(request, changed); });
  const auto task = make_task(recipe, data_of_model(request.data_dir, request.overrides, recipe), request.sound);
  config::ModelConfig config = model->config();
  try {
    task->complete(&config);
  } catch (const Error& error) {
    throw Error(ErrorKind::kModel, dir.string() + ": " + error.what());
  }
  try {
    task->load({split}, log);
  } catch (const Interrupted& interrupted) {
    return 128 + interrupted.signal;
  }
  log.set_preparing(false);
  check_input_format(dir, model->config().data, task->input_format());

  EvaluateOptions options{.examples = request.examples,
                          .details = true,
                          .weighted_span = weighted_span,
                          .interventions = interventions,
                          .seed = static_cast<uint64_t>(request.seed)};
  options.progress = [&](int64_t done, int64_t total) {
    log.progress({.label = fmt::format("eval {}", split_word(split)), .unit = "example", .done = done, .total = total, .fields = {}});
    return log.stop() == 0;
  };
  const Evaluation own = evaluate(*model, *task, task->split(split), options);
  log.finish_progress();
  if (!own.complete) return 128 + log.stop();

  const Evaluation& result = request.force.empty() ? own : own.interventions.front();
  const Metric& metric = result.metric;
  ordered_json json = {{"task", task->name()},
                       {"split", split_word(split)},
                       {"metric", metric.name},
                       {"value", metric.value},
                       {"ci95", {metric.low, metric.high}},
                       {"examples", result.score.examples},
                       {"loss", result.score.loss()},
                       {"activation_rate", result.activation_rate},
                       {"attention_span", result.attention_span},
                       {"model", dir.string()},
                       {"activation", activation_json(result.stats, weighted_span)},
                       {"flops", flops_json(result.flops)},
                       {"intervention", nullptr}};
  if (request.window > 0) json["window_size"] = request.window;
  if (request.truncation > 0) json["truncation"] = request.truncation;
  const std::string unit = task->unit();
  std::string text = fmt::format("{}, {} split: {} {} (95 % interval {} to {}) on {} {}s\n", task->name(), split_word(split), metric.name,
                                 task->metric_text(metric.value), task->metric_text(metric.low), task->metric_text(metric.high),
                                 with_commas(result.score.count), unit);
  text += fmt::format("loss              {:.4f} nats {} {}\n", result.score.loss(), unit.find_first_of("aeiou") == 0 ? "an" : "a", unit);
  text += fmt::format("activation rate   {} by layer\n", rates_text(result.activation_rate));
  text += fmt::format("attention span    {} tokens by layer\n", span_text(result.attention_span));
  if (weighted_span) text += fmt::format("weighted span     {} tokens by layer\n", span_text(result.stats.weighted_span()));
  text += flops_line(result.flops);

  // The model by its own decisions, and what stands beside it.
  std::vector<std::string> words{"learned"};
  std::vector<const Evaluation*> results{&own};
  for (size_t i = 0; i < interventions.size(); ++i) {
    words.emplace_back(intervention_word(interventions[i]));
    results.push_back(&own.interventions[i]);
  }
  if (!request.force.empty()) {
    ordered_json learned = summary_json("learned", own);
    json["intervention"] = {{"decisions", request.force}, {"seed", request.seed}, {"learned", learned}};
  }
  if (request.interventions) {
    json["interventions"] = {{"seed", request.seed}, {"results", ordered_json::array()}};
    for (size_t i = 0; i < results.size(); ++i) json["interventions"]["results"].push_back(summary_json(words[i].c_str(), *results[i]));
  }
  if (!interventions.empty()) {
    std::vector<std::string> metrics;
    for (const Evaluation* each : results) metrics.push_back(task->metric_text(each->metric.value));
    text += request.force.empty() ? "Decisions in the place of the model's own:\n"
                                  : fmt::format("Decisions forced ({}), beside the model's own:\n", request.force);
    text += intervention_table(words, results, metrics);
  }
  if (request.activations) text += activation_tables(result.stats);

  const TaskReport report = task->report(split, result.score.examples, result.score);
  json.update(ordered_json::parse(report.json_text));
  text += report.text;

  const config::ExpectConfig& expect = recipe.expect;
  const bool perplexity = expect.metric == "perplexity" && metric.name == "bits-per-byte";
  if (expect.metric == metric.name || perplexity) {
    const double reached = perplexity ? std::exp(result.score.loss()) : task->expect_scale() * metric.value, gap = reached - expect.value;
    json["expect"] = {{"value", expect.value}, {"gap", gap}, {"source", expect.source}};
    text += fmt::format("published         {} {:.4g} ({}): {:+.2f}\n", expect.metric, expect.value, expect.source, gap);
  }
  if (!request.items.empty()) write_file_atomically(request.items, items_table(result.score.items));
  log.result(json, text);
  return 0;
}

}  // namespace

int run_eval(const EvalRequest& request, Reporter& reporter) {
  return with_translated_errors([&] { return evaluate_model(request, reporter); });
}

}  // namespace seqboat::train
