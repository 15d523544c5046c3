// Models written in fewer bits, and models of random numbers.

#include <cmath>
#include <cstring>
#include <list>
#include <nlohmann/json.hpp>

#include "runtime/model_impl.h"
#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/base/philox.h"
#include "seqboat/config/run_dir.h"
#include "seqboat/kernels/packed_weight.h"

namespace seqboat::runtime {
namespace {

namespace fs = std::filesystem;

/// Tensors with the memory that they lie in.
struct OwnedTensors {
  std::list<Buffer> buffers;
  std::vector<TensorView> views;

  std::byte* add(const std::string& name, DType dtype, const std::vector<int64_t>& shape) {
    TensorView view{name, dtype, shape, nullptr, 0};
    view.size_bytes = static_cast<size_t>(view.count()) * dtype_size(dtype);
    buffers.emplace_back(static_cast<int64_t>(view.size_bytes), "weights");
    view.data = buffers.back().data();
    views.push_back(view);
    return buffers.back().data();
  }
};

void add_quantized(const TensorView& matrix, Precision type, OwnedTensors* out) {
  const int64_t rows = matrix.shape[0], width = matrix.shape[1];
  Buffer copy(static_cast<int64_t>(matrix.size_bytes), "weights");
  std::memcpy(copy.data(), matrix.data, matrix.size_bytes);
  if (type == Precision::kBf16) {
    std::byte* to = out->add(matrix.name, DType::kBF16, matrix.shape);
    kernels::float_to_bf16(rows * width, copy.as<float>(), reinterpret_cast<uint16_t*>(to));
  } else {
    std::byte* to = out->add(matrix.name, DType::kI8, matrix.shape);
    std::byte* scales = out->add(matrix.name + ".scale", DType::kF32, {rows});
    kernels::quantize_int8(rows, width, copy.as<float>(), width, reinterpret_cast<int8_t*>(to), reinterpret_cast<float*>(scales));
  }
}

bool ends_with(const std::string& text, const char* end) {
  const size_t size = std::strlen(end);
  return text.size() >= size && text.compare(text.size() - size, size, end) == 0;
}

/// Numbers of which every layer says something: see random_model().
void fill(const TensorSpec& spec, const config::ModelConfig& config, PhiloxStream* random, float* out) {
  int64_t count = 1;
  for (const int64_t size : spec.shape) count *= size;
  const auto normal = [&](double mean, double deviation) {
    for (int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(mean + deviation * random->next_normal());
  };
  const std::string& name = spec.name;
  if (ends_with(name, "inv_freq")) {
    for (int64_t i = 0; i < count; ++i)
      out[i] = static_cast<float>(std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(config.d_model)));
  } else if (ends_with(name, "running_var")) {
    for (int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(0.5 + random->next_uniform());
  } else if (name.find("norm.") != std::string::npos) {
    normal(ends_with(name, "weight") ? 1.0 : 0.0, 0.1);
  } else if (ends_with(name, "log_temperature")) {
    out[0] = 0;
  } else if (ends_with(name, "positions.scale")) {
    out[0] = 0.1f;
  } else if (name.find("router.proj.weight") != std::string::npos) {
    normal(0, 4 / std::sqrt(static_cast<double>(config.d_model)));
  } else if (ends_with(name, "log_dt")) {
    for (int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(std::log(0.001) + random->next_uniform() * std::log(100.0));
  } else if (ends_with(name, "log_a_real")) {
    normal(std::log(0.5), 0.1);
  } else if (ends_with(name, "a_imag")) {
    const int64_t modes = spec.shape[1];
    for (int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(3.14159 * static_cast<double>(i % modes));
  } else if (ends_with(name, "qk_gamma")) {
    normal(0, 1);
  } else if (ends_with(name, "delta") || ends_with(name, "alpha") || ends_with(name, "position.beta")) {
    normal(0, 0.5);
  } else if (spec.is_matrix && name != "embedding.weight") {
    normal(0, 1 / std::sqrt(static_cast<double>(spec.shape[1])));
  } else if (name == "embedding.weight" && config.task == "language-model" && config.tie_embedding) {
    normal(0, 1 / std::sqrt(static_cast<double>(spec.shape[1])));
  } else if (ends_with(name, "bias") || ends_with(name, "table") || ends_with(name, "qk_beta")) {
    normal(0, 0.2);
  } else {
    normal(0, 1);  // embeddings, and what else the encoders have
  }
}

OwnedTensors random_tensors(const config::ModelConfig& config, uint64_t seed) {
  config.validate("model");
  OwnedTensors out;
  uint64_t stream = 0;
  for (const TensorSpec& spec : tensor_specs(config)) {
    std::byte* data = out.add(spec.name, spec.dtype, spec.shape);
    PhiloxStream random(seed, ++stream);
    if (spec.dtype == DType::kF32) fill(spec, config, &random, reinterpret_cast<float*>(data));
  }
  return out;
}

OwnedTensors quantized(const std::vector<FoundTensor>& tensors, Precision type) {
  OwnedTensors out;
  for (const FoundTensor& tensor : tensors) {
    if (tensor.spec->is_matrix && type != Precision::kFloat32) {
      add_quantized(*tensor.view, type, &out);
    } else {
      out.views.push_back(*tensor.view);
    }
  }
  return out;
}

}  // namespace

std::shared_ptr<const Model> random_model(const config::ModelConfig& config, uint64_t seed, Precision weights, const LoadOptions& options) {
  auto owned = std::make_shared<OwnedTensors>(random_tensors(config, seed));
  if (weights != Precision::kFloat32) {
    const std::vector<TensorSpec> specs = tensor_specs(config);
    const TensorSource wide{owned->views, "model", owned};
    auto smaller = std::make_shared<OwnedTensors>(quantized(find_tensors(specs, wide), weights));
    smaller->buffers.splice(smaller->buffers.end(), owned->buffers);
    owned = smaller;
  }
  return std::make_shared<const Model>(build_model(config, {owned->views, "model", owned}, options));
}

void write_random_model(const fs::path& dir, const config::ModelConfig& config, uint64_t seed) {
  const OwnedTensors tensors = random_tensors(config, seed);
  write_file_atomically(dir / "config.json", config::to_json(config).dump(2) + "\n");
  write_safetensors(dir / "model.safetensors", tensors.views);
}

void quantize(const fs::path& dir_in, const fs::path& dir_out, Precision type) {
  SEQBOAT_CHECK(type != Precision::kFloat32, ErrorKind::kUsage, "a model is quantised to bf16 or int8, found float32");
  std::error_code error;
  const config::ModelConfig config = config::read_model_config(dir_in);
  SEQBOAT_CHECK(config.input != "tokens" || config.vocab_size > 0, ErrorKind::kModel, "{}: vocab_size must be positive, found {}",
                (dir_in / "config.json").string(), config.vocab_size);
  const fs::path file = dir_in / "model.safetensors";
  const SafetensorsFile tensors = SafetensorsFile::open(file);
  const std::vector<TensorSpec> specs = tensor_specs(config);
  const TensorSource source{tensors.tensors(), file.string(), nullptr};
  const std::vector<FoundTensor> found = find_tensors(specs, source);
  for (const FoundTensor& tensor : found) {
    SEQBOAT_CHECK(tensor.view->dtype == tensor.spec->dtype, ErrorKind::kModel, "{}: tensor {} is {} already: quantise the float32 model",
                  file.string(), tensor.spec->name, dtype_name(tensor.view->dtype));
  }
  const OwnedTensors out = quantized(found, type);
  // Both files or none: written beside, and the folder renamed into its place.
  const bool free = !fs::exists(dir_out, error) || (fs::is_directory(dir_out, error) && fs::is_empty(dir_out, error));
  SEQBOAT_CHECK(free, ErrorKind::kUsage, "{}: is there already; the quantised model needs a new folder", dir_out.string());
  fs::path target = dir_out.lexically_normal();
  if (!target.has_filename()) target = target.parent_path();
  const fs::path temporary = target.string() + ".partial";
  fs::remove_all(temporary, error);
  fs::create_directories(temporary, error);
  SEQBOAT_CHECK(!error, ErrorKind::kFailed, "{}: cannot make the folder: {}", temporary.string(), error.message());
  try {
    write_file_atomically(temporary / "config.json", read_file(dir_in / "config.json"));
    write_safetensors(temporary / "model.safetensors", out.views, {{"quantized", precision_name(type)}});
    fs::rename(temporary, target, error);
    SEQBOAT_CHECK(!error, ErrorKind::kFailed, "{}: cannot rename the folder to {}: {}", temporary.string(), target.string(), error.message());
  } catch (...) {
    fs::remove_all(temporary, error);
    throw;
  }
}

}  // namespace seqboat::runtime
