// The law of the runtime: whole = any split = token by token = beside others, on any number of threads, bit for bit.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "seqboat/base/file_io.h"
#include "support/runtime_case.h"

namespace seqboat {
namespace {

using runtime::Feed;
using runtime::Precision;
using runtime::Runner;
using runtime::State;
using runtime::Want;
using test::columns;
using test::RuntimeCase;
using test::same_bits;
using test::StreamInput;

constexpr int64_t kTokens = 420;  // rings of small windows hold 128

struct Setting {
  std::shared_ptr<const runtime::Model> model;
  const StreamInput& input;
  const std::vector<uint8_t>& forced;
  int64_t clock = 0;

  int64_t outputs() const { return model->outputs(); }
  int64_t layers() const { return model->config().n_layers; }
  runtime::StateOptions state_options() const { return {.max_context = 600, .memory = {}, .seed = 5, .sequence_id = 3}; }
  State fresh() const {
    State state = State::create(model, state_options());
    if (clock > 0) state.set_clock(clock);
    return state;
  }
  Runner runner(int64_t threads, int64_t max_tokens) const {
    return Runner(model, {.threads = threads, .max_tokens = max_tokens, .max_context = 600});
  }

  /// Feeds [begin, begin + n) and puts the logits of every token into `out`.
  void feed(Runner& runner, State& state, int64_t begin, int64_t n, std::vector<float>* out) const {
    const std::vector<uint8_t> decisions = columns(forced, layers(), input.count, begin, n);
    out->resize(out->size() + static_cast<size_t>(n * outputs()));
    Feed feed;
    feed.state = &state;
    feed.tokens = input.tokens_of(begin, n);
    feed.values = input.values_of(begin, n);
    feed.want = Want::kAll;
    feed.logits = std::span(*out).last(static_cast<size_t>(n * outputs()));
    feed.forced = decisions;
    runner.feed(feed);
  }
  std::vector<float> in_pieces(int64_t threads, int64_t max_tokens, const std::vector<int64_t>& pieces) const {
    Runner with = runner(threads, max_tokens);
    State state = fresh();
    std::vector<float> out;
    int64_t at = 0;
    for (const int64_t n : pieces) {
      feed(with, state, at, n, &out);
      at += n;
    }
    EXPECT_EQ(at, input.count);
    return out;
  }
};

std::vector<int64_t> random_pieces(int64_t total, std::mt19937_64& random) {
  std::vector<int64_t> out;
  for (int64_t left = total; left > 0; left -= out.back())
    out.push_back(std::min(left, static_cast<int64_t>(random() % 3 == 0 ? random() % 90 : random() % 7)));
  return out;
}

std::vector<int64_t> singles(int64_t total) {
  return std::vector<int64_t>(static_cast<size_t>(total), 1);
}

class Streaming : public ::testing::TestWithParam<RuntimeCase> {
 protected:
  config::ModelConfig config() const {
    config::ModelConfig c = test::causal_model();
    GetParam().change(c);
    return c;
  }
  bool unbounded() const {
    const config::ModelConfig c = config();
    return c.layer == "mega" || (c.window_size == 0 && c.attends() && c.chunk() == 0);
  }
};

#define EXPECT_SAME(got, want, what) \
  EXPECT_TRUE(same_bits(got, want)) << what << ": first difference at " << test::first_difference(got, want, model->outputs())

TEST_P(Streaming, WholeIsAnySplitIsTokenByToken) {
  std::mt19937_64 random(7);
  for (const Precision weights : {Precision::kFloat32, Precision::kBf16, Precision::kInt8}) {
    const Precision ring = weights == Precision::kBf16 ? Precision::kBf16 : Precision::kFloat32;
    const auto model = runtime::random_model(config(), 11, weights, {.ring = ring});
    const StreamInput input(*model, kTokens, 1);
    for (const double rate : {-1.0, 0.0, 0.5, 1.0}) {
      if (rate >= 0 && weights == Precision::kInt8) continue;
      const std::vector<uint8_t> forced = rate < 0 ? std::vector<uint8_t>() : test::forced_decisions(2, kTokens, rate, 3);
      const Setting s{model, input, forced};
      const std::vector<float> whole = s.in_pieces(1, 512, {kTokens});
      const std::string what = std::string(runtime::precision_name(weights)) + ", rate " + std::to_string(rate);
      EXPECT_TRUE(std::all_of(whole.begin(), whole.end(), [](float v) { return std::isfinite(v); })) << what;
      EXPECT_SAME(s.in_pieces(1, 512, singles(kTokens)), whole, what + ", token by token");
      EXPECT_SAME(s.in_pieces(1, 100, random_pieces(kTokens, random)), whole, what + ", in pieces");
      EXPECT_SAME(s.in_pieces(1, 37, {kTokens}), whole, what + ", cut inside");
    }
  }
}

TEST_P(Streaming, ThreadsChangeNothing) {
  const auto model = runtime::random_model(config(), 11, Precision::kBf16, {.ring = Precision::kFloat32});
  const StreamInput input(*model, 150, 1);
  const Setting s{model, input, {}};
  const std::vector<float> whole = s.in_pieces(1, 512, {150});
  for (const int64_t threads : {2, 3}) {
    EXPECT_SAME(s.in_pieces(threads, 512, {150}), whole, threads << " threads");
    // A barrier costs much where other programs want the cores, too: few tokens one by one.
    std::vector<int64_t> pieces = singles(threads == 2 ? 6 : 1);
    pieces.push_back(150 - static_cast<int64_t>(pieces.size()));
    EXPECT_SAME(s.in_pieces(threads, 512, pieces), whole, threads << " threads, token by token");
  }
}

TEST_P(Streaming, OthersBesideChangeNothing) {
  const auto model = runtime::random_model(config(), 11);
  std::mt19937_64 random(9);
  for (const int64_t threads : {1, 2}) {
    const int64_t streams = threads == 1 ? 3 : 9;
    std::vector<StreamInput> inputs;
    std::vector<std::vector<float>> want, got(static_cast<size_t>(streams));
    std::vector<std::vector<int64_t>> pieces;
    std::vector<State> states;
    const std::vector<uint8_t> none;
    for (int64_t i = 0; i < streams; ++i) inputs.emplace_back(*model, 60 + 17 * i, 20 + i);
    for (int64_t i = 0; i < streams; ++i) {
      const Setting s{model, inputs[static_cast<size_t>(i)], none};
      want.push_back(s.in_pieces(1, 512, {s.input.count}));
      pieces.push_back(threads == 1 ? random_pieces(s.input.count, random) : std::vector<int64_t>{1, 30, s.input.count - 31});
      states.push_back(s.fresh());
      got[static_cast<size_t>(i)].resize(want.back().size());
    }
    Runner runner(model, {.threads = threads, .max_tokens = 50, .max_context = 600});
    std::vector<size_t> turn(static_cast<size_t>(streams), 0);
    std::vector<int64_t> at(static_cast<size_t>(streams), 0);
    for (bool more = true; more;) {
      std::vector<Feed> feeds;
      for (size_t i = 0; i < inputs.size(); ++i) {
        if (turn[i] == pieces[i].size() || random() % 4 == 0) continue;
        const int64_t n = pieces[i][turn[i]++];
        Feed feed;
        feed.state = &states[i];
        feed.tokens = inputs[i].tokens_of(at[i], n);
        feed.values = inputs[i].values_of(at[i], n);
        feed.want = Want::kAll;
        feed.logits = std::span(got[i]).subspan(static_cast<size_t>(at[i] * model->outputs()), static_cast<size_t>(n * model->outputs()));
        feeds.push_back(feed);
        at[i] += n;
      }
      runner.feed(feeds);
      more = false;
      for (size_t i = 0; i < inputs.size(); ++i) more = more || turn[i] < pieces[i].size();
    }
    for (size_t i = 0; i < inputs.size(); ++i) EXPECT_SAME(got[i], want[i], "stream " << i << ", " << threads << " threads");
  }
}

// Two states that were fed the same in different pieces are the same file; a clone, a copy and a loaded one go on as if nothing had been.
TEST_P(Streaming, SavedLoadedAndClonedInTheMiddle) {
  const std::filesystem::path folder = std::filesystem::path(SEQBOAT_BINARY_DIR) / "runtime-states";
  std::filesystem::create_directories(folder);
  const std::filesystem::path file = folder / (std::string(GetParam().name) + ".safetensors");
  std::mt19937_64 random(13);
  for (const Precision ring : {Precision::kFloat32, Precision::kBf16}) {
    const auto model = runtime::random_model(config(), 11, Precision::kFloat32, {.ring = ring});
    const StreamInput input(*model, 300, 1);
    const Setting s{model, input, {}};
    const std::vector<float> whole = s.in_pieces(1, 512, {300});
    Runner runner = s.runner(1, 64);
    for (const int64_t cut : {0, 1, 60, 170, 299}) {
      State one = s.fresh(), two = s.fresh();
      std::vector<float> head;
      s.feed(runner, one, 0, cut, &head);
      std::vector<float> again;
      int64_t at = 0;
      for (const int64_t n : random_pieces(cut, random)) s.feed(runner, two, at, n, &again), at += n;
      one.save(file);
      const std::string bytes = read_file(file);
      two.save(file);
      EXPECT_EQ(bytes, read_file(file)) << "after " << cut;

      State loaded = State::load(model, file), cloned = one.clone(), copied = s.fresh();
      copied.copy_from(one);
      EXPECT_EQ(loaded.tokens(), cut);
      for (State* state : {&loaded, &cloned, &copied, &one}) {
        std::vector<float> all = head;
        s.feed(runner, *state, cut, 300 - cut, &all);
        EXPECT_SAME(all, whole, "cut at " << cut << (state == &loaded ? ", loaded" : state == &cloned ? ", cloned" : ", copied"));
      }
      one.reset();
      std::vector<float> all;
      s.feed(runner, one, 0, 300, &all);
      EXPECT_SAME(all, whole, "after a reset");
    }
  }
  std::filesystem::remove(file);
}

TEST_P(Streaming, AtABillionTokensToo) {
  if (unbounded()) return;  // no state is made for so many
  const auto model = runtime::random_model(config(), 11);
  const StreamInput input(*model, 200, 1);
  const std::vector<uint8_t> none;
  for (const int64_t clock : {int64_t{999'999'950}, (int64_t{1} << 40) + 3}) {
    const Setting s{model, input, none, clock};
    const std::vector<float> whole = s.in_pieces(1, 512, {200});
    EXPECT_TRUE(std::all_of(whole.begin(), whole.end(), [](float v) { return std::isfinite(v); }));
    EXPECT_SAME(s.in_pieces(1, 512, singles(200)), whole, "from " << clock << ", token by token");
    EXPECT_SAME(s.in_pieces(2, 64, {1, 2, 60, 137}), whole, "from " << clock << ", in pieces");
  }
}

TEST_P(Streaming, ForwardHasTheBitsOfTheStream) {
  const auto model = runtime::random_model(config(), 11);
  const StreamInput a(*model, 150, 1), b(*model, 90, 2), both(*model, 240, 3);
  StreamInput joined = both;
  joined.tokens = a.tokens, joined.values = a.values;
  joined.tokens.insert(joined.tokens.end(), b.tokens.begin(), b.tokens.end());
  joined.values.insert(joined.values.end(), b.values.begin(), b.values.end());
  const std::vector<int64_t> offsets{0, 150, 240}, ids{3, 3};
  for (const double rate : {-1.0, 0.4}) {
    const std::vector<uint8_t> forced = rate < 0 ? std::vector<uint8_t>() : test::forced_decisions(2, 240, rate, 3);
    const std::vector<uint8_t> forced_a = columns(forced, 2, 240, 0, 150), forced_b = columns(forced, 2, 240, 150, 90);
    std::vector<float> want = Setting{model, a, forced_a}.in_pieces(1, 512, {150});
    const std::vector<float> of_b = Setting{model, b, forced_b}.in_pieces(1, 512, {90});
    want.insert(want.end(), of_b.begin(), of_b.end());
    const runtime::Sequences sequences{joined.tokens, joined.values, offsets, forced};
    runtime::ForwardTrace trace;
    const std::vector<float> got = runtime::forward(
        model, sequences, {.threads = 2, .want = Want::kAll, .max_tokens = 40, .seed = 5, .sequence_ids = ids, .trace = &trace, .trace1 = nullptr});
    EXPECT_SAME(got, want, "forward, rate " << rate);
    const std::vector<float> last =
        runtime::forward(model, sequences, {.threads = 1, .seed = 5, .sequence_ids = ids, .trace = nullptr, .trace1 = nullptr});
    const int64_t n = model->outputs();
    std::vector<float> ends(want.begin() + 149 * n, want.begin() + 150 * n);
    ends.insert(ends.end(), want.end() - n, want.end());
    EXPECT_SAME(last, ends, "the last token of each");
    if (rate >= 0 && model->config().chooses()) {
      EXPECT_EQ(trace.active, forced);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Streaming, ::testing::ValuesIn(test::causal_cases()), [](const auto& of) { return std::string(of.param.name); });

}  // namespace
}  // namespace seqboat
