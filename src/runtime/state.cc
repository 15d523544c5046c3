#include "seqboat/runtime/state.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "runtime/state_impl.h"
#include "seqboat/base/error.h"

namespace seqboat::runtime {
namespace {

constexpr int64_t kMostContext = int64_t{1} << 40;

void check_options(const Model& model, const StateOptions& options) {
  SEQBOAT_CHECK(model.impl().config.causal, ErrorKind::kModel, "this model does not run as a stream: {}", model.why_no_stream());
  if (!model.needs_max_context()) return;
  SEQBOAT_CHECK(options.max_context >= 1 && options.max_context <= kMostContext, ErrorKind::kUsage,
                "this model attends without an end (model.window_size = 0) and needs a max_context of 1 to {} tokens, found {}", kMostContext,
                options.max_context);
  const int64_t most = most_context(model.impl());
  SEQBOAT_CHECK(options.max_context <= most, ErrorKind::kUsage,
                "max_context must be at most {}, the distances that the model's position table tells apart (model.max_positions), found {}", most,
                options.max_context);
}

}  // namespace

int64_t most_context(const Model::Impl& model) {
  int64_t most = kMostContext;
  for (const Layer& layer : model.layers) {
    const Attention& a = layer.attention;
    if (a.unbounded() && a.table_must_reach) most = std::min(most, a.max_positions);
  }
  return most;
}

kernels::RingAttention ring_attention(const Attention& a, Precision ring, int64_t max_context) {
  kernels::RingAttention out;
  const int64_t all = a.chunk > 0 ? a.chunk : max_context;
  out.ring.capacity =
      a.window >= 0 ? kernels::key_ring_capacity(a.window, kQueryBlock) : round_up(std::max<int64_t>(all, 1), kernels::kAttentionBlock);
  out.ring.d_attn = a.d_attn;
  out.ring.d_hidden = a.d_hidden;
  out.ring.type = ring == Precision::kBf16 ? kernels::RingType::kBf16 : kernels::RingType::kFloat32;
  out.window = a.window;
  out.function = a.function;
  out.bias = a.bias;
  out.max_positions = a.table.count > 0 || a.bias == kernels::PositionBias::kNone ? a.max_positions : std::max<int64_t>(1, max_context);
  return out;
}

void State::Impl::lay_out(std::byte* memory) {
  const Model::Impl& m = model->impl();
  const int64_t d = m.config.d_model;
  Carver carver(memory);
  header = carver.take<StateHeader>(1);
  activated = carver.take<int64_t>(m.config.n_layers);
  layers.resize(m.layers.size());
  for (size_t i = 0; i < m.layers.size(); ++i) {
    const Layer& layer = m.layers[i];
    LayerState& s = layers[i];
    if (const Encoder& e = layer.encoder; e.exists) {
      const kernels::ScanStepShape shape{d, e.n_state, e.truncation};
      s.encoder = carver.take<float>(static_cast<int64_t>(e.is_s4d ? kernels::s4d_step_state_size(shape) : kernels::ema_step_state_size(shape)));
      if (e.truncation > 0) s.history = carver.take<float>(static_cast<int64_t>(kernels::scan_step_ring_size(shape)));
    }
    if (layer.router.kind == Chooser::kTopShare) s.scores = carver.take<double>(layer.router.horizon - 1);
    const Attention& a = layer.attention;
    if (!a.exists) continue;
    s.attention = ring_attention(a, m.ring, max_context);
    s.ring_bytes = round_up(static_cast<int64_t>(kernels::key_ring_bytes(s.attention.ring)), static_cast<int64_t>(kAlignment));
    s.ring = carver.take<std::byte>(s.ring_bytes * a.heads);
    if (a.bias == kernels::PositionBias::kOriginalDistance) s.positions = carver.take<int64_t>(s.attention.ring.capacity);
    s.table = a.table.data();
    if (a.bias != kernels::PositionBias::kNone && s.table == nullptr) s.table = carver.take<float>(2 * s.attention.max_positions - 1);
  }
  if (m.language_model) {
    last = carver.take<float>(d);
  } else {
    pooled = carver.take<double>(d);
  }
  bytes = carver.used();
  block = memory;
}

void State::Impl::fill_tables() {
  const Model::Impl& m = model->impl();
  for (size_t i = 0; i < layers.size(); ++i) {
    const Attention& a = m.layers[i].attention;
    if (a.exists && layers[i].table != a.table.data()) fill_rotary_bias(a, layers[i].attention.max_positions, const_cast<float*>(layers[i].table));
  }
}

void State::Impl::reset() noexcept {
  const Model::Impl& m = model->impl();
  header->time = 0;
  std::fill_n(activated, layers.size(), int64_t{0});
  for (size_t i = 0; i < layers.size(); ++i) {
    const Layer& layer = m.layers[i];
    const LayerState& s = layers[i];
    if (const Encoder& e = layer.encoder; e.exists) {
      const kernels::ScanStepShape shape{m.config.d_model, e.n_state, e.truncation};
      std::fill_n(s.encoder, e.is_s4d ? kernels::s4d_step_state_size(shape) : kernels::ema_step_state_size(shape), 0.0f);
      if (s.history != nullptr) std::fill_n(s.history, kernels::scan_step_ring_size(shape), 0.0f);
    }
    if (s.scores != nullptr) std::fill_n(s.scores, layer.router.horizon - 1, -std::numeric_limits<double>::infinity());
    if (s.ring != nullptr) std::memset(s.ring, 0, static_cast<size_t>(s.ring_bytes * layer.attention.heads));
    if (s.positions != nullptr) std::fill_n(s.positions, s.attention.ring.capacity, int64_t{0});
  }
  if (last != nullptr) std::fill_n(last, m.config.d_model, 0.0f);
  if (pooled != nullptr) std::fill_n(pooled, m.config.d_model, 0.0);
}

int64_t State::bytes_for(const Model& model, const StateOptions& options) {
  check_options(model, options);
  Impl impl;
  // A view of the model that owns nothing: the layout only reads it.
  impl.model = std::shared_ptr<const Model>(std::shared_ptr<const Model>(), &model);
  impl.max_context = model.needs_max_context() ? options.max_context : 0;
  impl.lay_out(nullptr);
  return impl.bytes;
}

State State::create(std::shared_ptr<const Model> model, const StateOptions& options) {
  SEQBOAT_CHECK(model != nullptr, ErrorKind::kUsage, "a state needs a model");
  check_options(*model, options);
  auto impl = std::make_unique<Impl>();
  impl->max_context = model->needs_max_context() ? options.max_context : 0;
  impl->model = std::move(model);
  impl->lay_out(nullptr);
  const int64_t needed = impl->bytes;
  if (options.memory.empty()) {
    impl->owned = Buffer(needed, "a state");
    impl->lay_out(impl->owned.data());
  } else {
    SEQBOAT_CHECK(static_cast<int64_t>(options.memory.size()) >= needed, ErrorKind::kUsage, "the state's memory must be at least {} bytes, found {}",
                  needed, options.memory.size());
    SEQBOAT_CHECK(reinterpret_cast<uintptr_t>(options.memory.data()) % kAlignment == 0, ErrorKind::kUsage,
                  "the state's memory must begin at a multiple of {} bytes", kAlignment);
    std::memset(options.memory.data(), 0, static_cast<size_t>(needed));
    impl->lay_out(options.memory.data());
  }
  impl->fill_tables();
  impl->reset();
  impl->header->seed = options.seed;
  impl->header->sequence_id = options.sequence_id;
  return State(std::move(impl));
}

State::State(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
State::State(State&&) noexcept = default;
State& State::operator=(State&&) noexcept = default;
State::~State() = default;

State State::clone(std::span<std::byte> memory) const {
  State copy = create(impl_->model, {.max_context = impl_->max_context, .memory = memory});
  copy.copy_from(*this);
  return copy;
}

void State::copy_from(const State& other) {
  SEQBOAT_CHECK(impl_->model->fingerprint() == other.impl_->model->fingerprint() && impl_->model->ring() == other.impl_->model->ring() &&
                    impl_->max_context == other.impl_->max_context,
                ErrorKind::kModel, "a state can only take over one of the same model, ring and max_context");
  if (this != &other) std::memcpy(impl_->block, other.impl_->block, static_cast<size_t>(impl_->bytes));
}

void State::reset() noexcept {
  impl_->reset();
}
const std::shared_ptr<const Model>& State::model() const {
  return impl_->model;
}
int64_t State::size_bytes() const {
  return impl_->bytes;
}
int64_t State::tokens() const {
  return impl_->header->time;
}
int64_t State::max_context() const {
  return impl_->max_context;
}

int64_t State::activated(int64_t layer) const {
  SEQBOAT_CHECK(0 <= layer && layer < static_cast<int64_t>(impl_->layers.size()), ErrorKind::kUsage, "the model has layers 0 to {}, not {}",
                impl_->layers.size() - 1, layer);
  return impl_->activated[layer];
}

void State::set_clock(int64_t time) {
  SEQBOAT_CHECK(impl_->header->time == 0 && time >= 0, ErrorKind::kUsage, "the clock of a fresh state is set, to no negative time");
  impl_->header->time = time;
}

}  // namespace seqboat::runtime
