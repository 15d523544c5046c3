#include "seqboat/runtime/model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "runtime/model_impl.h"
#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/base/text.h"
#include "seqboat/config/keys.h"
#include "seqboat/config/model_size.h"
#include "seqboat/config/run_dir.h"
#include "seqboat/kernels/gemm.h"
#include "seqboat/kernels/scan_step.h"

namespace seqboat::runtime {
namespace {

using config::ModelConfig;
using kernels::AttentionFunction;
using kernels::PositionBias;

constexpr double kNormEps = 1e-5;

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string out;
  for (const int64_t size : shape) out += (out.empty() ? "" : ", ") + std::to_string(size);
  return "[" + out + "]";
}

bool all_finite(const TensorView& view) {
  const auto* bytes = static_cast<const std::byte*>(view.data);
  const int64_t count = view.count();
  // The exponent's bits alone say it, and many at once: a sum that stays below tells that none had all of them set.
  if (view.dtype == DType::kF32) {
    uint32_t bad = 0;
    for (int64_t i = 0; i < count; ++i) {
      uint32_t bits;
      std::memcpy(&bits, bytes + 4 * i, 4);
      bad |= static_cast<uint32_t>((bits & 0x7f800000u) == 0x7f800000u);
    }
    return bad == 0;
  }
  if (view.dtype == DType::kBF16) {
    uint32_t bad = 0;
    for (int64_t i = 0; i < count; ++i) {
      uint16_t bits;
      std::memcpy(&bits, bytes + 2 * i, 2);
      bad |= static_cast<uint32_t>((bits & 0x7f80u) == 0x7f80u);
    }
    return bad == 0;
  }
  return true;
}

/// Builds an Impl from tensors that are known to be there in the right shapes.
class Builder {
 public:
  Builder(const ModelConfig& config, const TensorSource& source, const LoadOptions& options, const std::vector<FoundTensor>& found)
      : c_(config), m_(std::make_unique<Model::Impl>()) {
    for (const FoundTensor& tensor : found) by_name_[tensor.spec->name] = &tensor;
    m_->config = config;
    m_->ring = options.ring;
    m_->source = source.owner;
    int64_t packed = 0;
    for (const FoundTensor& tensor : found) {
      if (tensor.view->shape.size() == 2) packed += round_up(Matrix::packed_bytes(*tensor.view), static_cast<int64_t>(kAlignment));
    }
    m_->packed = WeightArena(packed);
  }

