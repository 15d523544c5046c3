#include "seqboat/runtime/runner.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/engine.h"
#include "seqboat/base/error.h"
#include "seqboat/kernels/simd.h"

namespace seqboat::runtime {
namespace {

constexpr int64_t kMostThreads = 1024, kMostRows = int64_t{1} << 24, kMostStreams = int64_t{1} << 20;

void check_options(const Model& model, const RunnerOptions& options) {
  const auto within = [](const char* name, int64_t value, int64_t most) {
    SEQBOAT_CHECK(value >= 1 && value <= most, ErrorKind::kUsage, "a runner's {} must be 1 to {}, found {}", name, most, value);
  };
  within("threads", options.threads, kMostThreads);
  within("max_tokens", options.max_tokens, kMostRows);
  within("max_streams", options.max_streams, kMostStreams);
  SEQBOAT_CHECK(model.impl().config.causal, ErrorKind::kModel, "this model does not run as a stream: {}", model.why_no_stream());
  if (model.needs_max_context()) within("max_context", options.max_context, int64_t{1} << 40);
}

EngineShape shape_of(const Model& model, const RunnerOptions& options) {
  return {options.max_tokens, options.max_streams, model.needs_max_context() ? options.max_context : 0, false};
}

int64_t size_of(const Feed& feed, int64_t channels) {
  return channels > 0 ? static_cast<int64_t>(feed.values.size()) / channels : static_cast<int64_t>(feed.tokens.size());
}

}  // namespace

struct Runner::Impl {
  Impl(std::shared_ptr<const Model> the_model, const RunnerOptions& the_options)
      : model(std::move(the_model)), options(the_options), team(options.threads), segments(static_cast<size_t>(options.max_streams)) {
    const EngineShape shape = shape_of(*model, options);
    const int64_t needed = Engine(model->impl(), &team, options.threads, shape, nullptr).bytes();
    std::byte* memory = options.memory.data();
    if (options.memory.empty()) {
      owned = Buffer(needed, "a runner's workspace");
      memory = owned.data();
    } else {
      SEQBOAT_CHECK(static_cast<int64_t>(options.memory.size()) >= needed, ErrorKind::kUsage,
                    "the runner's memory must be at least {} bytes, found {}", needed, options.memory.size());
      SEQBOAT_CHECK(reinterpret_cast<uintptr_t>(memory) % kAlignment == 0, ErrorKind::kUsage,
                    "the runner's memory must begin at a multiple of {} bytes", kAlignment);
    }
    engine = std::make_unique<Engine>(model->impl(), &team, options.threads, shape, memory);
  }

  void check(std::span<const Feed> feeds);
  void check_one(const Feed& feed, size_t number);
  void run(std::span<const Feed> feeds) noexcept;

