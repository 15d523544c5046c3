#include "seqboat/config/keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "config/values.h"

namespace seqboat::config {
namespace {

// The C++ field of a key, as text and as code, from one spelling.
#define SEQBOAT_FIELD(path) #path, [](Recipe & r) -> FieldRef { return &r.path; }

constexpr double kWidth = 65536;   // of one tensor dimension that a product runs over
constexpr double kCount = 1e9;     // of things counted one by one
constexpr double kUpdates = 1e15;  // no counter of updates, tokens or seeds loses a bit in a double below this

// What a key takes.
Limits any() {
  return {};
}
Limits words(std::vector<std::string_view> list) {
  return {std::move(list)};
}
Limits range(double min, double max) {
  return {{}, min, max};
}
Limits at_least(double min) {
  return {{}, min};
}
Limits above(double min, double max = std::numeric_limits<double>::infinity()) {
  return {{}, min, max, /*open_min=*/true};
}
Limits below(double min, double max) {
  return {{}, min, max, /*open_min=*/false, /*open_max=*/true};
}

// A key of [model], [router] or [task], which config.json has too, and one of the other sections.
Key model_key(const char* section, const char* name, const char* field, FieldRef (*ref)(Recipe&), Limits limits, const char* json_name,
              const char* official, const char* tensor, const char* doc) {
  return {section, name, field, ref, std::move(limits), json_name, doc, official, tensor};
}
Key key(const char* section, const char* name, const char* field, FieldRef (*ref)(Recipe&), Limits limits, const char* official, const char* doc) {
  return {section, name, field, ref, std::move(limits), "", doc, official, ""};
}

std::vector<Key> make_keys() {
  // Two lines a key:
  //   section, name, field, what it takes,
  //   (name in config.json), official name, (tensors whose presence or shape it decides), meaning
  // clang-format off
  return {
      // [model]
      model_key("model", "layer", SEQBOAT_FIELD(model.layer), words({"seqboat", "seqboat-full", "seqboat-random", "seqboat-stride", "ema", "s4d", "mega", "mega-chunk", "attention"}),
          "layer", "always_act", "encoder.layers.i.layer.*",
          "kind of layer; `seqboat-full` activates every token, `seqboat-random` and `seqboat-stride` a share of them by `router.rates`, `ema` and `s4d` none; "
          "`attention` is a pre-norm Transformer with rotary positions"),
      model_key("model", "encoder", SEQBOAT_FIELD(model.encoder), words({"ema", "s4d"}),
          "encoder", "", "encoder.layers.i.layer.ema.*, .s4d.*", "what carries the state of a layer: multi-head EMA, or a diagonal state-space model"),
      model_key("model", "input", SEQBOAT_FIELD(model.input), words({"tokens", "real"}),
          "input", "input_type", "embedding.*", "what a step is: an integer to embed, or `channels` real numbers"),
      model_key("model", "vocab_size", SEQBOAT_FIELD(model.vocab_size), range(0, kCount),
          "vocab_size", "", "embedding.weight", "V, size of the vocabulary; 0 = from the data"),
      model_key("model", "channels", SEQBOAT_FIELD(model.channels), range(0, kWidth),
          "channels", "", "embedding.weight", "numbers a step of real input; 0 = from the data"),
      model_key("model", "d_model", SEQBOAT_FIELD(model.d_model), range(1, kWidth),
          "d_model", "encoder_embed_dim", "", "D, width of the model"),
      model_key("model", "d_hidden", SEQBOAT_FIELD(model.d_hidden), range(0, kWidth),
          "d_hidden", "encoder_hidden_dim", "encoder.layers.i.layer.attention.*", "H, width of the attention values; 0 = 2 D"),
      model_key("model", "d_attn", SEQBOAT_FIELD(model.d_attn), range(1, kWidth),
          "d_attn", "z_dim", "encoder.layers.i.layer.attention.*", "Z, width of queries and keys"),
      model_key("model", "d_state", SEQBOAT_FIELD(model.d_state), range(1, 1024),
          "d_state", "n_dim", "encoder.layers.i.layer.ema.*", "N, states a channel; `s4d` counts two a complex one"),
      model_key("model", "n_layers", SEQBOAT_FIELD(model.n_layers), range(1, 1024),
          "n_layers", "encoder_layers", "encoder.layers.i", "layers"),
      model_key("model", "window_size", SEQBOAT_FIELD(model.window_size), range(0, kCount),
          "window_size", "chunk_size", "", "W, activated tokens to attend to on a side; 0 = all"),
      model_key("model", "chunk_size", SEQBOAT_FIELD(model.chunk_size), range(0, kCount),
          "chunk_size", "chunk_size", "encoder.layers.i.layer.position.table", "mega-chunk: tokens of a chunk, within which it attends; 0 = `window_size`"),
      model_key("model", "n_heads", SEQBOAT_FIELD(model.n_heads), range(0, kWidth),
          "n_heads", "", "", "attention: heads; 0 = as many as make their width the divisor of D next to 64"),
      model_key("model", "truncation", SEQBOAT_FIELD(model.truncation), range(0, kCount),
          "truncation", "truncation_length", "", "steps the EMA looks back; 0 = all"),
      model_key("model", "causal", SEQBOAT_FIELD(model.causal), any(),
          "causal", "bidirectional", "encoder.layers.i.layer.ema.*", "a step sees the past alone; needed for streams and language models"),
      model_key("model", "attention", SEQBOAT_FIELD(model.attention), words({"softmax", "relu2", "laplace"}),
          "attention", "attention_activation_fn", "", "attention function"),
      model_key("model", "position", SEQBOAT_FIELD(model.position), words({"simple", "local", "rotary", "t5"}),
          "position", "rel_pos_bias, local_pos", "encoder.layers.i.layer.attention.position.table",
          "`simple` (a bias by the distance in the sequence), `local` (by the distance among activated tokens), `rotary`, `t5`"),
      model_key("model", "max_positions", SEQBOAT_FIELD(model.max_positions), range(1, kCount),
          "max_positions", "max_positions", "encoder.layers.i.layer.attention.position.table", "distances that the table of `simple` tells apart"),
      model_key("model", "norm", SEQBOAT_FIELD(model.norm), words({"layernorm", "scalenorm", "rmsnorm", "batchnorm"}),
          "norm", "norm_type", "encoder.layers.i.layer.norm.*", "norm of every layer"),
      model_key("model", "norm_affine", SEQBOAT_FIELD(model.norm_affine), any(),
          "norm_affine", "norm_affine", "encoder.layers.i.layer.norm.*", "norms have parameters"),
      model_key("model", "prenorm", SEQBOAT_FIELD(model.prenorm), any(),
          "prenorm", "encoder_normalize_before", "encoder.final_norm.*", "norm before the layer, and once after the last, instead of after each"),
      model_key("model", "final_norm_affine", SEQBOAT_FIELD(model.final_norm_affine), any(),
          "final_norm_affine", "no_affine_final_norm", "encoder.final_norm.*", "the norm after the last layer has parameters"),
      model_key("model", "embedding_norm", SEQBOAT_FIELD(model.embedding_norm), any(),
          "embedding_norm", "normalize_embedding", "embedding_norm.*", "norm of the embedding, without `prenorm` only"),
      model_key("model", "sinusoidal", SEQBOAT_FIELD(model.sinusoidal), any(),
          "sinusoidal", "add_apos", "positions.scale", "adds scaled sines and cosines of the time to the embedding"),
      model_key("model", "d_embedding", SEQBOAT_FIELD(model.d_embedding), range(0, kWidth),
          "d_embedding", "decoder_input_dim", "embedding.weight, input_proj.weight", "width of a language model's embedding, projected to D; 0 = D"),
      model_key("model", "scale_embedding", SEQBOAT_FIELD(model.scale_embedding), any(),
          "scale_embedding", "no_scale_embedding", "", "multiplies a language model's embedding by the root of D"),
      model_key("model", "tie_embedding", SEQBOAT_FIELD(model.tie_embedding), any(),
          "tie_embedding", "share_decoder_input_output_embed", "output.weight", "a language model's output matrix is its embedding"),
      model_key("model", "dropout", SEQBOAT_FIELD(model.dropout), below(0, 1),
          "dropout", "dropout", "", "share of the numbers that training drops"),
      model_key("model", "ffn_dim", SEQBOAT_FIELD(model.ffn_dim), range(-1, 4 * kWidth),
          "ffn_dim", "encoder_ffn_embed_dim", "encoder.layers.i.ffn.*", "width of a feed-forward block after each layer; 0 = the layer's own: for mega H, for attention 4 D, else none; -1 = none"),
      // [router]
      model_key("router", "kind", SEQBOAT_FIELD(model.router), words({"tempered-softmax", "sigmoid-threshold", "gumbel-soft", "gumbel-hard", "top-share", "always", "never", "random", "stride"}),
          "router", "", "encoder.layers.i.layer.router.*", "how a token of layer `seqboat` is activated ([MODULES.md](MODULES.md)); the paper's is `tempered-softmax`"),
      model_key("router", "temperature_init", SEQBOAT_FIELD(model.temperature_init), above(0, 1e6),
          "temperature_init", "init_temp_scale", "encoder.layers.i.layer.router.log_temperature", "initial temperature over the root of D"),
      model_key("router", "bias", SEQBOAT_FIELD(model.router_bias), range(-1e6, 1e6),
          "router_bias", "act_bias", "", "constant added to the logit of *inactive*"),
      model_key("router", "temperature", SEQBOAT_FIELD(model.router_temperature), above(0, 1e6),
          "router_temperature", "", "", "`gumbel-soft`, `gumbel-hard`: temperature of the softmax over noisy logits"),
      model_key("router", "threshold", SEQBOAT_FIELD(model.router_threshold), above(0, 1),
          "router_threshold", "", "", "`sigmoid-threshold`: the probability above which a token is activated"),
      model_key("router", "horizon", SEQBOAT_FIELD(model.router_horizon), range(1, 65536),
          "router_horizon", "", "", "`top-share`: scores of a sequence, to a token's own, among which it must be in the top share"),
      model_key("router", "rates", SEQBOAT_FIELD(model.rates), range(0, 1),
          "rates", "", "", "`seqboat-random`, `seqboat-stride` and the kinds `random`, `stride`, `top-share`: share of tokens that they activate, one number for all layers or one each"),
      key("router", "target_rate", SEQBOAT_FIELD(router.target_rate), range(0, 1),
          "", "share of its tokens that each layer is drawn to activate, where `target_weight` is above 0"),
      key("router", "target_weight", SEQBOAT_FIELD(router.target_weight), range(0, 1e6),
          "", "weight of the squared distance from it in the loss; 0 = the router is left alone"),
      key("router", "memory_gradient", SEQBOAT_FIELD(router.memory_gradient), any(),
          "", "training: that others attend to a token trains its router, too, straight through ([MODULES.md](MODULES.md)); the same results, at the composite's speed"),
      key("router", "anneal_begin", SEQBOAT_FIELD(router.anneal_begin), range(0, kUpdates),
          "", "update until which the target is 1, every token, before it falls to `target_rate`"),
      key("router", "anneal_end", SEQBOAT_FIELD(router.anneal_end), range(0, kUpdates),
          "", "update at which it has fallen to `target_rate`; 0 = it is that from the first"),
      // [task]
      model_key("task", "kind", SEQBOAT_FIELD(model.task), words({"classification", "retrieval", "language-model"}),
          "task", "task", "", "what the model is for"),
      model_key("task", "classes", SEQBOAT_FIELD(model.classes), range(0, 1e6),
          "classes", "sentence_class_num", "classifier.out.weight", "classes to tell apart"),
      model_key("task", "pool", SEQBOAT_FIELD(model.pool), words({"mean", "first"}),
          "pool", "sen_rep_type", "", "a sequence's features: the mean over time, or the first step (a `<CLS>` token)"),
      model_key("task", "nli", SEQBOAT_FIELD(model.nli), any(),
          "nli", "use_nli", "classifier.*", "retrieval: product and difference of the pair join its features"),
      model_key("task", "classifier_layers", SEQBOAT_FIELD(model.classifier_layers), range(0, 64),
          "classifier_layers", "classifier_layers", "classifier.hidden.i.*", "GELU layers before the last, bias-free one"),
      model_key("task", "d_classifier", SEQBOAT_FIELD(model.d_classifier), range(0, kWidth),
          "d_classifier", "classifier_out_dim", "classifier.hidden.i.*", "their width; 0 = 2 D"),
      key("task", "auxiliary_weight", SEQBOAT_FIELD(train.auxiliary_weight), range(0, 1e6),
          "", "ListOps: weight, beside the label's 1, of the summed losses of the calculation's steps, each read off at its token; 0 = the label alone"),
      // [data]
      key("data", "name", SEQBOAT_FIELD(data.name), words({"listops", "imdb", "pairs", "bytes", "cifar10", "mnist", "pathfinder", "speech-commands", "fsdd", "asc10", "needle", "mqar", "synthetic"}),
          "data", "the data set; `seqboat data list` shows all"),
      key("data", "path", SEQBOAT_FIELD(data.path), any(),
          "data", "folder of its files, made there if they can be; empty = the cache folder. bytes: the file"),
      key("data", "seed", SEQBOAT_FIELD(data.seed), range(0, kUpdates),
          "", "seed of generated data"),
      key("data", "min_length", SEQBOAT_FIELD(data.min_length), range(0, kCount),
          "", "ListOps: samples are longer than this"),
      key("data", "max_length", SEQBOAT_FIELD(data.max_length), range(2, kCount),
          "", "ListOps: samples are shorter than this; imdb, pairs: bytes after which a text is cut"),
      key("data", "max_depth", SEQBOAT_FIELD(data.max_depth), range(2, 100),
          "", "ListOps: depth at which every node is a digit; the root has depth 1"),
      key("data", "max_args", SEQBOAT_FIELD(data.max_args), range(2, 1000),
          "", "ListOps: arguments of an operator at most"),
      key("data", "train_examples", SEQBOAT_FIELD(data.train_examples), range(1, kCount),
          "", "generated samples to train on"),
      key("data", "valid_examples", SEQBOAT_FIELD(data.valid_examples), range(1, kCount),
          "", "generated samples to validate on"),
      key("data", "test_examples", SEQBOAT_FIELD(data.test_examples), range(1, kCount),
          "", "generated samples to test on"),
      key("data", "block_length", SEQBOAT_FIELD(data.block_length), range(1, kCount),
          "tokens_per_sample", "bytes: length of a training sequence"),
      key("data", "length", SEQBOAT_FIELD(data.length), range(0, kCount),
          "", "synthetic: length of every sequence; needle, mqar: of those to validate and test on, and of the longest to train on"),
      key("data", "vary_length", SEQBOAT_FIELD(data.vary_length), any(),
          "", "needle, mqar: training sequences have from no filler to as much as makes `length`, as many between n and 2n of it as between 2n and 4n; else all have `length`"),
      key("data", "pairs", SEQBOAT_FIELD(data.pairs), range(1, 64),
          "", "needle, mqar: keys with a value each in a sequence"),
      key("data", "carry_state", SEQBOAT_FIELD(data.carry_state), any(),
          "", "bytes: a batch's sequences go on where the last update left them, with the model's state; gradients stop there"),
      key("data", "context", SEQBOAT_FIELD(data.context), range(-1, kCount),
          "context_window", "bytes: evaluation shows so many bytes before each block of `block_length - context` scored ones; -1 = one stream with carried state"),
      key("data", "valid_share", SEQBOAT_FIELD(data.valid_share), range(0, 1),
          "", "bytes: share of the file held out for validation, before the test's"),
      key("data", "test_share", SEQBOAT_FIELD(data.test_share), range(0, 1),
          "", "bytes: share of the file held out for the test, at its end"),
      key("data", "valid", SEQBOAT_FIELD(data.valid), words({"tenth", "test"}),
          "", "imdb: validation on a tenth of the training reviews (ids that end in 9), held out from it, or on the test's as the arena does; fsdd: on recordings 5 to 9, or on the test's; cifar10, mnist: on the last tenth of the training pictures, held out from them, or on the test's"),
      key("data", "image_size", SEQBOAT_FIELD(data.image_size), range(32, 128),
          "", "pathfinder: height and width of a picture, 32 (Pathfinder) or 128 (Path-X)"),
      key("data", "pixel_mean", SEQBOAT_FIELD(data.pixel_mean), range(-1e6, 1e6),
          "", "pictures: a step is (v / 255 - `pixel_mean`) / `pixel_std` of a pixel's grey v"),
      key("data", "pixel_std", SEQBOAT_FIELD(data.pixel_std), above(0, 1e6),
          "", "pictures: see `pixel_mean`"),
      key("data", "permutation_seed", SEQBOAT_FIELD(data.permutation_seed), range(0, kUpdates),
          "", "mnist: seed of one permutation, in whose order the pixels of all pictures are read; 0 = row by row"),
      key("data", "sample_rate", SEQBOAT_FIELD(data.sample_rate), range(1000, 192000),
          "", "sound: samples a second; clips of another rate are resampled"),
      key("data", "frame_ms", SEQBOAT_FIELD(data.frame_ms), range(0, 1000),
          "", "sound: milliseconds a step, a whole number of samples, which are the step's channels; 0 = one sample. The last step of a clip is filled up with zeros"),
      key("data", "gain", SEQBOAT_FIELD(data.gain), above(0, 1e6),
          "", "sound: what each sample in [-1, 1] is multiplied by; a stream can do the same, so it stands in `config.json`"),
      key("data", "normalize", SEQBOAT_FIELD(data.normalize), words({"none", "time-index"}),
          "", "sound: `time-index` brings the samples at each place in the clip to mean 0 and deviation 1 over the training clips, which must be of one length; no stream can do that"),
      key("data", "seconds", SEQBOAT_FIELD(data.seconds), range(0, 3600),
          "", "sound: length of clips (`fit`); 0 = all of each"),
      key("data", "fit", SEQBOAT_FIELD(data.fit), words({"cut", "pad", "exact"}),
          "", "sound: clips are cut after `seconds`; the same, and shorter ones get zeros at the end; or those of another length are left out"),
      key("data", "split", SEQBOAT_FIELD(data.split), words({"official", "speakers", "stratified"}),
          "", "sound: what is held out. `official`: speech-commands by its lists, fsdd recordings 0 to 4 (test) and 5 to 9 (validation), asc10 by its files; `speakers`: speech-commands 10 + 10 % of the speakers, fsdd all of `test_speakers`; `stratified`: speech-commands 15 + 15 % of each word's clips"),
      key("data", "words", SEQBOAT_FIELD(data.words), any(),
          "", "speech-commands: folders that count, with commas between them, class 0 first; empty = all by name"),
      key("data", "test_speakers", SEQBOAT_FIELD(data.test_speakers), any(),
          "", "fsdd with `split` \"speakers\": who is held out for the test, with commas between them"),
      key("data", "shift_ms", SEQBOAT_FIELD(data.shift_ms), range(0, 1000),
          "", "sound, training alone: each time it is read a clip begins up to so much later"),
      key("data", "gain_db", SEQBOAT_FIELD(data.gain_db), range(0, 60),
          "", "sound, training alone: each time it is read a clip is up to so much louder or softer, and the sign of its samples is drawn; 0 = neither"),
      key("data", "speed", SEQBOAT_FIELD(data.speed), range(0, 0.5),
          "", "sound, training alone: each time it is read a clip is played up to this share faster or slower (and cut where it gets longer)"),
      // [optim]
      key("optim", "name", SEQBOAT_FIELD(optim.name), words({"adam", "radam"}),
          "optimizer", "optimiser"),
      key("optim", "lr", SEQBOAT_FIELD(optim.lr), above(0),
          "lr", "learning rate at its peak"),
      key("optim", "betas", SEQBOAT_FIELD(optim.betas), below(0, 1),
          "adam_betas", "decay of the two moments"),
      key("optim", "eps", SEQBOAT_FIELD(optim.eps), range(0, 1),
          "adam_eps", "added to the root of the second moment"),
      key("optim", "weight_decay", SEQBOAT_FIELD(optim.weight_decay), at_least(0),
          "weight_decay", "decoupled, times the learning rate, on every parameter"),
      key("optim", "clip_norm", SEQBOAT_FIELD(optim.clip_norm), at_least(0),
          "clip_norm", "largest norm of the total gradient; 0 = no clipping"),
      key("optim", "schedule", SEQBOAT_FIELD(optim.schedule), words({"linear-decay", "polynomial-decay", "inverse-sqrt", "constant"}),
          "lr_scheduler", "course of the learning rate"),
      key("optim", "warmup", SEQBOAT_FIELD(optim.warmup), range(0, kUpdates),
          "warmup_updates", "updates of warm-up"),
      key("optim", "warmup_init_lr", SEQBOAT_FIELD(optim.warmup_init_lr), at_least(0),
          "warmup_init_lr", "learning rate of the first update"),
      key("optim", "total_steps", SEQBOAT_FIELD(optim.total_steps), range(0, kUpdates),
          "total_num_update", "update at which the decay ends; 0 = `train.steps`"),
      key("optim", "power", SEQBOAT_FIELD(optim.power), above(0, 100),
          "warmup_power, power", "exponent of linear-decay's warm-up and of polynomial-decay's decay"),
      key("optim", "end_lr", SEQBOAT_FIELD(optim.end_lr), at_least(0),
          "end_learning_rate", "learning rate at the end"),
      // [train]
      key("train", "steps", SEQBOAT_FIELD(train.steps), range(1, kUpdates),
          "max_update", "updates"),
      key("train", "batch_size", SEQBOAT_FIELD(train.batch_size), range(0, kCount),
          "max_sentences", "sequences a micro-batch at most; 0 = `max_tokens` alone decides"),
      key("train", "max_tokens", SEQBOAT_FIELD(train.max_tokens), range(0, kUpdates),
          "max_tokens", "tokens a micro-batch at most; 0 = `batch_size` alone decides"),
      key("train", "accumulate", SEQBOAT_FIELD(train.accumulate), range(1, kCount),
          "update_freq", "micro-batches an update"),
      key("train", "seed", SEQBOAT_FIELD(train.seed), range(0, kUpdates),
          "seed", "seed of initial values, order and dropout"),
      key("train", "eval_every", SEQBOAT_FIELD(train.eval_every), range(0, kUpdates),
          "validate_interval_updates", "updates between validations; 0 = at the end alone"),
      key("train", "save_every", SEQBOAT_FIELD(train.save_every), range(0, kUpdates),
          "save_interval_updates", "updates between checkpoints; 0 = with every validation"),
      key("train", "keep", SEQBOAT_FIELD(train.keep), range(1, kCount),
          "keep_interval_updates", "checkpoints kept beside the best"),
      key("train", "threads", SEQBOAT_FIELD(train.threads), range(0, 4096),
          "", "threads; 0 = all cores. Results do not depend on it"),
      key("train", "log_every", SEQBOAT_FIELD(train.log_every), range(1, kUpdates),
          "log_interval", "updates between lines of metrics.jsonl"),
      key("train", "recompute", SEQBOAT_FIELD(train.recompute), any(),
          "", "the backward computes layers again from their inputs: less memory, more time, the same bits; no effect with t5 positions, a last batch norm, or carried state"),
      key("train", "init", SEQBOAT_FIELD(train.init), any(),
          "finetune_from_model", "a model folder or run whose tensors a new run begins with, those of equal name and shape; empty = none"),
      key("train", "eval_examples", SEQBOAT_FIELD(train.eval_examples), range(0, kCount),
          "", "validation looks at the first so many examples; 0 = all"),
      // [expect]
      key("expect", "metric", SEQBOAT_FIELD(expect.metric), words({"", "accuracy", "bits-per-byte", "perplexity"}),
          "", "what the published number measures; empty = no expectation"),
      key("expect", "value", SEQBOAT_FIELD(expect.value), at_least(0),
          "", "the number; accuracy in percent"),
      key("expect", "source", SEQBOAT_FIELD(expect.source), any(),
          "", "where it is from"),
  };
  // clang-format on
}

#undef SEQBOAT_FIELD

// Optimal string alignment: insert, delete, replace, or swap two neighbours, at cost 1 each.
int edit_distance(std::string_view a, std::string_view b) {
  const size_t width = b.size() + 1;
  std::vector<int> d((a.size() + 1) * width);
  for (size_t i = 0; i <= a.size(); ++i) d[i * width] = static_cast<int>(i);
  for (size_t j = 0; j <= b.size(); ++j) d[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      int best = std::min({d[(i - 1) * width + j] + 1, d[i * width + j - 1] + 1, d[(i - 1) * width + j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) best = std::min(best, d[(i - 2) * width + j - 2] + 1);
      d[i * width + j] = best;
    }
  }
  return d.back();
}

}  // namespace

const std::vector<Key>& keys() {
  static const std::vector<Key> list = make_keys();
  return list;
}

const std::vector<std::string>& sections() {
  static const std::vector<std::string> list = [] {
    std::vector<std::string> names;
    for (const Key& key : keys()) {
      if (names.empty() || names.back() != key.section) names.push_back(key.section);
    }
    return names;
  }();
  return list;
}

ConstFieldRef field(const Key& key, const Recipe& recipe) {
  // ref() only takes the address.
  return std::visit([](auto* pointer) -> ConstFieldRef { return pointer; }, key.ref(const_cast<Recipe&>(recipe)));
}

std::string nearest(std::string_view word, const std::vector<std::string>& words) {
  word = word.substr(0, 200);  // the distance costs the product of the lengths
  std::string best;
  int best_distance = std::max<int>(2, static_cast<int>(word.size()) / 2) + 1;
  for (const std::string& candidate : words) {
    const int distance = edit_distance(word, candidate);
    if (distance < best_distance && distance < static_cast<int>(std::max(word.size(), candidate.size()))) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::string keys_markdown() {
  std::string text;
  const Recipe defaults;
  for (const std::string& section : sections()) {
    const bool has_tensors = section == "model" || section == "router" || section == "task";
    text += fmt::format("{}### [{}]\n\n", text.empty() ? "" : "\n", section);
    text += has_tensors ? "| key | config.json | field | tensors | official name | default | allowed | meaning |\n|---|---|---|---|---|---|---|---|\n"
                        : "| key | field | official name | default | allowed | meaning |\n|---|---|---|---|---|---|\n";
    for (const Key& key : keys()) {
      if (section != key.section) continue;
      const auto code = [](const std::string& s) { return s.empty() ? std::string() : "`" + s + "`"; };
      text += fmt::format("| {} |", code(key.path()));
      if (has_tensors) text += fmt::format(" {} |", code(key.json_name));
      text += fmt::format(" {} |", code(key.field));
      if (has_tensors) text += fmt::format(" {} |", code(key.tensor));
      text += fmt::format(" {} | {} | {} | {} |\n", code(key.official), code(value_text(field(key, defaults))), allowed_text(key), key.doc);
    }
  }
  return text;
}

}  // namespace seqboat::config
