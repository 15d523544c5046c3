// States as files: numbers in the order in which they came, whatever the kernels' layouts.
//
//   time, hash (2): seed and sequence id; layers.<i>.activated          I64
//   layers.<i>.encoder (D, N) or (D, P, 2), .history (n, D)             F32; the last n = min(time, truncation) inputs, oldest first
//   layers.<i>.scores (n)                                               F64; the last n = min(time, horizon - 1)
//   layers.<i>.keys (n, heads, Z), .values (n, heads, H), .times (n)    F32 or BF16, I64; what the next token may still see, oldest first
//   pooled (D) F64 or last (D) F32

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <list>

#include "runtime/state_impl.h"
#include "seqboat/base/error.h"
#include "seqboat/base/safetensors.h"
#include "seqboat/base/text.h"

namespace seqboat::runtime {
namespace {

constexpr const char* kFormat = "seqboat-state";
constexpr int kVersion = 1;
constexpr int64_t kMostTime = int64_t{1} << 53;  // beyond, double does not tell positions apart

/// Keys that the next token may see, and the number of the first of them.
struct Kept {
  int64_t first, count;
};
Kept kept_keys(const Attention& a, int64_t time, int64_t activated) {
  if (a.chunk > 0) return {0, time % a.chunk};
  const int64_t count = a.window >= 0 ? std::min(a.window, activated) : activated;
  return {activated - count, count};
}

std::string layer_name(size_t layer, const char* what) {
  return "layers." + std::to_string(layer) + "." + what;
}

/// A tensor of the file. It gets memory when its shape is known to be right.
struct Item {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  bool may_be_minus_infinity = false;  ///< scores of tokens that never were
  Buffer data = {};
  void allocate() { data = Buffer(count() * static_cast<int64_t>(dtype_size(dtype)), "a state"); }
  int64_t count() const {
    int64_t n = 1;
    for (const int64_t size : shape) n *= size;
    return n;
  }
};

/// Element index of channel c, number n in the packed state of an encoder.
int64_t packed_index(const Encoder& e, int64_t channel, int64_t number) {
  return kernels::scan_step_state_index(e.numbers(), channel, number);
}

/// Copies one element of the ring's key i, dimension z, or value i, column j.
int64_t key_index(const kernels::KeyRingShape& r, int64_t row, int64_t z) {
  return (row / kernels::kAttentionBlock * r.d_attn + z) * kernels::kAttentionBlock + row % kernels::kAttentionBlock;
}
int64_t value_index(const kernels::KeyRingShape& r, int64_t row, int64_t j) {
  const int64_t tile = j / kernels::kValueTile, width = std::min(kernels::kValueTile, round_up(r.d_hidden, 16) - tile * kernels::kValueTile);
  return r.capacity * r.d_attn + tile * r.capacity * kernels::kValueTile + row * width + j % kernels::kValueTile;
}

/// All tensors of a state whose counters are known, empty where `fill` is not asked for.
class Walk {
 public:
  explicit Walk(State::Impl& state) : s_(state), m_(state.model->impl()) {}

