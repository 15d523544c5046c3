// The C functions do what the C++ runtime does, bit for bit.

#include <array>
#include <thread>

#include "seqboat/runtime/forward.h"
#include "seqboat/runtime/sampler.h"
#include "unit/base/temp_dir.h"
#include "unit/capi/support.h"

namespace seqboat::test {
namespace {

constexpr int64_t kVocab = 30;

std::vector<float> expected_logits(const config::ModelConfig& config, const std::vector<int64_t>& tokens) {
  return runtime::forward(runtime::random_model(config, 3), {.tokens = tokens}, {.want = runtime::Want::kAll});
}

TEST(CApi, SaysWhatItIs) {
  EXPECT_EQ(std::string(seqboat_version()).find('.'), 1u);
  EXPECT_NE(std::string(seqboat_simd_target()), "");
  EXPECT_STREQ(seqboat_status_name(SEQBOAT_ERROR_RESOURCE), "resource");
  EXPECT_STREQ(seqboat_status_name(SEQBOAT_ERROR_DIVERGED), "diverged");
  EXPECT_STREQ(seqboat_status_name(static_cast<seqboat_status>(8)), "unknown");
}

TEST(CApi, TellsFactsOfModels) {
  const CModel model = c_model(causal_model());
  const seqboat_model_info info = info_of(model);
  const auto same = runtime::random_model(causal_model(), 3);
  EXPECT_STREQ(info.task, "language-model");
  EXPECT_EQ(info.vocab, kVocab);
  EXPECT_EQ(info.channels, 0);
  EXPECT_EQ(info.outputs, kVocab);
  EXPECT_EQ(info.layers, 2);
  EXPECT_EQ(info.can_stream, 1);
  EXPECT_STREQ(info.why_not, "");
  EXPECT_EQ(info.needs_max_context, 0);
  EXPECT_EQ(info.state_bytes, runtime::State::bytes_for(*same));
  EXPECT_EQ(info.workspace_bytes, runtime::Runner::workspace_bytes(*same, {}));
  EXPECT_EQ(info.parameters, same->parameters());
  EXPECT_EQ(info.weight_bytes, same->weight_bytes());
  EXPECT_EQ(info.fingerprint, same->fingerprint());
  EXPECT_EQ(nlohmann::ordered_json::parse(info.config_json), config::to_json(same->config()));

  config::ModelConfig other = classifier_of_numbers();
  other.causal = false;
  const CModel whole = c_model(other);
  const seqboat_model_info facts = info_of(whole);
  EXPECT_EQ(facts.can_stream, 0);
  EXPECT_EQ(facts.why_not, runtime::random_model(other, 3)->why_no_stream());
  EXPECT_STRNE(facts.why_not, "");
  EXPECT_EQ(facts.vocab, 0);
  EXPECT_EQ(facts.channels, 3);
  EXPECT_EQ(facts.outputs, 7);
  EXPECT_EQ(facts.state_bytes, 0);
  EXPECT_EQ(info_of(c_model(no_window_model())).needs_max_context, 1);
}

TEST(CApi, FeedsAsTheRuntimeDoes) {
  const CModel model = c_model(causal_model());
  const std::vector<int64_t> tokens = some_tokens(50, kVocab);
  const std::vector<float> expected = expected_logits(causal_model(), tokens);
  for (const int64_t threads : {1, 2}) {
    const CRunner runner = c_runner(model, 0, threads);
    const CState state = c_state(model);
    std::vector<float> logits;
    const seqboat_feed feed = tokens_feed(state, tokens, logits, kVocab);
    EXPECT_OK(seqboat_runner_feed(runner.get(), &feed, 1));
    EXPECT_TRUE(same_bits(logits, expected));
    EXPECT_EQ(seqboat_state_tokens(state.get()), 50);
  }
}

TEST(CApi, FeedsManyStreamsWithDecisions) {
  const CModel model = c_model(causal_model());
  const CRunner runner = c_runner(model);
  const std::vector<uint8_t> forced = forced_decisions(2, 20, 0.4, 5);
  std::vector<CState> states;
  std::array<std::vector<int64_t>, 3> tokens;
  std::array<std::vector<float>, 3> logits;
  std::vector<seqboat_feed> feeds;
  std::vector<uint8_t> active(40, 9);
  std::vector<float> probability(40, -1.0f);
  for (size_t i = 0; i < 3; ++i) {
    states.push_back(c_state(model));
    tokens[i] = some_tokens(20, kVocab, i);
    feeds.push_back(tokens_feed(states[i], tokens[i], logits[i], kVocab));
  }
  feeds[1].forced = forced.data();
  feeds[1].active = active.data();
  feeds[1].probability = probability.data();
  feeds[2].want = SEQBOAT_WANT_NOTHING;
  feeds[2].logits = nullptr;
  feeds[2].logits_count = 0;
  EXPECT_OK(seqboat_runner_feed(runner.get(), feeds.data(), feeds.size()));
  EXPECT_TRUE(same_bits(logits[0], expected_logits(causal_model(), tokens[0])));
  EXPECT_EQ(active, forced);
  for (const float p : probability) EXPECT_TRUE(p > 0 && p < 1) << p;
  int64_t activated = -1, ones = 0;
  EXPECT_OK(seqboat_state_activated(states[1].get(), 1, &activated));
  for (size_t i = 20; i < 40; ++i) ones += forced[i];
  EXPECT_EQ(activated, ones);
  // The logits of what went before, without another token.
  std::vector<float> last(kVocab);
  const seqboat_feed again = {.size = sizeof again, .state = states[0].get(), .logits = last.data(), .logits_count = kVocab};
  EXPECT_OK(seqboat_runner_feed(runner.get(), &again, 1));
  EXPECT_TRUE(same_bits(last, {logits[0].end() - kVocab, logits[0].end()}));
  EXPECT_OK(seqboat_runner_feed(runner.get(), nullptr, 0));
}

TEST(CApi, FeedsNumbers) {
  const CModel model = c_model(classifier_of_numbers());
  const auto same = runtime::random_model(classifier_of_numbers(), 3);
  const StreamInput input(*same, 33, 4);
  const CRunner runner = c_runner(model);
  const CState state = c_state(model);
  std::vector<float> logits(7);
  for (int64_t from = 0; from < 33; from += 11) {
    const seqboat_feed feed = {
        .size = sizeof feed, .state = state.get(), .values = input.values.data() + from * 3, .count = 11, .logits = logits.data(), .logits_count = 7};
    EXPECT_OK(seqboat_runner_feed(runner.get(), &feed, 1));
  }
  EXPECT_TRUE(same_bits(logits, runtime::forward(same, {.values = input.values})));
}

TEST(CApi, StatesAreValues) {
  const TempDir dir;
  const CModel model = c_model(causal_model());
  const CRunner runner = c_runner(model);
  const std::vector<int64_t> head = some_tokens(25, kVocab), tail = some_tokens(10, kVocab, 9);
  std::vector<float> ignored, expected, logits;
  const CState state = c_state(model);
  seqboat_feed feed = tokens_feed(state, head, ignored, kVocab, SEQBOAT_WANT_LAST);
  EXPECT_OK(seqboat_runner_feed(runner.get(), &feed, 1));
  seqboat_state *clone = nullptr, *loaded = nullptr;
  EXPECT_OK(seqboat_state_clone(state.get(), nullptr, 0, &clone));
  const std::string file = (dir.path() / "state").string();
  EXPECT_OK(seqboat_state_save(state.get(), file.c_str()));
  EXPECT_OK(seqboat_state_load(model.get(), file.c_str(), nullptr, 0, &loaded));
  const CState copied = c_state(model), a(clone), b(loaded);
  EXPECT_OK(seqboat_state_copy(copied.get(), state.get()));
  feed = tokens_feed(state, tail, expected, kVocab);
  EXPECT_OK(seqboat_runner_feed(runner.get(), &feed, 1));
  for (const CState* other : {&a, &b, &copied}) {
    EXPECT_EQ(seqboat_state_tokens(other->get()), 25);
    feed = tokens_feed(*other, tail, logits, kVocab);
    EXPECT_OK(seqboat_runner_feed(runner.get(), &feed, 1));
    EXPECT_TRUE(same_bits(logits, expected));
  }
  EXPECT_OK(seqboat_state_reset(state.get()));
  EXPECT_EQ(seqboat_state_tokens(state.get()), 0);
  feed = tokens_feed(state, head, logits, kVocab);
  EXPECT_OK(seqboat_runner_feed(runner.get(), &feed, 1));
  EXPECT_TRUE(same_bits(logits, expected_logits(causal_model(), head)));
}

TEST(CApi, LivesInTheCallersMemory) {
  const CModel model = c_model(no_window_model());
  seqboat_state_options state_options = {.size = sizeof state_options, .max_context = 64};
  seqboat_runner_options runner_options = {.size = sizeof runner_options, .max_tokens = 16, .max_streams = 2, .max_context = 64};
  int64_t state_bytes = 0, runner_bytes = 0;
  EXPECT_OK(seqboat_state_bytes(model.get(), &state_options, &state_bytes));
  EXPECT_OK(seqboat_runner_bytes(model.get(), &runner_options, &runner_bytes));
  struct Memory {
    explicit Memory(int64_t size) : begin(std::aligned_alloc(SEQBOAT_ALIGNMENT, static_cast<size_t>(size + 63) / 64 * 64)) {}
    ~Memory() { std::free(begin); }
    void* begin;
  };
  const Memory for_state(state_bytes), for_clone(state_bytes), for_runner(runner_bytes);
  state_options.memory = for_state.begin;
  state_options.memory_bytes = static_cast<size_t>(state_bytes);
  runner_options.memory = for_runner.begin;
  runner_options.memory_bytes = static_cast<size_t>(runner_bytes);
  seqboat_state *state = nullptr, *clone = nullptr;
  seqboat_runner* runner = nullptr;
  EXPECT_OK(seqboat_state_create(model.get(), &state_options, &state));
  EXPECT_OK(seqboat_runner_create(model.get(), &runner_options, &runner));
  EXPECT_OK(seqboat_state_clone(state, for_clone.begin, static_cast<size_t>(state_bytes), &clone));
  const CState a(state), b(clone);
  const CRunner r(runner);
  EXPECT_EQ(seqboat_state_size(state), state_bytes);
  EXPECT_EQ(seqboat_state_max_context(state), 64);
  EXPECT_EQ(seqboat_state_max_context(c_state(c_model(causal_model())).get()), 0);
  const std::vector<int64_t> tokens = some_tokens(50, kVocab);
  for (const CState* each : {&a, &b}) {
    std::vector<float> logits;
    const seqboat_feed feed = tokens_feed(*each, tokens, logits, kVocab);
    EXPECT_OK(seqboat_runner_feed(runner, &feed, 1));
    EXPECT_TRUE(same_bits(logits, expected_logits(no_window_model(), tokens)));
  }
}

TEST(CApi, RunsWholeSequences) {
  config::ModelConfig config = causal_model();
  config.task = "classification";
  config.classes = 5;
  config.causal = false;
  const CModel model = c_model(config);
  const auto same = runtime::random_model(config, 3);
  const std::vector<int64_t> tokens = some_tokens(30, kVocab), offsets{0, 12, 30};
  runtime::ForwardTrace trace;
  const std::vector<float> expected = runtime::forward(same, {.tokens = tokens, .cu_seqlens = offsets}, {.trace = &trace});
  std::vector<float> logits(10), probability(60);
  std::vector<uint8_t> active(60);
  seqboat_sequences sequences = {.size = sizeof sequences,
                                 .tokens = tokens.data(),
                                 .count = 30,
                                 .cu_seqlens = offsets.data(),
                                 .batch = 2,
                                 .active = active.data(),
                                 .probability = probability.data()};
  EXPECT_OK(seqboat_forward(model.get(), &sequences, nullptr, nullptr, logits.data(), 10));
  EXPECT_TRUE(same_bits(logits, expected));
  EXPECT_EQ(active, trace.active);
  EXPECT_TRUE(same_bits(probability, trace.probability));
  EXPECT_FAILS(seqboat_forward(model.get(), &sequences, &sequences, nullptr, logits.data(), 10), SEQBOAT_ERROR_USAGE, "one sequence");
  EXPECT_FAILS(seqboat_forward(model.get(), &sequences, nullptr, nullptr, logits.data(), 9), SEQBOAT_ERROR_USAGE, "at least 10");

  config.task = "retrieval";
  const CModel pairs = c_model(config);
  const std::vector<float> answers = runtime::forward(runtime::random_model(config, 3), {.tokens = tokens, .cu_seqlens = offsets}, {},
                                                      std::array<runtime::Sequences, 1>{{{.tokens = tokens, .cu_seqlens = offsets}}}.data());
  EXPECT_OK(seqboat_forward(pairs.get(), &sequences, &sequences, nullptr, logits.data(), 10));
  EXPECT_TRUE(same_bits(logits, answers));
}

TEST(CApi, SamplesAsTheRuntimeDoes) {
  const std::vector<float> logits{0.5f, 2.0f, -1.0f, 1.5f};
  const auto make = [&](const seqboat_sampler_options* options) {
    seqboat_sampler* sampler = nullptr;
    EXPECT_OK(seqboat_sampler_create(options, 4, &sampler));
    return CSampler(sampler);
  };
  const seqboat_sampler_options options = {.size = sizeof options, .temperature = 0.8, .top_k = 3, .top_p = 0.9, .seed = 7};
  const seqboat_sampler_options plain = {.size = sizeof plain, .temperature = 1, .seed = 7};
  const CSampler chosen = make(&options), all = make(&plain), largest = make(nullptr);
  runtime::Sampler chosen_there({.temperature = 0.8, .top_k = 3, .top_p = 0.9, .seed = 7}, 4), all_there({.seed = 7}, 4);
  for (int64_t number = 0; number < 100; ++number) {
    int64_t token = -1;
    EXPECT_OK(seqboat_sampler_sample(chosen.get(), logits.data(), 4, number, &token));
    EXPECT_EQ(token, chosen_there.sample(logits, number));
    EXPECT_OK(seqboat_sampler_sample(all.get(), logits.data(), 4, number, &token));
    EXPECT_EQ(token, all_there.sample(logits, number));
    EXPECT_OK(seqboat_sampler_sample(largest.get(), logits.data(), 4, number, &token));
    EXPECT_EQ(token, 1);
  }
}

TEST(CApi, LoadsAndQuantizes) {
  const TempDir dir;
  const std::string folder = (dir.path() / "model").string(), small = (dir.path() / "small").string();
  std::filesystem::create_directory(folder);
  runtime::write_random_model(folder, causal_model(), 3);
  const seqboat_load_options options = {.size = sizeof options, .ring = SEQBOAT_BF16};
  seqboat_model* model = nullptr;
  EXPECT_OK(seqboat_quantize(folder.c_str(), small.c_str(), SEQBOAT_INT8));
  EXPECT_OK(seqboat_model_load(small.c_str(), &options, &model));
  const CModel quantized(model);
  EXPECT_EQ(info_of(quantized).weights, SEQBOAT_INT8);
  EXPECT_EQ(info_of(quantized).ring, SEQBOAT_BF16);
  EXPECT_LT(info_of(quantized).state_bytes, info_of(c_model(causal_model())).state_bytes);
  const std::string third = (dir.path() / "third").string();
  EXPECT_FAILS(seqboat_quantize(folder.c_str(), small.c_str(), SEQBOAT_INT8), SEQBOAT_ERROR_USAGE, "is there already");
  EXPECT_FAILS(seqboat_quantize(small.c_str(), third.c_str(), SEQBOAT_INT8), SEQBOAT_ERROR_MODEL, "already");
  EXPECT_FAILS(seqboat_quantize(folder.c_str(), third.c_str(), SEQBOAT_FLOAT32), SEQBOAT_ERROR_USAGE, "bf16 or int8");
}

// Under the thread sanitizer this shows that a model is only read.
TEST(CApi, ThreadsShareAModel) {
  CModel model = c_model(causal_model());
  const std::vector<int64_t> tokens = some_tokens(60, kVocab);
  const std::vector<float> expected = expected_logits(causal_model(), tokens);
  std::array<std::vector<float>, 2> logits;
  std::vector<std::thread> threads;
  std::array<std::string, 2> messages;
  for (size_t i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      const CState state = c_state(model);
      const CRunner runner = c_runner(model);
      const seqboat_feed feed = tokens_feed(state, tokens, logits[i], kVocab);
      EXPECT_OK(seqboat_runner_feed(runner.get(), &feed, 1));
      // Each has a message of its own.
      const std::vector<int64_t> bad{static_cast<int64_t>(1000 + i)};
      std::vector<float> more;
      const seqboat_feed wrong = tokens_feed(state, bad, more, kVocab);
      EXPECT_EQ(seqboat_runner_feed(runner.get(), &wrong, 1), SEQBOAT_ERROR_DATA);
      messages[i] = seqboat_error_message();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_TRUE(same_bits(logits[i], expected));
    EXPECT_NE(messages[i].find(std::to_string(1000 + i)), std::string::npos) << messages[i];
  }
}

TEST(CApi, StatesOutliveTheirModelsHandle) {
  CModel model = c_model(causal_model());
  const CState state = c_state(model);
  const CRunner runner = c_runner(model);
  model.reset();
  std::vector<float> logits;
  const std::vector<int64_t> tokens = some_tokens(5, kVocab);
  const seqboat_feed feed = tokens_feed(state, tokens, logits, kVocab);
  EXPECT_OK(seqboat_runner_feed(runner.get(), &feed, 1));
  EXPECT_TRUE(same_bits(logits, expected_logits(causal_model(), tokens)));
}

}  // namespace
}  // namespace seqboat::test
