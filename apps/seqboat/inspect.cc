// seqboat inspect MODEL
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "command.h"
#include "runtime_model.h"
#include "seqboat/base/error.h"
#include "seqboat/base/safetensors.h"
#include "seqboat/config/flops.h"
#include "seqboat/config/model_size.h"
#include "seqboat/config/run_dir.h"
#include "seqboat/runtime/model.h"
#include "seqboat/runtime/state.h"

namespace seqboat::app {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct InspectOptions {
  std::string model;
  double activation_rate = 0.5;
  int64_t length = 0;
};

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// Buffers go with the weights but are not trained.
bool is_buffer(const std::string& name) {
  for (const char* end : {"running_mean", "running_var", "num_batches_tracked", "inv_freq"}) {
    if (ends_with(name, end)) return true;
  }
  return false;
}

// Of a matrix in I8: what a row's integers are multiplied by.
bool is_scale(const SafetensorsFile& file, const std::string& name) {
  if (!ends_with(name, ".scale")) return false;
  const TensorView* matrix = file.find(name.substr(0, name.size() - std::string(".scale").size()));
  return matrix != nullptr && matrix->dtype == DType::kI8;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("({})", fmt::join(shape, ", "));
}

int inspect(const InspectOptions& options, Reporter& reporter) {
  const fs::path folder = config::find_model_dir(options.model);
  const config::ModelConfig config = config::read_model_config(folder);
  const fs::path weights = folder / "model.safetensors";
  std::error_code error;
  SEQBOAT_CHECK(fs::is_regular_file(weights, error), ErrorKind::kModel, "{}: no such file", weights.string());
  const SafetensorsFile file = SafetensorsFile::open(weights);

  int64_t parameters = 0;
  int64_t weight_bytes = 0;
  Json by_type = Json::object();
  Json tensors = Json::array();
  size_t name_width = 0;
  for (const TensorView& tensor : file.tensors()) {
    if (!is_buffer(tensor.name) && !is_scale(file, tensor.name)) parameters += tensor.count();
    const auto bytes = static_cast<int64_t>(tensor.size_bytes);
    weight_bytes += bytes;
    Json& of_type = by_type[dtype_name(tensor.dtype)];
    of_type = bytes + (of_type.is_null() ? 0 : of_type.get<int64_t>());
    name_width = std::max(name_width, tensor.name.size());
    tensors.push_back({{"name", tensor.name}, {"dtype", dtype_name(tensor.dtype)}, {"shape", tensor.shape}});
  }
  const int64_t expected = config::parameter_count(config);
  SEQBOAT_CHECK(parameters == expected, ErrorKind::kModel, "{}: expected {} parameters, as config.json beside it asks for, found {}",
                weights.string(), expected, parameters);

  const int64_t length = options.length > 0 ? options.length : config.max_positions;
  const config::Flops flops = config::flops_per_token(config, options.activation_rate, length);
  const int64_t state = config::state_bytes(config);
  // What the runtime takes for it: a model that it cannot load is described all the same.
  std::shared_ptr<const runtime::Model> model;
  std::string why_not;
  try {
    model = runtime::load(folder);
  } catch (const Error& e) {
    why_not = e.what();
  }
  const bool runs = model && model->why_no_stream().empty() && !model->needs_max_context();
  const int64_t runtime_state = runs ? runtime::State::bytes_for(*model) : 0;

  Json json;
  json["model"] = folder.string();
  json["config"] = config::to_json(config);
  json["parameters"] = parameters;
  json["weight_bytes"] = weight_bytes;
  json["weight_bytes_by_type"] = by_type;
  json["flops_per_token"] = {{"activation_rate", options.activation_rate},
                             {"length", length},
                             {"products", flops.products},
                             {"attention", flops.attention},
                             {"scan", flops.scan},
                             {"total", flops.total()}};
  json["streams"] = state > 0;
  json["state_bytes"] = state > 0 ? Json(state) : Json(nullptr);
  json["runtime"] = {{"weight_bytes", model ? Json(model->weight_bytes()) : Json(nullptr)},
                     {"state_bytes", runs ? Json(runtime_state) : Json(nullptr)},
                     {"why_not", model ? Json(model->why_no_stream().empty() ? Json(nullptr) : Json(model->why_no_stream())) : Json(why_not)}};
  json["tensors"] = tensors;

  std::string text = fmt::format("{}\n\n", folder.string());
  for (const auto& [name, value] : json["config"].items()) {
    text += fmt::format("{:<18} {}\n", name, value.is_string() ? value.get<std::string>() : value.dump());
  }
  text += "\n";
  for (const TensorView& tensor : file.tensors()) {
    text += fmt::format("{:<{}}  {:<4}  {}\n", tensor.name, name_width, dtype_name(tensor.dtype), shape_text(tensor.shape));
  }
  std::string types;
  for (const auto& [type, bytes] : by_type.items())
    types += fmt::format("{}{} {}", types.empty() ? "" : ", ", type, bytes_text(bytes.get<int64_t>()));
  text += fmt::format("\nparameters         {} ({} on disk: {})\n", parameters, bytes_text(weight_bytes), types);
  text +=
      fmt::format("FLOPs per token    {:.0f} forward, at activation rate {} in a sequence of {}\n", flops.total(), options.activation_rate, length);
  text += fmt::format("                   products {:.0f}, attention {:.0f}, scan {:.0f}\n", flops.products, flops.attention, flops.scan);
  if (state > 0) {
    text += fmt::format("state per stream   {} ({} bytes)\n", bytes_text(state), state);
  } else if (!config.causal) {
    text += "state per stream   bidirectional: cannot stream\n";
  } else {
    text += "state per stream   attention without a window: its state grows with the stream\n";
  }
  if (runs) text += fmt::format("in the runtime     {} of weights, {} a stream\n", bytes_text(model->weight_bytes()), bytes_text(runtime_state));
  reporter.result(json, text);
  return 0;
}

}  // namespace

void add_inspect(CLI::App* app, Invocation* invocation) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* command = app->add_subcommand("inspect", "config, tensors, parameters, FLOPs per token and state of a model");
  command->add_option("MODEL", options->model, "a model folder or a run directory")->required();
  command->add_option("--activation-rate", options->activation_rate, "share of activated tokens that the FLOPs are counted for; default 0.5")
      ->check(number(0, 1))
      ->type_name("R");
  command->add_option("--length", options->length, "length of the sequence, which bounds what attention sees; default max_positions")
      ->check(whole_number(1, 1'000'000'000))
      ->type_name("T");
  add_common_options(command, invocation);
  command->footer(examples("seqboat inspect runs/first", "seqboat inspect runs/first/model --activation-rate 0.25 --json"));
  command->callback([invocation, options] { invocation->action = [options](Reporter& reporter) { return inspect(*options, reporter); }; });
}

}  // namespace seqboat::app
