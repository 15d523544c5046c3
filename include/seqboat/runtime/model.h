#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "seqboat/base/safetensors.h"
#include "seqboat/config/model_config.h"

/// Trained models without LibTorch: as a stream (state.h, runner.h) or on whole sequences (forward.h).
namespace seqboat::runtime {

/// What numbers are stored in. Arithmetic is float32 throughout.
enum class Precision {
  kFloat32,
  kBf16,  ///< rounded to the nearest, ties to even
  kInt8,  ///< weights only: integers of -127 .. 127 with a float32 scale a row
};
const char* precision_name(Precision precision);         ///< "float32", "bf16", "int8"
Precision precision_from_name(const std::string& name);  ///< Error (kUsage) naming the three

struct LoadOptions {
  Precision ring = Precision::kFloat32;  ///< of the keys and values that streams keep: kFloat32 | kBf16
};

/// A tensor of model.safetensors, as the training library names it (docs/CONFIG.md).
struct TensorSpec {
  std::string name;
  std::vector<int64_t> shape;
  DType dtype = DType::kF32;
  bool is_matrix = false;  ///< of a projection or embedding: may be BF16, or I8 (out, in) with a second tensor `<name>.scale` F32 (out)
};
/// What a model of this config consists of, in the file's order. vocab_size must be known for token input.
std::vector<TensorSpec> tensor_specs(const config::ModelConfig& config);

/// A model, ready to run: immutable, shared by any number of threads, runners and states.
class Model {
 public:
  const config::ModelConfig& config() const;
  Precision ring() const;
  Precision weights() const;               ///< the coarsest that any of its matrices has
  const std::string& fingerprint() const;  ///< 32 hexadecimal digits: of the config and of every weight's bytes

  /// What a token of input is: 1 for token input (an integer), else the numbers of a step.
  int64_t channels() const;
  /// Numbers that a head gives: V of a language model, else classes.
  int64_t outputs() const;

  /// Whether it runs as a stream: it is causal and reads one sequence. Why not, in a sentence; "" where it does.
  std::string why_no_stream() const;
  /// Whether some layer attends without an end, so that a state needs a max_context.
  bool needs_max_context() const;

  int64_t parameters() const;    ///< trainable numbers
  int64_t weight_bytes() const;  ///< held in memory: packed matrices, scan coefficients, the rest
  int64_t mapped_bytes() const;  ///< of the file, which stays mapped: of it only the embedding's rows are read while running

  struct Impl;
  explicit Model(std::unique_ptr<const Impl> impl);
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  const Impl& impl() const { return *impl_; }  ///< for the library's own sources

 private:
  std::unique_ptr<const Impl> impl_;
};

/// The model of a folder, config.json + model.safetensors, as `train` exports it or quantize() writes it. The file is mapped, matrices are packed for
/// the kernels. Each matrix may be F32, BF16 or I8 by itself. Error (kModel) naming the file and the tensor that is missing, unknown, or of another
/// shape or dtype (expected, found), or that holds a number that is not finite; kUsage for a ring of int8.
std::shared_ptr<const Model> load(const std::filesystem::path& dir, const LoadOptions& options = {});

/// A model of random numbers, of a size that keeps every layer's output of the order of its input: for benchmarks and tests. The same config, seed
/// and precision give the same model on every machine. Error (kConfig) for a config that cannot be built.
std::shared_ptr<const Model> random_model(const config::ModelConfig& config, uint64_t seed, Precision weights = Precision::kFloat32,
                                          const LoadOptions& options = {});
/// The same as a folder, in float32. The folder must be there; errors of write_safetensors().
void write_random_model(const std::filesystem::path& dir, const config::ModelConfig& config, uint64_t seed);

/// Writes the float32 model of dir_in to dir_out with its matrices (TensorSpec::is_matrix) in `type`, kBf16 or kInt8; scans, routers, norms and
/// biases stay float32. int8: scale = max |w| / 127 of the row, w rounded to the nearest multiple of it; a row of zeros has the scale 0. dir_out must
/// not be there yet, or be empty; it appears with both files or not at all (they are written to dir_out.partial, which is renamed). Error (kModel)
/// for a model that is quantised already or is not whole, kUsage for a folder that is there or kFloat32.
void quantize(const std::filesystem::path& dir_in, const std::filesystem::path& dir_out, Precision type);

}  // namespace seqboat::runtime
