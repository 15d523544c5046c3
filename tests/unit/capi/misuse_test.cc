// Wrong calls: each gives its status and a message, changes nothing, and lets nothing escape.

#include <array>
#include <cmath>
#include <cstring>

#include "unit/base/temp_dir.h"
#include "unit/capi/support.h"

namespace seqboat::test {
namespace {

constexpr int64_t kVocab = 30;

class CApiMisuse : public testing::Test {
 protected:
  // A feed that would do.
  seqboat_feed good() {
    return {.size = sizeof(seqboat_feed), .state = state.get(), .tokens = tokens.data(), .count = 3, .logits = logits.data(), .logits_count = kVocab};
  }
  seqboat_status feed(const seqboat_feed& one) { return seqboat_runner_feed(runner.get(), &one, 1); }

  CModel model = c_model(causal_model());
  CState state = c_state(model);
  CRunner runner = c_runner(model);
  std::vector<int64_t> tokens{1, 2, 3};
  std::vector<float> logits = std::vector<float>(kVocab);
};

TEST_F(CApiMisuse, OfNothing) {
  seqboat_model* m = model.get();
  seqboat_state* s = state.get();
  int64_t number = 0;
  seqboat_model_info info = {.size = sizeof info};
  const seqboat_sequences sequences = {.size = sizeof sequences, .tokens = tokens.data(), .count = 3};
  const auto fails = [](seqboat_status status) {
    EXPECT_EQ(status, SEQBOAT_ERROR_USAGE);
    EXPECT_NE(std::strstr(seqboat_error_message(), "NULL"), nullptr) << seqboat_error_message();
  };
  seqboat_model* new_model = m;
  seqboat_state* new_state = s;
  seqboat_runner* new_runner = runner.get();
  fails(seqboat_model_load(nullptr, nullptr, &new_model));
  EXPECT_EQ(new_model, nullptr);
  fails(seqboat_model_load("folder", nullptr, nullptr));
  fails(seqboat_model_random(nullptr, 1, SEQBOAT_FLOAT32, nullptr, &new_model));
  fails(seqboat_model_get_info(nullptr, &info));
  fails(seqboat_model_get_info(m, nullptr));
  fails(seqboat_quantize(nullptr, "folder", SEQBOAT_INT8));
  fails(seqboat_quantize("folder", nullptr, SEQBOAT_INT8));
  fails(seqboat_state_bytes(nullptr, nullptr, &number));
  fails(seqboat_state_bytes(m, nullptr, nullptr));
  fails(seqboat_state_create(nullptr, nullptr, &new_state));
  EXPECT_EQ(new_state, nullptr);
  fails(seqboat_state_create(m, nullptr, nullptr));
  fails(seqboat_state_clone(nullptr, nullptr, 0, &new_state));
  fails(seqboat_state_clone(s, nullptr, 0, nullptr));
  fails(seqboat_state_clone(s, nullptr, 64, &new_state));
  fails(seqboat_state_copy(nullptr, s));
  fails(seqboat_state_copy(s, nullptr));
  fails(seqboat_state_reset(nullptr));
  fails(seqboat_state_save(nullptr, "file"));
  fails(seqboat_state_save(s, nullptr));
  fails(seqboat_state_load(nullptr, "file", nullptr, 0, &new_state));
  fails(seqboat_state_load(m, nullptr, nullptr, 0, &new_state));
  fails(seqboat_state_load(m, "file", nullptr, 0, nullptr));
  fails(seqboat_state_activated(nullptr, 0, &number));
  fails(seqboat_state_activated(s, 0, nullptr));
  fails(seqboat_runner_bytes(nullptr, nullptr, &number));
  fails(seqboat_runner_bytes(m, nullptr, nullptr));
  fails(seqboat_runner_create(nullptr, nullptr, &new_runner));
  EXPECT_EQ(new_runner, nullptr);
  fails(seqboat_runner_create(m, nullptr, nullptr));
  fails(seqboat_runner_feed(nullptr, nullptr, 0));
  fails(seqboat_runner_feed(runner.get(), nullptr, 1));
  seqboat_sampler* sampler = nullptr;
  fails(seqboat_sampler_create(nullptr, 2, nullptr));
  EXPECT_OK(seqboat_sampler_create(nullptr, kVocab, &sampler));
  const CSampler drawn(sampler);
  fails(seqboat_sampler_sample(nullptr, logits.data(), kVocab, 0, &number));
  fails(seqboat_sampler_sample(sampler, nullptr, kVocab, 0, &number));
  fails(seqboat_sampler_sample(sampler, logits.data(), kVocab, 0, nullptr));
  fails(seqboat_forward(nullptr, &sequences, nullptr, nullptr, logits.data(), kVocab));
  fails(seqboat_forward(m, nullptr, nullptr, nullptr, logits.data(), kVocab));
  fails(seqboat_forward(m, &sequences, nullptr, nullptr, nullptr, kVocab));
  EXPECT_EQ(seqboat_state_tokens(nullptr), -1);
  EXPECT_EQ(seqboat_state_size(nullptr), -1);
  EXPECT_EQ(seqboat_state_max_context(nullptr), -1);
  seqboat_model_free(nullptr);
  seqboat_state_free(nullptr);
  seqboat_runner_free(nullptr);
  seqboat_sampler_free(nullptr);
}

TEST_F(CApiMisuse, OfFeeds) {
  const auto change = [&](auto f) {
    seqboat_feed one = good();
    f(one);
    return feed(one);
  };
  EXPECT_FAILS(change([](seqboat_feed& f) { f.state = nullptr; }), SEQBOAT_ERROR_USAGE, "stream 0: state is NULL");
  EXPECT_FAILS(change([](seqboat_feed& f) { f.tokens = nullptr; }), SEQBOAT_ERROR_USAGE, "tokens is NULL");
  EXPECT_FAILS(change([&](seqboat_feed& f) { f.values = logits.data(); }), SEQBOAT_ERROR_USAGE, "reads tokens");
  EXPECT_FAILS(change([](seqboat_feed& f) { f.count = -1; }), SEQBOAT_ERROR_USAGE, "found -1");
  EXPECT_FAILS(change([](seqboat_feed& f) { f.count = INT64_MAX; }), SEQBOAT_ERROR_USAGE, "count must be");
  EXPECT_FAILS(change([](seqboat_feed& f) { f.logits = nullptr; }), SEQBOAT_ERROR_USAGE, "logits is NULL");
  EXPECT_FAILS(change([](seqboat_feed& f) { f.logits_count = kVocab - 1; }), SEQBOAT_ERROR_USAGE, "found 29");
  EXPECT_FAILS(change([](seqboat_feed& f) { f.want = SEQBOAT_WANT_ALL; }), SEQBOAT_ERROR_USAGE, "at least 90");
  EXPECT_FAILS(change([](seqboat_feed& f) { f.want = static_cast<seqboat_want>(3); }), SEQBOAT_ERROR_USAGE, "found 3");
  EXPECT_FAILS(change([](seqboat_feed& f) { f.count = 0; }), SEQBOAT_ERROR_USAGE, "no token has been fed");
  tokens[2] = kVocab;
  EXPECT_FAILS(feed(good()), SEQBOAT_ERROR_DATA, "token 2 must lie in [0, 30), found 30");
  tokens[2] = 3;
  const std::array<seqboat_feed, 2> twice{good(), good()};
  EXPECT_FAILS(seqboat_runner_feed(runner.get(), twice.data(), 2), SEQBOAT_ERROR_USAGE, "same state");
  EXPECT_FAILS(seqboat_runner_feed(runner.get(), twice.data(), 5), SEQBOAT_ERROR_USAGE, "4 streams at once, found 5");
  // After all of that nothing has been fed, and the runner works.
  EXPECT_EQ(seqboat_state_tokens(state.get()), 0);
  EXPECT_OK(feed(good()));
}

TEST_F(CApiMisuse, OfNumbers) {
  const CModel numbers = c_model(classifier_of_numbers());
  const CState one = c_state(numbers);
  const CRunner its = c_runner(numbers);
  std::array<float, 6> values{0, 0, 0, 0, std::nanf(""), 0};
  seqboat_feed feed = {.size = sizeof feed, .state = one.get(), .values = values.data(), .count = 2, .logits = logits.data(), .logits_count = 7};
  EXPECT_FAILS(seqboat_runner_feed(its.get(), &feed, 1), SEQBOAT_ERROR_DATA, "number 1 of step 1 must be finite");
  feed.values = nullptr;
  EXPECT_FAILS(seqboat_runner_feed(its.get(), &feed, 1), SEQBOAT_ERROR_USAGE, "values is NULL");
  feed.tokens = tokens.data();
  EXPECT_FAILS(seqboat_runner_feed(its.get(), &feed, 1), SEQBOAT_ERROR_USAGE, "reads numbers");
}

TEST_F(CApiMisuse, OfAnotherModelsState) {
  const TempDir dir;
  const std::string file = (dir.path() / "state").string();
  const CModel other = c_model(causal_model(), 4);
  const CState its = c_state(other);
  seqboat_feed one = good();
  one.state = its.get();
  EXPECT_FAILS(feed(one), SEQBOAT_ERROR_MODEL, "another model");
  EXPECT_FAILS(seqboat_state_copy(state.get(), its.get()), SEQBOAT_ERROR_MODEL, "same model");
  seqboat_state* loaded = state.get();
  EXPECT_OK(seqboat_state_save(its.get(), file.c_str()));
  EXPECT_FAILS(seqboat_state_load(model.get(), file.c_str(), nullptr, 0, &loaded), SEQBOAT_ERROR_MODEL, file);
  EXPECT_EQ(loaded, nullptr);
  EXPECT_FAILS(seqboat_state_load(model.get(), (file + ".none").c_str(), nullptr, 0, &loaded), SEQBOAT_ERROR_MODEL, ".none");
  EXPECT_FAILS(seqboat_state_save(its.get(), (dir.path() / "no" / "folder").c_str()),
               seqboat_state_save(its.get(), (dir.path() / "no" / "folder").c_str()), "folder");
}

TEST_F(CApiMisuse, OfOptions) {
  int64_t bytes = 0;
  int64_t activated = 0;
  EXPECT_FAILS(seqboat_state_activated(state.get(), 2, &activated), SEQBOAT_ERROR_USAGE, "layers 0 to 1, not 2");
  seqboat_runner_options runner_options = {.size = sizeof runner_options, .threads = -1};
  EXPECT_FAILS(seqboat_runner_bytes(model.get(), &runner_options, &bytes), SEQBOAT_ERROR_USAGE, "threads");
  std::vector<char> little(256);
  void* aligned = little.data();
  size_t room = little.size();
  std::align(SEQBOAT_ALIGNMENT, 128, aligned, room);
  seqboat_state_options state_options = {.size = sizeof state_options, .memory = aligned, .memory_bytes = 64};
  seqboat_state* made = nullptr;
  EXPECT_FAILS(seqboat_state_create(model.get(), &state_options, &made), SEQBOAT_ERROR_USAGE, "at least");
  state_options.memory = static_cast<char*>(aligned) + 1;
  state_options.memory_bytes = size_t{1} << 40;
  EXPECT_FAILS(seqboat_state_create(model.get(), &state_options, &made), SEQBOAT_ERROR_USAGE, "multiple of 64");
  state_options.memory_bytes = 0;
  EXPECT_FAILS(seqboat_state_create(model.get(), &state_options, &made), SEQBOAT_ERROR_USAGE, "memory_bytes is 0");
  const CModel endless = c_model(no_window_model());
  EXPECT_FAILS(seqboat_state_create(endless.get(), nullptr, &made), SEQBOAT_ERROR_USAGE, "max_context");
  const CState short_one = c_state(endless, 2);
  const CRunner its = c_runner(endless, 2);
  seqboat_feed one = good();
  one.state = short_one.get();
  EXPECT_FAILS(seqboat_runner_feed(its.get(), &one, 1), SEQBOAT_ERROR_DATA, "max_context = 2");
}

TEST_F(CApiMisuse, OfSamplers) {
  seqboat_sampler* sampler = nullptr;
  EXPECT_FAILS(seqboat_sampler_create(nullptr, 0, &sampler), SEQBOAT_ERROR_USAGE, "vocabulary");
  seqboat_sampler_options options = {.size = sizeof options, .temperature = -1};
  EXPECT_FAILS(seqboat_sampler_create(&options, 4, &sampler), SEQBOAT_ERROR_USAGE, "temperature");
  options.temperature = 1;
  options.top_p = 1.5;
  EXPECT_FAILS(seqboat_sampler_create(&options, 4, &sampler), SEQBOAT_ERROR_USAGE, "top_p");
  EXPECT_EQ(sampler, nullptr);
  options.top_p = 0;
  EXPECT_OK(seqboat_sampler_create(&options, 4, &sampler));
  const CSampler owned(sampler);
  const std::array<float, 4> odd{0, std::nanf(""), 0, 0}, none{-INFINITY, -INFINITY, -INFINITY, -INFINITY};
  int64_t token = 17;
  EXPECT_FAILS(seqboat_sampler_sample(sampler, odd.data(), 4, 0, &token), SEQBOAT_ERROR_DIVERGED, "logit 1");
  EXPECT_FAILS(seqboat_sampler_sample(sampler, none.data(), 4, 0, &token), SEQBOAT_ERROR_DIVERGED, "no token");
  EXPECT_FAILS(seqboat_sampler_sample(sampler, none.data(), 3, 0, &token), SEQBOAT_ERROR_USAGE, "found 3");
  EXPECT_FAILS(seqboat_sampler_sample(sampler, none.data(), -1, 0, &token), SEQBOAT_ERROR_USAGE, "found -1");
  EXPECT_EQ(token, 17);
}

TEST_F(CApiMisuse, OfModels) {
  const TempDir dir;
  seqboat_model* made = nullptr;
  EXPECT_FAILS(seqboat_model_load((dir.path() / "none").c_str(), nullptr, &made), SEQBOAT_ERROR_MODEL, "none");
  seqboat_load_options options = {.size = sizeof options, .ring = SEQBOAT_INT8};
  EXPECT_FAILS(seqboat_model_random(json_of(causal_model()).c_str(), 1, SEQBOAT_FLOAT32, &options, &made), SEQBOAT_ERROR_USAGE, "ring");
  options.ring = static_cast<seqboat_precision>(-1);
  EXPECT_FAILS(seqboat_model_random(json_of(causal_model()).c_str(), 1, SEQBOAT_FLOAT32, &options, &made), SEQBOAT_ERROR_USAGE, "found -1");
  EXPECT_FAILS(seqboat_model_random("{", 1, SEQBOAT_FLOAT32, nullptr, &made), SEQBOAT_ERROR_CONFIG, "JSON");
  EXPECT_FAILS(seqboat_model_random("{\"layers\": 1}", 1, SEQBOAT_FLOAT32, nullptr, &made), SEQBOAT_ERROR_MODEL, "layers");
  config::ModelConfig whole = classifier_of_numbers();
  whole.causal = false;
  const CModel bidirectional = c_model(whole);
  seqboat_state* no_state = nullptr;
  EXPECT_FAILS(seqboat_state_create(bidirectional.get(), nullptr, &no_state), SEQBOAT_ERROR_MODEL, info_of(bidirectional).why_not);
}

// Structs of programs that were built with another header.
TEST_F(CApiMisuse, OfStructSizes) {
  seqboat_feed one = good();
  one.size = 0;
  EXPECT_FAILS(feed(one), SEQBOAT_ERROR_USAGE, "seqboat_feed.size must be sizeof");
  one.size = sizeof one - 8;
  EXPECT_FAILS(feed(one), SEQBOAT_ERROR_USAGE, "seqboat_feed.size must be sizeof");
  one.size = sizeof one + 4;
  EXPECT_FAILS(feed(one), SEQBOAT_ERROR_USAGE, "multiple of 8");

  // A newer header's two feeds, with a field at the end that this library does not know: fine while it is 0.
  struct Newer {
    seqboat_feed known;
    int64_t unknown;
  };
  const CState second = c_state(model);
  std::array<Newer, 2> newer{Newer{good(), 0}, Newer{good(), 0}};
  newer[0].known.size = newer[1].known.size = sizeof(Newer);
  newer[1].known.state = second.get();
  EXPECT_OK(seqboat_runner_feed(runner.get(), &newer[0].known, 2));
  EXPECT_EQ(seqboat_state_tokens(second.get()), 3);
  newer[1].unknown = 1;
  EXPECT_FAILS(seqboat_runner_feed(runner.get(), &newer[0].known, 2), SEQBOAT_ERROR_USAGE, "does not know");
  newer[1].unknown = 0;
  newer[1].known.size = sizeof(seqboat_feed);
  EXPECT_FAILS(seqboat_runner_feed(runner.get(), &newer[0].known, 2), SEQBOAT_ERROR_USAGE, "the same in all streams");

  // Facts are given as far as the caller's struct goes; what it has beyond ours is set to 0.
  struct {
    seqboat_model_info known;
    int64_t unknown;
  } facts = {{.size = sizeof facts}, 7};
  EXPECT_OK(seqboat_model_get_info(model.get(), &facts.known));
  EXPECT_EQ(facts.known.size, sizeof facts);
  EXPECT_EQ(facts.unknown, 0);
  seqboat_model_info part = {.size = offsetof(seqboat_model_info, channels), .channels = -5};
  EXPECT_OK(seqboat_model_get_info(model.get(), &part));
  EXPECT_EQ(part.vocab, kVocab);
  EXPECT_EQ(part.channels, -5);
}

}  // namespace
}  // namespace seqboat::test
