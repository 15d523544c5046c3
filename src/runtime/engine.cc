#include "runtime/engine.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "seqboat/base/philox.h"
#include "seqboat/kernels/compress.h"
#include "seqboat/kernels/ema_scan.h"
#include "seqboat/kernels/gated_rows.h"
#include "seqboat/kernels/router.h"
#include "seqboat/kernels/s4d_scan.h"

namespace seqboat::runtime {

using kernels::Activation;

namespace {

constexpr float kNormEps = 1e-5f;
constexpr int64_t kScanChannels = 32;  // of a piece of a whole sequence's scan

bool at_stride(double rate, int64_t time) {
  return std::floor(static_cast<double>(time + 1) * rate) > std::floor(static_cast<double>(time) * rate);
}

/// The hash by which training's evaluation chooses: Philox, keyed by seed, layer, sequence and time, of update 0.
bool at_random(double rate, uint64_t seed, int64_t layer, int64_t sequence, int64_t time) {
  constexpr uint64_t kChoiceStream = 0x63686f6963650000;
  const uint64_t key = seed + 0x9E3779B97F4A7C15ULL;
  const auto low = [](uint64_t v) { return static_cast<uint32_t>(v); };
  const auto high = [](uint64_t v) { return static_cast<uint32_t>(v >> 32); };
  const uint64_t where = kChoiceStream + static_cast<uint64_t>(layer), when = static_cast<uint64_t>(time), who = static_cast<uint64_t>(sequence);
  const auto words = philox4x32({low(when), high(when) ^ high(where), low(who), high(who) ^ low(where)}, {low(key), high(key)});
  return static_cast<double>(words[0]) < rate * 4294967296.0;
}

Part overlap(Part a, Part b) {
  return {std::max(a.begin, b.begin), std::min(a.end, b.end)};
}

}  // namespace

Engine::Engine(const Model::Impl& model, Team* team, int64_t threads, const EngineShape& shape, std::byte* memory)
    : m_(model), team_(team), threads_(threads), shape_(shape) {
  lay_out(memory);
}

void Engine::lay_out(std::byte* memory) {
  const config::ModelConfig& c = m_.config;
  const int64_t r = shape_.rows, d = c.d_model, s = shape_.segments;
  int64_t heads_width = 0, value_width = 0, key_width = 0, step_scores = 0, horizon = 0;
  width_ = std::max({m_.d_embedding, c.input == "real" ? c.channels : int64_t{0}, d});
  for (const Layer& layer : m_.layers) {
    const Attention& a = layer.attention;
    width_ = std::max({width_, layer.in_proj.outputs(), layer.ffn.fc1.outputs()});
    horizon = std::max(horizon, layer.router.horizon);
    if (!a.exists) continue;
    value_width = std::max(value_width, a.heads * a.d_hidden);
    key_width = std::max(key_width, a.d_attn);
    if (shape_.whole) {
      kernels::WindowAttentionShape whole = {};
      whole.d_attn = a.d_attn, whole.d_hidden = a.d_hidden;
      whole.window = a.window, whole.function = a.function, whole.bias = a.bias, whole.max_positions = a.max_positions;
      workspace_size_ = std::max(workspace_size_, static_cast<int64_t>(kernels::window_attention_workspace_size<float>(whole)));
    } else {
      const kernels::RingAttention ring = ring_attention(a, m_.ring, shape_.max_context);
      const size_t needed = std::max(kernels::key_ring_attention_workspace_size(ring), kernels::key_ring_step_workspace_size(ring));
      workspace_size_ = std::max(workspace_size_, static_cast<int64_t>(needed));
      step_scores = std::max(step_scores, static_cast<int64_t>(kernels::key_ring_step_scores_size(ring)));
    }
  }
  int64_t feature_width = d;
  for (const Matrix& hidden : m_.hidden) feature_width = std::max(feature_width, hidden.outputs());
  heads_width = feature_width;

  Carver carver(memory);
  for (float** rows : {&x_, &normed_, &state_, &skip_, &branch_, &gathered_}) *rows = carver.take<float>(r * d);
  base_ = carver.take<float>(r * width_);
  values_ = carver.take<float>(r * value_width);
  attention_ = carver.take<float>(r * value_width);
  q_ = carver.take<float>(r * key_width);
  k_ = carver.take<float>(r * key_width);
  logits_ = carver.take<float>(r * 2);
  for (float** each : {&probability_, &scratch_, &mean_, &rstd_}) *each = carver.take<float>(r);
  active_ = carver.take<uint8_t>(r);
  nobody_ = carver.take<uint8_t>(r);
  for (int64_t** each : {&tokens_, &times_, &index_, &active_times_}) *each = carver.take<int64_t>(r);
  offsets_ = carver.take<int64_t>(s + 1);
  active_offsets_ = carver.take<int64_t>(s + 1);
  chunk_offsets_ = carver.take<int64_t>(shape_.whole ? r + s + 1 : 0);
  sums_ = carver.take<double>(d);
  scores_ = carver.take<double>(horizon);
  features_ = carver.take<float>(m_.language_model ? 0 : (r + s) * d);
  head_rows_ = carver.take<HeadRow>(m_.language_model ? s : r + s);
  head_in_ = carver.take<float>(kHeadRows * heads_width);
  head_out_ = carver.take<float>(kHeadRows * heads_width);
  head_logits_ = carver.take<float>(kHeadRows * m_.outputs);
  step_scores_size_ = round_up(step_scores, static_cast<int64_t>(kAlignment / sizeof(float)));
  step_scores_ = carver.take<float>(step_scores_size_ * std::max<int64_t>(2, threads_));
  workspace_size_ = round_up(workspace_size_, static_cast<int64_t>(kAlignment / sizeof(float)));
  workspace_ = carver.take<float>(workspace_size_ * threads_);
  bytes_ = carver.used();
  if (memory != nullptr) std::fill_n(nobody_, r, uint8_t{0});
}

void Engine::make_tables(int64_t longest) {
  tables_.resize(m_.layers.size());
  for (size_t i = 0; i < m_.layers.size(); ++i) {
    const Attention& a = m_.layers[i].attention;
    if (!a.exists || a.bias == kernels::PositionBias::kNone || a.table.count > 0 || longest == 0) continue;
    tables_[i] = Floats{Buffer((2 * longest - 1) * 4, "a position table"), 2 * longest - 1};
    fill_rotary_bias(a, longest, tables_[i].buffer.as<float>());
  }
}

Engine::Tile Engine::tile_of(int64_t thread, int64_t rows, int64_t columns) const {
  if (by_rows(rows)) return {part_of(rows, kRowGrain, thread, threads_), {0, columns}};
  return {{0, rows}, part_of(columns, Matrix::column_grain(), thread, threads_)};
}

// In blocks of rows that stay in the cache between the product and what is done to it.
void Engine::multiply(const Matrix& matrix, const Tile& tile, const float* x, int64_t x_stride, float* y, int64_t y_stride, Then then) noexcept {
  if (tile.empty()) return;
  for (int64_t row = tile.rows.begin; row < tile.rows.end; row += kProductRows) {
    const Part rows{row, std::min(row + kProductRows, tile.rows.end)};
    matrix.multiply(rows.size(), tile.columns.begin, tile.columns.end, x + row * x_stride, x_stride, y + row * y_stride, y_stride);
    if (then.activates) activate(then.activation, {rows, overlap(tile.columns, then.columns)}, y, y_stride);
  }
}

void Engine::activate(Activation activation, const Tile& tile, float* y, int64_t y_stride) noexcept {
  if (tile.empty()) return;
  float* at = y + tile.rows.begin * y_stride + tile.columns.begin;
  kernels::activation_rows_fwd<float>(activation, tile.rows.size(), tile.columns.size(), at, y_stride, at, y_stride);
}

void Engine::apply_norm(const Norm& norm, Part rows, const float* from, float* to) noexcept {
  if (rows.empty()) return;
  const int64_t d = m_.config.d_model, at = rows.begin * d;
  if (norm.kind == Norm::Kind::kBatch) {
    kernels::batch_norm_apply<float>(rows.begin, rows.end, d, from, norm.mean.data(), norm.rstd.data(), norm.weight.data(), norm.bias.data(), to);
    return;
  }
  const kernels::RowNorm kind = norm.kind == Norm::Kind::kLayer   ? kernels::RowNorm::kLayerNorm
                                : norm.kind == Norm::Kind::kScale ? kernels::RowNorm::kScaleNorm
                                                                  : kernels::RowNorm::kRmsNorm;
  float* mean = norm.kind == Norm::Kind::kLayer ? mean_ + rows.begin : nullptr;
  kernels::row_norm_fwd<float>(kind, rows.size(), d, kNormEps, from + at, norm.weight.data(), norm.bias.data(), to + at, mean, rstd_ + rows.begin);
}

void Engine::run(Segment* segments, int64_t count) noexcept {
  segments_ = segments;
  n_segments_ = count;
  rows_ = 0;
  n_head_rows_ = 0;
  offsets_[0] = 0;
  for (int64_t i = 0; i < count; ++i) {
    Segment& s = segments[i];
    s.begin = rows_;
    s.time = s.state != nullptr ? s.state->header->time : 0;
    if (s.state != nullptr) {
      s.seed = s.state->header->seed;
      s.sequence_id = s.state->header->sequence_id;
    }
    for (int64_t t = 0; t < s.rows; ++t) times_[rows_ + t] = s.time + t;
    if (s.tokens != nullptr) std::copy_n(s.tokens, s.rows, tokens_ + rows_);
    for (int64_t t = 0; s.values != nullptr && t < s.rows; ++t)
      std::copy_n(s.values + t * m_.config.channels, m_.config.channels, base_ + (rows_ + t) * width_);
    rows_ += s.rows;
    offsets_[i + 1] = rows_;
  }
  if (shape_.whole) {
    n_chunks_ = 0;
    chunk_offsets_[0] = 0;
    const int64_t chunk = m_.config.chunk();
    for (int64_t i = 0; chunk > 0 && i < count; ++i) {
      for (int64_t begin = offsets_[i]; begin < offsets_[i + 1]; begin += chunk)
        chunk_offsets_[++n_chunks_] = std::min(begin + chunk, offsets_[i + 1]);
    }
  }
  team_->run([](void* engine, int64_t thread) { static_cast<Engine*>(engine)->work(thread); }, this);
  for (int64_t i = 0; i < count; ++i) {
    if (segments[i].state != nullptr) segments[i].state->header->time += segments[i].rows;
  }
}

void Engine::work(int64_t thread) noexcept {
  if (rows_ > 0) {
    embed(thread);
    for (int64_t i = 0; i < static_cast<int64_t>(m_.layers.size()); ++i) {
      switch (m_.layers[static_cast<size_t>(i)].kind) {
        case LayerKind::kSeqBoat:
          seqboat_layer(thread, i);
          break;
        case LayerKind::kMega:
          mega_layer(thread, i);
          break;
        case LayerKind::kTransformer:
          transformer_layer(thread, i);
          break;
      }
      feed_forward(thread, i);
    }
    if (m_.has_final_norm) apply_norm(m_.final_norm, rows_of(thread, rows_), x_, x_);
    barrier();
  }
  head(thread);
}

// Every stage of rows takes the same rows in a thread, so between such stages nobody waits.
void Engine::embed(int64_t thread) noexcept {
  const int64_t d = m_.config.d_model, width = m_.d_embedding;
  const Part rows = rows_of(thread, rows_);
  if (m_.real_embedding.exists()) {
    multiply(m_.real_embedding, tile_of(thread, rows_, d), base_, width_, x_, d);
    barrier_unless_by_rows(rows_);
  } else {
    float* to = m_.input_proj.exists() ? base_ : x_;
    const int64_t stride = m_.input_proj.exists() ? width_ : d;
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      float* row = to + r * stride;
      m_.embedding.read(tokens_[r], row);
      for (int64_t i = 0; m_.config.scale_embedding && i < width; ++i) row[i] *= m_.embedding_scale;
    }
    if (m_.input_proj.exists()) {
      barrier_unless_by_rows(rows_);
      multiply(m_.input_proj, tile_of(thread, rows_, d), base_, width_, x_, d);
      barrier_unless_by_rows(rows_);
    }
  }
  if (m_.inv_freq.count > 0) {
    const int64_t half = d / 2;
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      const auto time = static_cast<float>(times_[r]);
      float* row = x_ + r * d;
      for (int64_t i = 0; i < half; ++i) {
        // As in training: the angle is a float32 product; sine and cosine are exact for it.
        const auto angle = static_cast<double>(time * m_.inv_freq.data()[i]);
        row[i] += static_cast<float>(std::sin(angle)) * m_.positions_scale;
        row[half + i] += static_cast<float>(std::cos(angle)) * m_.positions_scale;
      }
    }
  }
  if (m_.has_embedding_norm) apply_norm(m_.embedding_norm, rows, x_, x_);
}

