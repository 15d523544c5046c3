// Writes a small model of bytes, of random numbers, for the tests of the installed package: random_model FOLDER tokens|real

#include <seqboat/base/error.h>
#include <seqboat/runtime/model.h>

#include <cstdio>
#include <string>

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  seqboat::config::ModelConfig config;
  config.causal = true;
  config.d_model = 16;
  config.d_attn = 8;
  config.d_hidden = 32;
  config.n_layers = 2;
  config.window_size = 8;
  if (std::string(argv[2]) == "tokens") {
    config.task = "language-model";
    config.vocab_size = 256;
  } else {
    config.input = "real";
    config.channels = 2;
    config.classes = 4;
  }
  try {
    seqboat::runtime::write_random_model(argv[1], config, 1);
  } catch (const seqboat::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  // The library's exceptions are caught here, in another binary than the one that throws them.
  try {
    seqboat::runtime::write_random_model(std::string(argv[1]) + "/none", config, 1);
  } catch (const seqboat::Error&) {
    return 0;
  }
  return 1;
}
