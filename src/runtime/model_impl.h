#pragma once

// Private to src/runtime: a model as the engine reads it.

#include <memory>
#include <string>
#include <vector>

#include "runtime/matrix.h"
#include "runtime/memory.h"
#include "seqboat/base/safetensors.h"
#include "seqboat/kernels/elementwise.h"
#include "seqboat/kernels/norm.h"
#include "seqboat/kernels/window_attention.h"
#include "seqboat/runtime/model.h"

namespace seqboat::runtime {

/// Float32 numbers of a model, or none.
struct Floats {
  Buffer buffer;
  int64_t count = 0;
  const float* data() const { return count > 0 ? buffer.as<float>() : nullptr; }
};

struct Norm {
  enum class Kind { kLayer, kScale, kRms, kBatch } kind = Kind::kLayer;
  Floats weight, bias;
  Floats mean, rstd;  ///< batch norm: running statistics
};

/// The scan of a state encoder: coefficients as the kernels read them, of both directions one after the other where the model is bidirectional.
struct Encoder {
  bool exists = false;
  bool is_s4d = false;
  int64_t n_state = 0;     ///< N of EMA, P of S4D
  int64_t truncation = 0;  ///< 0 = none
  Floats decay, weight, skip;
  Buffer step;  ///< packed for a few tokens of one stream (kernels/scan_step.h); causal models
  int64_t numbers() const { return is_s4d ? 2 * n_state : n_state; }
};

enum class Chooser { kTempered, kSigmoid, kGumbel, kTopShare, kRandom, kStride, kAlways, kNever };

struct Router {
  Chooser kind = Chooser::kNever;
  Matrix proj;
  float log_temperature = 0, bias = 0, limit = 0;
  double rate = 0;
  int64_t horizon = 0;
  bool learns() const { return kind <= Chooser::kTopShare; }
  /// Whether it decides token by token: with the others everything or nothing is activated.
  bool chooses() const { return kind <= Chooser::kStride; }
};

struct Attention {
  bool exists = false;
  int64_t heads = 1;
  int64_t d_attn = 0, d_hidden = 0;  ///< of one head
  int64_t window = -1;               ///< W; negative = all
  int64_t chunk = 0;                 ///< attends within blocks of so many tokens; 0 = one block
  bool rotary = false;
  kernels::AttentionFunction function = kernels::AttentionFunction::kSoftmax;
  kernels::PositionBias bias = kernels::PositionBias::kNone;
  int64_t max_positions = 0;      ///< M of the table
  Floats table;                   ///< (2 M - 1); empty with a bias: made for each length, from alpha and beta
  Floats alpha, beta;             ///< Mega's rotary bias
  bool table_must_reach = false;  ///< a sequence longer than M is an error (Mega's); elsewhere its ends stand for all that is further
  bool unbounded() const { return exists && window < 0 && chunk == 0; }
};

struct FeedForward {
  bool exists = false;
  Norm norm;
  Matrix fc1, fc2;
};

enum class LayerKind { kSeqBoat, kMega, kTransformer };

struct Layer {
  LayerKind kind = LayerKind::kSeqBoat;
  bool prenorm = false;
  Norm norm;
  Encoder encoder;
  Router router;
  Matrix skip_proj, v_proj, in_proj, out_proj;
  Floats qk_gamma, qk_beta;
  Attention attention;
  FeedForward ffn;
};

struct Model::Impl {
  config::ModelConfig config;
  Precision ring = Precision::kFloat32;
  Precision weights = Precision::kFloat32;
  std::string fingerprint;
  int64_t mapped_bytes = 0;
  int64_t weight_bytes = 0;
  std::shared_ptr<const void> source;  ///< what the embedding points into
  WeightArena packed;                  ///< what matrices point into

  int64_t d_embedding = 0;
  RowTable embedding;         ///< token input
  Matrix real_embedding;      ///< real input
  float embedding_scale = 1;  ///< 1 = none
  Matrix input_proj;          ///< or none
  Floats inv_freq;            ///< sinusoidal positions, or none
  float positions_scale = 0;
  bool has_embedding_norm = false;
  Norm embedding_norm;
  std::vector<Layer> layers;
  bool has_final_norm = false;
  Norm final_norm;
  Matrix output;  ///< language models
  std::vector<Matrix> hidden;
  Matrix out;

  bool language_model = false;
  bool needs_max_context = false;
  int64_t outputs = 0;
  std::string why_no_stream;
};

/// Tensors of a model from a file or from memory.
struct TensorSource {
  std::vector<TensorView> tensors;
  std::string where;                  ///< begins messages: the file's name
  std::shared_ptr<const void> owner;  ///< keeps the data
};
std::unique_ptr<const Model::Impl> build_model(const config::ModelConfig& config, const TensorSource& source, const LoadOptions& options);

/// The tensors of the config by name, found and checked; beside each matrix in I8 its scales. They point into specs and source. Error (kModel).
struct FoundTensor {
  const TensorSpec* spec;
  const TensorView* view;
  const TensorView* scale;  ///< or nullptr
};
std::vector<FoundTensor> find_tensors(const std::vector<TensorSpec>& specs, const TensorSource& source);
std::vector<FoundTensor> find_tensors(std::vector<TensorSpec>&&, const TensorSource&) = delete;
std::vector<FoundTensor> find_tensors(const std::vector<TensorSpec>&, TensorSource&&) = delete;

/// Bias of Mega's rotary positions by distance: (2 longest - 1), of the distances -(longest - 1) .. longest - 1.
void fill_rotary_bias(const Attention& attention, int64_t longest, float* table);

}  // namespace seqboat::runtime
