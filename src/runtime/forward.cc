#include "seqboat/runtime/forward.h"

#include <algorithm>
#include <cmath>

#include "runtime/engine.h"
#include "seqboat/base/error.h"
#include "seqboat/kernels/simd.h"

namespace seqboat::runtime {
namespace {

/// Rows of short sequences that go through a bidirectional model together.
constexpr int64_t kRowsTogether = 4096;

/// Sequences with their offsets, checked.
struct Checked {
  Checked(const Model& model, const Sequences& given, const char* which) : input(given) {
    const config::ModelConfig& c = model.config();
    const bool real = c.input == "real";
    SEQBOAT_CHECK(real ? input.tokens.empty() : input.values.empty(), ErrorKind::kUsage, "{}: the model reads {}", which,
                  real ? "numbers, not tokens" : "tokens, not numbers");
    channels = real ? c.channels : 0;
    SEQBOAT_CHECK(!real || static_cast<int64_t>(input.values.size()) % c.channels == 0, ErrorKind::kData,
                  "{}: the model reads {} numbers a step, found {}, no multiple of it", which, c.channels, input.values.size());
    rows = real ? static_cast<int64_t>(input.values.size()) / c.channels : static_cast<int64_t>(input.tokens.size());
    if (input.cu_seqlens.empty()) {
      offsets = {0, rows};
    } else {
      offsets.assign(input.cu_seqlens.begin(), input.cu_seqlens.end());
    }
    SEQBOAT_CHECK(offsets.front() == 0 && offsets.back() == rows, ErrorKind::kUsage, "{}: cu_seqlens must go from 0 to {}, found {} to {}", which,
                  rows, offsets.front(), offsets.back());
    for (size_t b = 0; b + 1 < offsets.size(); ++b) {
      SEQBOAT_CHECK(offsets[b] <= offsets[b + 1], ErrorKind::kUsage, "{}: cu_seqlens must not decrease, found {} then {} at {}", which, offsets[b],
                    offsets[b + 1], b);
      longest = std::max(longest, offsets[b + 1] - offsets[b]);
    }
    for (int64_t i = 0; i < rows && !real; ++i) {
      const int64_t token = input.tokens[static_cast<size_t>(i)];
      SEQBOAT_CHECK(token >= 0 && token < c.vocab_size, ErrorKind::kData, "{}: token {} must lie in [0, {}), found {}", which, i, c.vocab_size,
                    token);
    }
    for (size_t i = 0; i < input.values.size(); ++i)
      SEQBOAT_CHECK(std::isfinite(input.values[i]), ErrorKind::kData, "{}: number {} must be finite, found {}", which, i, input.values[i]);
    SEQBOAT_CHECK(input.forced.empty() || static_cast<int64_t>(input.forced.size()) == c.n_layers * rows, ErrorKind::kUsage,
                  "{}: forced decisions must be ({}, {}), found {} of them", which, c.n_layers, rows, input.forced.size());
    for (const uint8_t decision : input.forced)
      SEQBOAT_CHECK(decision <= 1, ErrorKind::kData, "{}: a forced decision must be 0 or 1, found {}", which, decision);
    for (const Layer& layer : model.impl().layers) {
      const Attention& a = layer.attention;
      SEQBOAT_CHECK(!a.unbounded() || !a.table_must_reach || longest <= a.max_positions, ErrorKind::kData,
                    "{}: a sequence of {} tokens is longer than the position table, which tells {} distances apart (model.max_positions)", which,
                    longest, a.max_positions);
    }
  }

  int64_t batch() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t length(int64_t b) const { return offsets[static_cast<size_t>(b) + 1] - offsets[static_cast<size_t>(b)]; }
  int64_t begin(int64_t b) const { return offsets[static_cast<size_t>(b)]; }

