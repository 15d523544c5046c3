#pragma once

#include <torch/torch.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

namespace golden {

using nlohmann::json;
using torch::Tensor;

/// One case of a folder: <name>.json and, for all kinds but "schedule", <name>.safetensors.
struct GoldenCase {
  std::string name;
  std::string kind;
  json meta;
  std::map<std::string, Tensor> tensors;

  bool has(const std::string& tensor) const { return tensors.count(tensor) > 0; }
  const Tensor& at(const std::string& tensor) const;
  /// Tensors whose names begin with the prefix, with the prefix cut off.
  std::map<std::string, Tensor> with_prefix(const std::string& prefix) const;
};

/// Config values by key. A missing key and a null are the same: absent, as the official configs spell it. A value of another type is an error.
bool flag(const json& object, const char* key, bool fallback = false);
int64_t integer(const json& object, const char* key, int64_t fallback = 0);
double number(const json& object, const char* key, double fallback);
std::string word(const json& object, const char* key, const std::string& fallback);
std::vector<std::string> flags_of(const json& object);  ///< official_artefact

/// norm_type as ours: the synchronised batch norm is a batch norm.
std::string norm_word(const json& object, const char* key);

/// "local" where the official options make local_pos effective (a window and a simple bias), else the word itself.
std::string position_word(const json& object, int64_t window);

/// Refuses, by name, options that this library does not have: another activation, feature dropout, another layer type, a nonzero dropout.
void refuse_unsupported(const json& config, const char* layer_type = "slag");

GoldenCase load_case(const std::filesystem::path& folder, const std::string& name, const std::string& kind);

/// Holds one run (float32 or float64) of a case against the stored tensors, within the tolerances of the format:
///   float64: 1e-9 of the tensor's largest magnitude, gradients 1e-9 of the largest gradient G of the case
///   float32: outputs 10 x official_f32_vs_f64.out_max_abs, gradients 10 x grad_rel_to_global_max x G, neither tighter than 1e-6 relative;
///            without such a figure 1e-5 of the tensor's largest magnitude
///            (the loss has no figure in the json; the stored loss.f32 gives one: 10 x its own error, where that is more)
///   tensors stored in float32: 1e-6 relative (1e-5 in float32 runs);   integers: exactly
/// It remembers what was compared, so that a reference that nobody looked at is a failure too.
class Comparison {
 public:
  Comparison(const GoldenCase& golden, torch::ScalarType dtype);

  void output(const std::string& reference, const Tensor& got);    ///< against a stored output, any shape with as many elements
  void loss(const Tensor& got);                                    ///< against loss.f64
  void gradient(const std::string& reference, const Tensor& got);  ///< an undefined gradient is a failure
  void value(const std::string& reference, const Tensor& got);     ///< any other stored tensor: by its stored type
  void exact(const std::string& reference, const Tensor& got);     ///< integers

  /// The same with the reference given: only part of a stored tensor can be compared (real positions).
  void output(const std::string& reference, const Tensor& got, const Tensor& want);
  void gradient(const std::string& reference, const Tensor& got, const Tensor& want);
  void value(const std::string& reference, const Tensor& got, const Tensor& want);
  void exact(const std::string& reference, const Tensor& got, const Tensor& want);
  void close(const std::string& reference, const Tensor& got, const Tensor& want, double tolerance);

  void fail(const std::string& what);
  void seen(const std::string& reference) { seen_.insert(reference); }

  torch::ScalarType dtype() const { return dtype_; }
  bool is_double() const { return dtype_ == torch::kFloat64; }
  bool compared_anything() const { return worst_ >= 0; }
  const std::set<std::string>& compared() const { return seen_; }
  const std::vector<std::string>& failures() const { return failures_; }
  double worst() const { return worst_; }  ///< largest error as a share of its tolerance
  double worst_error() const { return worst_error_; }
  const std::string& worst_name() const { return worst_name_; }

 private:
  const GoldenCase& golden_;
  torch::ScalarType dtype_;
  double largest_gradient_ = 0;
  std::set<std::string> seen_;
  std::vector<std::string> failures_;
  double worst_ = -1;
  double worst_error_ = 0;
  std::string worst_name_ = "-";
};

/// Runs one case in the comparison's dtype. Throws for a case it cannot understand.
void check_ema(const GoldenCase& golden, Comparison& comparison);
void check_ema_incremental(const GoldenCase& golden, Comparison& comparison);
void check_s4d(const GoldenCase& golden, Comparison& comparison);
void check_layer(const GoldenCase& golden, Comparison& comparison);
void check_mega_layer(const GoldenCase& golden, Comparison& comparison);
void check_mega_ffn(const GoldenCase& golden, Comparison& comparison);
void check_model(const GoldenCase& golden, Comparison& comparison);
void check_model_incremental(const GoldenCase& golden, Comparison& comparison);
void check_op(const GoldenCase& golden, Comparison& comparison);
void check_optimizer(const GoldenCase& golden, Comparison& comparison);
void check_schedule(const GoldenCase& golden, Comparison& comparison);
void check_trajectory(const GoldenCase& golden, Comparison& comparison);  ///< held to the tolerances that its own json states

/// Adaptive input and softmax alone: the op of that name.
void check_adaptive_op(const GoldenCase& golden, Comparison& comparison);

/// param.* and buffer.* of a case.
std::map<std::string, Tensor> official_tensors(const GoldenCase& golden);

/// Where the real tokens of a padded batch lie: sequences one after another.
struct Unpadded {
  Tensor cu_seqlens;             ///< (B+1)
  std::vector<int64_t> lengths;  ///< (B)
  Tensor batch_first;            ///< (sum T) index b * T + t
  Tensor time_first;             ///< (sum T) index t * B + b
};
/// padding (B, T), nonzero = padding; undefined = none.
Unpadded unpad(int64_t batch, int64_t length, const Tensor& padding);

/// Rows of a padded (T, B, ...) or (B, T, ...) tensor at the real tokens, packed: (sum T, ...).
Tensor pack_time_first(const Tensor& padded, const Unpadded& where);
Tensor pack_batch_first(const Tensor& padded, const Unpadded& where);

/// The cases' functional sum(out * loss_w). It belongs to the check, not to what is checked, so it is summed in float64 for either run.
Tensor weighted_sum(const Tensor& out, const Tensor& weights);

}  // namespace golden