void Engine::scan(int64_t thread, int64_t number, const float* from, float* to) noexcept {
  const Encoder& e = m_.layers[static_cast<size_t>(number)].encoder;
  const int64_t d = m_.config.d_model;
  const Part channels = part_of(d, kernels::kScanGroup, thread, threads_);
  if (channels.empty()) return;
  if (shape_.whole) {
    for (int64_t c = channels.begin; c < channels.end; c += kScanChannels) {
      const kernels::ScanRange range{0, n_segments_, c, std::min(c + kScanChannels, channels.end)};
      const float *decay = e.decay.data(), *weight = e.weight.data();
      const int64_t half = d * e.numbers();
      if (e.is_s4d) {
        kernels::S4dScanShape shape{n_segments_, offsets_, d, e.n_state, e.truncation, kernels::ScanDirection::kForward};
        kernels::s4d_scan_fwd<float>(shape, range, from, decay, weight, e.skip.data(), nullptr, nullptr, to, false, nullptr);
        shape.direction = kernels::ScanDirection::kReverse;
        kernels::s4d_scan_fwd<float>(shape, range, from, decay + half, weight + half, nullptr, nullptr, nullptr, to, true, nullptr);
      } else {
        kernels::EmaScanShape shape{n_segments_, offsets_, d, e.n_state, e.truncation, kernels::ScanDirection::kForward};
        kernels::ema_scan_fwd<float>(shape, range, from, decay, weight, e.skip.data(), nullptr, nullptr, to, false, nullptr);
        shape.direction = kernels::ScanDirection::kReverse;
        kernels::ema_scan_fwd<float>(shape, range, from, decay + half, weight + half, nullptr, nullptr, nullptr, to, true, nullptr);
      }
    }
  } else {
    const kernels::ScanStepShape shape{d, e.n_state, e.truncation};
    const auto step = e.is_s4d ? kernels::s4d_step : kernels::ema_step;
    for (int64_t i = 0; i < n_segments_; ++i) {
      const Segment& s = segments_[i];
      if (s.rows == 0) continue;
      const LayerState& state = s.state->layers[static_cast<size_t>(number)];
      step(shape, channels.begin, channels.end, s.time, s.rows, from + s.begin * d, d, e.step.as<float>(), state.encoder, state.history,
           to + s.begin * d, d);
    }
  }
  activate(Activation::kSilu, {{0, rows_}, channels}, to, d);
}

