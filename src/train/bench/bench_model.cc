#include "train/bench/bench_model.h"

#include <cmath>

#include "seqboat/base/error.h"
#include "seqboat/base/philox.h"
#include "seqboat/data/batching.h"
#include "seqboat/ops/ops.h"
#include "seqboat/ops/phases.h"
#include "seqboat/trace/forced_decisions.h"
#include "seqboat/train/router_penalty.h"

namespace seqboat::train {
namespace {

using torch::Tensor;

Tensor random_integers(int64_t count, int64_t bound, PhiloxStream& random) {
  Tensor out = torch::empty({count}, torch::kInt64);
  int64_t* values = out.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<int64_t>(random.next_below(static_cast<uint64_t>(bound)));
  return out;
}

nn::PackedSequences random_sequences(const config::ModelConfig& model, const Tensor& cu_seqlens, int64_t tokens, PhiloxStream& random) {
  nn::PackedSequences out;
  out.cu_seqlens = cu_seqlens;
  if (model.input == "real") {
    out.values = torch::empty({tokens, model.channels});
    float* values = out.values.mutable_data_ptr<float>();
    for (int64_t i = 0; i < out.values.numel(); ++i) values[i] = static_cast<float>(random.next_normal());
  } else {
    out.tokens = random_integers(tokens, model.vocab_size, random);
  }
  return out;
}

int64_t count_active(const Tensor& active, int64_t begin, int64_t end) {
  const uint8_t* flags = active.const_data_ptr<uint8_t>();
  int64_t count = 0;
  for (int64_t i = begin; i < end; ++i) count += flags[i] != 0 ? 1 : 0;
  return count;
}

}  // namespace

BenchBatch synthetic_batch(const config::ModelConfig& model, const std::vector<int64_t>& lengths, uint64_t seed) {
  constexpr uint64_t kSyntheticStream = 0x62656e6368;  // of the generator: apart from those that training uses
  PhiloxStream random(seed, kSyntheticStream);
  BenchBatch out;
  out.lengths = lengths;
  std::vector<int64_t> offsets{0};
  for (const int64_t length : lengths) offsets.push_back(offsets.back() + length);
  const Tensor cu_seqlens = torch::tensor(offsets, torch::kInt64);
  out.src = random_sequences(model, cu_seqlens, offsets.back(), random);
  out.tokens = offsets.back();
  if (model.task == "retrieval") {
    out.src1 = random_sequences(model, cu_seqlens, offsets.back(), random);
    out.tokens *= 2;
  }
  const bool language_model = model.task == "language-model";
  out.targets = language_model ? random_integers(out.tokens, model.vocab_size, random)
                               : random_integers(static_cast<int64_t>(lengths.size()), model.classes, random);
  return out;
}

BenchBatch batch_of(const data::SequenceDataset& dataset) {
  std::vector<int64_t> all(static_cast<size_t>(dataset.size()));
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int64_t>(i);
  data::Batch gathered;
  data::gather(dataset, all, &gathered);
  BenchBatch out;
  out.src.tokens = torch::tensor(gathered.tokens, torch::kInt64);
  out.src.cu_seqlens = torch::tensor(gathered.cu_seqlens, torch::kInt64);
  out.targets = torch::tensor(gathered.labels, torch::kInt64);
  for (int64_t i = 0; i < dataset.size(); ++i) out.lengths.push_back(dataset.length(i));
  out.tokens = static_cast<int64_t>(gathered.tokens.size());
  return out;
}

BenchBatch batch_of(const TaskBatch& batch) {
  BenchBatch out;
  out.src = batch.src;
  out.src1 = batch.src1;
  out.targets = batch.targets.clamp_min(0);
  const int64_t* offsets = batch.src.cu_seqlens.const_data_ptr<int64_t>();
  for (int64_t i = 0; i + 1 < batch.src.cu_seqlens.size(0); ++i) out.lengths.push_back(offsets[i + 1] - offsets[i]);
  out.tokens = batch.tokens;
  return out;
}

void force_decisions(const config::ModelConfig& model, uint64_t seed, double rate, BenchBatch* batch) {
  const int64_t tokens = batch->src1 ? batch->tokens / 2 : batch->tokens;
  batch->forced_active.clear();
  for (int64_t layer = 0; layer < model.n_layers; ++layer) {
    const std::vector<uint8_t> decisions = trace::forced_decisions(seed, layer, tokens, rate);
    Tensor flags = torch::empty({tokens}, torch::kUInt8);
    std::copy(decisions.begin(), decisions.end(), flags.mutable_data_ptr<uint8_t>());
    batch->forced_active.push_back(std::move(flags));
  }
}

BenchModel::BenchModel(const config::Recipe& recipe, bool train) : BenchModel(recipe, train, nullptr) {}

BenchModel::BenchModel(const config::Recipe& recipe, bool train, std::shared_ptr<nn::Model> trained)
    : recipe_(recipe), train_(train), trained_(trained != nullptr), model_(std::move(trained)) {
  if (!trained_) model_ = nn::make_model(recipe_.model, static_cast<uint64_t>(recipe_.train.seed));
  model_->train(train_);
  for (const NamedParameter& p : parameters_of(*model_)) parameter_count_ += p.tensor.numel();
}

void BenchModel::prepare() {
  if (!train_) return;
  optimizer_ = make_optimizer(recipe_.optim, parameters_of(*model_));
  schedule_ = std::make_unique<Schedule>(ScheduleOptions::from_recipe(recipe_));
}

void BenchModel::step(const BenchBatch& batch) {
  if (train_) {
    train_step(batch);
  } else {
    const torch::NoGradGuard no_grad;
    forward(batch, 0);
  }
}

Tensor BenchModel::forward(const BenchBatch& batch, uint64_t update) {
  traces_.clear();
  nn::ForwardOptions options;
  options.random = {.seed = static_cast<uint64_t>(recipe_.train.seed), .update = update, .micro_batch = 0, .sequence_ids = {}};
  options.forced_active = batch.forced_active;
  options.trace = &traces_;
  options.router_gradients = train_ && recipe_.router.target_weight > 0;
  options.memory_gradients = train_ && recipe_.router.memory_gradient;
  options.recompute = train_ && recipe_.train.recompute;
  return model_->forward(batch.src, batch.src1 ? &*batch.src1 : nullptr, options);
}

void BenchModel::train_step(const BenchBatch& batch) {
  const int64_t update = optimizer_->steps();
  const Tensor logits = forward(batch, static_cast<uint64_t>(update));
  const int64_t samples = batch.targets.size(0);
  Tensor loss;
  {
    const ops::PhaseScope phase(ops::Phase::kHead);
    loss = ops::cross_entropy_sum(logits, batch.targets).sum();
    const auto value = loss.item<double>();
    SEQBOAT_CHECK(std::isfinite(value), ErrorKind::kDiverged, "diverged at step {}: the loss is {}", update + 1, value);
    if (recipe_.router.target_weight > 0) {
      const RouterPenalty penalty =
          router_penalty(traces_, recipe_.model.n_layers, recipe_.router.target_rate, recipe_.router.target_weight, samples);
      if (penalty.pull.defined()) loss = loss + penalty.pull;
    }
  }
  loss.backward();
  const GradientScale gradients = gradient_scale(optimizer_->parameters(), 1.0 / static_cast<double>(samples), recipe_.optim.clip_norm);
  optimizer_->step(trained_ ? 0 : schedule_->value(update), gradients.factor);
  optimizer_->zero_grad();
}

std::vector<LayerWork> BenchModel::last_work(const BenchBatch& batch) const {
  std::vector<LayerWork> work(static_cast<size_t>(recipe_.model.n_layers));
  const size_t passes = batch.src1 ? 2 : 1;
  for (size_t i = 0; i < work.size() * passes; ++i) {
    LayerWork& layer = work[i % work.size()];
    const Tensor& active = traces_.at(i).active;
    int64_t begin = 0;
    for (const int64_t length : batch.lengths) {
      const int64_t count = active.defined() ? count_active(active, begin, begin + length) : length;
      layer.active += static_cast<double>(count);
      layer.pairs += config::layer_pairs(recipe_.model, length, count);
      begin += length;
    }
  }
  return work;
}

}  // namespace seqboat::train
