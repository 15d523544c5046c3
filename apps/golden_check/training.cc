// Cases of training: one optimizer, schedules, and whole trajectories.

#include <array>
#include <cmath>

#include "golden_case.h"
#include "model_cases.h"
#include "seqboat/base/error.h"
#include "seqboat/nn/model.h"
#include "seqboat/nn/official_names.h"
#include "seqboat/ops/ops.h"
#include "seqboat/train/optimizer.h"
#include "seqboat/train/schedule.h"

namespace golden {

namespace nn = seqboat::nn;
namespace ops = seqboat::ops;
namespace train = seqboat::train;

namespace {

Tensor parameter_of(const Tensor& stored, const Comparison& comparison) {
  return stored.to(comparison.dtype()).clone().detach().requires_grad_(true);
}

std::array<double, 2> parse_betas(const json& value) {
  if (value.is_array()) return {value[0].get<double>(), value[1].get<double>()};
  std::string text = value.get<std::string>();
  std::erase_if(text, [](char c) { return c == '(' || c == ')' || c == '[' || c == ']'; });
  const size_t comma = text.find(',');
  return {std::stod(text.substr(0, comma)), std::stod(text.substr(comma + 1))};
}

train::Schedule make_schedule(const json& args) {
  train::ScheduleOptions options;
  const std::string name = word(args, "lr_scheduler", word(args, "scheduler", "(none)"));
  if (name == "linear_decay") {
    options.kind = train::ScheduleKind::kLinearDecay;
  } else if (name == "polynomial_decay") {
    options.kind = train::ScheduleKind::kPolynomialDecay;
  } else if (name == "inverse_sqrt") {
    options.kind = train::ScheduleKind::kInverseSqrt;
  } else if (name == "fixed") {
    options.kind = train::ScheduleKind::kConstant;
  } else {
    seqboat::fail(seqboat::ErrorKind::kData, "schedule {}: expected linear_decay, polynomial_decay, inverse_sqrt or fixed", name);
  }
  options.lr = args.at("lr").is_array() ? args["lr"][0].get<double>() : args["lr"].get<double>();
  options.warmup = static_cast<int64_t>(number(args, "warmup_updates", 0));
  options.warmup_init_lr = number(args, "warmup_init_lr", -1);
  options.total_steps = static_cast<int64_t>(number(args, "total_num_update", 0));
  options.power = name == "linear_decay" ? number(args, "warmup_power", 1) : number(args, "power", 1);
  options.end_lr = number(args, "end_learning_rate", 0);
  return train::Schedule(options);
}

// --- kind "trajectory" ---

/// Rows of one input of the run: padded (rows, T) or (rows, T, channels), each used up to its own length.
struct Rows {
  Tensor padded;
  std::vector<int64_t> lengths;

  /// The given rows, packed one after another.
  nn::PackedSequences pack(const std::vector<int64_t>& rows, torch::ScalarType dtype) const {
    std::vector<Tensor> parts;
    std::vector<int64_t> offsets{0};
    for (const int64_t row : rows) {
      const int64_t length = lengths.at(static_cast<size_t>(row));
      parts.push_back(padded[row].narrow(0, 0, length));
      offsets.push_back(offsets.back() + length);
    }
    const Tensor packed = torch::cat(parts);
    nn::PackedSequences out;
    out.cu_seqlens = torch::tensor(offsets, torch::kInt64);
    if (packed.is_floating_point()) {
      out.values = packed.reshape({packed.size(0), -1}).to(dtype);
    } else {
      out.tokens = packed.to(torch::kInt64).contiguous();
    }
    return out;
  }
};

Rows read_rows(const GoldenCase& golden, const std::string& name, const std::string& lengths_name) {
  Rows rows{golden.at(name), {}};
  const bool has_pad = !rows.padded.is_floating_point() && golden.meta.contains("pad_idx") && golden.meta["pad_idx"].is_number();
  if (!golden.has(lengths_name) && has_pad) {
    // Padded on the right: a row ends with its last symbol that is none.
    const Tensor is_symbol = rows.padded != golden.meta["pad_idx"].get<int64_t>();
    for (int64_t row = 0; row < rows.padded.size(0); ++row) {
      int64_t length = rows.padded.size(1);
      while (length > 0 && !is_symbol[row][length - 1].item<bool>()) --length;
      rows.lengths.push_back(length);
    }
  } else if (golden.has(lengths_name)) {
    const Tensor lengths = golden.at(lengths_name).to(torch::kInt64).contiguous();
    rows.lengths.assign(lengths.const_data_ptr<int64_t>(), lengths.const_data_ptr<int64_t>() + lengths.numel());
  } else {
    rows.lengths.assign(static_cast<size_t>(rows.padded.size(0)), rows.padded.size(1));
  }
  return rows;
}

/// Allowed differences of a trajectory: per range of updates for loss and gradient norm, per snapshot for parameters and buffers.
class TrajectoryTolerance {
 public:
  TrajectoryTolerance(const json& tolerance, bool is_double)
      : ranges_(tolerance.at(is_double ? "float64" : "float32")), after_(tolerance.at("after")), is_double_(is_double) {}