  std::unique_ptr<Model::Impl> build() {
    Model::Impl& m = *m_;
    const int64_t d = c_.d_model;
    m.language_model = c_.task == "language-model";
    m.outputs = m.language_model ? c_.vocab_size : c_.classes;
    m.d_embedding = c_.d_embedding > 0 ? c_.d_embedding : d;
    if (c_.input == "real") {
      m.real_embedding = matrix("embedding");
    } else {
      m.embedding = rows("embedding.weight");
      if (m.d_embedding != d) m.input_proj = matrix("input_proj");
      if (c_.scale_embedding) m.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(d)));
    }
    if (c_.sinusoidal) {
      m.inv_freq = floats("positions.inv_freq");
      m.positions_scale = number("positions.scale");
    }
    m.has_embedding_norm = c_.embedding_norm;
    if (c_.embedding_norm) m.embedding_norm = norm("embedding_norm.", c_.norm_affine);
    for (int64_t i = 0; i < c_.n_layers; ++i) m.layers.push_back(layer(i));
    m.has_final_norm = c_.norm_first();
    if (m.has_final_norm) m.final_norm = norm("encoder.final_norm.", c_.final_norm_affine);
    if (m.language_model) {
      m.output = matrix(c_.tie_embedding ? "embedding" : "output");
    } else {
      for (int64_t i = 0; i < c_.classifier_layers; ++i) m.hidden.push_back(matrix("classifier.hidden." + std::to_string(i)));
      m.out = matrix("classifier.out");
    }
    if (!c_.causal) {
      m.why_no_stream = "it is bidirectional (model.causal = false): every token waits for the last one";
    } else if (c_.task == "retrieval") {
      m.why_no_stream = "it compares two documents (task.kind = \"retrieval\")";
    }
    m.weight_bytes = bytes_;
    return std::move(m_);
  }

 private:
  const FoundTensor& at(const std::string& name) const { return *by_name_.at(name); }

  Floats floats(const std::string& name) {
    const auto found = by_name_.find(name);
    if (found == by_name_.end()) return {};
    const TensorView& view = *found->second->view;
    return floats(view.count(), view.data);
  }
  Floats floats(int64_t count, const void* from) {
    Floats out{Buffer(count * 4, "weights"), count};
    std::memcpy(out.buffer.data(), from, static_cast<size_t>(count) * 4);
    bytes_ += count * 4;
    return out;
  }
  float number(const std::string& name) const {
    float value;
    std::memcpy(&value, at(name).view->data, 4);
    return value;
  }

  Matrix matrix(const std::string& name) {
    const FoundTensor& weight = at(name + ".weight");
    Matrix out(*weight.view, weight.scale, &m_->packed);
    if (const auto bias = by_name_.find(name + ".bias"); bias != by_name_.end()) out.set_bias(*bias->second->view);
    m_->weights = std::max(m_->weights, out.precision());
    bytes_ += out.bytes();
    return out;
  }

  RowTable rows(const std::string& name) {
    const FoundTensor& weight = at(name);
    m_->weights = std::max(m_->weights, precision_of(weight.view->dtype));
    return {weight.view->shape[0], weight.view->shape[1], precision_of(weight.view->dtype), static_cast<const std::byte*>(weight.view->data),
            weight.scale != nullptr ? static_cast<const std::byte*>(weight.scale->data) : nullptr};
  }

  Norm norm(const std::string& prefix, bool affine) {
    Norm out;
    out.kind = c_.norm == "layernorm"   ? Norm::Kind::kLayer
               : c_.norm == "scalenorm" ? Norm::Kind::kScale
               : c_.norm == "rmsnorm"   ? Norm::Kind::kRms
                                        : Norm::Kind::kBatch;
    if (affine) {
      out.weight = floats(prefix + "weight");
      out.bias = floats(prefix + "bias");
    }
    if (out.kind == Norm::Kind::kBatch) {
      out.mean = floats(prefix + "running_mean");
      out.rstd = floats(prefix + "running_var");
      auto* spread = out.rstd.buffer.as<float>();
      for (int64_t i = 0; i < out.rstd.count; ++i) spread[i] = static_cast<float>(1.0 / std::sqrt(static_cast<double>(spread[i]) + kNormEps));
    }
    return out;
  }

  Encoder encoder(const std::string& layer) {
    Encoder out;
    out.exists = true;
    out.is_s4d = c_.state_encoder() == "s4d";
    out.n_state = out.is_s4d ? c_.d_state / 2 : c_.d_state;
    out.truncation = c_.truncation;
    const int64_t rows = c_.causal ? c_.d_model : 2 * c_.d_model, count = rows * out.numbers();
    out.decay = Floats{Buffer(count * 4, "weights"), count};
    out.weight = Floats{Buffer(count * 4, "weights"), count};
    bytes_ += 8 * count;
    if (out.is_s4d) {
      s4d_coefficients(layer + "s4d.", rows, out);
      out.skip = floats(layer + "s4d.skip");
    } else {
      ema_coefficients(layer + "ema.", rows, out);
      out.skip = floats(layer + "ema.omega");
    }
    if (c_.causal) pack_step(out);
    bytes_ += out.step.size();
    return out;
  }

  void pack_step(Encoder& out) const {
    const kernels::ScanStepShape shape{c_.d_model, out.n_state, out.truncation};
    const auto pack = out.is_s4d ? kernels::s4d_step_pack : kernels::ema_step_pack;
    const size_t size = out.is_s4d ? kernels::s4d_step_coefficients_size(shape) : kernels::ema_step_coefficients_size(shape);
    out.step = Buffer(static_cast<int64_t>(size) * 4, "weights");
    pack(shape, out.decay.data(), out.weight.data(), out.skip.data(), out.step.as<float>());
  }

  // p = sigma(delta), q = 1 - p sigma(alpha), c = sqrt(1/N) p beta gamma, each operation rounded by itself as in training.
  void ema_coefficients(const std::string& prefix, int64_t rows, Encoder& out) {
    const int64_t count = rows * out.n_state;
    const auto read = [&](const char* name) {
      Floats copy{Buffer(count * 4, "weights"), count};
      std::memcpy(copy.buffer.data(), at(prefix + name).view->data, static_cast<size_t>(count) * 4);
      return copy;
    };
    Floats p = read("delta"), s = read("alpha");
    const Floats beta = read("beta"), gamma = read("gamma");
    kernels::activation_fwd<float>(kernels::Activation::kSigmoid, count, p.data(), p.buffer.as<float>());
    kernels::activation_fwd<float>(kernels::Activation::kSigmoid, count, s.data(), s.buffer.as<float>());
    const auto scale = static_cast<float>(std::sqrt(1.0 / static_cast<double>(out.n_state)));
    auto *q = out.decay.buffer.as<float>(), *c = out.weight.buffer.as<float>();
    for (int64_t i = 0; i < count; ++i) {
      q[i] = 1.0f - p.data()[i] * s.data()[i];
      c[i] = p.data()[i] * beta.data()[i] * gamma.data()[i] * scale;
    }
  }

  // As nn's S4d has it: in double, rounded once.
  void s4d_coefficients(const std::string& prefix, int64_t rows, Encoder& out) {
    const int64_t modes = out.n_state;
    const auto value = [&](const char* name, int64_t i) {
      float v;
      std::memcpy(&v, static_cast<const std::byte*>(at(prefix + name).view->data) + 4 * i, 4);
      return static_cast<double>(v);
    };
    auto *d = out.decay.buffer.as<float>(), *w = out.weight.buffer.as<float>();
    for (int64_t r = 0; r < rows; ++r) {
      const double dt = std::exp(value("log_dt", r));
      for (int64_t p = 0; p < modes; ++p) {
        const int64_t i = r * modes + p;
        const double z_re = -0.5 * dt * std::exp(value("log_a_real", i)), z_im = 0.5 * dt * value("a_imag", i);
        const double q = 1 / ((1 - z_re) * (1 - z_re) + z_im * z_im);
        d[2 * i] = static_cast<float>((1 - z_re * z_re - z_im * z_im) * q);
        d[2 * i + 1] = static_cast<float>(2 * z_im * q);
        const double gain_re = dt * q * (1 - z_re), gain_im = dt * q * z_im;
        const double b_re = value("b", 2 * i), b_im = value("b", 2 * i + 1), c_re = value("c", 2 * i), c_im = value("c", 2 * i + 1);
        const double bc_re = b_re * c_re - b_im * c_im, bc_im = b_re * c_im + b_im * c_re;
        w[2 * i] = static_cast<float>(bc_re * gain_re - bc_im * gain_im);
        w[2 * i + 1] = static_cast<float>(bc_re * gain_im + bc_im * gain_re);
      }
    }
  }

  Router router(const std::string& prefix, int64_t layer) {
    Router out;
    const std::string kind = c_.chooser();
    out.kind = kind == "tempered-softmax"    ? Chooser::kTempered
               : kind == "sigmoid-threshold" ? Chooser::kSigmoid
               : kind == "top-share"         ? Chooser::kTopShare
               : kind == "random"            ? Chooser::kRandom
               : kind == "stride"            ? Chooser::kStride
               : kind == "always"            ? Chooser::kAlways
               : kind == "never"             ? Chooser::kNever
                                             : Chooser::kGumbel;
    if (out.learns()) out.proj = matrix(prefix + "proj");
    if (out.kind == Chooser::kTempered) out.log_temperature = number(prefix + "log_temperature");
    out.bias = static_cast<float>(c_.router_bias);
    out.limit = static_cast<float>(std::log(c_.router_threshold / (1 - c_.router_threshold)));
    out.rate = c_.rate(layer);
    out.horizon = c_.router_horizon;
    return out;
  }

  AttentionFunction function() const {
    return c_.attention == "softmax" ? AttentionFunction::kSoftmax
           : c_.attention == "relu2" ? AttentionFunction::kRelu2
                                     : AttentionFunction::kLaplace;
  }

  Layer layer(int64_t number) {
    const std::string block = "encoder.layers." + std::to_string(number) + ".", prefix = block + "layer.";
    Layer out;
    out.prenorm = c_.norm_first();
    out.norm = norm(prefix + "norm.", c_.norm_affine);
    Attention& a = out.attention;
    a.window = c_.window_size > 0 ? c_.window_size : -1;
    if (c_.layer == "attention") {
      out.kind = LayerKind::kTransformer;
      a.exists = true;
      a.heads = c_.heads();
      a.d_attn = a.d_hidden = c_.d_model / a.heads;
      a.rotary = true;
      out.router.kind = Chooser::kAlways;
      out.in_proj = matrix(prefix + "in_proj");
      out.out_proj = matrix(prefix + "out_proj");
    } else {
      out.encoder = encoder(prefix);
      if (c_.is_mega() || c_.has_unit()) {
        a.d_attn = c_.d_attn;
        a.d_hidden = c_.hidden();
        a.function = function();
      }
      if (c_.is_mega()) {
        out.kind = LayerKind::kMega;
        out.router.kind = Chooser::kAlways;
        a.exists = true;
        a.window = -1;
        a.chunk = c_.chunk();
        a.bias = PositionBias::kOriginalDistance;
        a.max_positions = a.chunk > 0 ? a.chunk : c_.max_positions;
        a.table_must_reach = c_.position != "rotary";
        if (c_.position == "rotary") {
          a.alpha = floats(prefix + "position.alpha");
          a.beta = floats(prefix + "position.beta");
          if (a.chunk > 0) {
            a.table = Floats{Buffer((2 * a.chunk - 1) * 4, "weights"), 2 * a.chunk - 1};
            fill_rotary_bias(a, a.chunk, a.table.buffer.as<float>());
          }
        } else {
          a.table = floats(prefix + "position.table");
        }
        out.v_proj = matrix(prefix + "v_proj");
        out.in_proj = matrix(prefix + "in_proj");
        out.out_proj = matrix(prefix + "out_proj");
        out.qk_gamma = floats(prefix + "qk_gamma");
        out.qk_beta = floats(prefix + "qk_beta");
      } else {
        out.router = router(prefix + "router.", number);
        out.skip_proj = matrix(prefix + "skip_proj");
        a.exists = out.router.kind != Chooser::kNever;
        if (a.exists) {
          const std::string unit = prefix + "attention.";
          out.in_proj = matrix(unit + "in_proj");
          out.out_proj = matrix(unit + "out_proj");
          out.qk_gamma = floats(unit + "qk_gamma");
          out.qk_beta = floats(unit + "qk_beta");
          unit_positions(unit + "position.table", &a);
        }
      }
    }
    m_->needs_max_context = m_->needs_max_context || a.unbounded();
    if (c_.feed_forward() > 0) {
      out.ffn.exists = true;
      out.ffn.norm = norm(block + "ffn.norm.", c_.norm_affine);
      out.ffn.fc1 = matrix(block + "ffn.fc1");
      out.ffn.fc2 = matrix(block + "ffn.fc2");
    }
    return out;
  }

  void unit_positions(const std::string& table, Attention* a) {
    if (c_.position == "rotary") {
      a->rotary = true;
    } else if (c_.position == "local") {
      a->bias = PositionBias::kWindowDistance;
      a->max_positions = 3 * c_.window_size;
      a->table = floats(table);
    } else if (c_.position == "simple") {
      a->bias = PositionBias::kOriginalDistance;
      a->max_positions = c_.max_positions;
      a->table = floats(table);
    } else {
      t5_positions(table, a);
    }
  }

  // T5's buckets as a table of distances: the last bucket of a side begins below kT5Reach and has no end, like the table's.
  void t5_positions(const std::string& table, Attention* a) {
    constexpr int64_t kT5Reach = 129;
    a->bias = PositionBias::kOriginalDistance;
    a->max_positions = kT5Reach;
    a->table = Floats{Buffer((2 * kT5Reach - 1) * 4, "weights"), 2 * kT5Reach - 1};
    const Floats buckets = floats(table);
    for (int64_t distance = 1 - kT5Reach; distance < kT5Reach; ++distance)
      a->table.buffer.as<float>()[kT5Reach - 1 + distance] = buckets.data()[t5_bucket(distance, c_.causal)];
  }

  // Of a distance t_j - t_i, in float32 as in training.
  static int64_t t5_bucket(int64_t distance, bool causal) {
    const int64_t buckets = causal ? 32 : 16, exact = buckets / 2;
    const int64_t base = !causal && distance > 0 ? buckets : 0, n = causal ? std::max<int64_t>(0, -distance) : std::abs(distance);
    if (n < exact) return base + n;
    const float share =
        std::log(static_cast<float>(n) / static_cast<float>(exact)) / static_cast<float>(std::log(128.0 / static_cast<double>(exact)));
    return base + std::min(exact + static_cast<int64_t>(share * static_cast<float>(buckets - exact)), buckets - 1);
  }

  const ModelConfig& c_;
  std::unique_ptr<Model::Impl> m_;
  std::unordered_map<std::string, const FoundTensor*> by_name_;
  int64_t bytes_ = 0;
};