// Decisions that depend on a token alone; top-share's are made in index_active().
void Engine::route_rows(int64_t number, Part rows) noexcept {
  const Router& router = m_.layers[static_cast<size_t>(number)].router;
  if (rows.empty() || !router.chooses()) return;
  const int64_t outputs = router.proj.outputs();
  if (router.learns())
    router.proj.multiply(rows.size(), 0, outputs, state_ + rows.begin * m_.config.d_model, m_.config.d_model, logits_ + rows.begin * outputs,
                         outputs);
  for (int64_t i = 0; i < n_segments_; ++i) {
    const Segment& s = segments_[i];
    const Part mine = overlap(rows, {s.begin, s.begin + s.rows});
    if (mine.empty()) continue;
    const int64_t at = mine.begin, count = mine.size();
    const uint8_t* forced = s.forced != nullptr ? s.forced + number * s.stride + at - s.begin : nullptr;
    const float* u = logits_ + at * outputs;
    float* probability = probability_ + at;
    uint8_t* active = active_ + at;
    switch (router.kind) {
      case Chooser::kTempered:
        kernels::router_fwd<float>(count, 2, u, router.bias, router.log_temperature, forced, active, scratch_ + at, probability);
        continue;
      case Chooser::kSigmoid:
        for (int64_t t = 0; t < count; ++t) active[t] = u[t] > router.limit ? 1 : 0;
        kernels::activation_fwd<float>(Activation::kSigmoid, count, u, probability);
        break;
      case Chooser::kGumbel:
        for (int64_t t = 0; t < count; ++t) {
          active[t] = u[2 * t + 1] > u[2 * t] ? 1 : 0;
          probability[t] = u[2 * t + 1] - u[2 * t];
        }
        kernels::activation_fwd<float>(Activation::kSigmoid, count, probability, probability);
        break;
      case Chooser::kTopShare:
        kernels::activation_fwd<float>(Activation::kSigmoid, count, u, probability);
        continue;
      case Chooser::kRandom:
        for (int64_t t = 0; t < count; ++t) active[t] = at_random(router.rate, s.seed, number, s.sequence_id, times_[at + t]) ? 1 : 0;
        break;
      case Chooser::kStride:
        for (int64_t t = 0; t < count; ++t) active[t] = at_stride(router.rate, times_[at + t]) ? 1 : 0;
        break;
      default:
        break;
    }
    if (forced != nullptr) std::copy_n(forced, count, active);
  }
}