  double relative(int64_t update, const char* what) const {
    for (const json& range : ranges_)
      if (range.at("updates")[0].get<int64_t>() <= update && update <= range.at("updates")[1].get<int64_t>()) return range.at(what).get<double>();
    seqboat::fail(seqboat::ErrorKind::kData, "the case states no tolerance for update {}", update);
  }

  /// Of a tensor after so many updates.
  double absolute(int64_t updates, const std::string& tensor) const {
    const json& at = after_.at(std::to_string(updates));
    if (at.contains("exceptions") && at["exceptions"].contains(tensor)) return at["exceptions"][tensor][is_double_ ? 1 : 0].get<double>();
    return at.at(is_double_ ? "float64_abs" : "float32_abs").get<double>();
  }

  /// Of a parameter on the way: that of the next snapshot, or of the last.
  double on_the_way(int64_t update, const std::string& tensor) const {
    int64_t next = 0, last = 0;
    for (const auto& [text, at] : after_.items()) {
      const int64_t updates = std::stoll(text);
      if (updates >= update && (next == 0 || updates < next)) next = updates;
      last = std::max(last, updates);
    }
    return absolute(next > 0 ? next : last, tensor);
  }

 private:
  const json& ranges_;
  const json& after_;
  bool is_double_;
};

/// Decisions are those of the float64 run, unless a float32 run's own rounding may have turned one: a token whose logits are no further apart.
double rounding_of_logits(const Tensor& logits, bool is_double) {
  return is_double || logits.numel() == 0 ? 0 : 1e-5 * std::max(1.0, logits.abs().max().item<double>());
}

/// One update's activity of a layer: flags in the case's order, which for a pair is document by document of each item.
Tensor flags_of_layer(const std::vector<nn::LayerTrace>& trace, int64_t layer, int64_t n_layers, const std::vector<nn::PackedSequences>& inputs,
                      bool is_double, Tensor* near) {
  std::vector<Tensor> flags, doubtful;
  for (int64_t b = 0; b < inputs[0].batch(); ++b) {
    for (size_t pass = 0; pass < inputs.size(); ++pass) {
      const int64_t* offsets = inputs[pass].cu_seqlens.const_data_ptr<int64_t>();
      const Tensor& active = trace.at(pass * static_cast<size_t>(n_layers) + static_cast<size_t>(layer)).active;
      const int64_t length = offsets[b + 1] - offsets[b];
      flags.push_back(active.defined() ? active.narrow(0, offsets[b], length) : torch::ones({length}, torch::kUInt8));
      if (!active.defined()) {
        doubtful.push_back(torch::zeros({length}, torch::kBool));
      } else {
        const Tensor u = trace.at(pass * static_cast<size_t>(n_layers) + static_cast<size_t>(layer)).logits.narrow(0, offsets[b], length);
        doubtful.push_back((u.select(1, 1) - u.select(1, 0)).abs() < rounding_of_logits(u, is_double));
      }
    }
  }
  *near = torch::cat(doubtful);
  return torch::cat(flags);
}

}  // namespace

void check_trajectory(const GoldenCase& golden, Comparison& comparison) {
  const json& config = golden.meta.at("config");
  const bool language_model = is_language_model(config), real = !language_model && golden.has("input.pixels");
  seqboat::config::ModelConfig model_config = language_model ? language_model_config(golden, config) : classifier_config(golden, config);
  const bool pair = model_config.task == "retrieval";
  auto model = nn::make_model(model_config, 0);
  model->to(comparison.dtype());
  const auto parts_of = [&](const std::string& name) {
    return nn::official_model_parts(name, nn::official_layer(model_config), !language_model || model_config.tie_embedding);
  };
  nn::load_official(*model, official_tensors(golden), parts_of);
  model->train();

  const json& run = golden.meta.at("optimizer");
  if (const std::string mode = word(run, "clip_mode", "total"); mode != "total")
    seqboat::fail(seqboat::ErrorKind::kData, "clip_mode is '{}': only total is supported", mode);
  seqboat::config::OptimConfig optim{.name = run.at("name").get<std::string>()};
  optim.betas = parse_betas(run.at("betas"));
  optim.eps = run.at("eps").get<double>();
  optim.weight_decay = number(run, "weight_decay", 0);
  const double clip_norm = number(run, "clip_norm", 0);
  const auto optimizer = train::make_optimizer(optim, train::parameters_of(*model));
  const train::Schedule schedule = make_schedule(run);
  const TrajectoryTolerance tolerance(golden.meta.at("tolerance"), comparison.is_double());

  std::vector<Rows> documents;
  documents.push_back(language_model ? read_rows(golden, "input.source", "input.lengths")
                                     : read_rows(golden, real ? "input.pixels" : "input.tokens", "input.lengths"));
  if (pair) documents.push_back(read_rows(golden, "input.tokens1", "input.lengths1"));
  const Rows targets = language_model ? read_rows(golden, "input.target", "input.lengths") : Rows{};
  const Tensor labels = language_model ? Tensor() : golden.at("input.target").to(torch::kInt64).reshape({-1}).contiguous();
  const Tensor order = golden.at("input.order");
  const int64_t updates = golden.meta.at("updates").get<int64_t>(), n_layers = model_config.n_layers;
  std::map<std::string, Tensor> ours = nn::named_tensors(*model);

  std::vector<double> losses, norms, rates;
  std::vector<int64_t> tokens, sizes, correct;
  std::vector<std::vector<int64_t>> active, doubtful;  // activated tokens, and those whose decision rounding may have turned
  std::vector<int64_t> doubtful_rows;
  std::vector<Tensor> temperatures, margins;
  for (int64_t update = 1; update <= updates; ++update) {
    const Tensor row_numbers = order[update - 1].to(torch::kInt64).contiguous();
    const std::vector<int64_t> rows(row_numbers.const_data_ptr<int64_t>(), row_numbers.const_data_ptr<int64_t>() + row_numbers.numel());
    std::vector<nn::PackedSequences> inputs;
    for (const Rows& document : documents) inputs.push_back(document.pack(rows, comparison.dtype()));

    // The temperatures as this forward uses them.
    std::vector<Tensor> temperature;
    for (int64_t layer = 0; layer < n_layers && model_config.uses_router(); ++layer)
      temperature.push_back(ours.at(fmt::format("encoder.layers.{}.layer.router.log_temperature", layer)).detach().to(torch::kFloat64).reshape({1}));
    if (!temperature.empty()) temperatures.push_back(torch::cat(temperature));

    optimizer->zero_grad();
    std::vector<nn::LayerTrace> trace;
    nn::ForwardOptions options;
    options.trace = &trace;
    options.intermediates = true;
    const Tensor logits = model->forward(inputs[0], pair ? &inputs[1] : nullptr, options);
    const Tensor target = language_model ? targets.pack(rows, comparison.dtype()).tokens : labels.index_select(0, row_numbers);
    Tensor scored;  // a language model's target that is the pad symbol is not scored
    if (language_model && golden.meta.contains("pad_idx") && golden.meta["pad_idx"].is_number())
      scored = (target != golden.meta["pad_idx"].get<int64_t>()).nonzero().squeeze(1);
    const bool all = !scored.defined() || scored.size(0) == target.size(0);
    const Tensor loss = ops::cross_entropy_sum(all ? logits : logits.index_select(0, scored), all ? target : target.index_select(0, scored));
    loss.backward();
    int64_t read = 0;
    for (const auto& input : inputs) read += input.cu_seqlens[-1].item<int64_t>();
    const int64_t size = language_model ? read : static_cast<int64_t>(rows.size());
    losses.push_back(loss.item<double>() / static_cast<double>(size));
    tokens.push_back(read);
    sizes.push_back(size);
    if (!language_model) {
      correct.push_back((logits.argmax(1) == target).sum().item<int64_t>());
      const Tensor top = std::get<0>(logits.detach().topk(2, 1));
      doubtful_rows.push_back(((top.select(1, 0) - top.select(1, 1)) < rounding_of_logits(logits, comparison.is_double())).sum().item<int64_t>());
    }

    if (update == 1) {
      const auto stored = golden.with_prefix("grad.update1.");
      double largest = 0;
      for (const auto& [name, want] : stored) largest = std::max(largest, want.abs().max().item<double>());
      for (const auto& [name, want] : stored)
        comparison.close("grad.update1." + name,
                         nn::assemble_official(parts_of(name), want.sizes(), [&](const std::string& key) { return ours.at(key).grad(); }) /
                             static_cast<double>(size),
                         want, (comparison.is_double() ? 1e-6 : 1e-5) * largest);
    }

    std::vector<int64_t> counts, near_counts;
    std::vector<Tensor> margin;
    for (int64_t layer = 0; layer < n_layers; ++layer) {
      Tensor near;
      const Tensor flags = flags_of_layer(trace, layer, n_layers, inputs, comparison.is_double(), &near);
      counts.push_back(flags.sum().item<int64_t>());
      near_counts.push_back(near.sum().item<int64_t>());
      const std::string name = fmt::format("router.update{}.layer{}", update, layer);
      if (golden.has(name)) {
        const Tensor want = golden.at(name).reshape({-1});
        comparison.exact(name, flags.numel() == want.numel() ? torch::where(near, want.to(torch::kUInt8), flags) : flags, want);
      }
      Tensor smallest;
      for (size_t pass = 0; pass < inputs.size() && model_config.uses_router(); ++pass) {
        const Tensor logits_of_pass = trace.at(pass * static_cast<size_t>(n_layers) + static_cast<size_t>(layer)).logits.to(torch::kFloat64);
        const Tensor least = (logits_of_pass.select(1, 1) - logits_of_pass.select(1, 0)).abs().min().reshape({1});
        smallest = smallest.defined() ? torch::minimum(smallest, least) : least;
      }
      if (smallest.defined()) margin.push_back(smallest);
    }
    active.push_back(counts);
    doubtful.push_back(near_counts);
    if (!margin.empty()) margins.push_back(torch::cat(margin));

    norms.push_back(train::scale_and_clip_gradients(optimizer->parameters(), 1.0 / static_cast<double>(size), clip_norm));
    rates.push_back(schedule.value(update - 1));
    optimizer->step(rates.back());

    const std::string after = fmt::format("after{}.", update);
    for (const char* section : {"param.", "buffer."})
      for (const auto& [name, want] : golden.with_prefix(after + section)) {
        const auto parts = parts_of(name);
        if (parts.empty() || parts[0].ours.empty()) {
          comparison.fail(after + section + name + " has no place in the model");
          continue;
        }
        const Tensor got = nn::assemble_official(parts, want.sizes(), [&](const std::string& key) { return ours.at(key); });
        if (want.is_floating_point()) {
          comparison.close(after + section + name, got, want, tolerance.absolute(update, name));
        } else {
          comparison.exact(after + section + name, got, want);
        }
      }
  }

  // What was recorded of every update.
  const auto held_to = [&](const std::string& name, const std::vector<double>& got, const char* what) {
    const Tensor want = golden.at(name).to(torch::kFloat64);
    comparison.seen(name);
    const size_t failures = comparison.failures().size();
    // What comes after the first update outside its band follows from it.
    for (int64_t update = 1; update <= updates && comparison.failures().size() == failures; ++update) {
      const Tensor reference = want[update - 1];
      comparison.close(fmt::format("{} of update {}", name, update), torch::tensor(got[static_cast<size_t>(update - 1)], torch::kFloat64), reference,
                       tolerance.relative(update, what) * std::abs(reference.item<double>()));
    }
  };
  held_to("trace.loss.f64", losses, "loss_rel");
  held_to("trace.grad_norm.f64", norms, "grad_norm_rel");
  // "Exact": the same numbers, but for the last bits of a double that another order of the same formula's products may move.
  const Tensor rate = golden.at("trace.lr");
  comparison.close("trace.lr", torch::tensor(rates, torch::kFloat64), rate, 1e-14 * rate.abs().max().item<double>());
  const auto integers = [&](const std::string& name, const Tensor& got) {
    if (golden.has(name)) comparison.exact(name, got);
  };
  integers("trace.tokens", torch::tensor(tokens, torch::kInt64));
  integers("trace.sample_size", torch::tensor(sizes, torch::kInt64));
  // Counts may be off by as many as are in doubt (none in float64).
  const auto but_for = [&](const std::string& name, const Tensor& got, const Tensor& doubt) {
    if (!golden.has(name)) return;
    const Tensor want = golden.at(name).reshape(got.sizes()), within = (got - want).abs() <= doubt;
    comparison.exact(name, torch::where(within, want, got), want);
  };
  if (!language_model) but_for("trace.correct.f64", torch::tensor(correct, torch::kInt64), torch::tensor(doubtful_rows, torch::kInt64));
  const auto table = [&](const std::vector<std::vector<int64_t>>& lines) {
    std::vector<int64_t> flat;
    for (const auto& line : lines) flat.insert(flat.end(), line.begin(), line.end());
    return torch::tensor(flat, torch::kInt64).reshape({updates, n_layers});
  };
  const Tensor counts = table(active), doubt = table(doubtful);
  but_for("trace.active.f64", counts, doubt);
  if (golden.has("trace.active_rate.f64")) {
    const Tensor read = torch::tensor(tokens, torch::kFloat64).unsqueeze(1), want = golden.at("trace.active_rate.f64");
    const Tensor got = counts.to(torch::kFloat64) / read, within = (got - want).abs() <= doubt.to(torch::kFloat64) / read + 1e-15;
    comparison.close("trace.active_rate.f64", torch::where(within, want, got), want, 1e-15);
  }
  if (golden.has("trace.temp.f64")) {
    comparison.seen("trace.temp.f64");  // a model without routers has none
    const Tensor want = golden.at("trace.temp.f64");
    for (size_t update = 1; update <= temperatures.size(); ++update) {
      for (int64_t layer = 0; layer < n_layers; ++layer) {
        // The official name, under which the case may list an exception.
        std::string official;
        for (const auto& [name, value] : golden.with_prefix("param.")) {
          const auto place = nn::official_layer_name(name);
          if (place && place->layer == layer && place->rest == "q_router.temp") official = name;
        }
        comparison.close("trace.temp.f64", temperatures[update - 1][layer], want[static_cast<int64_t>(update) - 1][layer],
                         tolerance.on_the_way(static_cast<int64_t>(update), official));
      }
    }
  }
  // The margins tell how near a decision was; in float32 they move with the parameters and have no bound of their own.
  if (golden.has("trace.router_margin.f64")) {
    if (comparison.is_double() && !margins.empty()) {
      comparison.close("trace.router_margin.f64", torch::stack(margins), golden.at("trace.router_margin.f64"), 1e-9);
    } else {
      comparison.seen("trace.router_margin.f64");
    }
  }
}

void check_optimizer(const GoldenCase& golden, Comparison& comparison) {
  const json& args = golden.meta.at("args");
  const std::string name = args.at("optimizer").get<std::string>(), prefix = name + "_";
  seqboat::config::OptimConfig config{.name = name};
  config.betas = parse_betas(args.at(prefix + "betas"));
  config.eps = args.at(prefix + "eps").get<double>();
  config.weight_decay = number(args, "weight_decay", 0);
  const train::Schedule schedule = make_schedule(args);

  std::vector<train::NamedParameter> parameters;
  for (int64_t i = 0; golden.has("param." + std::to_string(i)); ++i)
    parameters.push_back({std::to_string(i), parameter_of(golden.at("param." + std::to_string(i)), comparison)});
  const auto optimizer = train::make_optimizer(config, parameters);

  // The float32 run is held to the stored float64 one as well: with f32_vs_f64, the official float32 run's own error, as the figure.
  double figure = -1;
  if (golden.meta.contains("f32_vs_f64"))
    for (const auto& value : golden.meta["f32_vs_f64"]) figure = std::max(figure, value.get<double>());
  const auto compare = [&](const std::string& reference, const Tensor& got, const Tensor& want) {
    const double largest = want.numel() > 0 ? want.abs().max().item<double>() : 0;
    comparison.close(reference, got, want,
                     comparison.is_double() ? 1e-9 * largest
                     : figure >= 0          ? std::max(10 * figure, 1e-6 * largest)
                                            : 1e-5 * largest);
  };
  const int64_t steps = golden.meta.at("steps").get<int64_t>();
  std::vector<double> norms, rates;
  for (int64_t step = 0; step < steps; ++step) {
    for (auto& parameter : parameters)
      parameter.tensor.mutable_grad() = golden.at("grad.step" + std::to_string(step) + "." + parameter.name).to(comparison.dtype()).clone();
    norms.push_back(
        train::scale_and_clip_gradients(parameters, 1.0 / golden.meta.at("sample_size").get<double>(), number(golden.meta, "clip_norm", 0)));
    rates.push_back(schedule.value(step));
    optimizer->step(rates.back());
    for (const auto& parameter : parameters) {
      const std::string reference = "param_after.step" + std::to_string(step) + "." + parameter.name + ".f64";
      if (golden.has(reference)) compare(reference, parameter.tensor, golden.at(reference));
    }
  }
  compare("gnorm.f64", torch::tensor(norms, torch::kFloat64), golden.at("gnorm.f64"));
  comparison.close("lr.f64", torch::tensor(rates, torch::kFloat64), golden.at("lr.f64"), 1e-9 * golden.at("lr.f64").abs().max().item<double>());
  for (const auto& state : optimizer->state()) {
    const size_t dot = state.name.find('.');
    const std::string reference = state.name.substr(0, dot) + ".final." + state.name.substr(dot + 1) + ".f64";
    if (golden.has(reference)) compare(reference, state.tensor, golden.at(reference));
  }
}

void check_schedule(const GoldenCase& golden, Comparison& comparison) {
  for (const auto& [name, entry] : golden.meta.items()) {
    if (!entry.is_object()) continue;
    if (!entry.contains("values")) {
      comparison.fail(name + " has no values to compare");
      continue;
    }
    const train::Schedule schedule = make_schedule(entry);
    const double peak = entry["lr"].is_array() ? entry["lr"][0].get<double>() : entry["lr"].get<double>();
    for (const auto& pair : entry["values"]) {
      const int64_t update = pair[0].get<int64_t>();
      comparison.close(name + " at " + std::to_string(update), torch::tensor(schedule.value(update), torch::kFloat64),
                       torch::tensor(pair[1].get<double>(), torch::kFloat64), 1e-9 * peak);
    }
  }
}

}  // namespace golden
