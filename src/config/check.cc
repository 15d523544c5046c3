#include "config/check.h"

#include <algorithm>
#include <cmath>

#include "config/values.h"

namespace seqboat::config {
namespace {

bool in_range(const Key& key, double value) {
  return std::isfinite(value) && (key.limits.open_min ? value > key.limits.min : value >= key.limits.min) &&
         (key.limits.open_max ? value < key.limits.max : value <= key.limits.max);
}

void check_key(const Key& key, const Recipe& recipe, const CheckContext& context) {
  const ConstFieldRef ref = field(key, recipe);
  bool good = true;
  std::string hint;
  if (const auto* integer = std::get_if<const int64_t*>(&ref)) {
    good = in_range(key, static_cast<double>(**integer));
  } else if (const auto* number = std::get_if<const double*>(&ref)) {
    good = in_range(key, **number);
  } else if (const auto* pair = std::get_if<const std::array<double, 2>*>(&ref)) {
    good = in_range(key, (**pair)[0]) && in_range(key, (**pair)[1]);
  } else if (const auto* list = std::get_if<const std::vector<double>*>(&ref)) {
    for (const double entry : **list) good = good && in_range(key, entry);
  } else if (const auto* text = std::get_if<const std::string*>(&ref); text != nullptr && !key.limits.words.empty()) {
    good = false;
    std::vector<std::string> words;
    for (const std::string_view word : key.limits.words) {
      good = good || word == **text;
      if (!word.empty()) words.emplace_back(word);
    }
    if (!good) hint = suggestion(**text, words);
  }
  SEQBOAT_CHECK(good, context.kind, "{}: {} must be {}, found {}{}", context.where(key), context.name(key), allowed_text(key),
                context.found(key, recipe), hint);
}

// Refuses a key's value: "<where>: <key> <what>, found <value>".
template <class... Args>
void require(bool condition, const CheckContext& context, std::string_view field_name, const Recipe& recipe, fmt::format_string<Args...> format,
             Args&&... args) {
  if (condition) return;
  const Key& key = key_of_field(field_name);
  fail(context.kind, "{}: {} {}, found {}", context.where(key), context.name(key), fmt::format(format, std::forward<Args>(args)...),
       context.found(key, recipe));
}

void check_model_keys_together(const Recipe& recipe, const CheckContext& context);
void check_run_keys_together(const Recipe& recipe, const CheckContext& context);

}  // namespace

std::string CheckContext::found(const Key& key, const Recipe& recipe) const {
  const bool set = is_set == nullptr || is_set(key);
  return value_text(field(key, recipe)) + (set ? "" : ", its default (the key is not set)");
}

const Key& key_of_field(std::string_view field) {
  for (const Key& key : keys()) {
    if (field == key.field) return key;
  }
  fail(ErrorKind::kFailed, "no key has the field {}", field);
}

std::string suggestion(std::string_view word, const std::vector<std::string>& words) {
  const std::string near = nearest(word, words);
  return near.empty() ? std::string() : fmt::format(", did you mean {}?", near);
}

void check_model(const Recipe& recipe, const CheckContext& context) {
  for (const Key& key : keys()) {
    if (*key.json_name != '\0') check_key(key, recipe, context);
  }
  check_model_keys_together(recipe, context);
}

void check_recipe(const Recipe& recipe, const CheckContext& context) {
  for (const Key& key : keys()) check_key(key, recipe, context);
  check_model_keys_together(recipe, context);
  check_run_keys_together(recipe, context);
}

namespace {

void check_model_keys_together(const Recipe& recipe, const CheckContext& context) {
  const ModelConfig& m = recipe.model;
  const auto name = [&](std::string_view field_name) { return context.name(key_of_field(field_name)); };
  const bool language_model = m.task == "language-model";

  require(m.position != "rotary" || m.d_attn % 2 == 0, context, "model.d_attn", recipe, "must be even where {} is \"rotary\"",
          name("model.position"));
  require(m.position != "local" || m.window_size > 0, context, "model.window_size", recipe, "must be at least 1 where {} is \"local\"",
          name("model.position"));
  require(!m.is_mega() || m.position == "simple" || m.position == "rotary", context, "model.position", recipe,
          "must be \"simple\" or \"rotary\" for {}", m.layer);
  require(m.layer != "mega-chunk" || m.chunk() > 0, context, "model.chunk_size", recipe, "or {} must be at least 1 for mega-chunk",
          name("model.window_size"));
  require(m.layer == "mega-chunk" || m.chunk_size == 0, context, "model.chunk_size", recipe, "must be 0 unless {} is \"mega-chunk\"",
          name("model.layer"));
  require(m.layer == "attention" || m.n_heads == 0, context, "model.n_heads", recipe, "must be 0 unless {} is \"attention\"", name("model.layer"));
  require(m.layer != "attention" || m.d_model % (2 * m.heads()) == 0, context, m.n_heads > 0 ? "model.n_heads" : "model.d_model", recipe,
          "must make heads of an even width for attention");
  const bool every_layer = m.rates.size() == 1 || static_cast<int64_t>(m.rates.size()) == m.n_layers;
  require(every_layer, context, "model.rates", recipe, "must have one number, or one for each of the {} layers", m.n_layers);
  // A key of another kind of router or layer that is not at its default was meant to do something, and would do nothing.
  const ModelConfig usual;
  const auto belongs = [&](bool good, std::string_view field_name, std::string_view kinds) {
    require(good, context, field_name, recipe, "must keep its default unless {} is {}", name("model.router"), kinds);
  };
  const std::string chooser = m.chooser();
  require(m.layer == "seqboat" || m.router == usual.router, context, "model.router", recipe, "must keep its default unless {} is \"seqboat\"",
          name("model.layer"));
  require(m.has_rates() || m.rates == usual.rates, context, "model.rates", recipe,
          "must keep its default unless {} is \"seqboat-random\" or \"seqboat-stride\", or {} \"top-share\", \"random\" or \"stride\"",
          name("model.layer"), name("model.router"));
  belongs(chooser.rfind("gumbel", 0) == 0 || m.router_temperature == usual.router_temperature, "model.router_temperature",
          "\"gumbel-soft\" or \"gumbel-hard\"");
  belongs(chooser == "sigmoid-threshold" || m.router_threshold == usual.router_threshold, "model.router_threshold", "\"sigmoid-threshold\"");
  require(m.router_threshold < 1, context, "model.router_threshold", recipe, "must be below 1");
  belongs(chooser == "top-share" || m.router_horizon == usual.router_horizon, "model.router_horizon", "\"top-share\"");
  const bool usual_encoder = m.encoder == usual.encoder;
  require(m.layer != "attention" || usual_encoder, context, "model.encoder", recipe,
          "must keep its default where {} is \"attention\", which has none", name("model.layer"));
  require(m.state_encoder() != "s4d" || m.d_state % 2 == 0, context, "model.d_state", recipe,
          "must be even for s4d, whose states are complex numbers");
  require(!m.sinusoidal || m.d_model % 2 == 0, context, "model.d_model", recipe, "must be even where {} is true", name("model.sinusoidal"));
  require(!m.embedding_norm || !m.prenorm, context, "model.embedding_norm", recipe, "must be false where {} is true", name("model.prenorm"));
  require(m.input != "real" || m.vocab_size == 0, context, "model.vocab_size", recipe, "must be 0 where {} is \"real\"", name("model.input"));

  require(!language_model || m.causal, context, "model.causal", recipe, "must be true for a language model");
  require(!language_model || m.input == "tokens", context, "model.input", recipe, "must be \"tokens\" for a language model");
  require(language_model || m.d_embedding == 0, context, "model.d_embedding", recipe, "must be 0 unless {} is \"language-model\"",
          name("model.task"));
  require(language_model || !m.scale_embedding, context, "model.scale_embedding", recipe, "must be false unless {} is \"language-model\"",
          name("model.task"));
  require(!language_model || !m.tie_embedding || m.d_embedding == 0 || m.d_embedding == m.d_model, context, "model.d_embedding", recipe,
          "must be 0 or {} where {} is true", name("model.d_model"), name("model.tie_embedding"));

  require(language_model || m.classes >= 2, context, "model.classes", recipe, "must be at least 2 for {}", m.task);
  require(!m.nli || m.task == "retrieval", context, "model.nli", recipe, "must be false unless {} is \"retrieval\"", name("model.task"));
}

void check_run_keys_together(const Recipe& recipe, const CheckContext& context) {
  const OptimConfig& optim = recipe.optim;
  const bool ends = optim.schedule == "linear-decay" || optim.schedule == "polynomial-decay";
  require(!ends || optim.warmup <= recipe.schedule_steps(), context, "optim.warmup", recipe, "must be at most {} = {}, where the schedule ends",
          optim.total_steps > 0 ? "optim.total_steps" : "train.steps", recipe.schedule_steps());
  require(optim.schedule != "inverse-sqrt" || optim.warmup >= 1, context, "optim.warmup", recipe, "must be at least 1 with \"inverse-sqrt\"");

  const TrainConfig& train = recipe.train;
  require(train.batch_size > 0 || train.max_tokens > 0, context, "train.batch_size", recipe, "or train.max_tokens must be at least 1");

  const DataConfig& data = recipe.data;
  if (data.name == "listops") {
    require(data.min_length + 1 < data.max_length, context, "data.max_length", recipe, "must be at least data.min_length + 2 = {}",
            data.min_length + 2);
    // A full tree: every operator counts two and has max_args arguments, down to digits at max_depth.
    double longest = 1;
    for (int64_t depth = data.max_depth; depth > 1 && longest <= static_cast<double>(data.min_length); --depth) {
      longest = 2 + static_cast<double>(data.max_args) * longest;
    }
    require(longest > static_cast<double>(data.min_length), context, "data.min_length", recipe,
            "must be below {}, the longest that data.max_depth = {} and data.max_args = {} can make", longest, data.max_depth, data.max_args);
  }

  // A key of another data set that is not at its default was meant to do something, and would do nothing.
  struct Owned {
    std::string_view field;
    std::vector<std::string_view> owners;
  };
  static const Owned kOwned[] = {{"data.seed", {"listops", "pathfinder", "needle", "mqar"}},
                                 {"data.min_length", {"listops"}},
                                 {"data.max_length", {"listops", "imdb", "pairs"}},
                                 {"data.max_depth", {"listops"}},
                                 {"data.max_args", {"listops"}},
                                 {"data.train_examples", {"listops", "pathfinder", "needle", "mqar"}},
                                 {"data.valid_examples", {"listops", "pathfinder", "needle", "mqar"}},
                                 {"data.test_examples", {"listops", "pathfinder", "needle", "mqar"}},
                                 {"data.block_length", {"bytes"}},
                                 {"data.carry_state", {"bytes"}},
                                 {"data.context", {"bytes"}},
                                 {"data.valid_share", {"bytes"}},
                                 {"data.test_share", {"bytes"}},
                                 {"data.valid", {"imdb", "fsdd", "cifar10", "mnist"}},
                                 {"data.image_size", {"pathfinder"}},
                                 {"data.pixel_mean", {"cifar10", "mnist", "pathfinder"}},
                                 {"data.pixel_std", {"cifar10", "mnist", "pathfinder"}},
                                 {"data.permutation_seed", {"mnist"}},
                                 {"data.sample_rate", {"speech-commands", "fsdd", "asc10"}},
                                 {"data.frame_ms", {"speech-commands", "fsdd", "asc10"}},
                                 {"data.gain", {"speech-commands", "fsdd", "asc10"}},
                                 {"data.normalize", {"speech-commands", "fsdd", "asc10"}},
                                 {"data.seconds", {"speech-commands", "fsdd", "asc10"}},
                                 {"data.fit", {"speech-commands", "fsdd", "asc10"}},
                                 {"data.split", {"speech-commands", "fsdd"}},
                                 {"data.words", {"speech-commands"}},
                                 {"data.test_speakers", {"fsdd"}},
                                 {"data.shift_ms", {"speech-commands", "fsdd", "asc10"}},
                                 {"data.gain_db", {"speech-commands", "fsdd", "asc10"}},
                                 {"data.speed", {"speech-commands", "fsdd", "asc10"}},
                                 {"data.length", {"needle", "mqar", "synthetic"}},
                                 {"data.vary_length", {"needle", "mqar"}},
                                 {"data.pairs", {"needle", "mqar"}},
                                 {"train.auxiliary_weight", {"listops"}}};
  const Recipe defaults;
  for (const auto& [field_name, owners] : kOwned) {
    const Key& key = key_of_field(field_name);
    const std::string usual = value_text(field(key, defaults));
    const bool owned = std::find(owners.begin(), owners.end(), data.name) != owners.end();
    require(owned || value_text(field(key, recipe)) == usual, context, field_name, recipe,
            "belongs to data.name = \"{}\" and must keep its default {} where that is \"{}\"", fmt::join(owners, "\" or \""), usual, data.name);
  }
  require(recipe.router.target_weight > 0 || recipe.router.target_rate == defaults.router.target_rate, context, "router.target_rate", recipe,
          "has no effect unless router.target_weight is above 0");
  require(recipe.router.target_weight > 0 || recipe.router.anneal_end == 0, context, "router.anneal_end", recipe,
          "has no effect unless router.target_weight is above 0");
  require(recipe.router.anneal_begin <= recipe.router.anneal_end, context, "router.anneal_begin", recipe, "must be at most router.anneal_end = {}",
          recipe.router.anneal_end);
  if (data.name == "synthetic") {
    require(data.length > 0, context, "data.length", recipe, "must be at least 1 where data.name is \"synthetic\"");
    require(recipe.model.input == "real" || recipe.model.vocab_size > 0, context, "model.vocab_size", recipe,
            "must be at least 1 where data.name is \"synthetic\": nothing else tells it");
    require(recipe.model.input == "tokens" || recipe.model.channels > 0, context, "model.channels", recipe,
            "must be at least 1 where data.name is \"synthetic\": nothing else tells it");
  }
  if (data.is_recall()) {
    const int64_t least = 3 * data.pairs;  // data::shortest_recall
    require(data.length >= least, context, "data.length", recipe, "must be at least {} for {} with data.pairs = {}", least, data.name, data.pairs);
  }
  if (data.name == "pathfinder") {
    require(data.image_size == 32 || data.image_size == 128, context, "data.image_size", recipe, "must be 32 or 128");
  }
  if (data.is_sound()) {
    const double samples = data.frame_ms * static_cast<double>(data.sample_rate) / 1000;
    require(data.frame_ms == 0 || (data.frame_samples() >= 1 && std::abs(samples - static_cast<double>(data.frame_samples())) < 1e-9), context,
            "data.frame_ms", recipe, "must make a whole number of samples at data.sample_rate = {}", data.sample_rate);
    require(data.frame_samples() <= 65536, context, "data.frame_ms", recipe, "must make at most 65536 samples at data.sample_rate = {}",
            data.sample_rate);
    require(data.fit == "cut" || data.seconds > 0, context, "data.seconds", recipe, "must be above 0 where data.fit is \"{}\"", data.fit);
    require(data.normalize == "none" || (data.fit != "cut" && data.shift_ms == 0 && data.speed == 0), context, "data.normalize", recipe,
            "must be \"none\" unless data.fit makes clips of one length and data.shift_ms and data.speed are 0");
    require(data.name != "fsdd" || data.split != "stratified", context, "data.split", recipe, "must be \"official\" or \"speakers\" for fsdd");
    require(data.valid == "tenth" || data.split == "official", context, "data.valid", recipe, "must be \"tenth\" unless data.split is \"official\"");
    require(data.test_speakers.empty() == (data.name != "fsdd" || data.split != "speakers"), context, "data.test_speakers", recipe,
            "must name speakers where data.split is \"speakers\" for fsdd, and be empty elsewhere");
  }
  if (data.name == "bytes") {
    require(data.context < data.block_length, context, "data.context", recipe, "must be below data.block_length = {}", data.block_length);
    require(data.valid_share + data.test_share <= 1, context, "data.valid_share", recipe, "and data.test_share = {} must add up to at most 1",
            data.test_share);
    const bool streams = recipe.model.causal && recipe.model.window_size > 0;
    require(!data.carry_state || streams, context, "data.carry_state", recipe,
            "must be false unless the model is causal and model.window_size above 0");
    require(data.context >= 0 || streams, context, "data.context", recipe,
            "must be at least 0 unless the model is causal and model.window_size above 0");
    require(!data.carry_state || train.batch_size > 0, context, "train.batch_size", recipe, "must be at least 1 with data.carry_state");
    require(!data.carry_state || train.max_tokens == 0, context, "train.max_tokens", recipe, "must be 0 with data.carry_state");
  }
  require(!recipe.router.memory_gradient || (recipe.model.uses_router() && recipe.model.attends()), context, "router.memory_gradient", recipe,
          "must be false for a layer without a router");
  require(recipe.router.target_weight == 0 || recipe.model.uses_router(), context, "router.target_weight", recipe,
          "must be 0 for a layer without a router");

  require(recipe.expect.metric.empty() == recipe.expect.source.empty(), context, "expect.source", recipe,
          "must say where the expected number is from, beside expect.metric");
}

}  // namespace
}  // namespace seqboat::config