  Sequences input;
  int64_t channels = 0, rows = 0, longest = 0;
  std::vector<int64_t> offsets;
};

/// One pass over sequences: outputs of `width` numbers.
class Pass {
 public:
  Pass(const std::shared_ptr<const Model>& model, const Checked& sequences, const ForwardOptions& options, ForwardTrace* trace, Output output,
       int64_t width, float* out)
      : model_(model), in_(sequences), options_(options), trace_(trace), output_(output), width_(width), out_(out) {
    const size_t traced = static_cast<size_t>(trace != nullptr ? model->config().n_layers * in_.rows : 0);
    if (trace != nullptr) {
      trace->active.assign(traced, 0);
      trace->probability.assign(traced, 0.0f);
    }
  }

  void run() {
    const kernels::FlushDenormals flush;
    model_->config().causal ? as_streams() : whole();
  }

 private:
  Segment segment(int64_t b, int64_t from, int64_t rows) const {
    Segment s;
    const int64_t at = in_.begin(b) + from;
    s.rows = rows;
    if (in_.channels == 0) s.tokens = in_.input.tokens.data() + at;
    if (in_.channels > 0) s.values = in_.input.values.data() + at * in_.channels;
    s.stride = in_.rows;
    if (!in_.input.forced.empty()) s.forced = in_.input.forced.data() + at;
    if (trace_ != nullptr) {
      s.active = trace_->active.data() + at;
      s.probability = trace_->probability.data() + at;
    }
    s.seed = options_.seed;
    s.sequence_id = sequence_id(b);
    if (output_ == Output::kAll) {
      s.output = output_;
      s.out = out_ + at * width_;
    } else if (from + rows == in_.length(b)) {
      s.output = output_;
      s.out = out_ + b * width_;
    }
    return s;
  }
  int64_t sequence_id(int64_t b) const { return options_.sequence_ids.empty() ? b : options_.sequence_ids[static_cast<size_t>(b)]; }

  // Causal models: sequence after sequence through one state, so that memory does not grow with the batch.
  void as_streams() {
    const int64_t context = std::max<int64_t>(1, in_.longest), rows = std::min(options_.max_tokens, context);
    const EngineShape shape{rows, 1, model_->needs_max_context() ? context : 0, false};
    Team team(options_.threads);
    const Buffer memory(Engine(model_->impl(), &team, options_.threads, shape, nullptr).bytes(), "a forward");
    Engine engine(model_->impl(), &team, options_.threads, shape, memory.data());
    State state = State::create(model_, {.max_context = context});
    for (int64_t b = 0; b < in_.batch(); ++b) {
      state.reset();
      state.impl().header->seed = options_.seed;
      state.impl().header->sequence_id = sequence_id(b);
      for (int64_t from = 0; from < in_.length(b); from += rows) {
        Segment s = segment(b, from, std::min(rows, in_.length(b) - from));
        s.state = &state.impl();
        engine.run(&s, 1);
      }
    }
  }

  void whole() {
    // Whole sequences, as many as fit together; one that is longer goes alone.
    const int64_t rows = std::max(in_.longest, std::min(kRowsTogether, in_.rows)), most = in_.batch();
    const EngineShape shape{rows, std::max<int64_t>(1, most), 0, true};
    Team team(options_.threads);
    const Buffer memory(Engine(model_->impl(), &team, options_.threads, shape, nullptr).bytes(), "a forward");
    Engine engine(model_->impl(), &team, options_.threads, shape, memory.data());
    engine.make_tables(in_.longest);
    std::vector<Segment> segments;
    int64_t taken = 0;
    for (int64_t b = 0; b < in_.batch(); ++b) {
      if (taken + in_.length(b) > rows) {
        engine.run(segments.data(), static_cast<int64_t>(segments.size()));
        segments.clear();
        taken = 0;
      }
      if (in_.length(b) == 0) continue;
      segments.push_back(segment(b, 0, in_.length(b)));
      taken += in_.length(b);
    }
    if (!segments.empty()) engine.run(segments.data(), static_cast<int64_t>(segments.size()));
  }