  std::shared_ptr<const Model> model;
  RunnerOptions options;
  Team team;
  std::vector<Segment> segments;
  Buffer owned;
  std::unique_ptr<Engine> engine;
};

void Runner::Impl::check_one(const Feed& feed, size_t number) {
  const config::ModelConfig& c = model->config();
  SEQBOAT_CHECK(feed.state != nullptr, ErrorKind::kUsage, "stream {} has no state", number);
  const State::Impl& state = feed.state->impl();
  SEQBOAT_CHECK(state.model.get() == model.get() || (state.model->fingerprint() == model->fingerprint() && state.model->ring() == model->ring()),
                ErrorKind::kModel, "stream {}: its state is one of another model", number);
  const bool real = c.input == "real";
  SEQBOAT_CHECK(real ? feed.tokens.empty() : feed.values.empty(), ErrorKind::kUsage, "stream {}: the model reads {}", number,
                real ? "numbers, not tokens" : "tokens, not numbers");
  SEQBOAT_CHECK(!real || static_cast<int64_t>(feed.values.size()) % c.channels == 0, ErrorKind::kData,
                "stream {}: the model reads {} numbers a step, found {}, no multiple of it", number, c.channels, feed.values.size());
  const int64_t n = size_of(feed, real ? c.channels : 0), before = state.header->time;
  SEQBOAT_CHECK(state.max_context == 0 || before + n <= state.max_context, ErrorKind::kData,
                "stream {}: its state has room for max_context = {} tokens; {} were fed and {} more are given", number, state.max_context, before, n);
  SEQBOAT_CHECK(state.max_context <= options.max_context || !model->needs_max_context(), ErrorKind::kUsage,
                "stream {}: its state has a max_context of {}, the runner one of {}", number, state.max_context, options.max_context);
  for (int64_t i = 0; i < n && !real; ++i) {
    const int64_t token = feed.tokens[static_cast<size_t>(i)];
    SEQBOAT_CHECK(token >= 0 && token < c.vocab_size, ErrorKind::kData, "stream {}: token {} must lie in [0, {}), found {}", number, i, c.vocab_size,
                  token);
  }
  for (size_t i = 0; i < feed.values.size(); ++i) {
    SEQBOAT_CHECK(std::isfinite(feed.values[i]), ErrorKind::kData, "stream {}: number {} of step {} must be finite, found {}", number,
                  i % static_cast<size_t>(c.channels), i / static_cast<size_t>(c.channels), feed.values[i]);
  }
  const int64_t outputs = model->outputs(), wanted = feed.want == Want::kAll ? n * outputs : feed.want == Want::kLast ? outputs : 0;
  SEQBOAT_CHECK(feed.want == Want::kNothing || static_cast<int64_t>(feed.logits.size()) == wanted, ErrorKind::kUsage,
                "stream {}: room for {} logits is needed, found {}", number, wanted, feed.logits.size());
  SEQBOAT_CHECK(feed.want != Want::kLast || n > 0 || before > 0, ErrorKind::kUsage, "stream {}: no token has been fed whose logits could be given",
                number);
  const auto per_layer = [&](const char* what, size_t size) {
    SEQBOAT_CHECK(size == 0 || static_cast<int64_t>(size) == c.n_layers * n, ErrorKind::kUsage, "stream {}: {} must be ({}, {}), found {} of them",
                  number, what, c.n_layers, n, size);
  };
  per_layer("forced decisions", feed.forced.size());
  per_layer("traced decisions", feed.active.size());
  per_layer("traced probabilities", feed.probability.size());
  for (size_t i = 0; i < feed.forced.size(); ++i) {
    SEQBOAT_CHECK(feed.forced[i] <= 1, ErrorKind::kData, "stream {}: forced decision {} of layer {} must be 0 or 1, found {}", number,
                  i % static_cast<size_t>(n), i / static_cast<size_t>(n), feed.forced[i]);
  }
}

void Runner::Impl::check(std::span<const Feed> feeds) {
  SEQBOAT_CHECK(static_cast<int64_t>(feeds.size()) <= options.max_streams, ErrorKind::kUsage, "the runner takes {} streams at once, found {}",
                options.max_streams, feeds.size());
  for (size_t i = 0; i < feeds.size(); ++i) check_one(feeds[i], i);
  // A state twice: marks are set first and compared then, so that many streams cost no more than twice as many as half of them.
  for (size_t i = 0; i < feeds.size(); ++i) feeds[i].state->impl().place = static_cast<int64_t>(i);
  for (size_t i = 0; i < feeds.size(); ++i) {
    SEQBOAT_CHECK(feeds[i].state->impl().place == static_cast<int64_t>(i), ErrorKind::kUsage, "streams {} and {} have the same state", i,
                  feeds[i].state->impl().place);
  }
}

void Runner::Impl::run(std::span<const Feed> feeds) noexcept {
  const kernels::FlushDenormals flush;
  const int64_t channels = model->config().input == "real" ? model->config().channels : 0, outputs = model->outputs();
  // Rows of as many streams as fit go together; what is left goes on in the next run.
  size_t stream = 0;
  int64_t done = 0;  // tokens of that stream
  while (stream < feeds.size()) {
    int64_t rows = 0, count = 0;
    while (stream < feeds.size() && (rows < options.max_tokens || size_of(feeds[stream], channels) == done)) {
      const Feed& feed = feeds[stream];
      const int64_t n = size_of(feed, channels), piece = std::min(n - done, options.max_tokens - rows);
      Segment& s = segments[static_cast<size_t>(count++)];
      s = Segment{};
      s.state = &feed.state->impl();
      s.rows = piece;
      if (channels == 0) s.tokens = feed.tokens.data() + done;
      if (channels > 0) s.values = feed.values.data() + done * channels;
      s.stride = n;
      if (!feed.forced.empty()) s.forced = feed.forced.data() + done;
      if (!feed.active.empty()) s.active = feed.active.data() + done;
      if (!feed.probability.empty()) s.probability = feed.probability.data() + done;
      if (feed.want == Want::kAll) {
        s.output = Output::kAll;
        s.out = feed.logits.data() + done * outputs;
      } else if (feed.want == Want::kLast && done + piece == n) {
        s.output = Output::kLast;
        s.out = feed.logits.data();
      }
      rows += piece;
      done += piece;
      if (done < n) break;
      ++stream;
      done = 0;
    }
    engine->run(segments.data(), count);
  }
}

Runner::Runner(std::shared_ptr<const Model> model, const RunnerOptions& options) {
  SEQBOAT_CHECK(model != nullptr, ErrorKind::kUsage, "a runner needs a model");
  check_options(*model, options);
  try {
    impl_ = std::make_unique<Impl>(std::move(model), options);
  } catch (const std::system_error& error) {
    fail(ErrorKind::kResource, "cannot start {} threads: {}", options.threads, error.what());
  }
}

Runner::~Runner() = default;
Runner::Runner(Runner&&) noexcept = default;
Runner& Runner::operator=(Runner&&) noexcept = default;

void Runner::feed(std::span<const Feed> streams) {
  impl_->check(streams);
  impl_->run(streams);
}

const std::shared_ptr<const Model>& Runner::model() const {
  return impl_->model;
}
int64_t Runner::threads() const {
  return impl_->options.threads;
}
int64_t Runner::workspace_bytes() const {
  return impl_->engine->bytes();
}
int64_t Runner::workspace_bytes(const Model& model, const RunnerOptions& options) {
  check_options(model, options);
  return Engine(model.impl(), nullptr, options.threads, shape_of(model, options), nullptr).bytes();
}

}  // namespace seqboat::runtime
