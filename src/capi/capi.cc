#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <nlohmann/json.hpp>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "seqboat.h"
#include "seqboat/base/error.h"
#include "seqboat/config/model_config.h"
#include "seqboat/kernels/simd.h"
#include "seqboat/runtime/forward.h"
#include "seqboat/runtime/model.h"
#include "seqboat/runtime/runner.h"
#include "seqboat/runtime/sampler.h"
#include "seqboat/runtime/state.h"

namespace runtime = seqboat::runtime;
using seqboat::ErrorKind;

struct seqboat_model {
  std::shared_ptr<const runtime::Model> model;
  std::string config_json, why_not;
  seqboat_model_info info = {};
};

struct seqboat_state {
  runtime::State state;
};

struct seqboat_runner {
  runtime::Runner runner;
  std::vector<runtime::Feed> feeds;  ///< room for what a call hands on
};

struct seqboat_sampler {
  runtime::Sampler sampler;
};

namespace {

// More than any memory holds, and so far below the end of int64_t that products with widths and layers stay in it.
constexpr int64_t kMostTokens = int64_t{1} << 40;

// Written only where a call fails: the first touch of a thread's own variables may allocate.
thread_local char last_message[1024] = "";

seqboat_status failed(ErrorKind kind, const char* message) noexcept {
  std::snprintf(last_message, sizeof last_message, "%s", message);
  return static_cast<seqboat_status>(seqboat::exit_code(kind));
}

// No exception may reach C, whatever it is.
template <class F>
seqboat_status guarded(const F& f) noexcept {
  try {
    f();
    return SEQBOAT_OK;
  } catch (const seqboat::Error& error) {
    return failed(error.kind(), error.what());
  } catch (const std::bad_alloc&) {
    return failed(ErrorKind::kResource, "out of memory");
  } catch (const std::exception& error) {
    return failed(ErrorKind::kFailed, error.what());
  } catch (...) {
    return failed(ErrorKind::kFailed, "unknown error");
  }
}

// As guarded(), for what makes a handle: *out is NULL unless all went well.
template <class Handle, class F>
seqboat_status made(Handle** out, const F& f) noexcept {
  if (out != nullptr) *out = nullptr;
  return guarded([&] {
    SEQBOAT_CHECK(out != nullptr, ErrorKind::kUsage, "the place for the handle is NULL");
    *out = f().release();
  });
}

template <class T>
T& given(T* pointer, const char* what) {
  SEQBOAT_CHECK(pointer != nullptr, ErrorKind::kUsage, "{} is NULL", what);
  return *pointer;
}

// The caller's struct in our size. An older caller's is shorter, never shorter than the first version of it: the fields that it lacks are 0. Of a
// newer caller's longer one, what we do not know must be 0.
template <class T>
T read_struct(const T& theirs, const char* what, size_t first_size = sizeof(T)) {
  static_assert(std::is_trivially_copyable_v<T>);
  size_t size;
  std::memcpy(&size, &theirs, sizeof size);
  SEQBOAT_CHECK(size >= first_size, ErrorKind::kUsage, "{}.size must be sizeof({}) = {}, found {}", what, what, sizeof(T), size);
  T ours = {};
  std::memcpy(&ours, &theirs, std::min(size, sizeof(T)));
  const unsigned char* bytes = reinterpret_cast<const unsigned char*>(&theirs);
  for (size_t i = sizeof(T); i < size; ++i)
    SEQBOAT_CHECK(bytes[i] == 0, ErrorKind::kUsage, "{} of {} bytes has a field set that this library (seqboat {}) does not know, at byte {}", what,
                  size, SEQBOAT_VERSION, i);
  return ours;
}

template <class T>
T read_options(const T* theirs, const char* what) {
  return theirs != nullptr ? read_struct(*theirs, what) : T{};
}

int64_t or_default(int64_t value, int64_t otherwise) {
  return value != 0 ? value : otherwise;
}

runtime::Precision precision(seqboat_precision value) {
  switch (static_cast<int>(value)) {
    case SEQBOAT_FLOAT32:
      return runtime::Precision::kFloat32;
    case SEQBOAT_BF16:
      return runtime::Precision::kBf16;
    case SEQBOAT_INT8:
      return runtime::Precision::kInt8;
  }
  seqboat::fail(ErrorKind::kUsage, "a seqboat_precision must be 0, 1 or 2, found {}", static_cast<int>(value));
}

seqboat_precision precision(runtime::Precision value) {
  return value == runtime::Precision::kFloat32 ? SEQBOAT_FLOAT32 : value == runtime::Precision::kBf16 ? SEQBOAT_BF16 : SEQBOAT_INT8;
}

runtime::Want want(seqboat_want value) {
  switch (static_cast<int>(value)) {
    case SEQBOAT_WANT_LAST:
      return runtime::Want::kLast;
    case SEQBOAT_WANT_ALL:
      return runtime::Want::kAll;
    case SEQBOAT_WANT_NOTHING:
      return runtime::Want::kNothing;
  }
  seqboat::fail(ErrorKind::kUsage, "a seqboat_want must be 0, 1 or 2, found {}", static_cast<int>(value));
}

std::span<std::byte> memory(void* begin, size_t bytes) {
  SEQBOAT_CHECK(begin != nullptr || bytes == 0, ErrorKind::kUsage, "memory is NULL, and memory_bytes is {}", bytes);
  SEQBOAT_CHECK(begin == nullptr || bytes > 0, ErrorKind::kUsage, "memory is given, and memory_bytes is 0");
  return {static_cast<std::byte*>(begin), bytes};
}

runtime::LoadOptions load_options(const seqboat_load_options* options) {
  return {.ring = precision(read_options(options, "seqboat_load_options").ring)};
}

runtime::StateOptions state_options(const seqboat_state_options* theirs) {
  const seqboat_state_options o = read_options(theirs, "seqboat_state_options");
  return {.max_context = o.max_context, .memory = memory(o.memory, o.memory_bytes), .seed = o.seed, .sequence_id = o.sequence_id};
}

runtime::RunnerOptions runner_options(const seqboat_runner_options* theirs) {
  const seqboat_runner_options o = read_options(theirs, "seqboat_runner_options");
  runtime::RunnerOptions options;
  options.threads = or_default(o.threads, options.threads);
  options.max_tokens = or_default(o.max_tokens, options.max_tokens);
  options.max_streams = or_default(o.max_streams, options.max_streams);
  options.max_context = o.max_context;
  options.memory = memory(o.memory, o.memory_bytes);
  return options;
}

bool reads_numbers(const runtime::Model& model) {
  return model.config().input == "real";
}

std::unique_ptr<seqboat_model> wrap(std::shared_ptr<const runtime::Model> loaded) {
  auto handle = std::make_unique<seqboat_model>();
  const runtime::Model& m = *loaded;
  handle->config_json = seqboat::config::to_json(m.config()).dump(2);
  handle->why_not = m.why_no_stream();
  seqboat_model_info& info = handle->info;
  info.size = sizeof info;
  info.task = m.config().task.c_str();
  info.vocab = reads_numbers(m) ? 0 : m.config().vocab_size;
  info.channels = reads_numbers(m) ? m.channels() : 0;
  info.outputs = m.outputs();
  info.layers = m.config().n_layers;
  info.can_stream = handle->why_not.empty() ? 1 : 0;
  info.why_not = handle->why_not.c_str();
  info.needs_max_context = m.needs_max_context() ? 1 : 0;
  if (info.can_stream == 1 && info.needs_max_context == 0) {
    info.state_bytes = runtime::State::bytes_for(m);
    info.workspace_bytes = runtime::Runner::workspace_bytes(m, {});
  }
  info.parameters = m.parameters();
  info.weight_bytes = m.weight_bytes();
  info.mapped_bytes = m.mapped_bytes();
  info.weights = precision(m.weights());
  info.ring = precision(m.ring());
  info.fingerprint = m.fingerprint().c_str();
  info.config_json = handle->config_json.c_str();
  handle->model = std::move(loaded);
  return handle;
}

std::unique_ptr<seqboat_state> wrap(runtime::State&& state) {
  return std::unique_ptr<seqboat_state>(new seqboat_state{std::move(state)});
}

// Input and per-layer arrays, which streams and sequences have alike: checked as far as pointers and counts go, the rest is the runtime's business.
template <class Theirs, class Ours>
void hand_on(const Theirs& theirs, const runtime::Model& model, const char* what, size_t number, Ours& ours) {
  const int64_t n = theirs.count;
  SEQBOAT_CHECK(n >= 0 && n <= kMostTokens, ErrorKind::kUsage, "{} {}: count must be 0 to {}, found {}", what, number, kMostTokens, n);
  const size_t count = static_cast<size_t>(n);
  if (reads_numbers(model)) {
    SEQBOAT_CHECK(theirs.tokens == nullptr, ErrorKind::kUsage, "{} {}: the model reads numbers, and tokens is given", what, number);
    SEQBOAT_CHECK(theirs.values != nullptr || n == 0, ErrorKind::kUsage, "{} {}: values is NULL", what, number);
    ours.values = {theirs.values, count * static_cast<size_t>(model.channels())};
  } else {
    SEQBOAT_CHECK(theirs.values == nullptr, ErrorKind::kUsage, "{} {}: the model reads tokens, and values is given", what, number);
    SEQBOAT_CHECK(theirs.tokens != nullptr || n == 0, ErrorKind::kUsage, "{} {}: tokens is NULL", what, number);
    ours.tokens = {theirs.tokens, count};
  }
  if (theirs.forced != nullptr) ours.forced = {theirs.forced, count * static_cast<size_t>(model.config().n_layers)};
}

// Room for `rows` rows of outputs; the C++ side takes it exactly.
std::span<float> room(const runtime::Model& model, float* logits, int64_t logits_count, int64_t rows, const char* what, size_t number) {
  const int64_t needed = rows * model.outputs();
  SEQBOAT_CHECK(logits_count >= needed, ErrorKind::kUsage, "{} {}: logits_count must be at least {} ({} x {}), found {}", what, number, needed, rows,
                model.outputs(), logits_count);
  SEQBOAT_CHECK(logits != nullptr || needed == 0, ErrorKind::kUsage, "{} {}: logits is NULL", what, number);
  return {logits, static_cast<size_t>(needed)};
}

runtime::Feed to_feed(const seqboat_feed& theirs, const runtime::Model& model, size_t number) {
  const seqboat_feed f = read_struct(theirs, "seqboat_feed");
  runtime::Feed feed;
  SEQBOAT_CHECK(f.state != nullptr, ErrorKind::kUsage, "stream {}: state is NULL", number);
  feed.state = &f.state->state;
  hand_on(f, model, "stream", number, feed);
  const size_t traced = static_cast<size_t>(f.count * model.config().n_layers);
  if (f.active != nullptr) feed.active = {f.active, traced};
  if (f.probability != nullptr) feed.probability = {f.probability, traced};
  feed.want = want(f.want);
  if (feed.want != runtime::Want::kNothing)
    feed.logits = room(model, f.logits, f.logits_count, feed.want == runtime::Want::kAll ? f.count : 1, "stream", number);
  return feed;
}

runtime::Sequences to_sequences(const seqboat_sequences& s, const runtime::Model& model, size_t number) {
  runtime::Sequences sequences;
  hand_on(s, model, "sequences", number, sequences);
  if (s.cu_seqlens == nullptr) return sequences;
  SEQBOAT_CHECK(s.batch >= 0 && s.batch <= kMostTokens, ErrorKind::kUsage, "sequences {}: batch must be 0 to {}, found {}", number, kMostTokens,
                s.batch);
  sequences.cu_seqlens = {s.cu_seqlens, static_cast<size_t>(s.batch) + 1};
  return sequences;
}

void copy_trace(const runtime::ForwardTrace& trace, const seqboat_sequences& to) {
  if (to.active != nullptr) std::copy(trace.active.begin(), trace.active.end(), to.active);
  if (to.probability != nullptr) std::copy(trace.probability.begin(), trace.probability.end(), to.probability);
}

}  // namespace