  /// visit(item, to_item, from_item): the first fills the item from the state, the second the state from the item.
  template <class Visit>
  void tensors(const Visit& visit) {
    const int64_t d = m_.config.d_model, time = s_.header->time;
    for (size_t i = 0; i < s_.layers.size(); ++i) {
      const Layer& layer = m_.layers[i];
      LayerState& s = s_.layers[i];
      if (const Encoder& e = layer.encoder; e.exists) {
        std::vector<int64_t> shape{d, e.n_state};
        if (e.is_s4d) shape.push_back(2);
        visit(Item{layer_name(i, "encoder"), DType::kF32, shape}, [&](Item& item, bool load) {
          for (int64_t c = 0; c < d; ++c) {
            for (int64_t n = 0; n < e.numbers(); ++n) move(item.data.as<float>()[c * e.numbers() + n], s.encoder[packed_index(e, c, n)], load);
          }
        });
        if (e.truncation > 0) {
          const int64_t rows = std::min(time, e.truncation);
          visit(Item{layer_name(i, "history"), DType::kF32, {rows, d}}, [&](Item& item, bool load) {
            for (int64_t r = 0; r < rows; ++r) {
              const int64_t row = (time - rows + r) % e.truncation;
              for (int64_t c = 0; c < d; ++c) move(item.data.as<float>()[r * d + c], s.history[row * d + c], load);
            }
          });
        }
      }
      if (layer.router.kind == Chooser::kTopShare) {
        const int64_t kept = layer.router.horizon - 1, rows = std::min(time, kept);
        visit(Item{layer_name(i, "scores"), DType::kF64, {rows}, true}, [&](Item& item, bool load) {
          for (int64_t r = 0; r < rows; ++r) move(item.data.as<double>()[r], s.scores[(time - rows + r) % kept], load);
        });
      }
      if (layer.attention.exists) ring(i, visit);
    }
    if (!m_.language_model) {
      visit(Item{"pooled", DType::kF64, {d}}, [&](Item& item, bool load) {
        for (int64_t c = 0; c < d; ++c) move(item.data.as<double>()[c], s_.pooled[c], load);
      });
    } else {
      visit(Item{"last", DType::kF32, {d}}, [&](Item& item, bool load) {
        for (int64_t c = 0; c < d; ++c) move(item.data.as<float>()[c], s_.last[c], load);
      });
    }
  }

 private:
  template <class T>
  static void move(T& in_item, T& in_state, bool load) {
    (load ? in_state : in_item) = load ? in_item : in_state;
  }

  template <class Visit>
  void ring(size_t i, const Visit& visit) {
    const Attention& a = m_.layers[i].attention;
    LayerState& s = s_.layers[i];
    const kernels::KeyRingShape& shape = s.attention.ring;
    const Kept kept = kept_keys(a, s_.header->time, s_.activated[i]);
    const bool half = shape.type == kernels::RingType::kBf16;
    const auto elements = [&](const char* name, int64_t width, auto index) {
      visit(Item{layer_name(i, name), half ? DType::kBF16 : DType::kF32, {kept.count, a.heads, width}}, [&](Item& item, bool load) {
        for (int64_t r = 0; r < kept.count; ++r) {
          const int64_t row = (kept.first + r) % shape.capacity;
          for (int64_t h = 0; h < a.heads; ++h) {
            for (int64_t j = 0; j < width; ++j) {
              std::byte* there = s.ring + h * s.ring_bytes;
              const int64_t from = (r * a.heads + h) * width + j, to = index(shape, row, j);
              if (half) {
                move(item.data.as<uint16_t>()[from], reinterpret_cast<uint16_t*>(there)[to], load);
              } else {
                move(item.data.as<float>()[from], reinterpret_cast<float*>(there)[to], load);
              }
            }
          }
        }
      });
    };
    elements("keys", a.d_attn, key_index);
    elements("values", a.d_hidden, value_index);
    if (a.bias != kernels::PositionBias::kOriginalDistance) return;
    visit(Item{layer_name(i, "times"), DType::kI64, {kept.count}}, [&](Item& item, bool load) {
      for (int64_t r = 0; r < kept.count; ++r) move(item.data.as<int64_t>()[r], s.positions[(kept.first + r) % shape.capacity], load);
    });
  }

