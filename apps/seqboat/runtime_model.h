#pragma once

#include <memory>
#include <span>
#include <string>

#include "command.h"
#include "seqboat/runtime/model.h"
#include "seqboat/runtime/runner.h"
#include "seqboat/runtime/state.h"

/// What the verbs on the streaming runtime share.
namespace seqboat::app {

struct StreamingOptions {
  std::string model;  ///< as the user named it
  std::string ring = "float32";
  std::string state_in, state_out;  ///< files; empty = none
  int64_t max_context = 0;          ///< 0 = not said
};

/// MODEL, --ring, --state-in, --state-out, --max-context.
void add_streaming_options(CLI::App* command, StreamingOptions* options);
/// --ring alone.
void add_ring_option(CLI::App* command, std::string* ring);

/// The threads that --threads means: 0 = all cores.
int64_t threads_of(const CommonOptions& common);
/// Where tokens come one by one: 0 = as many as the weights that each token reads are worth, at most all cores. Threads meet several times a layer,
/// and a small model is done before they have.
int64_t stepping_threads(const CommonOptions& common, const runtime::Model& model, int64_t streams = 1);

/// The model of a folder or run directory. Error (kModel) for one that cannot stream, which says why.
std::shared_ptr<const runtime::Model> load_streaming_model(const std::string& path, const std::string& ring);

/// The state of --state-in, or a fresh one. Errors (kModel) of State::load(), kUsage for a --state-out that cannot be written or a --max-context
/// that contradicts the file.
runtime::State begin_state(const std::shared_ptr<const runtime::Model>& model, const StreamingOptions& options);

/// The most tokens that a stream of this model may have: what Mega's table of distances tells apart, else INT64_MAX.
int64_t longest_stream(const runtime::Model& model);

/// Tokens that this state still has room for; INT64_MAX where it has no end.
int64_t room_of(const runtime::State& state);

/// Options of a runner for states like this one.
runtime::RunnerOptions runner_options(const runtime::State& state, int64_t threads, int64_t max_streams = 1);

/// Whether the model's tokens are the bytes of data/bytes.h; Error (kModel) naming what it reads in their place.
void check_reads_bytes(const runtime::Model& model, const std::string& path);

/// -log2 of the probability that these logits give to a token, over all of the vocabulary as `eval` has it.
double surprise_bits(std::span<const float> logits, int64_t token);

/// "12.3 kB"
std::string bytes_text(int64_t bytes);
/// 51234 -> "51.2k"
std::string short_number(double value);

}  // namespace seqboat::app
