#include "seqboat/train/evaluate.h"

#include <algorithm>
#include <array>

#include "seqboat/base/error.h"
#include "seqboat/data/batching.h"
#include "seqboat/nn/model_state.h"

namespace seqboat::train {
namespace {

/// Decisions of one layer in one pass over a batch.
struct PassTrace {
  int64_t layer = 0;
  int64_t pass = 0;  ///< a two-tower model records its second pass after the first
  const nn::LayerTrace* trace = nullptr;
  const nn::PackedSequences* sequences = nullptr;

  const uint8_t* active() const { return trace->active.defined() ? trace->active.const_data_ptr<uint8_t>() : nullptr; }
  std::span<const int64_t> cu_seqlens() const {
    return {sequences->cu_seqlens.const_data_ptr<int64_t>(), static_cast<size_t>(sequences->cu_seqlens.size(0))};
  }
};

std::vector<PassTrace> passes_of(const std::vector<nn::LayerTrace>& traces, const TaskBatch& batch, int64_t layers) {
  std::vector<PassTrace> out;
  for (size_t i = 0; i < traces.size(); ++i) {
    const int64_t pass = static_cast<int64_t>(i) / layers;
    out.push_back({static_cast<int64_t>(i) % layers, pass, &traces[i], pass == 0 ? &batch.src : &*batch.src1});
  }
  return out;
}

/// The model with decisions of one kind: its own, or forced ones.
struct Run {
  Evaluation* into;
  nn::ModelState state = {};
  std::vector<nn::LayerTrace> traces = {};
};

class Evaluator {
 public:
  Evaluator(nn::Model& model, const Task& task, const TaskData& data, const EvaluateOptions& options)
      : model_(model), task_(task), data_(data), options_(options) {}

  Evaluation run() {
    const config::ModelConfig& config = model_.config();
    SEQBOAT_CHECK(options_.interventions.empty() || config.chooses(), ErrorKind::kUsage,
                  "decisions cannot be forced: in model.layer = \"{}\" nobody decides what is activated", config.layer);
    trace::StatsOptions stats = stats_options(config);
    stats.spans = options_.spans;
    stats.details = options_.details;
    if (options_.details) stats.groupings = task_.token_groupings();
    Evaluation out(config, stats);
    for (size_t i = 0; i < options_.interventions.size(); ++i) out.interventions.emplace_back(config, stats);

    const int64_t total = options_.examples > 0 ? std::min(options_.examples, data_.size()) : data_.size();
    data::BatchSampler sampler = make_sampler(total);
    Run own{&out};
    std::vector<Run> forced;
    for (Evaluation& intervention : out.interventions) forced.push_back({&intervention});
    int64_t done = 0;
    bool going = true;
    while (going && !sampler.epoch_done()) {
      const std::vector<int64_t> examples = sampler.next();
      const TaskBatch batch = data_.batch(examples);
      forward(batch, {}, &own);
      for (size_t i = 0; i < forced.size(); ++i) forward(batch, decisions(options_.interventions[i], own.traces, batch), &forced[i]);
      done += static_cast<int64_t>(examples.size());
      if (options_.progress) going = options_.progress(done, total);
    }
    finish(done == total, &out);
    for (Evaluation& intervention : out.interventions) finish(done == total, &intervention);
    return out;
  }

 private:
  data::BatchSampler make_sampler(int64_t total) const {
    const std::span<const int64_t> offsets = data_.offsets().first(static_cast<size_t>(total) + 1);
    if (data_.is_stream()) return {offsets, {.batch_size = 1, .max_tokens = 0, .shuffle = false}};
    constexpr int64_t kDefaultTokens = 8192;
    int64_t max_tokens = options_.max_tokens > 0 ? options_.max_tokens : kDefaultTokens;
    for (int64_t i = 0; i < total; ++i) max_tokens = std::max(max_tokens, offsets[i + 1] - offsets[i]);
    return {offsets, {.batch_size = options_.batch_size, .max_tokens = max_tokens, .shuffle = false}};
  }

  /// For each pass the decisions of each layer.
  using Forced = std::array<std::vector<torch::Tensor>, 2>;

  Forced decisions(Intervention intervention, const std::vector<nn::LayerTrace>& own, const TaskBatch& batch) const {
    Forced out;
    for (const PassTrace& pass : passes_of(own, batch, model_.config().n_layers)) {
      const InterventionKey key{.seed = options_.seed,
                                .layer = pass.layer,
                                .pass = pass.pass,
                                .cu_seqlens = pass.sequences->cu_seqlens,
                                .sequence_ids = batch.sequence_ids};
      out[static_cast<size_t>(pass.pass)].push_back(intervene(intervention, pass.trace->active, key));
    }
    return out;
  }