  State::Impl& s_;
  const Model::Impl& m_;
};

bool is_finite(const Item& item) {
  const int64_t count = item.count();
  for (int64_t i = 0; i < count; ++i) {
    bool good = true;
    if (item.dtype == DType::kF32) good = std::isfinite(item.data.as<float>()[i]);
    if (item.dtype == DType::kF64) {
      const double value = item.data.as<double>()[i];
      good = std::isfinite(value) || (item.may_be_minus_infinity && value < 0);
    }
    if (item.dtype == DType::kBF16) good = (item.data.as<uint16_t>()[i] & 0x7f80) != 0x7f80;
    if (!good) return false;
  }
  return true;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

/// A file's tensors, checked one by one as they are asked for.
class StateFile {
 public:
  explicit StateFile(const std::filesystem::path& path) : where_(path.string()), file_(SafetensorsFile::open(path)) {}

  std::string metadata(const std::string& key) const {
    const auto found = file_.metadata().find(key);
    return found == file_.metadata().end() ? "" : found->second;
  }

  void read(Item& item) {
    const TensorView* view = file_.find(item.name);
    SEQBOAT_CHECK(view != nullptr, ErrorKind::kModel, "{}: no whole state: tensor '{}' is missing", where_, item.name);
    SEQBOAT_CHECK(view->shape == item.shape && view->dtype == item.dtype, ErrorKind::kModel, "{}: tensor '{}': expected {} {}, found {} {}", where_,
                  item.name, dtype_name(item.dtype), shape_text(item.shape), dtype_name(view->dtype), shape_text(view->shape));
    item.allocate();
    std::memcpy(item.data.data(), view->data, view->size_bytes);
    SEQBOAT_CHECK(is_finite(item), ErrorKind::kModel, "{}: tensor '{}' holds a number that is not finite", where_, item.name);
    ++taken_;
  }

  void check_all_taken() const {
    SEQBOAT_CHECK(taken_ == file_.tensors().size(), ErrorKind::kModel, "{}: expected {} tensors, found {}", where_, taken_, file_.tensors().size());
  }
  const std::string& where() const { return where_; }

 private:
  std::string where_;
  SafetensorsFile file_;
  size_t taken_ = 0;
};

int64_t number_of(const std::string& text) {
  if (text.empty() || text.size() > 15 || text.find_first_not_of("0123456789") != std::string::npos) return -1;
  return std::stoll(text);
}

}  // namespace

void State::save(const std::filesystem::path& file) const {
  Impl& s = *impl_;
  std::list<Item> items;
  const auto add = [&](Item item) {
    items.push_back(std::move(item));
    items.back().allocate();
  };
  add(Item{"time", DType::kI64, {}});
  items.back().data.as<int64_t>()[0] = s.header->time;
  add(Item{"hash", DType::kI64, {2}});
  std::memcpy(items.back().data.data(), &s.header->seed, 8);
  items.back().data.as<int64_t>()[1] = s.header->sequence_id;
  add(Item{"activated", DType::kI64, {static_cast<int64_t>(s.layers.size())}});
  std::copy_n(s.activated, s.layers.size(), items.back().data.as<int64_t>());
  Walk(s).tensors([&](Item item, const auto& transfer) {
    add(std::move(item));
    transfer(items.back(), false);
  });
  std::vector<TensorView> views;
  for (const Item& item : items)
    views.push_back({item.name, item.dtype, item.shape, item.data.data(), static_cast<size_t>(item.count()) * dtype_size(item.dtype)});
  write_safetensors(file, views,
                    {{"format", kFormat},
                     {"version", std::to_string(kVersion)},
                     {"model", s.model->fingerprint()},
                     {"ring", precision_name(s.model->ring())},
                     {"max_context", std::to_string(s.max_context)}});
}

State State::load(std::shared_ptr<const Model> model, const std::filesystem::path& path, std::span<std::byte> memory) {
  SEQBOAT_CHECK(model != nullptr, ErrorKind::kUsage, "a state needs a model");
  StateFile file(path);
  const std::string& where = file.where();
  SEQBOAT_CHECK(file.metadata("format") == kFormat, ErrorKind::kModel, "{}: no state of a stream (its metadata do not say format = {})", where,
                kFormat);
  const int64_t version = number_of(file.metadata("version"));
  SEQBOAT_CHECK(version <= kVersion, ErrorKind::kModel, "{}: a state of format version {}; this program reads up to {}", where, version, kVersion);
  SEQBOAT_CHECK(version >= 1, ErrorKind::kModel, "{}: the format version must be a number from 1 on, found {}", where,
                in_quotes(file.metadata("version")));
  SEQBOAT_CHECK(file.metadata("model") == model->fingerprint(), ErrorKind::kModel,
                "{}: a state of another model: expected the fingerprint {}, found {}", where, model->fingerprint(),
                in_quotes(file.metadata("model")));
  SEQBOAT_CHECK(file.metadata("ring") == precision_name(model->ring()), ErrorKind::kModel, "{}: the ring's precision: expected {}, found {}", where,
                precision_name(model->ring()), in_quotes(file.metadata("ring")));
  const int64_t max_context = number_of(file.metadata("max_context"));
  const bool possible = model->needs_max_context() ? max_context >= 1 && max_context <= most_context(model->impl()) : max_context == 0;
  SEQBOAT_CHECK(possible, ErrorKind::kModel, "{}: max_context cannot be {} for this model", where, in_quotes(file.metadata("max_context")));

  Item time{"time", DType::kI64, {}}, hash{"hash", DType::kI64, {2}}, activated{"activated", DType::kI64, {model->config().n_layers}};
  file.read(time);
  file.read(hash);
  file.read(activated);
  const int64_t now = time.data.as<int64_t>()[0];
  SEQBOAT_CHECK(now >= 0 && now <= kMostTime, ErrorKind::kModel, "{}: tensor 'time': expected 0 to {}, found {}", where, kMostTime, now);
  SEQBOAT_CHECK(max_context == 0 || now <= max_context, ErrorKind::kModel, "{}: tensor 'time': expected at most max_context = {}, found {}", where,
                max_context, now);
  const std::vector<Layer>& layers = model->impl().layers;
  for (size_t i = 0; i < layers.size(); ++i) {
    const int64_t count = activated.data.as<int64_t>()[i], most = layers[i].attention.exists ? now : 0;
    SEQBOAT_CHECK(count >= 0 && count <= most, ErrorKind::kModel, "{}: tensor 'activated': expected 0 to {} in layer {}, found {}", where, most, i,
                  count);
  }

  // Only now is memory taken for it: a file that promises more than it holds must not.
  Impl planned;
  planned.model = model;
  planned.max_context = max_context;
  planned.lay_out(nullptr);
  StateHeader header{now, 0, 0};
  planned.header = &header;
  planned.activated = activated.data.as<int64_t>();
  std::list<Item> items;
  Walk(planned).tensors([&](Item item, const auto&) { items.push_back(std::move(item)); });
  for (Item& item : items) file.read(item);
  file.check_all_taken();
  for (size_t i = 0; i < layers.size(); ++i) {
    for (const Item& item : items) {
      if (item.name != layer_name(i, "times")) continue;
      const auto* times = item.data.as<int64_t>();
      for (int64_t r = 0; r < item.shape[0]; ++r) {
        const int64_t least = r > 0 ? times[r - 1] + 1 : 0;
        SEQBOAT_CHECK(times[r] >= least && times[r] < now, ErrorKind::kModel, "{}: tensor '{}': expected a time of {} to {} in row {}, found {}",
                      where, item.name, least, now - 1, r, times[r]);
      }
    }
  }

  State state = create(std::move(model), {.max_context = max_context, .memory = memory});
  Impl& s = *state.impl_;
  s.header->time = now;
  std::memcpy(&s.header->seed, hash.data.data(), 8);
  s.header->sequence_id = hash.data.as<int64_t>()[1];
  std::copy_n(activated.data.as<int64_t>(), layers.size(), s.activated);
  auto next = items.begin();
  Walk(s).tensors([&](const Item&, const auto& transfer) { transfer(*next++, true); });
  return state;
}

}  // namespace seqboat::runtime
