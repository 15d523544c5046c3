#include <fmt/ranges.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "seqboat/base/error.h"
#include "seqboat/base/event_file.h"
#include "seqboat/base/file_io.h"
#include "seqboat/config/run_dir.h"
#include "seqboat/data/batching.h"
#include "seqboat/kernels/elementwise.h"
#include "seqboat/kernels/simd.h"
#include "seqboat/train/checkpoint.h"
#include "seqboat/train/commands.h"
#include "seqboat/train/evaluate.h"
#include "seqboat/train/model_io.h"
#include "seqboat/train/optimizer.h"
#include "seqboat/train/process.h"
#include "seqboat/train/resume.h"
#include "seqboat/train/router_penalty.h"
#include "seqboat/train/schedule.h"
#include "seqboat/train/task.h"
#include "train/memory_check.h"
#include "train/metrics_log.h"
#include "train/run_log.h"
#include "train/text.h"

namespace seqboat::train {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using data::Split;
using nlohmann::ordered_json;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// One run of the verb `train`: prepares, then loops over updates. The order of what happens at an update is fixed, so that a run that goes on from a
/// checkpoint does exactly what an uninterrupted one does: update, line of metrics, validation, checkpoint.
class Trainer {
 public:
  Trainer(const TrainRequest& request, Reporter& reporter)
      : request_(request), recipe_(request.recipe), log_(reporter, request.stop_signal), store_(request.run_dir) {}

  int run() {
    try {
      prepare();
      log_.set_preparing(false);
      if (request_.dry_run) return dry_run();
      const int code = loop();
      log_.finish_progress();
      report(code);
      return code;
    } catch (const Interrupted& interrupted) {
      log_.log("interrupted before the first update: nothing to save");
      return 128 + interrupted.signal;
    } catch (const std::exception& error) {
      log_.finish_progress();
      log_.note(fmt::format("error: {}", error.what()));
      throw;
    }
  }

 private:
  // --- preparation ---

  void prepare() {
    threads_ = prepare_process(recipe_.train.threads);
    log_.log(fmt::format("seqboat {}, cpu, {}, {} {}, seed {}", request_.version.empty() ? "(version unknown)" : request_.version,
                         kernels::simd_target(), threads_, threads_ == 1 ? "thread" : "threads", recipe_.train.seed));
    std::error_code error;
    // A run remembers where its data are.
    if (!request_.data_dir.empty()) recipe_.data.path = request_.data_dir.string();
    if (!recipe_.data.path.empty()) recipe_.data.path = fs::absolute(recipe_.data.path, error).string();
    task_ = make_task(recipe_, request_.data_dir.empty() ? fs::path() : fs::path(recipe_.data.path), request_.sound);
    task_->complete(&recipe_.model);
    resolve(&recipe_);
    check_memory(recipe_.model);
    if (!request_.dry_run) open_run_dir();
    load_data();
    recipe_.model.data = task_->input_format();
    build();
    if (request_.dry_run) return;
    go_on();
    // Only now: until data, model and checkpoint have been seen to go together, a corrected recipe may still take the folder, and that of a run that
    // goes on stays what it is.
    describe_run();
    metrics_.open(request_.run_dir / "metrics.jsonl", state_.step, state_.validated_step == state_.step);
    // What an interrupted process wrote beyond the checkpoint is made void: it is going to be written again.
    events_.open(request_.run_dir, state_.step == 0 ? 0 : state_.step + 1, unix_seconds());
    if (state_.step == 0) events_.add_text(0, unix_seconds(), "recipe", "```toml\n" + config::to_toml(recipe_) + "\n```");
  }

