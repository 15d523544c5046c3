#include "seqboat/runtime/runner.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <limits>

#include "seqboat/base/error.h"
#include "seqboat/runtime/forward.h"
#include "support/runtime_case.h"

// Every allocation of this program is counted, whoever asks: operator new comes here, too. A sanitizer has an allocator of its own.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define SEQBOAT_COUNTS_ALLOCATIONS 1
namespace {
std::atomic<int64_t> allocations{0};
}
extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* memory, size_t size);
void* __libc_memalign(size_t alignment, size_t size);
void* malloc(size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_calloc(count, size);
}
void* realloc(void* memory, size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_realloc(memory, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_memalign(alignment, size);
}
}
#endif

namespace seqboat {
namespace {

using runtime::Feed;
using runtime::Runner;
using runtime::State;
using runtime::Want;

template <class F>
std::string message_of(const F& f, ErrorKind kind) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  return "";
}

#define EXPECT_SAYS(expression, kind, text) \
  EXPECT_NE(message_of([&] { expression; }, kind).find(text), std::string::npos) << message_of([&] { expression; }, kind)

#ifdef SEQBOAT_COUNTS_ALLOCATIONS
TEST(Runner, AllocatesNothingWhileFeeding) {
  using C = config::ModelConfig;
  void (*const changes[])(C&) = {[](C&) {}, [](C& c) { c.router = "top-share", c.truncation = 9, c.encoder = "s4d"; },
                                 [](C& c) { c.layer = "mega-chunk", c.chunk_size = 20; },
                                 [](C& c) { c.layer = "attention", c.n_heads = 2, c.window_size = 0; },
                                 [](C& c) { c.task = "classification", c.classes = 4, c.sinusoidal = true, c.ffn_dim = 30; }};
  for (const auto change : changes) {
    C config = test::causal_model();
    change(config);
    const auto model = runtime::random_model(config, 3, runtime::Precision::kInt8, {.ring = runtime::Precision::kBf16});
    for (const int64_t threads : {1, 2}) {
      Runner runner(model, {.threads = threads, .max_tokens = 64, .max_context = 500});
      State a = State::create(model, {.max_context = 500}), b = State::create(model, {.max_context = 500});
      const test::StreamInput input(*model, 150, 1);
      std::vector<float> logits(static_cast<size_t>(150 * model->outputs())), one(static_cast<size_t>(model->outputs()));
      const Feed feeds[] = {{.state = &a, .tokens = input.tokens, .want = Want::kAll, .logits = logits},
                            {.state = &b, .tokens = input.tokens_of(0, 3), .logits = one}};
      const int64_t before = allocations.load();
      for (int i = 0; i < 3; ++i) runner.feed(feeds);
      for (int64_t i = 0; i < 10; ++i) runner.feed({.state = &b, .tokens = input.tokens_of(i, 1), .logits = one});
      EXPECT_EQ(allocations.load() - before, 0) << config.layer << ", " << threads << " threads";
    }
  }
  const int64_t before = allocations.load();
  const std::vector<int> something(100);
  EXPECT_GT(allocations.load(), before) << "the count counts";
}
#endif

TEST(Runner, LivesInTheCallersMemory) {
  const auto model = runtime::random_model(test::causal_model(), 3);
  const int64_t bytes = Runner::workspace_bytes(*model, {.max_tokens = 16});
  std::vector<std::byte> memory(static_cast<size_t>(bytes) + 64);
  auto* begin = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
  Runner runner(model, {.max_tokens = 16, .memory = {begin, static_cast<size_t>(bytes)}});
  EXPECT_EQ(runner.workspace_bytes(), bytes);
  State state = State::create(model);
  std::vector<float> logits(30);
  const std::vector<int64_t> tokens{1, 2, 3};
  runner.feed({.state = &state, .tokens = tokens, .logits = logits});
  EXPECT_EQ(logits, runtime::forward(model, {.tokens = tokens}));
  EXPECT_SAYS(Runner(model, {.max_tokens = 16, .memory = {begin, static_cast<size_t>(bytes) - 1}}), ErrorKind::kUsage, "at least");
  EXPECT_SAYS(Runner(model, {.max_tokens = 16, .memory = {begin + 4, static_cast<size_t>(bytes)}}), ErrorKind::kUsage, "multiple of 64");
  EXPECT_GT(Runner::workspace_bytes(*model, {.max_tokens = 64}), bytes);
}

// A prompt beside streams of a token, beside some of none: however the threads share that, each is as if it were alone.
TEST(Runner, FeedsStreamsOfUnequalLength) {
  config::ModelConfig config = test::causal_model();
  config.window_size = 70;
  const auto model = runtime::random_model(config, 3);
  constexpr int64_t kStreams = 13, kPrompt = 150;
  const test::StreamInput input(*model, kPrompt, 1);
  for (const int64_t threads : {1, 2, 3}) {
    Runner runner(model, {.threads = threads, .max_tokens = 160});
    std::vector<State> states;
    for (int64_t i = 0; i < kStreams; ++i) states.push_back(State::create(model));
    for (const int64_t prompt : {int64_t{5}, int64_t{12}, int64_t{-1}}) {
      std::vector<std::vector<float>> got(kStreams, std::vector<float>(30));
      std::vector<Feed> feeds;
      for (int64_t i = 0; i < kStreams; ++i) {
        states[static_cast<size_t>(i)].reset();
        const int64_t n = i == prompt ? kPrompt : prompt < 0 ? 1 : i % 3;
        Feed feed{.state = &states[static_cast<size_t>(i)], .tokens = input.tokens_of(0, n), .want = n > 0 ? Want::kLast : Want::kNothing};
        if (n > 0) feed.logits = got[static_cast<size_t>(i)];
        feeds.push_back(feed);
      }
      runner.feed(feeds);
      for (size_t i = 0; i < feeds.size(); ++i) {
        if (feeds[i].tokens.empty()) continue;
        EXPECT_EQ(got[i], runtime::forward(model, {.tokens = feeds[i].tokens})) << "stream " << i << ", " << threads << " threads, prompt " << prompt;
      }
    }
  }
}

// What a state stands at can be asked again without feeding: a prompt is not needed to go on from a file.
TEST(Runner, GivesTheLastLogitsOfAStateAgain) {
  for (const bool classifier : {false, true}) {
    config::ModelConfig config = test::causal_model();
    if (classifier) config.task = "classification", config.classes = 4;
    const auto model = runtime::random_model(config, 3);
    Runner runner(model);
    State state = State::create(model);
    const std::vector<int64_t> tokens{1, 2, 3, 4};
    std::vector<float> fed(static_cast<size_t>(model->outputs())), again(fed.size());
    EXPECT_SAYS(runner.feed({.state = &state, .logits = again}), ErrorKind::kUsage, "no token has been fed");
    runner.feed({.state = &state, .tokens = tokens, .logits = fed});
    runner.feed({.state = &state, .logits = again});
    EXPECT_EQ(fed, again);
    EXPECT_EQ(state.tokens(), 4);
  }
}

TEST(Runner, TracesDecisionsOfEveryLayer) {
  config::ModelConfig config = test::causal_model();
  config.layer = "seqboat-stride", config.rates = {0.5, 1.0};
  const auto model = runtime::random_model(config, 3);
  State state = State::create(model);
  Runner runner(model, {.max_tokens = 3});
  const std::vector<int64_t> tokens{1, 2, 3, 4, 5, 6, 7};
  std::vector<uint8_t> active(14);
  std::vector<float> probability(14);
  runner.feed({.state = &state, .tokens = tokens, .want = Want::kNothing, .active = active, .probability = probability});
  EXPECT_EQ(active, (std::vector<uint8_t>{0, 1, 0, 1, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1}));
  EXPECT_EQ(probability, std::vector<float>(active.begin(), active.end()));
}

class Misuse : public ::testing::Test {
 protected:
  Misuse() { runner_.feed({.state = &state_, .tokens = tokens_, .want = Want::kNothing}); }
  /// Whatever was refused, the state still stands where it stood.
  ~Misuse() override {
    std::vector<float> want = runtime::forward(model_, {.tokens = tokens_}), got(want.size());
    EXPECT_EQ(state_.tokens(), 3);
    runner_.feed({.state = &state_, .logits = got});
    EXPECT_EQ(got, want);
  }