void Engine::choose_top_share(int64_t number, Segment& s) noexcept {
  const Router& router = m_.layers[static_cast<size_t>(number)].router;
  const int64_t kept = router.horizon - 1;
  double* scores = s.state != nullptr ? s.state->layers[static_cast<size_t>(number)].scores : scores_;
  if (s.state == nullptr) std::fill_n(scores, kept, -std::numeric_limits<double>::infinity());
  for (int64_t t = 0; t < s.rows; ++t) {
    const double own = logits_[s.begin + t];
    int64_t above = 0;
    for (int64_t i = 0; i < kept; ++i) above += scores[i] >= own ? 1 : 0;
    const int64_t among = std::min(s.time + t + 1, router.horizon);
    active_[s.begin + t] = static_cast<double>(above) < router.rate * static_cast<double>(among) ? 1 : 0;
    if (kept > 0) scores[(s.time + t) % kept] = own;
  }
  if (s.forced != nullptr) std::copy_n(s.forced + number * s.stride, s.rows, active_ + s.begin);
}

void Engine::index_active(int64_t number) noexcept {
  const Router& router = m_.layers[static_cast<size_t>(number)].router;
  const bool all = router.kind == Chooser::kAlways;
  n_active_ = most_active_ = 0;
  active_offsets_[0] = 0;
  for (int64_t i = 0; i < n_segments_; ++i) {
    Segment& s = segments_[i];
    if (router.kind == Chooser::kTopShare) choose_top_share(number, s);
    s.active_begin = n_active_;
    if (all) {
      std::copy_n(times_ + s.begin, s.rows, active_times_ + s.begin);
      n_active_ += s.rows;
    } else if (router.chooses()) {
      for (int64_t t = s.begin; t < s.begin + s.rows; ++t) {
        if (active_[t] == 0) continue;
        index_[n_active_] = t;
        active_times_[n_active_++] = times_[t];
      }
    }
    s.active_count = n_active_ - s.active_begin;
    most_active_ = std::max(most_active_, s.active_count);
    active_offsets_[i + 1] = n_active_;
    if (s.state != nullptr) {
      s.number = s.state->activated[number];
      s.state->activated[number] += s.active_count;
    }
    for (int64_t t = 0; s.active != nullptr && t < s.rows; ++t)
      s.active[number * s.stride + t] = all ? 1 : router.chooses() ? active_[s.begin + t] : 0;
    for (int64_t t = 0; s.probability != nullptr && t < s.rows; ++t) {
      const float decided = all ? 1.0f : router.chooses() ? static_cast<float>(active_[s.begin + t]) : 0.0f;
      s.probability[number * s.stride + t] = router.learns() ? probability_[s.begin + t] : decided;
    }
  }
}

void Engine::gather(Part rows) noexcept {
  const int64_t d = m_.config.d_model;
  if (!rows.empty()) kernels::compress_rows<float>(rows.begin, rows.end, d, index_, state_, d, gathered_, d);
}

