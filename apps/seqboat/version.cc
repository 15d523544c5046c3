// seqboat version
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "command.h"
#include "program_path.h"
#include "seqboat/kernels/simd.h"

namespace seqboat::app {

void add_version(CLI::App* app, Invocation* invocation) {
  CLI::App* command = app->add_subcommand("version", "version, build, SIMD target, and whether train, eval and bench are there");
  add_common_options(command, invocation);
  command->footer(examples("seqboat version", "seqboat version --json"));
  command->callback([invocation] {
    invocation->action = [](Reporter& reporter) {
      const std::string module = train_module_path().string();
      nlohmann::ordered_json json;
      json["version"] = SEQBOAT_VERSION;
      json["build"] = SEQBOAT_BUILD_TYPE;
      json["compiler"] = __VERSION__;
      json["simd"] = kernels::simd_target();
      json["simd_supported"] = kernels::supported_simd_targets();
      json["libtorch"] = !module.empty();
      std::string text = fmt::format("seqboat {}\n", SEQBOAT_VERSION);
      text += fmt::format("build     {}, {}\n", SEQBOAT_BUILD_TYPE, __VERSION__);
      text += fmt::format("simd      {} (this machine runs {})\n", kernels::simd_target(), fmt::join(kernels::supported_simd_targets(), ", "));
      text += module.empty() ? "libtorch  no: train, eval and bench are not in this build\n" : fmt::format("libtorch  yes, {}\n", module);
      reporter.result(json, text);
      return 0;
    };
  });
}

}  // namespace seqboat::app
