#pragma once

#include <torch/torch.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "seqboat/config/model_config.h"
#include "seqboat/nn/model.h"

/// Models as folders: config.json + model.safetensors.
namespace seqboat::train {

struct NamedTensor {
  std::string name;
  torch::Tensor tensor;
};

/// What model.safetensors holds: the module's parameters, then its buffers, each once (a tied matrix under its first name), names with dots.
std::vector<NamedTensor> tensors_of(const torch::nn::Module& module);

/// Writes tensors, whole or not at all; errors of base/safetensors.h.
void save_tensors(const std::filesystem::path& file, const std::vector<NamedTensor>& tensors);

/// Fills the tensors from a file that must hold exactly these names with these shapes and dtypes. Error (kModel) naming the file and the tensor that
/// is missing, unknown, or of another shape or dtype; nothing is changed unless everything fits.
void load_tensors(const std::filesystem::path& file, const std::vector<NamedTensor>& tensors);

/// Fills those of the tensors that the file has with the same name, shape and dtype, and leaves the others as they are; returns the names of these.
/// Error (kModel) if none fits.
std::vector<std::string> take_tensors(const std::filesystem::path& file, const std::vector<NamedTensor>& tensors);

/// Every tensor of a file, copied. Error (kModel), also for a dtype that save_tensors() does not write.
std::vector<NamedTensor> read_tensors(const std::filesystem::path& file);

/// DIR/config.json and DIR/model.safetensors; the folder must be there.
void save_model(const std::filesystem::path& dir, const nn::Model& model);

/// The model of a folder, in eval mode. `change` may alter what its config says, as long as the tensors fit. Error (kModel).
std::shared_ptr<nn::Model> load_model(const std::filesystem::path& dir, const std::function<void(config::ModelConfig*)>& change = {});

}  // namespace seqboat::train
