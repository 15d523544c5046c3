// Writes what the fuzz targets begin with: fuzz_seeds FOLDER makes FOLDER/{safetensors,state,config,toml}, each with whole, valid inputs.

#include <cstdio>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <vector>

#include "fuzz_case.h"
#include "seqboat/base/safetensors.h"
#include "seqboat/runtime/runner.h"
#include "seqboat/runtime/state.h"

namespace {

namespace fs = std::filesystem;
namespace runtime = seqboat::runtime;

std::string bytes_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write(const fs::path& file, const std::string& bytes) {
  std::ofstream(file, std::ios::binary) << bytes;
}

void write_seeds(const fs::path& folder) {
  for (const char* name : {"safetensors", "state", "config", "toml"}) fs::create_directories(folder / name);
  const float floats[] = {1, 2, 3, 4, 5, 6};
  const int8_t integers[] = {-1, 0, 1};
  seqboat::write_safetensors(
      folder / "safetensors/two",
      {{"a.weight", seqboat::DType::kF32, {2, 3}, floats, sizeof floats}, {"b", seqboat::DType::kI8, {3}, integers, sizeof integers}},
      {{"format", "pt"}});
  seqboat::write_safetensors(folder / "safetensors/none", {});
  for (size_t i = 0; i < seqboat::fuzz::models().size(); ++i) {
    const auto& model = seqboat::fuzz::models()[i];
    const std::string number = std::to_string(i);
    runtime::Runner runner(model, {.max_tokens = 8, .max_streams = 1, .max_context = 16});
    runtime::State state = runtime::State::create(model, {.max_context = 16});
    const fs::path file = folder / "state" / number;
    for (const char* when : {"fresh", "fed"}) {
      state.save(file);
      write(folder / "state" / (number + when), static_cast<char>(i) + bytes_of(file));
      fs::remove(file);
      const std::vector<int64_t> tokens{0, 1, 2, 3, 4, 0, 1};
      runner.feed({.state = &state, .tokens = tokens, .want = runtime::Want::kNothing});
    }
    write(folder / "config" / number, seqboat::config::to_json(model->config()).dump(2));
  }
  for (const auto& entry : fs::recursive_directory_iterator(SEQBOAT_SOURCE_DIR "/recipes")) {
    if (entry.path().extension() != ".toml") continue;
    write(folder / "toml" / (entry.path().parent_path().filename().string() + "-" + entry.path().stem().string()), bytes_of(entry.path()));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: fuzz_seeds FOLDER\n");
    return 2;
  }
  try {
    write_seeds(argv[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "fuzz_seeds: %s\n", error.what());
    return 1;
  }
}
