#pragma once

// What the fuzz targets share: an input as a file, and the models whose states are read.

#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "seqboat/base/error.h"
#include "seqboat/config/model_config.h"
#include "seqboat/runtime/model.h"

namespace seqboat::fuzz {

/// Bytes as a file in memory, for readers that take a path.
class InputFile {
 public:
  InputFile(const uint8_t* data, size_t size) : file_(::memfd_create("input", 0)) {
    if (file_ < 0 || ::write(file_, data, size) != static_cast<ssize_t>(size)) std::abort();
  }
  ~InputFile() { ::close(file_); }
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  std::filesystem::path path() const { return "/proc/self/fd/" + std::to_string(file_); }

 private:
  int file_;
};

/// A law that every input must keep.
inline void demand(bool holds) {
  if (!holds) std::abort();
}

/// Small models with every kind of thing that a state may hold. The first byte of a state's input chooses one.
inline const std::array<std::shared_ptr<const runtime::Model>, 4>& models() {
  static const auto all = [] {
    config::ModelConfig c;
    c.task = "language-model";
    c.causal = true;
    c.vocab_size = 5;
    c.d_model = 3;
    c.d_attn = 2;
    c.d_hidden = 4;
    c.d_state = 2;
    c.n_layers = 1;
    c.window_size = 2;
    c.max_positions = 4;
    config::ModelConfig truncated = c, endless = c, share = c;
    truncated.truncation = 3;
    truncated.encoder = "s4d";
    endless.window_size = 0;
    endless.position = "rotary";
    share.router = "top-share";
    share.router_horizon = 4;
    share.task = "classification";
    share.classes = 2;
    return std::array{runtime::random_model(c, 1), runtime::random_model(truncated, 1), runtime::random_model(endless, 1),
                      runtime::random_model(share, 1, runtime::Precision::kFloat32, {.ring = runtime::Precision::kBf16})};
  }();
  return all;
}

}  // namespace seqboat::fuzz
