#include "seqboat/train/evaluate.h"

#include <algorithm>

#include "seqboat/data/batching.h"
#include "seqboat/nn/model_state.h"

namespace seqboat::train {

trace::ActivationStats make_stats(const config::ModelConfig& config) {
  return {config.n_layers, config.window_size, config.causal};
}

void add_traces(const std::vector<nn::LayerTrace>& traces, const TaskBatch& batch, bool spans, trace::ActivationStats* stats) {
  for (size_t i = 0; i < traces.size(); ++i) {
    // A two-tower model records its second pass after the first.
    const int64_t pass = static_cast<int64_t>(i) / stats->layers(), layer = static_cast<int64_t>(i) % stats->layers();
    const torch::Tensor& offsets = pass == 0 ? batch.src.cu_seqlens : batch.src1->cu_seqlens;
    const torch::Tensor& active = traces[i].active;
    stats->add(layer, active.defined() ? active.const_data_ptr<uint8_t>() : nullptr,
               {offsets.const_data_ptr<int64_t>(), static_cast<size_t>(offsets.size(0))}, spans);
  }
}

Evaluation evaluate(nn::Model& model, const Task& task, const TaskData& data, const EvaluateOptions& options) {
  torch::NoGradGuard no_grad;
  const bool was_training = model.is_training();
  model.eval();

  const int64_t total = options.examples > 0 ? std::min(options.examples, data.size()) : data.size();
  const std::span<const int64_t> offsets = data.offsets().first(static_cast<size_t>(total) + 1);
  constexpr int64_t kDefaultTokens = 8192;
  int64_t max_tokens = options.max_tokens > 0 ? options.max_tokens : kDefaultTokens;
  for (int64_t i = 0; i < total; ++i) max_tokens = std::max(max_tokens, offsets[i + 1] - offsets[i]);
  const bool is_stream = data.is_stream();
  data::BatchOptions batches{.batch_size = options.batch_size, .max_tokens = max_tokens, .shuffle = false};
  if (is_stream) batches = {.batch_size = 1, .max_tokens = 0, .shuffle = false};
  data::BatchSampler sampler(offsets, batches);
  nn::ModelState state;

  Evaluation out;
  trace::ActivationStats stats = make_stats(model.config());
  int64_t done = 0;
  bool going = true;
  while (going && !sampler.epoch_done()) {
    const std::vector<int64_t> examples = sampler.next();
    const TaskBatch batch = data.batch(examples);
    std::vector<nn::LayerTrace> traces;
    nn::ForwardOptions forward;
    forward.random.sequence_ids = batch.sequence_ids;
    forward.trace = &traces;
    if (is_stream) forward.state = &state;
    const torch::Tensor logits = model.forward(batch.src, batch.src1 ? &*batch.src1 : nullptr, forward);
    task.score(logits, batch, &out.score);
    if (is_stream) {
      for (size_t layer = 0; layer < traces.size(); ++layer) {
        const torch::Tensor& active = traces[layer].active;
        stats.add_piece(static_cast<int64_t>(layer), active.defined() ? active.const_data_ptr<uint8_t>() : nullptr, batch.tokens, options.spans);
      }
    } else {
      add_traces(traces, batch, options.spans, &stats);
    }
    done += static_cast<int64_t>(examples.size());
    if (options.progress) going = options.progress(done, total);
  }
  out.complete = done == total;
  out.metric = task.metric(out.score);
  out.activation_rate = stats.activation_rate();
  out.attention_span = stats.attention_span();
  model.train(was_training);
  return out;
}

}  // namespace seqboat::train