std::string fingerprint_of(const ModelConfig& config, const std::vector<FoundTensor>& found) {
  const std::string text = config::to_json(config).dump();
  uint64_t a = checksum(text.data(), text.size()), b = checksum("seqboat", 7);
  for (const FoundTensor& tensor : found) {
    for (const TensorView* view : {tensor.view, tensor.scale}) {
      if (view != nullptr) b = checksum(view->data, view->size_bytes, b);
    }
  }
  return fmt::format("{:016x}{:016x}", a, b);
}

}  // namespace

void fill_rotary_bias(const Attention& attention, int64_t longest, float* table) {
  // R(alpha, i) . R(beta, j) = sum_d (a1 b1 + a2 b2) cos((j - i) phi_d) + (a2 b1 - a1 b2) sin((j - i) phi_d)
  const int64_t width = attention.alpha.count, half = width / 2;
  const float *a = attention.alpha.data(), *b = attention.beta.data();
  std::vector<float> amplitude(static_cast<size_t>(width)), angles(static_cast<size_t>(width));
  std::vector<double> frequency(static_cast<size_t>(half));
  for (int64_t i = 0; i < half; ++i) {
    amplitude[static_cast<size_t>(i)] = a[i] * b[i] + a[half + i] * b[half + i];
    amplitude[static_cast<size_t>(half + i)] = a[half + i] * b[i] - a[i] * b[half + i];
    frequency[static_cast<size_t>(i)] = std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(half));
  }
  const kernels::GemmShape shape{.m = 1, .n = 1, .k = width, .lda = width, .ldb = width, .ldc = 1, .trans_b = true};
  const Buffer workspace(static_cast<int64_t>(kernels::gemm_workspace_size<float>(shape)) * 4, "a position table");
  for (int64_t distance = 1 - longest; distance < longest; ++distance) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(distance) * frequency[static_cast<size_t>(i)];
      angles[static_cast<size_t>(i)] = static_cast<float>(std::cos(angle));
      angles[static_cast<size_t>(half + i)] = static_cast<float>(std::sin(angle));
    }
    kernels::gemm<float>(shape, angles.data(), amplitude.data(), nullptr, table + longest - 1 + distance, workspace.as<float>());
  }
}