  void open_run_dir() {
    const fs::path& dir = request_.run_dir;
    const fs::path config = dir / "config.toml";
    std::error_code error;
    const bool exists = config::is_run_dir(dir);
    if (exists) {
      const config::Recipe run = recipe_of_run(config);
      const std::vector<std::string> differing = differing_keys(run, recipe_);
      SEQBOAT_CHECK(differing.empty(), ErrorKind::kModel, "{}: holds a run of another config: {}", dir.string(), fmt::join(differing, "; "));
      going_on_ = true;
      if (recipe_.data.path.empty()) recipe_.data.path = run.data.path;
      // Where the run's data were found good they are taken as they are: they may have been given by hand.
      if (request_.data_dir.empty() && recipe_.data.path == run.data.path) task_ = make_task(recipe_, run.data.path, request_.sound);
    } else {
      SEQBOAT_CHECK(!request_.resume, ErrorKind::kModel, "{}: no run directory: it has no config.toml", dir.string());
      for (const char* name : {"checkpoints", "model", "metrics.jsonl", "latest", "best"}) {
        SEQBOAT_CHECK(!fs::exists(dir / name, error), ErrorKind::kModel, "{}: has a {} but no config.toml: give another folder", dir.string(), name);
      }
    }
    make_folders(dir);
    lock_.take(dir);
    log_.open(dir / "train.log");
  }

  /// The recipe of the run that stands in the folder. A file that is none makes the folder another thing's.
  config::Recipe recipe_of_run(const fs::path& file) const {
    try {
      config::Recipe run = config::load_recipe(file);
      resolve(&run);
      task_->complete(&run.model);
      return run;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kConfig) throw;
      fail(ErrorKind::kModel, "{}: holds something else than a run of this recipe: {}", file.parent_path().string(), error.what());
    }
  }