void Engine::add_branches(int64_t number, Part rows) noexcept {
  if (rows.empty()) return;
  const Router& router = m_.layers[static_cast<size_t>(number)].router;
  const int64_t d = m_.config.d_model, at = rows.begin * d;
  const bool all = router.kind == Chooser::kAlways;
  const uint8_t* active = all ? nullptr : router.chooses() ? active_ + rows.begin : nobody_;
  const int64_t first = all ? rows.begin : std::lower_bound(index_, index_ + n_active_, rows.begin) - index_;
  const bool weighs = router.kind == Chooser::kTempered || router.kind == Chooser::kSigmoid || router.kind == Chooser::kTopShare;
  kernels::branch_sum_fwd<float>(0, rows.size(), d, active, first, branch_, d, weighs ? probability_ + rows.begin : nullptr, skip_ + at, d, x_ + at,
                                 d, nullptr, d, x_ + at, d);
}

void Engine::seqboat_layer(int64_t thread, int64_t number) noexcept {
  const Layer& layer = m_.layers[static_cast<size_t>(number)];
  const int64_t d = m_.config.d_model;
  const Part rows = rows_of(thread, rows_);
  if (layer.prenorm) apply_norm(layer.norm, rows, x_, normed_);
  barrier();
  scan(thread, number, layer.prenorm ? normed_ : x_, state_);
  barrier();

  const bool shared_by_rows = by_rows(rows_), all = layer.router.kind == Chooser::kAlways;
  if (shared_by_rows) {
    route_rows(number, rows);
  } else if (thread == 0) {
    route_rows(number, {0, rows_});
    index_active(number);
    if (!all) gather({0, n_active_});
  }
  multiply(layer.skip_proj, tile_of(thread, rows_, d), state_, d, skip_, d);
  barrier();
  if (shared_by_rows) {
    if (thread == 0) index_active(number);
    barrier();
  }
  const int64_t n = n_active_;
  if (n > 0) {
    const Part mine = rows_of(thread, n);
    if (shared_by_rows && !all) {
      gather(mine);
      barrier_unless_by_rows(n);
    }
    const int64_t width = layer.in_proj.outputs(), z = layer.attention.d_attn, h = layer.attention.d_hidden;
    const Tile in = tile_of(thread, n, width);
    multiply(layer.in_proj, in, all ? state_ : gathered_, d, base_, width_, Then::silu());
    barrier();
    unit_attention(thread, number, base_, width_, base_ + z + h, width_);
    if (!one_query()) barrier();
    const Tile gated = tile_of(thread, n, h);
    if (!gated.empty()) {
      float* attended = attention_ + gated.rows.begin * h + gated.columns.begin;
      kernels::gate_fwd<float>(gated.rows.size(), gated.columns.size(), attended, h, base_ + gated.rows.begin * width_ + z + gated.columns.begin,
                               width_, attended, h);
    }
    barrier_unless_by_rows(n);
    multiply(layer.out_proj, tile_of(thread, n, d), attention_, h, branch_, d);
    barrier();
  }
  add_branches(number, rows);
  if (!layer.prenorm) apply_norm(layer.norm, rows, x_, x_);
}

void Engine::mega_layer(int64_t thread, int64_t number) noexcept {
  const Layer& layer = m_.layers[static_cast<size_t>(number)];
  const int64_t d = m_.config.d_model, z = layer.attention.d_attn, h = layer.attention.d_hidden, width = layer.in_proj.outputs();
  const Part rows = rows_of(thread, rows_);
  if (thread == 0) index_active(number);
  if (layer.prenorm) apply_norm(layer.norm, rows, x_, normed_);
  const float* input = layer.prenorm ? normed_ : x_;
  barrier();
  const Tile values = tile_of(thread, rows_, h);
  multiply(layer.v_proj, values, input, d, values_, h, Then::silu());
  scan(thread, number, input, state_);
  barrier();
  const Tile in = tile_of(thread, rows_, width);
  multiply(layer.in_proj, in, state_, d, base_, width_, Then::silu({d, d + z + h}));
  barrier();
  unit_attention(thread, number, base_ + d, width_, values_, h);
  if (!one_query()) barrier();
  const Tile gated = tile_of(thread, rows_, h);
  if (!gated.empty()) {
    float* attended = attention_ + gated.rows.begin * h + gated.columns.begin;
    kernels::gate_fwd<float>(gated.rows.size(), gated.columns.size(), attended, h, base_ + gated.rows.begin * width_ + d + z + gated.columns.begin,
                             width_, attended, h);
  }
  barrier_unless_by_rows(rows_);
  multiply(layer.out_proj, tile_of(thread, rows_, d), attention_, h, branch_, d);
  barrier_unless_by_rows(rows_);
  if (!rows.empty()) {
    float *proposed = branch_ + rows.begin * d, *x = x_ + rows.begin * d;
    const float* base = base_ + rows.begin * width_;
    kernels::add_rows<float>(rows.size(), d, base + d + z + h, width_, proposed, d);
    kernels::activation_fwd<float>(Activation::kSilu, rows.size() * d, proposed, proposed);
    kernels::update_fwd<float>(rows.size(), d, base, width_, proposed, d, x, d, x, d);
  }
  if (!layer.prenorm) apply_norm(layer.norm, rows, x_, x_);
}