  std::shared_ptr<const runtime::Model> model_ = runtime::random_model(test::causal_model(), 3);
  Runner runner_{model_, {.max_streams = 2}};
  State state_ = State::create(model_), other_ = State::create(model_);
  std::vector<int64_t> tokens_{1, 2, 3};
  std::vector<float> logits_ = std::vector<float>(30, 7.0f);
};

TEST_F(Misuse, ATokenOutOfRange) {
  for (const int64_t bad : {int64_t{-1}, int64_t{30}, std::numeric_limits<int64_t>::min()}) {
    const std::vector<int64_t> tokens{4, bad};
    const Feed feeds[] = {{.state = &state_, .tokens = tokens_, .logits = logits_}, {.state = &other_, .tokens = tokens, .want = Want::kNothing}};
    EXPECT_SAYS(runner_.feed(feeds), ErrorKind::kData, "stream 1: token 1 must lie in [0, 30), found " + std::to_string(bad));
  }
  EXPECT_EQ(logits_, std::vector<float>(30, 7.0f));
  EXPECT_EQ(other_.tokens(), 0);
}

TEST_F(Misuse, SpansOfTheWrongSize) {
  EXPECT_SAYS(runner_.feed({.state = &state_, .tokens = tokens_, .want = Want::kAll, .logits = logits_}), ErrorKind::kUsage,
              "room for 90 logits is needed, found 30");
  EXPECT_SAYS(runner_.feed({.state = &state_, .tokens = tokens_}), ErrorKind::kUsage, "room for 30 logits is needed, found 0");
  std::vector<uint8_t> forced(5);
  EXPECT_SAYS(runner_.feed({.state = &state_, .tokens = tokens_, .want = Want::kNothing, .forced = forced}), ErrorKind::kUsage, "must be (2, 3)");
  forced.resize(6, 2);
  EXPECT_SAYS(runner_.feed({.state = &state_, .tokens = tokens_, .want = Want::kNothing, .forced = forced}), ErrorKind::kData, "must be 0 or 1");
  EXPECT_SAYS(runner_.feed({.state = &state_,
                            .tokens = tokens_,
                            .want = Want::kNothing,
                            .active = forced.empty() ? std::span<uint8_t>() : std::span(forced).first(1)}),
              ErrorKind::kUsage, "traced decisions");
}

TEST_F(Misuse, StatesThatDoNotGo) {
  EXPECT_SAYS(runner_.feed(Feed{}), ErrorKind::kUsage, "has no state");
  const Feed twice[] = {{.state = &state_, .tokens = tokens_, .want = Want::kNothing}, {.state = &state_, .tokens = tokens_, .want = Want::kNothing}};
  EXPECT_SAYS(runner_.feed(twice), ErrorKind::kUsage, "the same state");
  const std::vector<Feed> three(3);
  EXPECT_SAYS(runner_.feed(three), ErrorKind::kUsage, "2 streams at once, found 3");
  State foreign = State::create(runtime::random_model(test::causal_model(), 4));
  EXPECT_SAYS(runner_.feed({.state = &foreign, .tokens = tokens_, .want = Want::kNothing}), ErrorKind::kModel, "another model");
  // The same model, loaded again, is the same.
  State twin = State::create(runtime::random_model(test::causal_model(), 3));
  runner_.feed({.state = &twin, .tokens = tokens_, .want = Want::kNothing});
}

TEST_F(Misuse, NumbersForAModelOfTokens) {
  const std::vector<float> values{1.0f};
  EXPECT_SAYS(runner_.feed({.state = &state_, .values = values, .want = Want::kNothing}), ErrorKind::kUsage, "tokens, not numbers");
  config::ModelConfig config = test::causal_model();
  config.task = "classification", config.classes = 3, config.input = "real", config.channels = 2, config.vocab_size = 0;
  const auto real = runtime::random_model(config, 3);
  Runner runner(real);
  State state = State::create(real);
  EXPECT_SAYS(runner.feed({.state = &state, .tokens = tokens_, .want = Want::kNothing}), ErrorKind::kUsage, "numbers, not tokens");
  EXPECT_SAYS(runner.feed({.state = &state, .values = values, .want = Want::kNothing}), ErrorKind::kData, "2 numbers a step, found 1");
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    const std::vector<float> step{0.0f, 1.0f, 2.0f, bad};
    EXPECT_SAYS(runner.feed({.state = &state, .values = step, .want = Want::kNothing}), ErrorKind::kData, "number 1 of step 1 must be finite");
  }
}

