#include "seqboat/train/model_io.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/base/safetensors.h"
#include "seqboat/base/text.h"
#include "seqboat/config/keys.h"
#include "seqboat/config/model_size.h"
#include "seqboat/config/run_dir.h"

namespace seqboat::train {
namespace {

constexpr int64_t kSmallModel = int64_t{1} << 22;  // parameters, 16 MiB: no harm in building it for nothing

constexpr std::pair<DType, torch::ScalarType> kDTypes[] = {{DType::kF32, torch::kFloat32}, {DType::kF64, torch::kFloat64},
                                                           {DType::kI64, torch::kInt64},   {DType::kI32, torch::kInt32},
                                                           {DType::kU8, torch::kUInt8},    {DType::kBool, torch::kBool}};

DType dtype_of(const NamedTensor& item) {
  for (const auto& [dtype, scalar_type] : kDTypes) {
    if (scalar_type == item.tensor.scalar_type()) return dtype;
  }
  fail(ErrorKind::kFailed, "tensor {} has the type {}, which is not saved", in_quotes(item.name), toString(item.tensor.scalar_type()));
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string out;
  for (const int64_t size : shape) out += (out.empty() ? "" : ", ") + std::to_string(size);
  return "[" + out + "]";
}

}  // namespace

std::vector<NamedTensor> tensors_of(const torch::nn::Module& module) {
  std::vector<NamedTensor> out;
  std::set<const c10::TensorImpl*> seen;
  const auto add = [&](const std::string& name, const torch::Tensor& tensor) {
    if (tensor.defined() && seen.insert(tensor.unsafeGetTensorImpl()).second) out.push_back({name, tensor.detach()});
  };
  for (const auto& item : module.named_parameters()) add(item.key(), item.value());
  for (const auto& item : module.named_buffers()) add(item.key(), item.value());
  return out;
}

void save_tensors(const std::filesystem::path& file, const std::vector<NamedTensor>& tensors) {
  std::vector<torch::Tensor> kept;  // contiguous copies live as long as the views
  std::vector<TensorView> views;
  for (const NamedTensor& item : tensors) {
    kept.push_back(item.tensor.detach().contiguous());
    views.push_back({item.name, dtype_of(item), kept.back().sizes().vec(), kept.back().const_data_ptr(), kept.back().nbytes()});
  }
  write_safetensors(file, views);
}

void load_tensors(const std::filesystem::path& file, const std::vector<NamedTensor>& tensors) {
  const SafetensorsFile source = SafetensorsFile::open(file);
  std::vector<std::string> expected;
  for (const NamedTensor& item : tensors) expected.push_back(item.name);
  for (const NamedTensor& item : tensors) {
    const TensorView* view = source.find(item.name);
    SEQBOAT_CHECK(view != nullptr, ErrorKind::kModel, "{}: tensor {} is missing; the config asks for {} tensors, the file has {}", file.string(),
                  in_quotes(item.name), tensors.size(), source.tensors().size());
    SEQBOAT_CHECK(view->shape == item.tensor.sizes().vec(), ErrorKind::kModel, "{}: tensor {}: expected the shape {}, found {}", file.string(),
                  in_quotes(item.name), shape_text(item.tensor.sizes().vec()), shape_text(view->shape));
    SEQBOAT_CHECK(view->dtype == dtype_of(item), ErrorKind::kModel, "{}: tensor {}: expected the dtype {}, found {}", file.string(),
                  in_quotes(item.name), dtype_name(dtype_of(item)), dtype_name(view->dtype));
  }
  for (const TensorView& view : source.tensors()) {
    if (std::find(expected.begin(), expected.end(), view.name) != expected.end()) continue;
    const std::string near = config::nearest(view.name, expected);
    fail(ErrorKind::kModel, "{}: tensor {} is unknown: the config asks for none of this name{}", file.string(), in_quotes(view.name),
         near.empty() ? "" : fmt::format(" (the nearest is '{}')", near));
  }
  torch::NoGradGuard no_grad;
  for (const NamedTensor& item : tensors) {
    const TensorView& view = source.at(item.name);
    torch::Tensor loaded = torch::empty(view.shape, item.tensor.options().requires_grad(false));
    std::memcpy(loaded.mutable_data_ptr(), view.data, view.size_bytes);
    torch::Tensor target = item.tensor;
    target.copy_(loaded);
  }
}

std::vector<std::string> take_tensors(const std::filesystem::path& file, const std::vector<NamedTensor>& tensors) {
  const SafetensorsFile source = SafetensorsFile::open(file);
  std::vector<std::string> left;
  torch::NoGradGuard no_grad;
  for (const NamedTensor& item : tensors) {
    const TensorView* view = source.find(item.name);
    if (view == nullptr || view->shape != item.tensor.sizes().vec() || view->dtype != dtype_of(item)) {
      left.push_back(item.name);
      continue;
    }
    torch::Tensor loaded = torch::empty(view->shape, item.tensor.options().requires_grad(false));
    std::memcpy(loaded.mutable_data_ptr(), view->data, view->size_bytes);
    torch::Tensor target = item.tensor;
    target.copy_(loaded);
  }
  SEQBOAT_CHECK(left.size() < tensors.size(), ErrorKind::kModel, "{}: none of its {} tensors has name and shape of one of this model's",
                file.string(), source.tensors().size());
  return left;
}

std::vector<NamedTensor> read_tensors(const std::filesystem::path& file) {
  const SafetensorsFile source = SafetensorsFile::open(file);
  std::vector<NamedTensor> out;
  for (const TensorView& view : source.tensors()) {
    const auto* known = std::find_if(std::begin(kDTypes), std::end(kDTypes), [&](const auto& entry) { return entry.first == view.dtype; });
    SEQBOAT_CHECK(known != std::end(kDTypes), ErrorKind::kModel, "{}: tensor {}: a tensor of dtype {} is not expected here", file.string(),
                  in_quotes(view.name), dtype_name(view.dtype));
    torch::Tensor tensor = torch::empty(view.shape, torch::TensorOptions().dtype(known->second));
    if (view.size_bytes > 0) std::memcpy(tensor.mutable_data_ptr(), view.data, view.size_bytes);
    out.push_back({view.name, std::move(tensor)});
  }
  return out;
}

void save_model(const std::filesystem::path& dir, const nn::Model& model) {
  write_file_atomically(dir / "config.json", config::to_json(model.config()).dump(2) + "\n");
  save_tensors(dir / "model.safetensors", tensors_of(model));
}

std::shared_ptr<nn::Model> load_model(const std::filesystem::path& dir, const std::function<void(config::ModelConfig*)>& change) {
  config::ModelConfig config = config::read_model_config(dir);
  if (change) change(&config);
  SEQBOAT_CHECK(config.input != "tokens" || config.vocab_size > 0, ErrorKind::kModel, "{}: vocab_size must be positive, found {}",
                (dir / "config.json").string(), config.vocab_size);
  SEQBOAT_CHECK(config.input != "real" || config.channels > 0, ErrorKind::kModel, "{}: channels must be positive, found {}",
                (dir / "config.json").string(), config.channels);
  // Before memory is taken for what the config asks: is there such a file at all?
  const std::filesystem::path weights = dir / "model.safetensors";
  const SafetensorsFile source = SafetensorsFile::open(weights);
  // And has it as many numbers? Of a small model load_tensors() says better which are missing.
  int64_t found = 0;
  for (const TensorView& view : source.tensors()) found += view.count();
  const int64_t expected = config::parameter_count(config);
  SEQBOAT_CHECK(expected <= std::max(found, kSmallModel), ErrorKind::kModel,
                "{}: expected {} parameters, as config.json beside it asks for, found {}", weights.string(), expected, found);
  auto model = nn::make_model(config, 0);
  load_tensors(weights, tensors_of(*model));
  model->eval();
  return model;
}

}  // namespace seqboat::train
