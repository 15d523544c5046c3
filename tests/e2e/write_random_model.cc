// Writes a model of random numbers for the end-to-end tests, which have no `train` in every preset: write_random_model CONFIG.json FOLDER SEED
#include <cstdio>
#include <exception>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "seqboat/base/file_io.h"
#include "seqboat/config/model_config.h"
#include "seqboat/runtime/model.h"

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  try {
    const auto config = seqboat::config::model_config_from_json(nlohmann::ordered_json::parse(seqboat::read_file(argv[1])), argv[1]);
    std::filesystem::create_directories(argv[2]);
    seqboat::runtime::write_random_model(argv[2], config, std::stoull(argv[3]));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