TEST_F(Misuse, PastTheContext) {
  config::ModelConfig config = test::causal_model();
  config.window_size = 0;
  const auto model = runtime::random_model(config, 3);
  EXPECT_SAYS(Runner{model}, ErrorKind::kUsage, "max_context must be 1 to");
  Runner runner(model, {.max_context = 5});
  State state = State::create(model, {.max_context = 5}), larger = State::create(model, {.max_context = 6});
  runner.feed({.state = &state, .tokens = tokens_, .want = Want::kNothing});
  EXPECT_SAYS(runner.feed({.state = &state, .tokens = tokens_, .want = Want::kNothing}), ErrorKind::kData,
              "max_context = 5 tokens; 3 were fed and 3 more");
  EXPECT_SAYS(runner.feed({.state = &larger, .tokens = tokens_, .want = Want::kNothing}), ErrorKind::kUsage, "max_context of 6, the runner one of 5");
  EXPECT_EQ(state.tokens(), 3);
}

TEST_F(Misuse, OptionsOutOfRange) {
  EXPECT_SAYS(Runner(model_, {.threads = 0}), ErrorKind::kUsage, "threads must be 1 to");
  EXPECT_SAYS(Runner(model_, {.max_tokens = 0}), ErrorKind::kUsage, "max_tokens must be 1 to");
  EXPECT_SAYS(Runner(model_, {.max_streams = -1}), ErrorKind::kUsage, "max_streams must be 1 to");
  config::ModelConfig config = test::causal_model();
  config.task = "classification", config.classes = 3, config.causal = false;
  EXPECT_SAYS(Runner(runtime::random_model(config, 3)), ErrorKind::kModel, "bidirectional");
}

}  // namespace
}  // namespace seqboat