std::vector<FoundTensor> find_tensors(const std::vector<TensorSpec>& specs, const TensorSource& source) {
  std::unordered_map<std::string, const TensorView*> views;
  for (const TensorView& view : source.tensors) views[view.name] = &view;
  std::vector<FoundTensor> found;
  std::vector<std::string> expected;
  const auto take = [&](const std::string& name, const std::vector<int64_t>& shape) {
    const auto at = views.find(name);
    SEQBOAT_CHECK(at != views.end(), ErrorKind::kModel, "{}: tensor {} is missing; the config asks for {} tensors, the file has {}", source.where,
                  in_quotes(name), specs.size(), source.tensors.size());
    const TensorView* view = at->second;
    SEQBOAT_CHECK(view->shape == shape, ErrorKind::kModel, "{}: tensor {}: expected the shape {}, found {}", source.where, in_quotes(name),
                  shape_text(shape), shape_text(view->shape));
    views.erase(at);
    return view;
  };
  for (const TensorSpec& spec : specs) {
    expected.push_back(spec.name);
    const TensorView* view = take(spec.name, spec.shape);
    const bool packed = spec.is_matrix && (view->dtype == DType::kBF16 || view->dtype == DType::kI8);
    SEQBOAT_CHECK(view->dtype == spec.dtype || packed, ErrorKind::kModel, "{}: tensor {}: expected the dtype {}, found {}", source.where,
                  in_quotes(spec.name), spec.is_matrix ? "F32, BF16 or I8" : dtype_name(spec.dtype), dtype_name(view->dtype));
    const TensorView* scale = nullptr;
    if (view->dtype == DType::kI8) {
      scale = take(spec.name + ".scale", {spec.shape[0]});
      SEQBOAT_CHECK(scale->dtype == DType::kF32, ErrorKind::kModel, "{}: tensor {}: expected the dtype F32, found {}", source.where,
                    in_quotes(scale->name), dtype_name(scale->dtype));
    }
    for (const TensorView* part : {view, scale}) {
      SEQBOAT_CHECK(part == nullptr || all_finite(*part), ErrorKind::kModel, "{}: tensor {} holds a number that is not finite", source.where,
                    in_quotes(part->name));
    }
    found.push_back({&spec, view, scale});
  }
  for (const TensorView& view : source.tensors) {
    if (views.count(view.name) == 0) continue;
    const std::string near = config::nearest(view.name, expected);
    fail(ErrorKind::kModel, "{}: tensor {} is unknown: the config asks for none of this name{}", source.where, in_quotes(view.name),
         near.empty() ? "" : fmt::format(" (the nearest is '{}')", near));
  }
  return found;
}

