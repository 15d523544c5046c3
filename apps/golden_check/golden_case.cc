#include "golden_case.h"

#include <cmath>
#include <fstream>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/base/safetensors.h"

namespace golden {
namespace {

torch::ScalarType scalar_type(seqboat::DType dtype) {
  switch (dtype) {
    case seqboat::DType::kF32:
      return torch::kFloat32;
    case seqboat::DType::kF64:
      return torch::kFloat64;
    case seqboat::DType::kI64:
      return torch::kInt64;
    case seqboat::DType::kI32:
      return torch::kInt32;
    case seqboat::DType::kU8:
      return torch::kUInt8;
    case seqboat::DType::kBool:
      return torch::kBool;
    default:
      seqboat::fail(seqboat::ErrorKind::kData, "golden tensor of type {}: expected F32, F64, I64, I32, U8 or BOOL", seqboat::dtype_name(dtype));
  }
}

double largest_magnitude(const Tensor& t) {
  return t.numel() == 0 ? 0.0 : t.to(torch::kFloat64).abs().max().item<double>();
}

}  // namespace

const Tensor& GoldenCase::at(const std::string& tensor) const {
  const auto found = tensors.find(tensor);
  if (found == tensors.end()) seqboat::fail(seqboat::ErrorKind::kData, "{}: no tensor {}", name, tensor);
  return found->second;
}

std::map<std::string, Tensor> GoldenCase::with_prefix(const std::string& prefix) const {
  std::map<std::string, Tensor> result;
  for (const auto& [key, value] : tensors)
    if (key.rfind(prefix, 0) == 0) result[key.substr(prefix.size())] = value;
  return result;
}

namespace {

const json* present(const json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

}  // namespace

bool flag(const json& object, const char* key, bool fallback) {
  const json* value = present(object, key);
  return value ? value->get<bool>() : fallback;
}

int64_t integer(const json& object, const char* key, int64_t fallback) {
  const json* value = present(object, key);
  return value ? value->get<int64_t>() : fallback;
}

double number(const json& object, const char* key, double fallback) {
  const json* value = present(object, key);
  return value ? value->get<double>() : fallback;
}

std::string word(const json& object, const char* key, const std::string& fallback) {
  const json* value = present(object, key);
  return value ? value->get<std::string>() : fallback;
}

std::vector<std::string> flags_of(const json& object) {
  const json* value = present(object, "official_artefact");
  return value ? value->get<std::vector<std::string>>() : std::vector<std::string>{};
}

std::string norm_word(const json& object, const char* key) {
  const std::string norm = word(object, key, "layernorm");
  return norm == "syncbatchnorm" ? "batchnorm" : norm;
}

std::string position_word(const json& object, int64_t window) {
  const std::string position = word(object, "rel_pos_bias", "simple");
  return position == "simple" && window > 0 && flag(object, "local_pos") ? "local" : position;
}

void refuse_unsupported(const json& config, const char* layer_type) {
  const auto expect = [&](const char* key, const char* only) {
    const std::string found = word(config, key, only);
    if (found != only) seqboat::fail(seqboat::ErrorKind::kData, "{} is '{}': only {} is supported", key, found, only);
  };
  expect("activation_fn", "silu");
  expect("activation", "silu");
  expect("classifier_activation_fn", "gelu");
  expect("layer_type", layer_type);
  if (flag(config, "feature_dropout")) seqboat::fail(seqboat::ErrorKind::kData, "feature_dropout is on: it is not supported");
  for (const char* key : {"dropout", "attention_dropout", "hidden_dropout", "act_dropout", "activation_dropout"}) {
    if (number(config, key, 0) != 0)
      seqboat::fail(seqboat::ErrorKind::kData, "{} is {}: a golden case must be without dropout", key, number(config, key, 0));
  }
}

std::map<std::string, Tensor> official_tensors(const GoldenCase& golden) {
  auto official = golden.with_prefix("param.");
  official.merge(golden.with_prefix("buffer."));
  return official;
}

GoldenCase load_case(const std::filesystem::path& folder, const std::string& name, const std::string& kind) {
  GoldenCase golden{name, kind, json::parse(seqboat::read_file(folder / (name + ".json"))), {}};
  const std::filesystem::path data = folder / (name + ".safetensors");
  if (!std::filesystem::exists(data)) return golden;
  const auto file = seqboat::SafetensorsFile::open(data);
  for (const seqboat::TensorView& view : file.tensors())
    golden.tensors[view.name] =
        torch::from_blob(const_cast<void*>(view.data), view.shape, torch::TensorOptions().dtype(scalar_type(view.dtype))).clone();
  return golden;
}

Comparison::Comparison(const GoldenCase& golden, torch::ScalarType dtype) : golden_(golden), dtype_(dtype) {
  for (const auto& [key, value] : golden.tensors)
    if (key.rfind("grad.", 0) == 0 || key.find(".grad") != std::string::npos)
      largest_gradient_ = std::max(largest_gradient_, largest_magnitude(value));
}

void Comparison::fail(const std::string& what) {
  failures_.push_back((is_double() ? "float64: " : "float32: ") + what);
}

void Comparison::close(const std::string& reference, const Tensor& got, const Tensor& want, double tolerance) {
  seen(reference);
  if (!got.defined()) return fail(reference + " is missing");
  if (got.numel() != want.numel()) return fail(fmt::format("{} has {} elements, expected {}", reference, got.numel(), want.numel()));
  if (want.numel() == 0) return;
  const Tensor difference = (got.detach().to(torch::kFloat64).reshape({-1}) - want.to(torch::kFloat64).reshape({-1})).abs();
  double error = difference.max().item<double>();
  if (!std::isfinite(error) || difference.isnan().any().item<bool>()) error = INFINITY;
  const double share = error == 0 ? 0 : tolerance > 0 ? error / tolerance : INFINITY;
  if (share > worst_) {
    worst_ = share;
    worst_error_ = error;
    worst_name_ = reference;
  }
  if (!(share <= 1))
    fail(fmt::format("{} off by {:.3g}, allowed {:.3g}, at element {}", reference, error, tolerance, difference.argmax().item<int64_t>()));
}

namespace {

/// The official float32 run's own error, or a negative number where the json has none.
double official_error(const GoldenCase& golden, const char* key) {
  const auto figures = golden.meta.find("official_f32_vs_f64");
  if (figures == golden.meta.end() || !figures->is_object() || !figures->contains(key) || !(*figures)[key].is_number()) return -1;
  return (*figures)[key].get<double>();
}

}  // namespace

void Comparison::output(const std::string& reference, const Tensor& got, const Tensor& want) {
  const double largest = largest_magnitude(want);
  double tolerance = 1e-9 * largest;
  if (!is_double()) {
    const double official = official_error(golden_, "out_max_abs");
    tolerance = official >= 0 ? std::max(10 * official, 1e-6 * largest) : 1e-5 * largest;
  }
  close(reference, got, want, tolerance);
}

void Comparison::loss(const Tensor& got) {
  const Tensor want = golden_.at("loss.f64");
  const double largest = largest_magnitude(want);
  double tolerance = (is_double() ? 1e-9 : 1e-5) * largest;
  if (!is_double() && golden_.has("loss.f32"))
    tolerance = std::max(tolerance, 10 * (golden_.at("loss.f32").to(torch::kFloat64) - want).abs().max().item<double>());
  close("loss.f64", got, want, tolerance);
}

void Comparison::gradient(const std::string& reference, const Tensor& got, const Tensor& want) {
  double tolerance = 1e-9 * largest_gradient_;
  if (!is_double()) {
    const double official = official_error(golden_, "grad_rel_to_global_max");
    tolerance = official >= 0 ? std::max(10 * official, 1e-6) * largest_gradient_ : 1e-5 * largest_magnitude(want);
  }
  close(reference, got, want, tolerance);
}

void Comparison::value(const std::string& reference, const Tensor& got, const Tensor& want) {
  const double relative = !is_double() ? 1e-5 : want.scalar_type() == torch::kFloat32 ? 1e-6 : 1e-9;
  close(reference, got, want, relative * largest_magnitude(want));
}

void Comparison::exact(const std::string& reference, const Tensor& got, const Tensor& want) {
  close(reference, got, want, 0.0);
}

void Comparison::output(const std::string& reference, const Tensor& got) {
  output(reference, got, golden_.at(reference));
}
void Comparison::gradient(const std::string& reference, const Tensor& got) {
  gradient(reference, got, golden_.at(reference));
}
void Comparison::value(const std::string& reference, const Tensor& got) {
  value(reference, got, golden_.at(reference));
}
void Comparison::exact(const std::string& reference, const Tensor& got) {
  exact(reference, got, golden_.at(reference));
}

Tensor weighted_sum(const Tensor& out, const Tensor& weights) {
  return (out.to(torch::kFloat64) * weights.to(torch::kFloat64)).sum();
}

Unpadded unpad(int64_t batch, int64_t length, const Tensor& padding) {
  Unpadded result;
  std::vector<int64_t> offsets{0}, batch_first, time_first;
  const Tensor mask = padding.defined() ? padding.to(torch::kUInt8).contiguous() : torch::zeros({batch, length}, torch::kUInt8);
  const uint8_t* padded = mask.const_data_ptr<uint8_t>();
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t t = 0; t < length; ++t) {
      if (padded[b * length + t]) continue;
      batch_first.push_back(b * length + t);
      time_first.push_back(t * batch + b);
    }
    offsets.push_back(static_cast<int64_t>(batch_first.size()));
    result.lengths.push_back(offsets[offsets.size() - 1] - offsets[offsets.size() - 2]);
  }
  result.cu_seqlens = torch::tensor(offsets, torch::kInt64);
  result.batch_first = torch::tensor(batch_first, torch::kInt64);
  result.time_first = torch::tensor(time_first, torch::kInt64);
  return result;
}

Tensor pack_time_first(const Tensor& padded, const Unpadded& where) {
  return padded.flatten(0, 1).index_select(0, where.time_first);
}
Tensor pack_batch_first(const Tensor& padded, const Unpadded& where) {
  return padded.flatten(0, 1).index_select(0, where.batch_first);
}

}  // namespace golden
