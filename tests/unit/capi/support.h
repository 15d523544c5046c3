#pragma once

// What the tests of the C functions share. They are linked to libseqboat.so, as a program elsewhere is.

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "seqboat.h"
#include "seqboat/config/model_config.h"
#include "support/runtime_case.h"

// Structs of options are made by naming what is set, as in C, where leaving out the rest is no reason for a warning.
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

namespace seqboat::test {

struct FreeModel {
  void operator()(seqboat_model* model) const { seqboat_model_free(model); }
};
struct FreeState {
  void operator()(seqboat_state* state) const { seqboat_state_free(state); }
};
struct FreeRunner {
  void operator()(seqboat_runner* runner) const { seqboat_runner_free(runner); }
};
struct FreeSampler {
  void operator()(seqboat_sampler* sampler) const { seqboat_sampler_free(sampler); }
};
using CModel = std::unique_ptr<seqboat_model, FreeModel>;
using CState = std::unique_ptr<seqboat_state, FreeState>;
using CRunner = std::unique_ptr<seqboat_runner, FreeRunner>;
using CSampler = std::unique_ptr<seqboat_sampler, FreeSampler>;

#define EXPECT_OK(call) EXPECT_EQ(call, SEQBOAT_OK) << seqboat_error_message()

/// The call fails with this status, and the message contains the text.
#define EXPECT_FAILS(call, status, text) \
  EXPECT_EQ(call, status);               \
  EXPECT_NE(std::string(seqboat_error_message()).find(text), std::string::npos) << seqboat_error_message()

inline config::ModelConfig no_window_model() {
  config::ModelConfig c = causal_model();
  c.window_size = 0;
  c.position = "rotary";
  return c;
}

inline config::ModelConfig classifier_of_numbers() {
  config::ModelConfig c = causal_model();
  c.task = "classification";
  c.classes = 7;
  c.vocab_size = 0;
  c.input = "real";
  c.channels = 3;
  return c;
}

inline std::string json_of(const config::ModelConfig& config) {
  return config::to_json(config).dump();
}

inline CModel c_model(const config::ModelConfig& config, uint64_t seed = 3) {
  seqboat_model* model = nullptr;
  EXPECT_OK(seqboat_model_random(json_of(config).c_str(), seed, SEQBOAT_FLOAT32, nullptr, &model));
  return CModel(model);
}

inline CState c_state(const CModel& model, int64_t max_context = 0) {
  const seqboat_state_options options = {.size = sizeof options, .max_context = max_context};
  seqboat_state* state = nullptr;
  EXPECT_OK(seqboat_state_create(model.get(), &options, &state));
  return CState(state);
}

inline CRunner c_runner(const CModel& model, int64_t max_context = 0, int64_t threads = 1, int64_t max_streams = 4) {
  const seqboat_runner_options options = {
      .size = sizeof options, .threads = threads, .max_tokens = 16, .max_streams = max_streams, .max_context = max_context};
  seqboat_runner* runner = nullptr;
  EXPECT_OK(seqboat_runner_create(model.get(), &options, &runner));
  return CRunner(runner);
}

inline seqboat_model_info info_of(const CModel& model) {
  seqboat_model_info info = {.size = sizeof info};
  EXPECT_OK(seqboat_model_get_info(model.get(), &info));
  return info;
}

/// Tokens through a stream; the logits of each.
inline seqboat_feed tokens_feed(const CState& state, const std::vector<int64_t>& tokens, std::vector<float>& logits, int64_t outputs,
                                seqboat_want want = SEQBOAT_WANT_ALL) {
  logits.assign(static_cast<size_t>(outputs) * (want == SEQBOAT_WANT_ALL ? tokens.size() : 1), 0.0f);
  return {.size = sizeof(seqboat_feed),
          .state = state.get(),
          .tokens = tokens.data(),
          .count = static_cast<int64_t>(tokens.size()),
          .want = want,
          .logits = logits.data(),
          .logits_count = static_cast<int64_t>(logits.size())};
}

inline std::vector<int64_t> some_tokens(int64_t n, int64_t vocab, uint64_t seed = 1) {
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < n; ++i) tokens.push_back(static_cast<int64_t>((seed * 7919 + static_cast<uint64_t>(i) * i * 31 + i) % vocab));
  return tokens;
}

}  // namespace seqboat::test
