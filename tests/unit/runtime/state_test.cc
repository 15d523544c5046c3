#include "seqboat/runtime/state.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/config/model_size.h"
#include "seqboat/runtime/runner.h"
#include "support/runtime_case.h"
#include "unit/base/temp_dir.h"

namespace seqboat {
namespace {

using runtime::Runner;
using runtime::State;

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

struct AlignedMemory {
  explicit AlignedMemory(int64_t bytes)
      : size(static_cast<size_t>(bytes)), data(static_cast<std::byte*>(::operator new (size, std::align_val_t{64}))) {}
  ~AlignedMemory() { ::operator delete (data, std::align_val_t{64}); }
  std::span<std::byte> span() const { return {data, size}; }
  size_t size;
  std::byte* data;
};

State fed(const std::shared_ptr<const runtime::Model>& model, int64_t n) {
  State state = State::create(model, {.max_context = 200});
  const test::StreamInput input(*model, n, 1);
  Runner runner(model, {.max_context = 200});
  runner.feed({.state = &state, .tokens = input.tokens, .values = input.values, .want = runtime::Want::kNothing});
  return state;
}

TEST(State, SizesAreOfTheOrderOfTheConfigs) {
  config::ModelConfig config = test::causal_model();
  config.d_model = 64, config.d_attn = 32, config.d_hidden = 128, config.window_size = 1024, config.vocab_size = 30;
  const auto wide = runtime::random_model(config, 3);
  const double plain = static_cast<double>(config::state_bytes(config));
  EXPECT_GT(static_cast<double>(State::bytes_for(*wide)), plain);
  EXPECT_LT(static_cast<double>(State::bytes_for(*wide)), 1.1 * plain) << "a block of queries more than the window, and little else";
  const auto narrow = runtime::random_model(config, 3, runtime::Precision::kFloat32, {.ring = runtime::Precision::kBf16});
  EXPECT_LT(static_cast<double>(State::bytes_for(*narrow)), 0.6 * plain);
  EXPECT_EQ(State::create(wide).size_bytes(), State::bytes_for(*wide));
}

TEST(State, LivesInTheCallersMemory) {
  const auto model = runtime::random_model(test::causal_model(), 3);
  const int64_t bytes = State::bytes_for(*model);
  const AlignedMemory memory(bytes + 64), other(bytes);
  State state = State::create(model, {.memory = memory.span()});
  EXPECT_EQ(state.size_bytes(), bytes);
  const State copy = state.clone(other.span());
  EXPECT_EQ(copy.tokens(), 0);
  EXPECT_SAYS(State::create(model, {.memory = memory.span().first(static_cast<size_t>(bytes) - 1)}), ErrorKind::kUsage, "at least");
  EXPECT_SAYS(State::create(model, {.memory = memory.span().subspan(8)}), ErrorKind::kUsage, "multiple of 64");
}

TEST(State, SaysWhyThereIsNone) {
  config::ModelConfig config = test::causal_model();
  config.task = "classification", config.classes = 3, config.causal = false;
  EXPECT_SAYS(State::create(runtime::random_model(config, 3)), ErrorKind::kModel, "bidirectional");
  config = test::causal_model();
  config.window_size = 0;
  const auto unbounded = runtime::random_model(config, 3);
  EXPECT_TRUE(unbounded->needs_max_context());
  EXPECT_SAYS(State::create(unbounded), ErrorKind::kUsage, "max_context");
  EXPECT_EQ(State::create(unbounded, {.max_context = 70}).max_context(), 70);
  config = test::causal_model();
  config.layer = "mega";
  EXPECT_SAYS(State::create(runtime::random_model(config, 3), {.max_context = 41}), ErrorKind::kUsage, "at most 40");
  const auto bounded = runtime::random_model(test::causal_model(), 3);
  EXPECT_EQ(State::create(bounded, {.max_context = 70}).max_context(), 0) << "not needed, not taken";
}

TEST(State, CountsTokensAndActivations) {
  const auto model = runtime::random_model(test::causal_model(), 3);
  State state = State::create(model);
  Runner runner(model);
  const std::vector<int64_t> tokens{1, 2, 3};
  const std::vector<uint8_t> forced{1, 0, 1, 0, 0, 1};
  runner.feed({.state = &state, .tokens = tokens, .want = runtime::Want::kNothing, .forced = forced});
  EXPECT_EQ(state.tokens(), 3);
  EXPECT_EQ(state.activated(0), 2);
  EXPECT_EQ(state.activated(1), 1);
  EXPECT_SAYS(state.activated(2), ErrorKind::kUsage, "layers 0 to 1");
  state.reset();
  EXPECT_EQ(state.tokens(), 0);
  EXPECT_EQ(state.activated(0), 0);
}

class StateFiles : public ::testing::Test {
 protected:
  using Tensors = std::vector<TensorView>;
  using Metadata = std::map<std::string, std::string>;