void Engine::transformer_layer(int64_t thread, int64_t number) noexcept {
  const Layer& layer = m_.layers[static_cast<size_t>(number)];
  const Attention& a = layer.attention;
  const int64_t d = m_.config.d_model, width = 3 * d;
  const Part rows = rows_of(thread, rows_);
  if (thread == 0) index_active(number);
  apply_norm(layer.norm, rows, x_, normed_);
  barrier_unless_by_rows(rows_);
  multiply(layer.in_proj, tile_of(thread, rows_, width), normed_, d, base_, width_);
  barrier_unless_by_rows(rows_);
  if (!rows.empty()) {
    for (int64_t head = 0; head < 2 * a.heads; ++head) {  // queries, then keys
      float* part = base_ + rows.begin * width_ + head * a.d_attn;
      kernels::rotary<float>(rows.size(), a.d_attn, width_, width_, times_ + rows.begin, false, part, part);
    }
  }
  barrier();
  attend(thread, number, {base_, base_ + d, base_ + 2 * d, width_, width_, width_});
  barrier();
  multiply(layer.out_proj, tile_of(thread, rows_, d), attention_, d, branch_, d);
  barrier_unless_by_rows(rows_);
  if (!rows.empty()) kernels::add_rows<float>(rows.size(), d, branch_ + rows.begin * d, d, x_ + rows.begin * d, d);
}

void Engine::feed_forward(int64_t thread, int64_t number) noexcept {
  const FeedForward& ffn = m_.layers[static_cast<size_t>(number)].ffn;
  if (!ffn.exists) return;
  const bool prenorm = m_.layers[static_cast<size_t>(number)].prenorm;
  const int64_t d = m_.config.d_model, width = ffn.fc1.outputs();
  const Part rows = rows_of(thread, rows_);
  if (prenorm) apply_norm(ffn.norm, rows, x_, normed_);
  barrier_unless_by_rows(rows_);
  const Tile in = tile_of(thread, rows_, width);
  multiply(ffn.fc1, in, prenorm ? normed_ : x_, d, base_, width_, Then::silu());
  barrier_unless_by_rows(rows_);
  // Into skip_: of branch_ another thread may still be adding up rows that are not its own.
  multiply(ffn.fc2, tile_of(thread, rows_, d), base_, width_, skip_, d);
  barrier_unless_by_rows(rows_);
  if (!rows.empty()) kernels::add_rows<float>(rows.size(), d, skip_ + rows.begin * d, d, x_ + rows.begin * d, d);
  if (!prenorm) apply_norm(ffn.norm, rows, x_, x_);
}

// ---- attention

void Engine::unit_attention(int64_t thread, int64_t number, const float* z, int64_t z_stride, const float* v, int64_t v_stride) noexcept {
  const Layer& layer = m_.layers[static_cast<size_t>(number)];
  const int64_t width = layer.attention.d_attn;
  const Part rows = rows_of(thread, n_active_);
  if (!rows.empty()) {
    float *q = q_ + rows.begin * width, *k = k_ + rows.begin * width;
    kernels::qk_affine_fwd<float>(rows.size(), width, z + rows.begin * z_stride, z_stride, layer.qk_gamma.data(), layer.qk_beta.data(), q, width, k,
                                  width);
    if (layer.attention.rotary) {
      kernels::rotary<float>(rows.size(), width, width, width, active_times_ + rows.begin, false, q, q);
      kernels::rotary<float>(rows.size(), width, width, width, active_times_ + rows.begin, false, k, k);
    }
  }
  const Rows all{q_, k_, v, width, width, v_stride, one_query()};
  for (int64_t i = 0; i < n_segments_ && all.appended && !rows.empty(); ++i) {
    if (segments_[i].active_count > 0) append(number, all, segments_[i], 0, 0, 1);
  }
  barrier();
  attend(thread, number, all);
}

// attention_ (active, heads H) is whole after a barrier. Streams are shared out whole where there are enough of them and none is longer than a
// thread's share.
void Engine::attend(int64_t thread, int64_t number, const Rows& rows) noexcept {
  const Attention& a = m_.layers[static_cast<size_t>(number)].attention;
  if (shape_.whole) {
    attend_whole(thread, number, rows);
  } else if (a.heads % threads_ == 0) {
    const Part heads = part_of(a.heads, 1, thread, threads_);
    for (int64_t i = 0; i < n_segments_; ++i) {
      for (int64_t head = heads.begin; head < heads.end; ++head) attend_alone(thread, number, rows, segments_[i], head);
    }
  } else if (n_segments_ >= kSegmentsOfOne * threads_ && most_active_ * threads_ <= n_active_) {
    const Part mine = part_of(n_segments_, 1, thread, threads_);
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      for (int64_t head = 0; head < a.heads; ++head) attend_alone(thread, number, rows, segments_[i], head);
    }
  } else {
    int64_t turn = 0;
    for (int64_t i = 0; i < n_segments_; ++i) {
      for (int64_t head = 0; head < a.heads; ++head) attend_together(thread, number, rows, segments_[i], head, &turn);
    }
  }
}

