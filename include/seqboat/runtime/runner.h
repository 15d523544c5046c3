#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "seqboat/runtime/model.h"
#include "seqboat/runtime/state.h"

namespace seqboat::runtime {

struct RunnerOptions {
  int64_t threads = 1;       ///< the caller's among them; results do not depend on it
  int64_t max_tokens = 512;  ///< rows that go through the model at once; longer input is cut inside. The workspace grows with it
  int64_t max_streams = 64;  ///< streams of one feed()
  int64_t max_context = 0;   ///< the largest of the states' that it will feed, where the model needs one (Model::needs_max_context())
  /// Where the workspace is to live: at least Runner::workspace_bytes() bytes, aligned to 64, the caller's until the runner is gone. Empty:
  /// allocated.
  std::span<std::byte> memory = {};
};

enum class Want {
  kNothing,  ///< feed only
  kLast,     ///< the head's output at the last token
  kAll,      ///< at every token: of a classifier, what it says of the stream up to there
};

/// What one stream is fed in one call. Spans are the caller's and must not overlap.
struct Feed {
  State* state = nullptr;
  std::span<const int64_t> tokens = {};  ///< token input: n integers in [0, V)
  std::span<const float> values = {};    ///< real input: n steps of channels() finite numbers
  Want want = Want::kLast;
  /// kLast: outputs() numbers; kAll: (n, outputs()). With kLast and n = 0, the logits of the last token that was fed before (there must be one).
  std::span<float> logits = {};
  /// (n_layers, n), 1 = activated: decides in the routers' place, whose confidence stays. Empty: they decide. Layers in which nobody chooses pass
  /// over theirs.
  std::span<const uint8_t> forced = {};
  /// Asked for where not empty, (n_layers, n): decisions (1 everywhere in layers that activate everything), and the routers' P(active) of every token
  /// (the decision itself where nothing is learned).
  std::span<uint8_t> active = {};
  std::span<float> probability = {};
};

/// Runs streams of one model: workspace and threads of one caller. One feed() at a time.
///
/// Law: a stream gives the same bits whole, in any pieces, token by token, alone or beside others, with any number of threads. (Under one SIMD
/// target.) After construction nothing is allocated. Denormals count as zero while it works. Helpers spin for some microseconds for the next piece of
/// work, then sleep; between calls they sleep.
class Runner {
 public:
  /// Error (kUsage) for options out of range, kResource where there is no room.
  explicit Runner(std::shared_ptr<const Model> model, const RunnerOptions& options = {});
  ~Runner();
  Runner(Runner&&) noexcept;
  Runner& operator=(Runner&&) noexcept;

  /// Feeds all streams, and moves their states on. Rows of all of them go through the projections together, so that the weights are read once.
  /// Everything is checked before anything changes: an Error leaves every state and output untouched. kData: a token or value that is out of range or
  /// not finite (stream, place, expected, found), more tokens than max_context; kModel: a state of another model; kUsage: a state twice, spans of the
  /// wrong size, too many streams.
  void feed(std::span<const Feed> streams);
  void feed(const Feed& stream) { feed({&stream, 1}); }

  const std::shared_ptr<const Model>& model() const;
  int64_t threads() const;
  int64_t workspace_bytes() const;
  static int64_t workspace_bytes(const Model& model, const RunnerOptions& options);

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace seqboat::runtime