  void describe_run() {
    const fs::path& dir = request_.run_dir;
    write_file_atomically(dir / "config.toml", config::to_toml(recipe_));
    ordered_json environment = {{"version", request_.version}, {"seed", recipe_.train.seed}, {"threads", threads_}};
    environment.update(machine_json());
    environment["recipe"] = request_.recipe_name;
    environment["overrides"] = request_.overrides;
    environment["command_line"] = request_.command_line;
    write_file_atomically(dir / "environment.json", environment.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n");
  }

  void load_data() {
    if (request_.dry_run) {
      task_->load_sample(std::max<int64_t>(64, recipe_.train.batch_size) * recipe_.train.accumulate);
    } else {
      task_->load({Split::kTrain, Split::kValid}, log_);
    }
    const TaskData& train = task_->split(Split::kTrain);
    sampler_ =
        std::make_unique<data::BatchSampler>(train.offsets(), data::BatchOptions{.batch_size = recipe_.train.batch_size,
                                                                                 .max_tokens = recipe_.train.max_tokens,
                                                                                 .shuffle = true,
                                                                                 .seed = static_cast<uint64_t>(recipe_.train.seed),
                                                                                 .lanes = recipe_.data.carry_state ? recipe_.train.batch_size : 0});
    if (!request_.dry_run) {
      log_.log(fmt::format("{}: {} training and {} validation examples in {}", task_->name(), with_commas(train.size()),
                           with_commas(task_->split(Split::kValid).size()), task_->where()));
    }
  }

  void build() {
    model_ = nn::make_model(recipe_.model, static_cast<uint64_t>(recipe_.train.seed));
    model_->train();
    optimizer_ = make_optimizer(recipe_.optim, parameters_of(*model_));
    schedule_ = std::make_unique<Schedule>(ScheduleOptions::from_recipe(recipe_));
    int64_t parameters = 0;
    for (const NamedParameter& p : optimizer_->parameters()) parameters += p.tensor.numel();
    log_.log(fmt::format("{}: {} layers, {} parameters", request_.recipe_name, recipe_.model.n_layers, with_commas(parameters)));
    if (request_.dry_run) begin_with_given();
    state_.simd = kernels::simd_target();
    if (!request_.dry_run) state_.data_fingerprint = fingerprint_text();
    state_.window.active.assign(static_cast<size_t>(recipe_.model.n_layers), 0);
  }

  /// train.init: what of another model fits this one.
  void begin_with_given() {
    if (recipe_.train.init.empty()) return;
    const fs::path dir = config::find_model_dir(recipe_.train.init);
    const std::vector<NamedTensor> tensors = tensors_of(*model_);
    const std::vector<std::string> left = take_tensors(dir / "model.safetensors", tensors);
    log_.log(fmt::format("{} of {} tensors begin as those of {}{}{}", tensors.size() - left.size(), tensors.size(), dir.string(),
                         left.empty() ? "" : "; drawn anew: ", fmt::join(left, ", ")));
  }

  void go_on() {
    const auto loaded = store_.load_newest(*model_, *optimizer_, [this](const std::string& line) { log_.warn(line); });
    if (loaded) {
      const std::string simd = state_.simd;
      state_ = *loaded;
      if (state_.simd != simd) {
        log_.warn(
            fmt::format("this run was computed on the SIMD target {} so far and goes on with {}: last bits will differ from an uninterrupted run",
                        state_.simd, simd));
        state_.simd = simd;
      }
      SEQBOAT_CHECK(static_cast<int64_t>(state_.window.active.size()) == recipe_.model.n_layers && optimizer_->steps() == state_.step,
                    ErrorKind::kModel, "{}: does not go with its own config", store_.path_of(state_.step).string());
      const std::string data = fingerprint_text();
      SEQBOAT_CHECK(state_.data_fingerprint.empty() || state_.data_fingerprint == data, ErrorKind::kModel,
                    "{}: the run began with other training data (checksum {}) than {} holds now ({}): it cannot go on as if nothing had happened",
                    request_.run_dir.string(), state_.data_fingerprint, task_->where(), data);
      state_.data_fingerprint = data;
      sampler_->restore(state_.data);
      // An interruption may have come between a checkpoint and its export.
      if (state_.best_step > 0) store_.export_model(state_.best_step);
      log_.log(fmt::format("{}: goes on after step {} of {}", request_.run_dir.string(), state_.step, recipe_.train.steps));
    } else {
      if (going_on_) log_.log(fmt::format("{}: has no checkpoint yet and begins anew", request_.run_dir.string()));
      begin_with_given();
    }
    store_.prune(recipe_.train.keep, state_.best_step);
    saved_step_ = state_.step;
    begin_step_ = state_.step;
    begin_seconds_ = state_.seconds;
    if (recipe_.train.steps > recipe_.optim.total_steps &&
        (recipe_.optim.schedule == "linear-decay" || recipe_.optim.schedule == "polynomial-decay")) {
      log_.warn(fmt::format("the schedule ends at step {} (optim.total_steps): the learning rate stays at {} after it", recipe_.optim.total_steps,
                            recipe_.optim.end_lr));
    }
  }

  std::string fingerprint_text() const { return fmt::format("{:016x}", task_->split(Split::kTrain).fingerprint()); }

  // --- the loop ---

  bool validation_due() const {
    const int64_t every = recipe_.train.eval_every;
    return state_.step > 0 && state_.validated_step != state_.step && (state_.step == recipe_.train.steps || (every > 0 && state_.step % every == 0));
  }

  int loop() {
    const Clock::time_point begin = Clock::now();
    begin_ = window_begin_ = begin;
    while (true) {
      if (validation_due()) {
        if (!validate()) return stop();
        save();
        show_progress("");
      } else if (recipe_.train.save_every > 0 && state_.step > 0 && state_.step % recipe_.train.save_every == 0 && state_.step != saved_step_) {
        save();
      }
      if (state_.step >= recipe_.train.steps) return 0;
      if (log_.stop() != 0) return stop();
      if (request_.minutes > 0 && seconds_since(born_) >= 60 * request_.minutes) {
        stopped_by_time_ = true;
        if (state_.step != saved_step_) save();
        return 0;
      }
      update();
      if (state_.step % recipe_.train.log_every == 0) write_metrics();
      show_progress("");
    }
  }

  int stop() {
    if (state_.step != saved_step_) save();
    return 128 + log_.stop();
  }

  struct StepResult {
    double loss = 0;
    double grad_norm = 0;
    int64_t tokens = 0;
    int64_t sequences = 0;
    double router_penalty = 0;
    double auxiliary_loss = 0;  ///< a token with a target of its own, unweighted
  };

  /// One update: gradients of sums, scaled by the sample size of all micro-batches, clipped, stepped.
  void update() {
    const Clock::time_point begin = Clock::now();
    lr_ = schedule_->value(state_.step);
    optimizer_->zero_grad();
    last_ = StepResult{};
    last_batches_.clear();
    int64_t samples = 0;
    double loss_sum = 0;
    for (int64_t micro = 0; micro < recipe_.train.accumulate; ++micro) {
      // A new epoch begins at the beginning of every lane, where nothing has been read yet.
      if (sampler_->epoch_done() || sampler_->state().cursor == 0) state_.stream = {};
      const std::vector<int64_t> examples = sampler_->next();
      const ReadingKey reading{.seed = static_cast<uint64_t>(recipe_.train.seed), .epoch = sampler_->state().epoch};
      const TaskBatch batch = task_->split(Split::kTrain).training_batch(examples, reading);
      std::vector<nn::LayerTrace> traces;
      nn::ForwardOptions options;
      options.recompute = recipe_.train.recompute;
      options.random = {.seed = static_cast<uint64_t>(recipe_.train.seed),
                        .update = static_cast<uint64_t>(state_.step),
                        .micro_batch = static_cast<uint64_t>(micro),
                        .sequence_ids = batch.sequence_ids};
      options.trace = &traces;
      options.router_gradients = recipe_.router.target_weight > 0;
      options.memory_gradients = recipe_.router.memory_gradient;
      if (recipe_.data.carry_state) options.state = &state_.stream;
      nn::TokenQuery query{.rows = batch.token_rows, .logits = {}};
      if (query.rows.defined()) options.query = &query;
      torch::Tensor loss = task_->loss_sum(model_->forward(batch.src, batch.src1 ? &*batch.src1 : nullptr, options), batch).sum();
      const double value = loss.item<double>();
      if (!std::isfinite(value)) diverged("the loss", value, {examples});
      if (query.logits.defined()) {
        const torch::Tensor auxiliary = task_->token_loss_sum(query.logits, batch).sum();
        last_.auxiliary_loss += auxiliary.item<double>() / static_cast<double>(batch.token_rows.size(0) * recipe_.train.accumulate);
        loss = loss + auxiliary * recipe_.train.auxiliary_weight;
      }
      if (options.router_gradients) {
        const RouterPenalty penalty =
            router_penalty(traces, recipe_.model.n_layers, recipe_.router.target_at(state_.step), recipe_.router.target_weight, batch.sample_size);
        last_.router_penalty += penalty.value / static_cast<double>(recipe_.train.accumulate);
        if (penalty.pull.defined()) loss = loss + penalty.pull;
      }
      loss.backward();
      state_.stream.detach();
      loss_sum += value;
      samples += batch.sample_size;
      last_.tokens += batch.tokens;
      last_.sequences += static_cast<int64_t>(examples.size());
      last_batches_.push_back(examples);
      for (size_t i = 0; i < traces.size(); ++i) count_active(traces[i], batch, static_cast<int64_t>(i));
    }
    const GradientScale gradients = gradient_scale(optimizer_->parameters(), 1.0 / static_cast<double>(samples), recipe_.optim.clip_norm);
    last_.grad_norm = gradients.norm;
    if (!std::isfinite(last_.grad_norm)) diverged("the gradient norm", last_.grad_norm, last_batches_);
    optimizer_->step(lr_, gradients.factor);
    last_.loss = loss_sum / static_cast<double>(samples);

    ++state_.step;
    state_.tokens += last_.tokens;
    state_.data = sampler_->state();
    state_.window.loss_sum += loss_sum;
    state_.window.samples += samples;
    state_.window.tokens += last_.tokens;
    window_tokens_here_ += last_.tokens;

    // For people: a moving mean over some thirty updates.
    const double seconds = seconds_since(begin), keep = std::min(0.97, static_cast<double>(state_.step - begin_step_ - 1) / 30.0);
    shown_loss_ = keep * shown_loss_ + (1 - keep) * last_.loss;
    shown_tokens_ = keep * shown_tokens_ + (1 - keep) * static_cast<double>(last_.tokens);
    shown_seconds_ = keep * shown_seconds_ + (1 - keep) * seconds;
  }

  void count_active(const nn::LayerTrace& trace, const TaskBatch& batch, int64_t number) {
    const int64_t layer = number % recipe_.model.n_layers;
    int64_t active = batch.tokens;
    if (trace.active.defined()) {
      const uint8_t* flags = trace.active.const_data_ptr<uint8_t>();
      active = std::accumulate(flags, flags + trace.active.numel(), int64_t{0}, [](int64_t sum, uint8_t flag) { return sum + (flag != 0); });
    } else if (number >= recipe_.model.n_layers) {
      active = 0;  // the second tower: the first has counted all tokens of the batch
    }
    state_.window.active[static_cast<size_t>(layer)] += active;
  }

  /// Names the examples of the micro-batches, some of each.
  [[noreturn]] void diverged(const char* what, double value, const std::vector<std::vector<int64_t>>& batches) {
    const size_t shown = std::clamp<size_t>(64 / batches.size(), 1, 8);
    size_t count = 0;
    std::string examples;
    for (const std::vector<int64_t>& batch : batches) {
      count += batch.size();
      const auto end = batch.begin() + static_cast<std::ptrdiff_t>(std::min(shown, batch.size()));
      examples += fmt::format("{}{}{}", examples.empty() ? "" : " | ", fmt::join(batch.begin(), end, ", "), end == batch.end() ? "" : ", ...");
    }
    const auto steps = store_.steps();
    const std::string before =
        request_.dry_run || steps.empty() ? std::string() : fmt::format("; the checkpoint before it is {}", CheckpointStore::name_of(steps[0]));
    const std::string micro = batches.size() > 1 ? fmt::format("{} micro-batches", batches.size()) : "batch";
    fail(ErrorKind::kDiverged, "diverged at step {}: {} is {} on the {} of {} training examples {} (epoch {}, learning rate {:.3g}){}",
         state_.step + 1, what, value, micro, count, examples, sampler_->state().epoch, lr_, before);
  }

  int64_t last_example() const { return last_batches_.empty() ? -1 : last_batches_.back().back(); }

  std::vector<double> window_rates() const {
    std::vector<double> out;
    for (const int64_t active : state_.window.active) {
      out.push_back(state_.window.tokens > 0 ? static_cast<double>(active) / static_cast<double>(state_.window.tokens) : 0.0);
    }
    return out;
  }

  void write_metrics() {
    const double seconds = seconds_since(window_begin_);
    state_.last_loss = state_.window.loss_sum / static_cast<double>(state_.window.samples);
    ordered_json line = {{"step", state_.step},
                         {"tokens", state_.tokens},
                         {"loss", state_.last_loss},
                         {"lr", lr_},
                         {"grad_norm", last_.grad_norm},
                         {"tokens_per_s", seconds > 0 ? std::round(static_cast<double>(window_tokens_here_) / seconds) : 0.0},
                         {"activation_rate", window_rates()}};
    if (recipe_.router.target_weight > 0) line["router_penalty"] = last_.router_penalty;
    if (recipe_.train.auxiliary_weight > 0) line["auxiliary_loss"] = last_.auxiliary_loss;
    metrics_.append(line);
    write_events("train/",
                 {{"loss", state_.last_loss},
                  {"lr", lr_},
                  {"grad_norm", last_.grad_norm},
                  {"tokens", static_cast<double>(state_.tokens)},
                  {"tokens_per_s", line["tokens_per_s"].get<double>()}},
                 window_rates());
    if (recipe_.router.target_weight > 0) write_events("train/", {{"router_penalty", last_.router_penalty}}, {});
    if (recipe_.train.auxiliary_weight > 0) write_events("train/", {{"auxiliary_loss", last_.auxiliary_loss}}, {});
    state_.window = {.active = std::vector<int64_t>(static_cast<size_t>(recipe_.model.n_layers), 0)};
    window_tokens_here_ = 0;
    window_begin_ = Clock::now();
  }

  /// The same for TensorBoard.
  void write_events(const std::string& prefix, std::vector<EventScalar> scalars, const std::vector<double>& rates) {
    for (EventScalar& scalar : scalars) scalar.tag = prefix + scalar.tag;
    for (size_t i = 0; i < rates.size(); ++i) scalars.push_back({fmt::format("{}activation_rate/layer_{}", prefix, i), rates[i]});
    events_.add_scalars(state_.step, unix_seconds(), scalars);
  }

  void show_progress(const std::string& validating) {
    int64_t active = 0;
    for (const int64_t layer : state_.window.active) active += layer;
    if (state_.window.tokens > 0) shown_rate_ = static_cast<double>(active) / static_cast<double>(state_.window.tokens * recipe_.model.n_layers);
    Progress progress{.label = "train", .done = state_.step, .total = recipe_.train.steps, .fields = {}};
    progress.fields = {{"loss", fmt::format("{:.4f}", shown_loss_)}};
    if (state_.validated_step > 0) progress.fields.push_back({task_->metric_name(), fmt::format("{:.4f}", state_.last_metric)});
    progress.fields.push_back({"tokens/s", short_number(shown_seconds_ > 0 ? shown_tokens_ / shown_seconds_ : 0)});
    progress.fields.push_back({"active", fmt::format("{:.2f}", shown_rate_)});
    if (!validating.empty()) progress.fields.push_back({"validating", validating});
    log_.progress(progress);
  }

  /// False: stopped by the user; it is made up for when the run goes on.
  bool validate() {
    const Clock::time_point begin = Clock::now();
    EvaluateOptions options{.batch_size = 0, .max_tokens = 0, .examples = recipe_.train.eval_examples, .spans = false, .progress = {}};
    options.progress = [this](int64_t done, int64_t total) {
      show_progress(fmt::format("{} %", 100 * done / total));
      return log_.stop() == 0;
    };
    const Evaluation result = evaluate(*model_, *task_, task_->split(Split::kValid), options);
    if (!result.complete) return false;
    if (!std::isfinite(result.score.loss())) {
      fail(ErrorKind::kDiverged,
           "diverged at step {}: the loss on the validation split is {} after an update on {} training examples, the last of them {}", state_.step,
           result.score.loss(), last_.sequences, last_example());
    }
    const double value = result.metric.value;
    const bool better = state_.best_step == 0 || (task_->higher_is_better() ? value > state_.best_value : value < state_.best_value);
    state_.validated_step = state_.step;
    state_.last_metric = value;
    if (better) {
      state_.best_step = state_.step;
      state_.best_value = value;
    }
    metrics_.append({{"step", state_.step},
                     {"split", "valid"},
                     {"metric", result.metric.name},
                     {"value", value},
                     {"ci95", {result.metric.low, result.metric.high}},
                     {"examples", result.score.examples},
                     {"loss", result.score.loss()},
                     {"activation_rate", result.activation_rate}});
    write_events("valid/", {{result.metric.name, value}, {"loss", result.score.loss()}}, result.activation_rate);
    log_.log(fmt::format("step {}: valid {} {:.4f}{}, loss {:.4f} ({:.1f} s)", state_.step, result.metric.name, value,
                         better ? ", the best so far" : "", result.score.loss(), seconds_since(begin)));
    window_begin_ += Clock::now() - begin;  // tokens_per_s is training's
    return true;
  }

  void save() {
    for (const NamedParameter& p : optimizer_->parameters()) {
      if (std::isfinite(kernels::sum_of_squares<float>(p.tensor.numel(), p.tensor.const_data_ptr<float>()))) continue;
      fail(ErrorKind::kDiverged, "diverged at step {}: parameter {} is not finite after an update on {} training examples, the last of them {}",
           state_.step, p.name, last_.sequences, last_example());
    }
    const Clock::time_point begin = Clock::now();
    state_.seconds = begin_seconds_ + seconds_since(begin_);
    metrics_.sync();
    events_.sync();
    store_.save(*model_, *optimizer_, state_);
    if (state_.best_step == state_.step) store_.export_model(state_.step);
    store_.prune(recipe_.train.keep, state_.best_step);
    saved_step_ = state_.step;
    window_begin_ += Clock::now() - begin;
  }

  // --- the end ---

  void report(int code) {
    const double seconds = seconds_since(begin_);
    const auto best = state_.best_step > 0 ? CheckpointStore::name_of(state_.best_step) : std::string();
    const double loss = state_.window.samples > 0 ? state_.window.loss_sum / static_cast<double>(state_.window.samples) : state_.last_loss;
    ordered_json json = {{"run_dir", request_.run_dir.string()},
                         {"steps", state_.step},
                         {"tokens", state_.tokens},
                         {"seconds", begin_seconds_ + seconds},
                         {"loss", loss},
                         {"metric", task_->metric_name()},
                         {"value", state_.best_step > 0 ? ordered_json(state_.best_value) : ordered_json(nullptr)},
                         {"best", best.empty() ? ordered_json(nullptr) : ordered_json(best)},
                         {"checkpoint", store_.path_of(saved_step_).string()},
                         {"finished", state_.step >= recipe_.train.steps}};
    std::string text =
        fmt::format("{} after {} of {} updates, {} tokens; {}\n",
                    code != 0          ? "interrupted"
                    : stopped_by_time_ ? "time is up"
                                       : "trained",
                    state_.step, recipe_.train.steps, short_number(static_cast<double>(state_.tokens)), duration_text(begin_seconds_ + seconds));
    if (state_.best_step > 0) {
      text += fmt::format("best valid {} {:.4f} at step {}: {}\n", task_->metric_name(), state_.best_value, state_.best_step,
                          (request_.run_dir / "model").string());
    }
    if (state_.step < recipe_.train.steps) text += fmt::format("to go on: seqboat train {}\n", request_.run_dir.string());
    log_.log(fmt::format("step {}: stopped, {}", state_.step, code != 0 ? "interrupted" : stopped_by_time_ ? "time is up" : "done"));
    log_.result(json, text);
  }

  int dry_run() {
    begin_ = window_begin_ = Clock::now();
    update();  // the first one also pays for pages and caches
    const Clock::time_point begin = Clock::now();
    update();
    const double ms = 1e3 * seconds_since(begin);
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    int64_t parameters = 0;
    for (const NamedParameter& p : optimizer_->parameters()) parameters += p.tensor.numel();
    const double rate = static_cast<double>(last_.tokens) / (ms / 1e3);
    ordered_json json = {{"dry_run", true},
                         {"parameters", parameters},
                         {"sequences_per_update", last_.sequences},
                         {"tokens_per_update", last_.tokens},
                         {"loss", last_.loss},
                         {"grad_norm", last_.grad_norm},
                         {"activation_rate", window_rates()},
                         {"ms_per_update", ms},
                         {"tokens_per_s", rate},
                         {"peak_rss_bytes", usage.ru_maxrss * 1024},
                         {"estimated_seconds", ms / 1e3 * static_cast<double>(recipe_.train.steps)}};
    std::string text = fmt::format("{}: nothing is written\n", request_.recipe_name);
    text += fmt::format("parameters   {}\n", with_commas(parameters));
    text += fmt::format("an update    {} sequences, {} tokens, {:.0f} ms, {} tokens/s\n", last_.sequences, with_commas(last_.tokens), ms,
                        short_number(rate));
    text += fmt::format("loss         {:.4f}, gradient norm {:.4f}\n", last_.loss, last_.grad_norm);
    text += fmt::format("activation   {} by layer\n", rates_text(window_rates()));
    text += fmt::format("memory       {:.0f} MB at the peak\n", static_cast<double>(usage.ru_maxrss) / 1024.0);
    text +=
        fmt::format("{} updates   about {}\n", with_commas(recipe_.train.steps), duration_text(ms / 1e3 * static_cast<double>(recipe_.train.steps)));
    log_.result(json, text);
    return 0;
  }

  const TrainRequest& request_;
  config::Recipe recipe_;
  RunLog log_;
  CheckpointStore store_;
  RunLock lock_;
  MetricsLog metrics_;
  EventFile events_;
  std::unique_ptr<Task> task_;
  std::unique_ptr<data::BatchSampler> sampler_;
  std::shared_ptr<nn::Model> model_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Schedule> schedule_;
  TrainerState state_;

  int64_t threads_ = 0;
  bool going_on_ = false;
  bool stopped_by_time_ = false;
  int64_t saved_step_ = 0;
  double lr_ = 0;
  StepResult last_;
  std::vector<std::vector<int64_t>> last_batches_;  ///< examples of the last update, by micro-batch

  const Clock::time_point born_ = Clock::now();
  Clock::time_point begin_ = born_;
  Clock::time_point window_begin_ = born_;
  int64_t begin_step_ = 0;
  double begin_seconds_ = 0;
  int64_t window_tokens_here_ = 0;
  double shown_loss_ = 0, shown_tokens_ = 0, shown_seconds_ = 0, shown_rate_ = 0;
};

}  // namespace

int run_train(const TrainRequest& request, Reporter& reporter) {
  return with_translated_errors([&] { return Trainer(request, reporter).run(); });
}

}  // namespace seqboat::train