  std::shared_ptr<const Model> model_;
  const Checked& in_;
  const ForwardOptions& options_;
  ForwardTrace* trace_;
  Output output_;
  int64_t width_;
  float* out_;
};

}  // namespace

std::vector<float> forward(const std::shared_ptr<const Model>& model, const Sequences& sequences, const ForwardOptions& options,
                           const Sequences* second) {
  SEQBOAT_CHECK(model != nullptr, ErrorKind::kUsage, "a forward needs a model");
  SEQBOAT_CHECK(options.threads >= 1 && options.max_tokens >= 1, ErrorKind::kUsage, "a forward's threads and max_tokens must be at least 1");
  const config::ModelConfig& c = model->config();
  const bool pair = c.task == "retrieval";
  SEQBOAT_CHECK(pair == (second != nullptr), ErrorKind::kUsage, "{}",
                pair ? "this model compares two documents, found one" : "this model reads one sequence, found two");
  const Checked first(*model, sequences, pair ? "first documents" : "sequences");
  SEQBOAT_CHECK(options.sequence_ids.empty() || static_cast<int64_t>(options.sequence_ids.size()) == first.batch(), ErrorKind::kUsage,
                "sequence_ids must be ({}), found {}", first.batch(), options.sequence_ids.size());
  const auto check_not_empty = [&](const Checked& checked, const char* which) {
    for (int64_t b = 0; b < checked.batch(); ++b)
      SEQBOAT_CHECK(checked.length(b) > 0, ErrorKind::kData, "{}: sequence {} is empty and has no logits", which, b);
  };
  const int64_t outputs = model->outputs(), d = c.d_model;
  if (!pair) {
    if (options.want == Want::kLast) check_not_empty(first, "sequences");
    const Output output = options.want == Want::kAll ? Output::kAll : options.want == Want::kLast ? Output::kLast : Output::kNothing;
    const int64_t rows = options.want == Want::kAll ? first.rows : options.want == Want::kLast ? first.batch() : 0;
    std::vector<float> logits(static_cast<size_t>(rows * outputs));
    // A bidirectional language model there is none: kLast is a classifier's answer, or a causal model's last token.
    Pass(model, first, options, options.trace, output, outputs, logits.data()).run();
    return logits;
  }
  SEQBOAT_CHECK(options.want != Want::kAll, ErrorKind::kUsage, "a pair of documents has one answer, not one a token");
  const Checked other(*model, *second, "second documents");
  SEQBOAT_CHECK(first.batch() == other.batch(), ErrorKind::kUsage, "as many second documents as first ones are needed: {}, found {}", first.batch(),
                other.batch());
  check_not_empty(first, "first documents");
  check_not_empty(other, "second documents");
  const int64_t batch = first.batch(), width = c.nli ? 4 * d : 2 * d;
  std::vector<float> a(static_cast<size_t>(batch * d)), b(static_cast<size_t>(batch * d)), features(static_cast<size_t>(batch * width));
  Pass(model, first, options, options.trace, Output::kFeature, d, a.data()).run();
  Pass(model, other, options, options.trace1, Output::kFeature, d, b.data()).run();
  for (int64_t i = 0; i < batch; ++i) {
    for (int64_t j = 0; j < d; ++j) {
      const float one = a[static_cast<size_t>(i * d + j)], two = b[static_cast<size_t>(i * d + j)];
      float* row = features.data() + i * width + j;
      row[0] = two;
      row[d] = one;
      if (!c.nli) continue;
      row[2 * d] = one * two;
      row[3 * d] = one - two;
    }
  }
  std::vector<float> logits(static_cast<size_t>(batch * outputs));
  if (options.want == Want::kLast) Engine::classify(model->impl(), batch, features.data(), logits.data());
  return logits;
}

}  // namespace seqboat::runtime
