// What is allocated, and what happens where it cannot be. This program's operator new stands for the library's too.

#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <new>

#include "unit/base/temp_dir.h"
#include "unit/capi/support.h"

namespace {

std::atomic<int64_t> allocations{0};
std::atomic<int64_t> fails_at{-1};        // number of the allocation from now on that there is no memory for; -1 = none
std::atomic<std::size_t> counts_from{0};  // smaller ones are not counted there

void* allocate(std::size_t size, std::size_t alignment) noexcept {
  ++allocations;
  if (size >= counts_from && fails_at >= 0 && fails_at-- == 0) return nullptr;
  return std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

void* allocate_or_throw(std::size_t size, std::size_t alignment) {
  void* memory = allocate(size > 0 ? size : 1, alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(std::size_t size) {
  return allocate_or_throw(size, 16);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  return allocate_or_throw(size, static_cast<std::size_t>(alignment));
}
// Never fails: the standard library's sorting asks so for room that it can do without.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(size > 0 ? size : 1);
}
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return allocate(size > 0 ? size : 1, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}

namespace seqboat::test {
namespace {

TEST(CApiMemory, FeedingAllocatesNothing) {
  for (const int64_t threads : {1, 2}) {
    const CModel model = c_model(causal_model());
    const CRunner runner = c_runner(model, 0, threads);
    const CState one = c_state(model), other = c_state(model);
    const std::vector<int64_t> tokens = some_tokens(60, 30);
    std::vector<float> a, b;
    std::vector<seqboat_feed> feeds{tokens_feed(one, tokens, a, 30), tokens_feed(other, tokens, b, 30, SEQBOAT_WANT_LAST)};
    const seqboat_feed step = {.size = sizeof step, .state = one.get(), .tokens = tokens.data(), .count = 1, .logits = a.data(), .logits_count = 30};
    seqboat_model_info info = {.size = sizeof info};
    seqboat_sampler* made = nullptr;
    const seqboat_sampler_options drawn = {.size = sizeof drawn, .temperature = 1, .top_k = 9, .top_p = 0.9};
    EXPECT_OK(seqboat_sampler_create(&drawn, 30, &made));
    const CSampler sampler(made);
    int64_t token = 0;
    bool ok = true;
    const int64_t before = allocations;
    ok = seqboat_runner_feed(runner.get(), feeds.data(), 2) == SEQBOAT_OK && ok;
    for (int i = 0; i < 20; ++i) ok = seqboat_runner_feed(runner.get(), &step, 1) == SEQBOAT_OK && ok;
    for (int i = 0; i < 20; ++i) ok = seqboat_sampler_sample(sampler.get(), a.data(), 30, i, &token) == SEQBOAT_OK && ok;
    ok = seqboat_state_copy(other.get(), one.get()) == SEQBOAT_OK && ok;
    ok = seqboat_state_reset(one.get()) == SEQBOAT_OK && ok;
    ok = seqboat_model_get_info(model.get(), &info) == SEQBOAT_OK && ok;
    ok = seqboat_state_tokens(other.get()) == 80 && ok;
    EXPECT_EQ(allocations - before, 0);
    EXPECT_TRUE(ok) << seqboat_error_message();
  }
}

// Makes the call again and again with the first allocation failing, then the second, until it needs no more than it gets.
void fail_each_allocation(const char* what, const std::function<seqboat_status()>& call, std::size_t from = 0) {
  counts_from = from;
  for (int64_t number = 0; number < 100000; ++number) {
    fails_at = number;
    const seqboat_status status = call();
    const bool failed = fails_at < 0;
    fails_at = -1;
    if (!failed) {
      EXPECT_EQ(status, SEQBOAT_OK) << what << ": " << seqboat_error_message();
      EXPECT_GT(number, 0) << what << " allocates nothing";
      return;
    }
    ASSERT_EQ(status, SEQBOAT_ERROR_RESOURCE) << what << ", allocation " << number << ": " << seqboat_error_message();
  }
  FAIL() << what << " does not end";
}

TEST(CApiMemory, WantOfMemoryIsAnError) {
  // Of a model the buffers: the JSON library's destructors allocate a little and end the process where they cannot (docs/EMBEDDING.md).
  config::ModelConfig wide = causal_model();
  wide.d_model = 64;
  const std::string json = json_of(wide);
  const auto make = [&] {
    seqboat_model* model = nullptr;
    const seqboat_status status = seqboat_model_random(json.c_str(), 1, SEQBOAT_FLOAT32, nullptr, &model);
    EXPECT_EQ(model != nullptr, status == SEQBOAT_OK);
    seqboat_model_free(model);
    return status;
  };
  fail_each_allocation("a model", make, 8192);
  const CModel model = c_model(causal_model());
  const CState state = c_state(model);
  fail_each_allocation("a state", [&] {
    seqboat_state* made = nullptr;
    const seqboat_status status = seqboat_state_create(model.get(), nullptr, &made);
    seqboat_state_free(made);
    return status;
  });
  fail_each_allocation("a clone", [&] {
    seqboat_state* made = nullptr;
    const seqboat_status status = seqboat_state_clone(state.get(), nullptr, 0, &made);
    seqboat_state_free(made);
    return status;
  });
  const TempDir dir;
  const std::string file = (dir.path() / "state").string();
  fail_each_allocation("a saved state", [&] {
    const seqboat_status status = seqboat_state_save(state.get(), file.c_str());
    EXPECT_EQ(::access(file.c_str(), F_OK) == 0, status == SEQBOAT_OK);  // what allocates nothing itself
    return status;
  });
  fail_each_allocation("a loaded state", [&] {
    seqboat_state* made = nullptr;
    const seqboat_status status = seqboat_state_load(model.get(), file.c_str(), nullptr, 0, &made);
    seqboat_state_free(made);
    return status;
  });
  const seqboat_runner_options options = {.size = sizeof options, .threads = 2, .max_tokens = 4, .max_streams = 2};
  fail_each_allocation("a runner", [&] {
    seqboat_runner* made = nullptr;
    const seqboat_status status = seqboat_runner_create(model.get(), &options, &made);
    seqboat_runner_free(made);
    return status;
  });
  fail_each_allocation("a sampler", [&] {
    seqboat_sampler* made = nullptr;
    const seqboat_status status = seqboat_sampler_create(nullptr, 30, &made);
    seqboat_sampler_free(made);
    return status;
  });
  const std::vector<int64_t> tokens = some_tokens(9, 30);
  std::vector<float> logits(30);
  const seqboat_sequences sequences = {.size = sizeof sequences, .tokens = tokens.data(), .count = 9};
  fail_each_allocation("a forward", [&] { return seqboat_forward(model.get(), &sequences, nullptr, nullptr, logits.data(), 30); });
}

TEST(CApiMemory, OptionsThatAskForTooMuchAreErrors) {
  const CModel model = c_model(causal_model());
  const seqboat_runner_options huge = {.size = sizeof huge, .max_tokens = int64_t{1} << 40};
  seqboat_runner* runner = nullptr;
  EXPECT_FAILS(seqboat_runner_create(model.get(), &huge, &runner), SEQBOAT_ERROR_USAGE, "max_tokens");
  EXPECT_EQ(runner, nullptr);
}

}  // namespace
}  // namespace seqboat::test
