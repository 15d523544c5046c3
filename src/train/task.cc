#include "seqboat/train/task.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "seqboat/base/error.h"
#include "seqboat/base/text.h"
#include "train/tasks/tasks.h"

namespace seqboat::train {

Metric accuracy_metric(int64_t correct, int64_t count) {
  Metric out{.name = "accuracy"};
  if (count <= 0) {
    out.high = 1;
    return out;
  }
  constexpr double z = 1.959963984540054;
  const double n = static_cast<double>(count), p = static_cast<double>(correct) / n;
  const double centre = p + z * z / (2 * n), spread = z * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n)), scale = 1 + z * z / n;
  out.value = p;
  // The interval holds the value itself; at 0 and 1 rounding alone could take it out.
  out.low = std::max(0.0, std::min(p, (centre - spread) / scale));
  out.high = std::min(1.0, std::max(p, (centre + spread) / scale));
  return out;
}

void score_classification(const torch::Tensor& logits, const torch::Tensor& targets, Score* score) {
  TORCH_CHECK(logits.dim() == 2 && targets.dim() == 1 && targets.size(0) == logits.size(0), "seqboat::train: logits ", logits.sizes(),
              " do not go with targets ", targets.sizes());
  const torch::Tensor values = logits.detach().to(torch::kFloat64).contiguous();
  const double* rows = values.const_data_ptr<double>();
  const int64_t* target = targets.const_data_ptr<int64_t>();
  const int64_t classes = logits.size(1);
  for (int64_t i = 0; i < logits.size(0); ++i) {
    const double* row = rows + i * classes;
    int64_t best = 0;
    for (int64_t c = 1; c < classes; ++c) {
      if (row[c] > row[best]) best = c;
    }
    double sum = 0;
    for (int64_t c = 0; c < classes; ++c) sum += std::exp(row[c] - row[best]);
    SEQBOAT_CHECK(target[i] >= 0 && target[i] < classes, ErrorKind::kData, "a label must be in [0, {}), found {}", classes, target[i]);
    score->loss_sum += std::log(sum) + row[best] - row[target[i]];
    score->correct += best == target[i] ? 1 : 0;
    score->predictions.push_back(best);
    score->items.push_back({.count = 1, .correct = best == target[i] ? 1 : 0, .loss = std::log(sum) + row[best] - row[target[i]]});
    ++score->count;
    ++score->examples;
  }
}

void score_tokens(const torch::Tensor& logits, const torch::Tensor& targets, const torch::Tensor& cu_seqlens, Score* score) {
  TORCH_CHECK(logits.dim() == 2 && targets.dim() == 1 && targets.size(0) == logits.size(0), "seqboat::train: logits ", logits.sizes(),
              " do not go with targets ", targets.sizes());
  const torch::Tensor values = logits.detach().to(torch::kFloat64).contiguous();
  const double* rows = values.const_data_ptr<double>();
  const int64_t* target = targets.const_data_ptr<int64_t>();
  const int64_t* offsets = cu_seqlens.const_data_ptr<int64_t>();
  const int64_t words = logits.size(1);
  // A row's loss is its own, so rows may be shared out; sums run over them in order.
  std::vector<double> losses(static_cast<size_t>(logits.size(0)), 0.0);
  std::vector<uint8_t> hits(static_cast<size_t>(logits.size(0)), 0);
  at::parallel_for(0, logits.size(0), 256, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (target[i] < 0) continue;
      SEQBOAT_CHECK(target[i] < words, ErrorKind::kData, "a token must be in [0, {}), found {}", words, target[i]);
      const double* row = rows + i * words;
      const double* best = std::max_element(row, row + words);
      const double most = *best;
      double sum = 0;
      for (int64_t w = 0; w < words; ++w) sum += std::exp(row[w] - most);
      losses[static_cast<size_t>(i)] = std::log(sum) + most - row[target[i]];
      hits[static_cast<size_t>(i)] = best - row == target[i] ? 1 : 0;
    }
  });
  for (int64_t b = 0; b + 1 < cu_seqlens.size(0); ++b) {
    double loss = 0;
    int64_t count = 0, correct = 0;
    for (int64_t i = offsets[b]; i < offsets[b + 1]; ++i) {
      if (target[i] < 0) continue;
      loss += losses[static_cast<size_t>(i)];
      correct += hits[static_cast<size_t>(i)];
      ++count;
    }
    score->loss_sum += loss;
    score->correct += correct;
    score->items.push_back({.count = count, .correct = correct, .loss = loss});
    score->count += count;
    ++score->examples;
    score->loss_squares += loss * loss;
    score->loss_by_count += loss * static_cast<double>(count);
    score->count_squares += static_cast<double>(count) * static_cast<double>(count);
  }
}

Metric bits_metric(const char* name, const Score& score) {
  Metric out{.name = name};
  out.high = std::numeric_limits<double>::infinity();
  if (score.count <= 0) return out;
  const double nats = score.loss(), n = static_cast<double>(score.examples), count = static_cast<double>(score.count);
  out.value = nats / std::log(2.0);
  if (score.examples < 2) return out;
  constexpr double z = 1.959963984540054;
  const double spread = std::max(0.0, score.loss_squares - 2 * nats * score.loss_by_count + nats * nats * score.count_squares);
  const double error = z * std::sqrt(n / (n - 1) * spread) / count / std::log(2.0);
  out.low = std::max(0.0, out.value - error);
  out.high = out.value + error;
  return out;
}

const char* split_word(data::Split split) {
  return split == data::Split::kTrain ? "train" : split == data::Split::kValid ? "valid" : "test";
}

std::unique_ptr<Task> make_task(const config::Recipe& recipe, const std::filesystem::path& data_dir, const data::SoundTools& sound) {
  if (recipe.data.name == "listops") return make_listops_task(recipe, data_dir);
  if (recipe.data.name == "bytes") return make_bytes_task(recipe, data_dir);
  if (recipe.data.name == "imdb") return make_imdb_task(recipe, data_dir);
  if (recipe.data.name == "pairs") return make_pair_task(recipe, data_dir);
  if (recipe.data.is_recall()) return make_recall_task(recipe, data_dir);
  if (recipe.data.is_image()) return make_image_task(recipe, data_dir);
  if (recipe.data.is_sound()) return make_speech_task(recipe, data_dir, sound);
  constexpr const char* kNames = "listops, imdb, pairs, bytes, cifar10, mnist, pathfinder, speech-commands, fsdd, asc10, needle or mqar";
  SEQBOAT_CHECK(recipe.data.name != "synthetic", ErrorKind::kConfig,
                "data.name: expected {}, found \"synthetic\": those are random numbers, for `seqboat bench` alone", kNames);
  fail(ErrorKind::kConfig, "data.name: expected {}, found {}", kNames, in_quotes(recipe.data.name));
}

}  // namespace seqboat::train