std::unique_ptr<const Model::Impl> build_model(const ModelConfig& config, const TensorSource& source, const LoadOptions& options) {
  SEQBOAT_CHECK(options.ring != Precision::kInt8, ErrorKind::kUsage, "the ring of keys and values must be float32 or bf16, found int8");
  const std::vector<TensorSpec> specs = tensor_specs(config);
  const std::vector<FoundTensor> found = find_tensors(specs, source);
  std::unique_ptr<Model::Impl> built = Builder(config, source, options, found).build();
  built->fingerprint = fingerprint_of(config, found);
  for (const TensorView& view : source.tensors) built->mapped_bytes += static_cast<int64_t>(view.size_bytes);
  return built;
}

const char* precision_name(Precision precision) {
  return precision == Precision::kFloat32 ? "float32" : precision == Precision::kBf16 ? "bf16" : "int8";
}

Precision precision_from_name(const std::string& name) {
  for (const Precision precision : {Precision::kFloat32, Precision::kBf16, Precision::kInt8}) {
    if (name == precision_name(precision)) return precision;
  }
  fail(ErrorKind::kUsage, "a precision must be float32, bf16 or int8, found {}", in_quotes(name));
}

Model::Model(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Model::~Model() = default;
const ModelConfig& Model::config() const {
  return impl_->config;
}
Precision Model::ring() const {
  return impl_->ring;
}
Precision Model::weights() const {
  return impl_->weights;
}
const std::string& Model::fingerprint() const {
  return impl_->fingerprint;
}
int64_t Model::channels() const {
  return impl_->config.input == "real" ? impl_->config.channels : 1;
}
int64_t Model::outputs() const {
  return impl_->outputs;
}
std::string Model::why_no_stream() const {
  return impl_->why_no_stream;
}
bool Model::needs_max_context() const {
  return impl_->needs_max_context;
}
int64_t Model::parameters() const {
  return config::parameter_count(impl_->config);
}
int64_t Model::weight_bytes() const {
  return impl_->weight_bytes;
}
int64_t Model::mapped_bytes() const {
  return impl_->mapped_bytes;
}

std::shared_ptr<const Model> load(const std::filesystem::path& dir, const LoadOptions& options) {
  const ModelConfig config = config::read_model_config(dir);
  SEQBOAT_CHECK(config.input != "tokens" || config.vocab_size > 0, ErrorKind::kModel, "{}: vocab_size must be positive, found {}",
                (dir / "config.json").string(), config.vocab_size);
  const std::filesystem::path file = dir / "model.safetensors";
  const auto tensors = std::make_shared<SafetensorsFile>(SafetensorsFile::open(file));
  return std::make_shared<const Model>(build_model(config, {tensors->tensors(), file.string(), tensors}, options));
}

}  // namespace seqboat::runtime