  StateFiles() : model_(runtime::random_model(test::causal_model(), 3)) { fed(model_, 100).save(file_); }

  /// Loads the state with something changed in its file, and gives the message.
  std::string error_with(const std::function<void(Tensors&, Metadata&)>& change) {
    const SafetensorsFile file = SafetensorsFile::open(file_);
    Tensors tensors = file.tensors();
    Metadata metadata = file.metadata();
    change(tensors, metadata);
    const std::filesystem::path changed = dir_.path() / "changed";
    write_safetensors(changed, tensors, metadata);
    const std::string message = message_of([&] { State::load(model_, changed); }, ErrorKind::kModel);
    EXPECT_EQ(message.find(changed.string() + ": "), 0u) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    return message;
  }
  static TensorView& find(Tensors& tensors, const std::string& name) {
    for (TensorView& tensor : tensors) {
      if (tensor.name == name) return tensor;
    }
    throw std::runtime_error("no " + name);
  }

  test::TempDir dir_;
  std::filesystem::path file_ = dir_.path() / "state";
  std::shared_ptr<const runtime::Model> model_;
};

#define EXPECT_MESSAGE(message, text) EXPECT_NE(std::string(message).find(text), std::string::npos) << message

TEST_F(StateFiles, RefusesOthers) {
  EXPECT_EQ(State::load(model_, file_).tokens(), 100);
  const auto other = runtime::random_model(test::causal_model(), 4);
  EXPECT_SAYS(State::load(other, file_), ErrorKind::kModel, "a state of another model");
  const auto ring = runtime::random_model(test::causal_model(), 3, runtime::Precision::kFloat32, {.ring = runtime::Precision::kBf16});
  EXPECT_SAYS(State::load(ring, file_), ErrorKind::kModel, "the ring's precision: expected bf16, found 'float32'");
  EXPECT_MESSAGE(error_with([](Tensors&, Metadata& m) { m["version"] = "2"; }), "format version 2; this program reads up to 1");
  EXPECT_MESSAGE(error_with([](Tensors&, Metadata& m) { m["version"] = "first"; }), "must be a number");
  EXPECT_MESSAGE(error_with([](Tensors&, Metadata& m) { m.clear(); }), "no state of a stream");
  EXPECT_MESSAGE(error_with([](Tensors&, Metadata& m) { m["max_context"] = "10"; }), "max_context cannot be '10'");
}

TEST_F(StateFiles, RefusesWhatIsNotWhole) {
  const std::string whole = read_file(file_);
  for (const size_t length : {size_t{0}, size_t{7}, size_t{100}, whole.size() / 2, whole.size() - 1}) {
    const std::filesystem::path cut = dir_.path() / "cut";
    write_file_atomically(cut, whole.substr(0, length));
    EXPECT_SAYS(State::load(model_, cut), ErrorKind::kModel, cut.string());
  }
  EXPECT_MESSAGE(error_with([](Tensors& t, Metadata&) { t.pop_back(); }), "is missing");
  const float more = 1;
  EXPECT_MESSAGE(error_with([&](Tensors& t, Metadata&) { t.push_back({"more", DType::kF32, {1}, &more, 4}); }), "tensors, found");
  EXPECT_SAYS(State::load(model_, dir_.path() / "nothing"), ErrorKind::kModel, "nothing");
}

TEST_F(StateFiles, RefusesWhatCannotBe) {
  const int64_t negative = -1, huge = INT64_MAX;
  EXPECT_MESSAGE(error_with([&](Tensors& t, Metadata&) { find(t, "time").data = &negative; }), "'time': expected 0 to");
  EXPECT_MESSAGE(error_with([&](Tensors& t, Metadata&) { find(t, "time").data = &huge; }), "'time': expected 0 to");
  const int64_t inexact = (int64_t{1} << 53) + 1;
  EXPECT_MESSAGE(error_with([&](Tensors& t, Metadata&) { find(t, "time").data = &inexact; }), "'time': expected 0 to 9007199254740992, found");
  const int64_t too_many[2] = {3, 101};
  EXPECT_MESSAGE(error_with([&](Tensors& t, Metadata&) { find(t, "activated").data = too_many; }), "expected 0 to 100 in layer 1, found 101");
  const int64_t fewer[2] = {3, 1};
  EXPECT_MESSAGE(error_with([&](Tensors& t, Metadata&) { find(t, "activated").data = fewer; }), "keys': expected F32 [3, 1, 6], found F32 [5, 1, 6]");
  std::vector<float> bad(80, 1.0f);
  bad[11] = std::numeric_limits<float>::infinity();
  EXPECT_MESSAGE(error_with([&](Tensors& t, Metadata&) { find(t, "layers.1.encoder").data = bad.data(); }), "'layers.1.encoder' holds a number");
  const int64_t times[5] = {90, 91, 91, 95, 99}, late[5] = {90, 91, 92, 95, 100};
  EXPECT_MESSAGE(error_with([&](Tensors& t, Metadata&) { find(t, "layers.0.times").data = times; }),
                 "expected a time of 92 to 99 in row 2, found 91");
  EXPECT_MESSAGE(error_with([&](Tensors& t, Metadata&) { find(t, "layers.0.times").data = late; }), "in row 4, found 100");
}

// Each of these would be a size that no integer holds, or a table that does not reach.
TEST_F(StateFiles, RefusesAContextThatCannotBe) {
  config::ModelConfig config = test::causal_model();
  config.window_size = 0;
  for (const bool mega : {false, true}) {
    if (mega) config.layer = "mega", config.max_positions = 300;
    model_ = runtime::random_model(config, 3);
    fed(model_, 100).save(file_);
    for (const char* context : {"0", "-1", "999999999999999", "1099511627777", "12345678901234567890", "301"}) {
      if (!mega && std::string(context) == "301") continue;
      EXPECT_MESSAGE(error_with([&](Tensors&, Metadata& m) { m["max_context"] = context; }), "max_context cannot be '" + std::string(context) + "'");
    }
  }
}

// A stream that goes on near the last position that doubles tell apart is still one stream.
TEST_F(StateFiles, GoOnNearTheLastPosition) {
  config::ModelConfig config = test::causal_model();
  config.position = "rotary", config.truncation = 17;
  model_ = runtime::random_model(config, 3);
  const test::StreamInput input(*model_, 150, 1);
  Runner runner(model_);
  State whole = State::create(model_), pieces = State::create(model_);
  for (State* state : {&whole, &pieces}) state->set_clock((int64_t{1} << 53) - 100);
  std::vector<float> want(30), got(30);
  runner.feed({.state = &whole, .tokens = input.tokens, .logits = want});
  runner.feed({.state = &pieces, .tokens = input.tokens_of(0, 90), .want = runtime::Want::kNothing});
  pieces.save(file_);
  State loaded = State::load(model_, file_);
  EXPECT_EQ(loaded.tokens(), (int64_t{1} << 53) - 10);
  for (int64_t i = 90; i < 150; ++i) runner.feed({.state = &loaded, .tokens = input.tokens_of(i, 1), .logits = got});
  EXPECT_EQ(got, want);
  EXPECT_TRUE(std::all_of(got.begin(), got.end(), [](float v) { return std::isfinite(v); }));
}

TEST_F(StateFiles, OfAnUnboundedModelTakeNoMemoryOnTrust) {
  config::ModelConfig config = test::causal_model();
  config.window_size = 0;
  model_ = runtime::random_model(config, 3);
  fed(model_, 100).save(file_);
  EXPECT_EQ(State::load(model_, file_).max_context(), 200);
  const int64_t many = 1'000'000'000, counts[2] = {many, many};
  EXPECT_MESSAGE(error_with([&](Tensors& t, Metadata& m) {
                   m["max_context"] = "1000000000";
                   find(t, "time").data = &many;
                   find(t, "activated").data = counts;
                 }),
                 "keys': expected F32 [1000000000, 1, 6]");
}

}  // namespace
}  // namespace seqboat
