#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

#include "seqboat/runtime/model.h"

namespace seqboat::runtime {

struct StateOptions {
  /// Tokens that the stream may have, for layers that attend without an end (Model::needs_max_context()); ignored by other models, whose states have
  /// one size for ever.
  int64_t max_context = 0;
  /// Where the state is to live: at least State::bytes_for() bytes, aligned to 64, the caller's until the state is gone. Empty: allocated.
  std::span<std::byte> memory = {};
  /// Keys of the hash by which seqboat-random and router "random" choose; others do not look at them.
  uint64_t seed = 0;
  int64_t sequence_id = 0;
};

/// Everything that a causal model carries of one stream, in one block of memory: a value. A stream that is fed through it in any pieces gives the
/// same bits as whole. It belongs to one stream and is used by one thread at a time.
///
/// The block: a header (time, hash keys), then for each layer the encoder's state, the inputs that a truncation still needs, scores of top-share, and
/// a ring of the last W + 64 or so keys and values with their times; last the sum or the token that a classifier pools, and the last output vector.
class State {
 public:
  /// A stream before its first token. Error (kModel) for a model that cannot stream, kUsage for a missing or bad max_context or memory, kResource
  /// where there is no room.
  static State create(std::shared_ptr<const Model> model, const StateOptions& options = {});
  static int64_t bytes_for(const Model& model, const StateOptions& options = {});

  State(State&&) noexcept;
  State& operator=(State&&) noexcept;
  ~State();

  /// An independent copy; `memory` as in StateOptions.
  State clone(std::span<std::byte> memory = {}) const;
  /// Takes over what the other holds: neither allocates nor throws if both are of one model and max_context, else Error (kModel).
  void copy_from(const State& other);
  /// Before the first token again.
  void reset() noexcept;

  const std::shared_ptr<const Model>& model() const;
  int64_t size_bytes() const;   ///< of the block
  int64_t tokens() const;       ///< fed so far: the time of the next one
  int64_t max_context() const;  ///< 0 = no end
  /// Tokens that layer number `layer` has activated so far (all of them where everything attends, 0 where nothing does).
  int64_t activated(int64_t layer) const;

  /// Writes the state as a safetensors file, whole or not at all; errors of write_safetensors(). Kept are the numbers, the model's fingerprint, the
  /// ring's precision and the format's version. A file can be loaded under another SIMD target, too.
  void save(const std::filesystem::path& file) const;
  /// Error (kModel) in one line that names the file: truncated, no state at all, a newer format's, another model's or ring's, a counter that cannot
  /// be, a number that is not finite. `memory` as in StateOptions.
  static State load(std::shared_ptr<const Model> model, const std::filesystem::path& file, std::span<std::byte> memory = {});

  /// For tests: a fresh state goes on as if `time` tokens had been fed that left nothing behind.
  void set_clock(int64_t time);

  struct Impl;
  explicit State(std::unique_ptr<Impl> impl);
  Impl& impl() { return *impl_; }  ///< for the library's own sources
  const Impl& impl() const { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace seqboat::runtime
