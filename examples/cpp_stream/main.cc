// Two streams of one model side by side, in C++: a text whole, and the same text in pieces, with the state saved and loaded between them. Both end in
// the same bits.
//
//   cpp_stream MODEL_FOLDER TEXT

#include <seqboat/base/error.h>
#include <seqboat/runtime/model.h>
#include <seqboat/runtime/runner.h>
#include <seqboat/runtime/state.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

namespace runtime = seqboat::runtime;

int main(int argc, char** argv) try {
  if (argc != 3) {
    std::fprintf(stderr, "usage: cpp_stream MODEL_FOLDER TEXT\n");
    return 2;
  }
  const auto model = runtime::load(argv[1]);
  const std::string text = argv[2];
  std::vector<int64_t> tokens;
  for (const unsigned char byte : text) tokens.push_back(byte);
  const std::span<const int64_t> all(tokens);

  runtime::Runner runner(model, {.threads = 2});
  std::vector<float> whole(static_cast<size_t>(model->outputs())), pieces = whole;
  auto one = runtime::State::create(model);
  runner.feed({.state = &one, .tokens = all, .logits = whole});

  const std::filesystem::path file = std::filesystem::temp_directory_path() / "cpp_stream.state";
  auto other = runtime::State::create(model);
  runner.feed({.state = &other, .tokens = all.first(tokens.size() / 2), .want = runtime::Want::kNothing});
  other.save(file);
  other = runtime::State::load(model, file);
  std::filesystem::remove(file);
  runner.feed({.state = &other, .tokens = all.subspan(tokens.size() / 2), .logits = pieces});

  std::printf("%zu tokens, %lld bytes a stream, %s\n", tokens.size(), static_cast<long long>(one.size_bytes()),
              whole == pieces ? "the same logits" : "DIFFERENT logits");
  return whole == pieces ? 0 : 1;
} catch (const seqboat::Error& error) {
  std::fprintf(stderr, "cpp_stream: %s\n", error.what());
  return 1;
}
