#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "seqboat/base/error.h"
#include "seqboat/config/run_dir.h"
#include "seqboat/kernels/simd.h"
#include "seqboat/nn/model_state.h"
#include "seqboat/train/commands.h"
#include "seqboat/train/evaluate.h"
#include "seqboat/train/model_io.h"
#include "seqboat/train/process.h"
#include "seqboat/train/task.h"
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

int evaluate_model(const EvalRequest& request, Reporter& reporter) {
  RunLog log(reporter, request.stop_signal);
  const fs::path dir = config::find_model_dir(request.model);
  const config::Recipe recipe = recipe_for(request, config::read_model_config(dir));
  const data::Split split = data::parse_split(request.split);
  const int64_t threads = prepare_process(request.threads > 0 ? request.threads : recipe.train.threads);
  log.log(fmt::format("seqboat eval {}: cpu, {}, {} {}", dir.string(), kernels::simd_target(), threads, threads == 1 ? "thread" : "threads"));

  const auto model = load_model(dir);
  const auto task = make_task(recipe, data_of_model(request.data_dir, request.overrides, recipe));
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

  EvaluateOptions options{.batch_size = 0, .max_tokens = 0, .examples = request.examples, .spans = true, .progress = {}};
  options.progress = [&](int64_t done, int64_t total) {
    log.progress({.label = fmt::format("eval {}", split_word(split)), .unit = "example", .done = done, .total = total, .fields = {}});
    return log.stop() == 0;
  };
  const Evaluation result = evaluate(*model, *task, task->split(split), options);
  log.finish_progress();
  if (!result.complete) return 128 + log.stop();

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
                       {"model", dir.string()}};
  const std::string unit = task->unit();
  std::string text = fmt::format("{}, {} split: {} {} (95 % interval {} to {}) on {} {}s\n", task->name(), split_word(split), metric.name,
                                 task->metric_text(metric.value), task->metric_text(metric.low), task->metric_text(metric.high),
                                 with_commas(result.score.count), unit);
  text += fmt::format("loss              {:.4f} nats {} {}\n", result.score.loss(), unit.find_first_of("aeiou") == 0 ? "an" : "a", unit);
  text += fmt::format("activation rate   {} by layer\n", rates_text(result.activation_rate));
  std::string spans;
  for (const double span : result.attention_span) spans += fmt::format("{}{:.1f}", spans.empty() ? "" : " ", span);
  text += fmt::format("attention span    {} tokens by layer\n", spans);

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
  log.result(json, text);
  return 0;
}

}  // namespace

int run_eval(const EvalRequest& request, Reporter& reporter) {
  return with_translated_errors([&] { return evaluate_model(request, reporter); });
}

}  // namespace seqboat::train