void Engine::attend_whole(int64_t thread, int64_t number, const Rows& rows) noexcept {
  const Attention& a = m_.layers[static_cast<size_t>(number)].attention;
  const Floats& table = a.table.count > 0 || tables_.empty() ? a.table : tables_[static_cast<size_t>(number)];
  kernels::WindowAttentionShape shape = {};
  shape.batch = a.chunk > 0 ? n_chunks_ : n_segments_;
  shape.active_cu_seqlens = a.chunk > 0 ? chunk_offsets_ : active_offsets_;
  shape.d_attn = a.d_attn;
  shape.d_hidden = a.d_hidden;
  shape.q_stride = rows.q_stride;
  shape.k_stride = rows.k_stride;
  shape.v_stride = rows.v_stride;
  shape.out_stride = a.heads * a.d_hidden;
  shape.window = a.window;
  shape.causal = false;
  shape.function = a.function;
  shape.bias = a.bias;
  shape.max_positions = (table.count + 1) / 2;
  const Part items = part_of(kernels::window_attention_items(shape), 1, thread, threads_);
  for (int64_t head = 0; head < a.heads && !items.empty(); ++head) {
    kernels::window_attention_fwd<float>(shape, items.begin, items.end, rows.q + head * a.d_attn, rows.k + head * a.d_attn,
                                         rows.v + head * a.d_hidden, active_times_, table.data(), attention_ + head * a.d_hidden, nullptr,
                                         workspace_ + thread * workspace_size_);
  }
}

int64_t Engine::block_at(int64_t number, const Segment& s, int64_t at, int64_t* first) const noexcept {
  const Attention& a = m_.layers[static_cast<size_t>(number)].attention;
  const int64_t left = std::min(s.active_count - at, kQueryBlock);
  if (a.chunk == 0) {
    *first = s.number + at;
    return left;
  }
  *first = (s.time + at) % a.chunk;  // every token attends, and attention begins anew in each chunk
  return std::min(left, a.chunk - *first);
}

void Engine::append(int64_t number, const Rows& rows, const Segment& s, int64_t head, int64_t at, int64_t count) noexcept {
  const Attention& a = m_.layers[static_cast<size_t>(number)].attention;
  const LayerState& state = s.state->layers[static_cast<size_t>(number)];
  int64_t first = 0;
  block_at(number, s, at, &first);
  const int64_t row = s.active_begin + at;
  kernels::key_ring_append(state.attention.ring, first, count, rows.k + row * rows.k_stride + head * a.d_attn, rows.k_stride,
                           rows.v + row * rows.v_stride + head * a.d_hidden, rows.v_stride, state.ring + head * state.ring_bytes);
  if (state.positions != nullptr && head == 0)
    kernels::position_ring_append(state.attention.ring.capacity, first, count, active_times_ + row, state.positions);
}

void Engine::attend_alone(int64_t thread, int64_t number, const Rows& rows, const Segment& s, int64_t head) noexcept {
  const Attention& a = m_.layers[static_cast<size_t>(number)].attention;
  const LayerState& state = s.state->layers[static_cast<size_t>(number)];
  const int64_t out_stride = a.heads * a.d_hidden;
  for (int64_t at = 0, first = 0; at < s.active_count;) {
    const int64_t count = block_at(number, s, at, &first), row = s.active_begin + at;
    append(number, rows, s, head, at, count);
    kernels::key_ring_attention(state.attention, first, count, rows.q + row * rows.q_stride + head * a.d_attn, rows.q_stride,
                                state.ring + head * state.ring_bytes, state.positions, state.table, attention_ + row * out_stride + head * a.d_hidden,
                                out_stride, workspace_ + thread * workspace_size_);
    at += count;
  }
}

// One stream whose attention all threads share: queries where there are many, else each query by keys and columns.
// turn: of the queries that attend one by one, so far.
void Engine::attend_together(int64_t thread, int64_t number, const Rows& rows, const Segment& s, int64_t head, int64_t* turn) noexcept {
  const Attention& a = m_.layers[static_cast<size_t>(number)].attention;
  if (s.active_count == 0) return;
  const LayerState& state = s.state->layers[static_cast<size_t>(number)];
  const int64_t out_stride = a.heads * a.d_hidden;
  const std::byte* ring = state.ring + head * state.ring_bytes;
  constexpr int64_t kQueryGrain = 4;
  for (int64_t at = 0, first = 0; at < s.active_count;) {
    const int64_t count = block_at(number, s, at, &first), row = s.active_begin + at;
    if (!rows.appended) {
      if (thread == 0) append(number, rows, s, head, at, count);
      barrier();
    }
    const float* q = rows.q + row * rows.q_stride + head * a.d_attn;
    float* out = attention_ + row * out_stride + head * a.d_hidden;
    if (count >= 2 * kQueryGrain * threads_) {
      const Part mine = part_of(count, kQueryGrain, thread, threads_);
      if (!mine.empty())
        kernels::key_ring_attention(state.attention, first + mine.begin, mine.size(), q + mine.begin * rows.q_stride, rows.q_stride, ring,
                                    state.positions, state.table, out + mine.begin * out_stride, out_stride, workspace_ + thread * workspace_size_);
    } else {
      for (int64_t i = 0; i < count; ++i) {
        float* scores = step_scores_ + (*turn)++ % 2 * step_scores_size_;  // those of the query before may still be read
        const Part items = part_of(kernels::key_ring_step_items(state.attention, first + i), 1, thread, threads_);
        if (!items.empty())
          kernels::key_ring_step_scores(state.attention, first + i, items.begin, items.end, q + i * rows.q_stride, ring, state.positions, state.table,
                                        scores);
        barrier();
        const Part columns = part_of(a.d_hidden, kernels::kValueTile, thread, threads_);
        if (!columns.empty())
          kernels::key_ring_step_sum(state.attention, first + i, columns.begin, columns.end, scores, ring, out + i * out_stride,
                                     workspace_ + thread * workspace_size_);
      }
    }
    at += count;
    if (at < s.active_count) barrier();  // what comes next overwrites keys that are still being read
  }
}