  void forward(const TaskBatch& batch, const Forced& forced, Run* run) const {
    const trace::StatsOptions& wanted = run->into->stats.options();
    run->traces.clear();
    nn::ForwardOptions forward;
    forward.random.sequence_ids = batch.sequence_ids;
    forward.trace = &run->traces;
    forward.distances = options_.weighted_span;
    forward.forced_active = forced[0];
    forward.forced_active1 = forced[1];
    if (data_.is_stream()) forward.state = &run->state;
    const torch::Tensor logits = model_.forward(batch.src, batch.src1 ? &*batch.src1 : nullptr, forward);
    task_.score(logits, batch, &run->into->score);

    std::array<std::vector<std::vector<uint8_t>>, 2> groups;
    if (wanted.details) {
      groups[0] = task_.group_tokens(batch.src);
      if (batch.src1) groups[1] = task_.group_tokens(*batch.src1);
    }
    for (const PassTrace& pass : passes_of(run->traces, batch, model_.config().n_layers)) {
      trace::Decisions decisions{.active = pass.active(), .cu_seqlens = pass.cu_seqlens(), .groups = {}, .distances = {}};
      for (const std::vector<uint8_t>& labels : groups[static_cast<size_t>(pass.pass)]) decisions.groups.emplace_back(labels);
      const torch::Tensor& distances = pass.trace->distances;
      if (distances.defined()) decisions.distances = {distances.const_data_ptr<double>(), static_cast<size_t>(distances.numel())};
      count(pass, decisions, run->into);
    }
  }

  void count(const PassTrace& pass, const trace::Decisions& decisions, Evaluation* into) const {
    if (data_.is_stream()) {
      into->stats.add_piece(pass.layer, 0, decisions);
    } else {
      into->stats.add(pass.layer, 0, decisions);
    }
    for (size_t b = 0; b + 1 < decisions.cu_seqlens.size(); ++b) {
      const int64_t begin = decisions.cu_seqlens[b], end = decisions.cu_seqlens[b + 1];
      const int64_t active = decisions.active == nullptr ? end - begin : std::count(decisions.active + begin, decisions.active + end, uint8_t{1});
      if (data_.is_stream()) {
        into->flops.add_piece(pass.layer, end - begin, active);
      } else {
        into->flops.add(pass.layer, end - begin, active);
      }
    }
  }

  void finish(bool complete, Evaluation* out) const {
    out->complete = complete;
    out->metric = task_.metric(out->score);
    out->activation_rate = out->stats.activation_rate();
    out->attention_span = out->stats.attention_span();
  }

  nn::Model& model_;
  const Task& task_;
  const TaskData& data_;
  const EvaluateOptions& options_;
};

}  // namespace

trace::StatsOptions stats_options(const config::ModelConfig& config) {
  trace::Module module;
  module.attends = config.attends();
  module.reach = {.window = config.is_mega() ? 0 : config.window_size, .chunk = config.chunk(), .causal = config.causal};
  return {.layers = config.n_layers, .modules = {module}};
}

FlopsCount::FlopsCount(const config::ModelConfig& config) : config_(config), sums_(static_cast<size_t>(config.n_layers)) {}

void FlopsCount::add_to(Sums* sums, int64_t tokens, int64_t active) const {
  sums->tokens += tokens;
  if (config_.truncation > 0 && config_.truncation < tokens) sums->truncated_tokens += tokens;
  sums->work.active += static_cast<double>(active);
  sums->work.pairs += config::layer_pairs(config_, tokens, active);
  const int64_t most = config_.chooses() ? tokens : active;
  sums->dense.active += static_cast<double>(most);
  sums->dense.pairs += config::layer_pairs(config_, tokens, most);
}

void FlopsCount::add(int64_t layer, int64_t tokens, int64_t active) {
  add_to(&sums_.at(static_cast<size_t>(layer)), tokens, active);
}

void FlopsCount::add_piece(int64_t layer, int64_t tokens, int64_t active) {
  Sums& sums = sums_.at(static_cast<size_t>(layer));
  sums.stream_tokens += tokens;
  sums.stream_active += active;
}

FlopsCount::Sums FlopsCount::whole(const Sums& sums) const {
  Sums out = sums;
  if (sums.stream_tokens > 0) add_to(&out, sums.stream_tokens, sums.stream_active);
  return out;
}

std::vector<FlopsCount::Layer> FlopsCount::layers() const {
  std::vector<Layer> out;
  for (const Sums& partial : sums_) {
    const Sums sums = whole(partial);
    const auto tokens = static_cast<double>(sums.tokens), truncated = static_cast<double>(sums.truncated_tokens);
    const auto total = [&](const config::LayerWork& work) {
      // What the truncation adds to the scan of some of the tokens.
      const double more = config::scan_flops(config_, truncated, true) - config::scan_flops(config_, truncated, false);
      return config::layer_flops(config_, tokens, work, false).total() + more;
    };
    out.push_back({total(sums.work), total(sums.dense)});
  }
  return out;
}

int64_t FlopsCount::tokens() const {
  return sums_.empty() ? 0 : whole(sums_[0]).tokens;
}

double FlopsCount::outside() const {
  double flops = 0;
  for (const config::Product& product : config::outer_products(config_, static_cast<double>(tokens()))) flops += product.flops();
  return flops;
}

double FlopsCount::spent() const {
  double flops = outside();
  for (const Layer& layer : layers()) flops += layer.spent;
  return flops;
}

double FlopsCount::dense() const {
  double flops = outside();
  for (const Layer& layer : layers()) flops += layer.dense;
  return flops;
}

double FlopsCount::share() const {
  const double all = dense();
  return all > 0 ? spent() / all : 1;
}

Evaluation evaluate(nn::Model& model, const Task& task, const TaskData& data, const EvaluateOptions& options) {
  const torch::NoGradGuard no_grad;
  const bool was_training = model.is_training();
  model.eval();
  Evaluation out = Evaluator(model, task, data, options).run();
  model.train(was_training);
  return out;
}

}  // namespace seqboat::train
