#include "decode_bench.h"

#include <algorithm>
#include <chrono>

#include "runtime_model.h"
#include "seqboat/base/philox.h"
#include "seqboat/data/dataset.h"
#include "seqboat/trace/forced_decisions.h"

namespace seqboat::app {
namespace {

// Input of the times t and t + kCycle is the same: making up numbers must not take longer than feeding them.
constexpr int64_t kCycle = 4096;
// A prefill of the context goes in pieces of this many tokens.
constexpr int64_t kPiece = 4096;

runtime::StateOptions state_options(const DecodeBenchOptions& options) {
  return {.max_context = options.context + options.length};
}

std::vector<runtime::State> make_states(const std::shared_ptr<const runtime::Model>& model, const DecodeBenchOptions& options) {
  std::vector<runtime::State> out;
  for (int64_t i = 0; i < options.streams; ++i) out.push_back(runtime::State::create(model, state_options(options)));
  return out;
}

}  // namespace

DecodeBench::DecodeBench(std::shared_ptr<const runtime::Model> model, const DecodeBenchOptions& options)
    : model_(std::move(model)),
      options_(options),
      channels_(model_->config().input == "real" ? model_->config().channels : 0),
      states_(make_states(model_, options)),
      runner_(model_, runner_options(states_[0], options.threads, options.streams)),
      logits_(static_cast<size_t>(options.streams * model_->outputs())),
      activated_(static_cast<size_t>(model_->config().n_layers)) {
  for (int64_t left = options_.context; left > 0; left -= kPiece) {
    prepare(std::min(left, kPiece), runtime::Want::kNothing);
    runner_.feed(feeds_);
  }
}

// Input and room for the next `tokens` tokens of every stream.
void DecodeBench::prepare(int64_t tokens, runtime::Want want) {
  const int64_t layers = model_->config().n_layers, outputs = model_->outputs(), vocab = model_->config().vocab_size;
  const auto width = static_cast<size_t>(tokens);
  feeds_.assign(static_cast<size_t>(options_.streams), {});
  if (channels_ == 0) tokens_.resize(static_cast<size_t>(options_.streams) * width);
  if (channels_ > 0) values_.resize(static_cast<size_t>(options_.streams * channels_) * width);
  if (options_.activation_rate >= 0) forced_.resize(static_cast<size_t>(options_.streams * layers) * width);
  for (int64_t s = 0; s < options_.streams; ++s) {
    runtime::Feed& feed = feeds_[static_cast<size_t>(s)];
    feed.state = &states_[static_cast<size_t>(s)];
    feed.want = want;
    if (want == runtime::Want::kLast) feed.logits = std::span(logits_).subspan(static_cast<size_t>(s * outputs), static_cast<size_t>(outputs));
    const int64_t begin = feed.state->tokens();
    const auto words = [&](int64_t t, uint32_t site) {
      return philox4x32({static_cast<uint32_t>((begin + t) % kCycle), static_cast<uint32_t>(s), site, 0x64656362},
                        {static_cast<uint32_t>(options_.seed), static_cast<uint32_t>(options_.seed >> 32)});
    };
    if (channels_ == 0) {
      const std::span<int64_t> row = std::span(tokens_).subspan(static_cast<size_t>(s) * width, width);
      // Of vocabularies with specials none of these.
      const int64_t first = vocab > data::kFirstFreeToken ? data::kFirstFreeToken : 0;
      for (int64_t t = 0; t < tokens; ++t) row[static_cast<size_t>(t)] = first + words(t, 0)[0] % (vocab - first);
      feed.tokens = row;
    } else {
      const std::span<float> row = std::span(values_).subspan(static_cast<size_t>(s * channels_) * width, static_cast<size_t>(channels_) * width);
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t c = 0; c < channels_; c += 4) {
          const auto four = words(t, static_cast<uint32_t>(c));
          for (int64_t j = c; j < std::min(c + 4, channels_); ++j) {
            row[static_cast<size_t>(t * channels_ + j)] = static_cast<float>(four[static_cast<size_t>(j - c)]) * 0x1p-31f - 1;
          }
        }
      }
      feed.values = row;
    }
    if (options_.activation_rate < 0) continue;
    const std::span<uint8_t> rows = std::span(forced_).subspan(static_cast<size_t>(s * layers) * width, static_cast<size_t>(layers) * width);
    for (int64_t layer = 0; layer < layers; ++layer) {
      // Streams are far apart in the hash's tokens.
      trace::forced_decisions(options_.seed, layer, (s << 40) + begin, options_.activation_rate,
                              rows.subspan(static_cast<size_t>(layer) * width, width));
    }
    feed.forced = rows;
  }
}

void DecodeBench::timed_feed() {
  const auto begin = std::chrono::steady_clock::now();
  runner_.feed(feeds_);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  fastest_ = times_.count() == 0 ? seconds : std::min(fastest_, seconds);
  times_.add(seconds);
}

std::vector<int64_t> DecodeBench::activated() const {
  std::vector<int64_t> out(activated_.size());
  for (const runtime::State& state : states_) {
    for (size_t layer = 0; layer < out.size(); ++layer) out[layer] += state.activated(static_cast<int64_t>(layer));
  }
  return out;
}

void DecodeBench::count(int64_t tokens, const std::vector<int64_t>& before) {
  const std::vector<int64_t> now = activated();
  for (size_t layer = 0; layer < now.size(); ++layer) activated_[layer] += now[layer] - before[layer];
  counted_ += tokens * options_.streams;
}

void DecodeBench::decode_step() {
  const std::vector<int64_t> before = activated();
  prepare(1, runtime::Want::kLast);
  timed_feed();
  count(1, before);
}

void DecodeBench::prefill_step() {
  if (after_context_.empty()) {
    for (const runtime::State& state : states_) after_context_.push_back(state.clone());
  }
  for (size_t s = 0; s < states_.size(); ++s) states_[s].copy_from(after_context_[s]);
  const std::vector<int64_t> before = activated();
  prepare(options_.length, runtime::Want::kLast);
  timed_feed();
  count(options_.length, before);
}

void DecodeBench::begin_timing() {
  times_ = Latencies();
  std::fill(activated_.begin(), activated_.end(), 0);
  counted_ = 0;
}

std::vector<double> DecodeBench::activation_rate() const {
  std::vector<double> out;
  for (const int64_t count : activated_) out.push_back(counted_ > 0 ? static_cast<double>(count) / static_cast<double>(counted_) : 0);
  return out;
}

}  // namespace seqboat::app