// ---- heads

// features_ of the rows that are asked for: a stream's mean up to there, or its first vector; of a whole sequence one at its last row.
void Engine::pool(int64_t thread) noexcept {
  const int64_t d = m_.config.d_model;
  const bool mean = m_.config.pool == "mean";
  const Part channels = part_of(d, 16, thread, threads_);
  for (int64_t i = 0; i < n_segments_; ++i) {
    const Segment& s = segments_[i];
    double* sums = s.state != nullptr ? s.state->pooled : sums_;
    const auto give = [&](float* to, int64_t count) {
      for (int64_t c = channels.begin; c < channels.end; ++c) to[c] = static_cast<float>(mean ? sums[c] / static_cast<double>(count) : sums[c]);
    };
    if (s.state == nullptr) std::fill(sums + channels.begin, sums + channels.end, 0.0);
    for (int64_t t = 0; t < s.rows; ++t) {
      const float* row = x_ + (s.begin + t) * d;
      if (mean || s.time + t == 0) {
        for (int64_t c = channels.begin; c < channels.end; ++c) sums[c] += row[c];
      }
      const bool last = t + 1 == s.rows && s.output != Output::kNothing;
      if (last || (s.output == Output::kAll && s.state != nullptr)) give(features_ + (s.begin + t) * d, s.time + t + 1);
    }
    if (s.rows == 0 && s.output != Output::kNothing) give(features_ + (shape_.rows + i) * d, s.time);
  }
}

void Engine::head(int64_t thread) noexcept {
  const int64_t d = m_.config.d_model, outputs = m_.outputs;
  if (!m_.language_model) pool(thread);
  barrier();
  if (thread == 0) {
    for (int64_t i = 0; i < n_segments_; ++i) {
      const Segment& s = segments_[i];
      const int64_t last = s.begin + s.rows - 1;
      if (m_.language_model) {
        if (s.rows > 0) std::copy_n(x_ + last * d, d, s.state->last);
        if (s.output == Output::kLast) head_rows_[n_head_rows_++] = {s.state->last, s.out};
        continue;
      }
      const float* feature = features_ + (s.rows > 0 ? last : shape_.rows + i) * d;
      if (s.output == Output::kFeature) std::copy_n(feature, d, s.out);
      if (s.output == Output::kLast) head_rows_[n_head_rows_++] = {feature, s.out};
      for (int64_t t = 0; s.output == Output::kAll && t < s.rows; ++t)
        head_rows_[n_head_rows_++] = {(s.state != nullptr ? features_ : x_) + (s.begin + t) * d, s.out + t * outputs};
    }
  }
  for (int64_t i = 0; m_.language_model && i < n_segments_; ++i) {
    const Segment& s = segments_[i];
    if (s.output == Output::kAll && s.rows > 0) multiply(m_.output, tile_of(thread, s.rows, outputs), x_ + s.begin * d, d, s.out, outputs);
  }
  barrier();
  for (int64_t begin = 0; begin < n_head_rows_; begin += kHeadRows) {
    const int64_t rows = std::min(kHeadRows, n_head_rows_ - begin);
    if (thread == 0) {
      for (int64_t r = 0; r < rows; ++r) std::copy_n(head_rows_[begin + r].feature, d, head_in_ + r * d);
    }
    barrier();
    float *in = head_in_, *out = head_out_;
    int64_t width = d;
    for (const Matrix& hidden : m_.hidden) {
      const Tile tile = tile_of(thread, rows, hidden.outputs());
      multiply(hidden, tile, in, width, out, hidden.outputs());
      activate(Activation::kGelu, tile, out, hidden.outputs());
      barrier();
      std::swap(in, out);
      width = hidden.outputs();
    }
    const Tile tile = tile_of(thread, rows, outputs);
    multiply(m_.language_model ? m_.output : m_.out, tile, in, width, head_logits_, outputs);
    for (int64_t r = tile.rows.begin; r < tile.rows.end; ++r)
      std::copy(head_logits_ + r * outputs + tile.columns.begin, head_logits_ + r * outputs + tile.columns.end,
                head_rows_[begin + r].out + tile.columns.begin);
    barrier();
  }
}

void Engine::classify(const Model::Impl& model, int64_t rows, const float* features, float* logits) {
  std::vector<float> buffers[2];
  const float* in = features;
  int64_t width = model.hidden.empty() ? model.out.inputs() : model.hidden[0].inputs();
  for (size_t i = 0; i < model.hidden.size(); ++i) {
    const Matrix& hidden = model.hidden[i];
    std::vector<float>& out = buffers[i % 2];
    out.resize(static_cast<size_t>(rows * hidden.outputs()));
    hidden.multiply(rows, 0, hidden.outputs(), in, width, out.data(), hidden.outputs());
    kernels::activation_fwd<float>(Activation::kGelu, rows * hidden.outputs(), out.data(), out.data());
    in = out.data();
    width = hidden.outputs();
  }
  model.out.multiply(rows, 0, model.out.outputs(), in, width, logits, model.out.outputs());
}

}  // namespace seqboat::runtime