extern "C" {

const char* seqboat_version(void) {
  return SEQBOAT_VERSION;
}

const char* seqboat_simd_target(void) {
  struct Name {
    char text[32] = "";
    Name() noexcept {
      static_cast<void>(guarded([&] { std::snprintf(text, sizeof text, "%s", seqboat::kernels::simd_target().c_str()); }));
    }
  };
  static const Name name;
  return name.text;
}

const char* seqboat_error_message(void) {
  return last_message;
}

const char* seqboat_status_name(seqboat_status status) {
  switch (static_cast<int>(status)) {
    case SEQBOAT_OK:
      return "ok";
    case SEQBOAT_ERROR_FAILED:
      return "failed";
    case SEQBOAT_ERROR_USAGE:
      return "usage";
    case SEQBOAT_ERROR_CONFIG:
      return "config";
    case SEQBOAT_ERROR_DATA:
      return "data";
    case SEQBOAT_ERROR_MODEL:
      return "model";
    case SEQBOAT_ERROR_DIVERGED:
      return "diverged";
    case SEQBOAT_ERROR_RESOURCE:
      return "resource";
  }
  return "unknown";
}

seqboat_status seqboat_model_load(const char* folder, const seqboat_load_options* options, seqboat_model** model) {
  return made(model, [&] { return wrap(runtime::load(&given(folder, "the folder"), load_options(options))); });
}

seqboat_status seqboat_model_random(const char* config_json, uint64_t seed, seqboat_precision weights, const seqboat_load_options* options,
                                    seqboat_model** model) {
  return made(model, [&] {
    const auto json = nlohmann::ordered_json::parse(&given(config_json, "config_json"), nullptr, /*allow_exceptions=*/false);
    SEQBOAT_CHECK(json.is_object(), ErrorKind::kConfig, "config_json must be a JSON object, as config.json has it");
    const seqboat::config::ModelConfig config = seqboat::config::model_config_from_json(json, "config_json");
    return wrap(runtime::random_model(config, seed, precision(weights), load_options(options)));
  });
}

void seqboat_model_free(seqboat_model* model) {
  delete model;
}

seqboat_status seqboat_quantize(const char* folder_in, const char* folder_out, seqboat_precision weights) {
  return guarded([&] { runtime::quantize(&given(folder_in, "folder_in"), &given(folder_out, "folder_out"), precision(weights)); });
}

seqboat_status seqboat_model_get_info(const seqboat_model* model, seqboat_model_info* info) {
  return guarded([&] {
    const seqboat_model_info& ours = given(model, "the model").info;
    const size_t size = given(info, "info").size, known = std::min(size, sizeof ours);
    SEQBOAT_CHECK(size >= sizeof(size_t), ErrorKind::kUsage, "seqboat_model_info.size must be sizeof(seqboat_model_info) = {}, found {}", sizeof ours,
                  size);
    std::memcpy(static_cast<void*>(info), &ours, known);
    std::memset(reinterpret_cast<char*>(info) + known, 0, size - known);
    info->size = size;
  });
}

seqboat_status seqboat_state_bytes(const seqboat_model* model, const seqboat_state_options* options, int64_t* bytes) {
  return guarded(
      [&] { given(bytes, "the place for the number") = runtime::State::bytes_for(*given(model, "the model").model, state_options(options)); });
}

seqboat_status seqboat_state_create(const seqboat_model* model, const seqboat_state_options* options, seqboat_state** state) {
  return made(state, [&] { return wrap(runtime::State::create(given(model, "the model").model, state_options(options))); });
}

void seqboat_state_free(seqboat_state* state) {
  delete state;
}

seqboat_status seqboat_state_clone(const seqboat_state* state, void* bytes, size_t memory_bytes, seqboat_state** copy) {
  return made(copy, [&] { return wrap(given(state, "the state").state.clone(memory(bytes, memory_bytes))); });
}

seqboat_status seqboat_state_copy(seqboat_state* to, const seqboat_state* from) {
  return guarded([&] { given(to, "the state to copy to").state.copy_from(given(from, "the state to copy from").state); });
}

seqboat_status seqboat_state_reset(seqboat_state* state) {
  return guarded([&] { given(state, "the state").state.reset(); });
}

seqboat_status seqboat_state_save(const seqboat_state* state, const char* file) {
  return guarded([&] { given(state, "the state").state.save(&given(file, "the file's name")); });
}

seqboat_status seqboat_state_load(const seqboat_model* model, const char* file, void* bytes, size_t memory_bytes, seqboat_state** state) {
  return made(state, [&] {
    return wrap(runtime::State::load(given(model, "the model").model, &given(file, "the file's name"), memory(bytes, memory_bytes)));
  });
}

int64_t seqboat_state_tokens(const seqboat_state* state) {
  return state != nullptr ? state->state.tokens() : -1;
}

int64_t seqboat_state_size(const seqboat_state* state) {
  return state != nullptr ? state->state.size_bytes() : -1;
}

int64_t seqboat_state_max_context(const seqboat_state* state) {
  return state != nullptr ? state->state.max_context() : -1;
}

seqboat_status seqboat_state_activated(const seqboat_state* state, int64_t layer, int64_t* tokens) {
  return guarded([&] { given(tokens, "the place for the number") = given(state, "the state").state.activated(layer); });
}

seqboat_status seqboat_runner_bytes(const seqboat_model* model, const seqboat_runner_options* options, int64_t* bytes) {
  return guarded([&] {
    given(bytes, "the place for the number") = runtime::Runner::workspace_bytes(*given(model, "the model").model, runner_options(options));
  });
}

seqboat_status seqboat_runner_create(const seqboat_model* model, const seqboat_runner_options* options, seqboat_runner** runner) {
  return made(runner, [&] {
    const runtime::RunnerOptions ours = runner_options(options);
    // The runner first: it checks the options.
    std::unique_ptr<seqboat_runner> handle(new seqboat_runner{runtime::Runner(given(model, "the model").model, ours), {}});
    handle->feeds.resize(static_cast<size_t>(ours.max_streams));
    return handle;
  });
}

void seqboat_runner_free(seqboat_runner* runner) {
  delete runner;
}

seqboat_status seqboat_runner_feed(seqboat_runner* runner, const seqboat_feed* streams, size_t count) {
  return guarded([&] {
    seqboat_runner& r = given(runner, "the runner");
    SEQBOAT_CHECK(count <= r.feeds.size(), ErrorKind::kUsage, "the runner takes {} streams at once, found {}", r.feeds.size(), count);
    if (count == 0) return;
    // Elements lie as far apart as the caller's own size says.
    const size_t stride = given(streams, "streams").size;
    const char* element = reinterpret_cast<const char*>(streams);
    for (size_t i = 0; i < count; ++i, element += stride) {
      const seqboat_feed& theirs = *reinterpret_cast<const seqboat_feed*>(element);
      SEQBOAT_CHECK(stride % alignof(seqboat_feed) == 0 && theirs.size == stride, ErrorKind::kUsage,
                    "stream {}: seqboat_feed.size must be the same in all streams and a multiple of {}: found {} and {}", i, alignof(seqboat_feed),
                    stride, theirs.size);
      r.feeds[i] = to_feed(theirs, *r.runner.model(), i);
    }
    r.runner.feed(std::span<const runtime::Feed>(r.feeds.data(), count));
  });
}

seqboat_status seqboat_sampler_create(const seqboat_sampler_options* options, int64_t vocab, seqboat_sampler** sampler) {
  return made(sampler, [&] {
    const seqboat_sampler_options o = read_options(options, "seqboat_sampler_options");
    return std::unique_ptr<seqboat_sampler>(new seqboat_sampler{
        runtime::Sampler({.temperature = o.temperature, .top_k = o.top_k, .top_p = o.top_p != 0 ? o.top_p : 1, .seed = o.seed}, vocab)});
  });
}

void seqboat_sampler_free(seqboat_sampler* sampler) {
  delete sampler;
}

seqboat_status seqboat_sampler_sample(seqboat_sampler* sampler, const float* logits, int64_t count, int64_t number, int64_t* token) {
  return guarded([&] {
    runtime::Sampler& ours = given(sampler, "the sampler").sampler;
    SEQBOAT_CHECK(count >= 0 && count <= kMostTokens, ErrorKind::kUsage, "count must be 0 to {}, found {}", kMostTokens, count);
    int64_t& to = given(token, "the place for the token");
    to = ours.sample({&given(logits, "logits"), static_cast<size_t>(count)}, number);
  });
}

seqboat_status seqboat_forward(const seqboat_model* model, const seqboat_sequences* sequences, const seqboat_sequences* second,
                               const seqboat_forward_options* options, float* logits, int64_t logits_count) {
  return guarded([&] {
    const std::shared_ptr<const runtime::Model>& m = given(model, "the model").model;
    const seqboat_sequences first = read_struct(given(sequences, "sequences"), "seqboat_sequences");
    const seqboat_sequences other = read_options(second, "seqboat_sequences");
    const runtime::Sequences a = to_sequences(first, *m, 0);
    const runtime::Sequences b = second != nullptr ? to_sequences(other, *m, 1) : runtime::Sequences{};
    const seqboat_forward_options o = read_options(options, "seqboat_forward_options");
    runtime::ForwardOptions ours;
    ours.threads = or_default(o.threads, ours.threads);
    ours.max_tokens = or_default(o.max_tokens, ours.max_tokens);
    ours.want = want(o.want);
    ours.seed = o.seed;
    const int64_t batch = first.cu_seqlens != nullptr ? first.batch : 1;
    if (o.sequence_ids != nullptr) ours.sequence_ids = {o.sequence_ids, static_cast<size_t>(batch)};
    runtime::ForwardTrace trace, trace1;
    if (first.active != nullptr || first.probability != nullptr) ours.trace = &trace;
    if (other.active != nullptr || other.probability != nullptr) ours.trace1 = &trace1;
    const int64_t rows = ours.want == runtime::Want::kNothing ? 0 : ours.want == runtime::Want::kAll ? first.count : batch;
    const std::span<float> to = room(*m, logits, logits_count, rows, "sequences", 0);
    const std::vector<float> result = runtime::forward(m, a, ours, second != nullptr ? &b : nullptr);
    SEQBOAT_CHECK(ours.want == runtime::Want::kNothing || result.size() == to.size(), ErrorKind::kFailed, "{} logits were computed, {} expected",
                  result.size(), to.size());
    if (!to.empty()) std::copy(result.begin(), result.end(), to.begin());
    copy_trace(trace, first);
    copy_trace(trace1, other);
  });
}

}  // extern "C"
