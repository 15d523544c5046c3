#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "seqboat/config/input_format.h"

namespace seqboat::config {

/// Everything that fixes a model's shape and function: what config.json beside model.safetensors holds. Recipes fill it from [model], [router]
/// and [task]; docs/CONFIG.md has the table recipe name = config.json name = field = tensor name = official name. Strings are the field's words
/// and are checked by validate(), which throws Error (kConfig) naming the key, what was expected, what was found, and the nearest word.
struct ModelConfig {
  // [model]
  /// seqboat | seqboat-full (no router, everything activated) | seqboat-random, seqboat-stride (a fixed choice in the router's place) | ema, s4d
  /// (that encoder, nothing activated) | mega, mega-chunk | attention (a Transformer)
  std::string layer = "seqboat";
  std::string encoder = "ema";   ///< state encoder of a layer: ema | s4d
  std::string input = "tokens";  ///< tokens (embedding of integers) | real (x * weight + bias of `channels` numbers a step)
  int64_t vocab_size = 0;        ///< V, tokens only; 0 = from the data
  int64_t channels = 1;          ///< numbers a step, real only; 0 = from the data
  int64_t d_model = 0;           ///< D
  int64_t d_hidden = 0;          ///< H; 0 = 2 D
  int64_t d_attn = 0;            ///< Z, query and key width
  int64_t d_state = 16;          ///< N, states a channel; s4d: N/2 complex ones
  int64_t n_layers = 0;
  int64_t window_size = 0;            ///< W, activated tokens to attend to; 0 = full attention
  int64_t chunk_size = 0;             ///< C, mega-chunk; 0 = window_size
  int64_t n_heads = 0;                ///< attention; 0 = as many as make a head's width the divisor of D next to 64
  int64_t truncation = 0;             ///< L, EMA kernel length; 0 = none
  bool causal = false;                ///< language models are causal
  std::string attention = "softmax";  ///< softmax | relu2 | laplace
  std::string position = "simple";    ///< simple (original distance) | local (window distance) | rotary | t5
  int64_t max_positions = 1024;       ///< M of the simple table
  std::string norm = "layernorm";     ///< layernorm | scalenorm | rmsnorm | batchnorm
  bool norm_affine = true;
  bool prenorm = false;           ///< norm before the layer (a final norm follows the last) or after it
  bool final_norm_affine = true;  ///< prenorm only
  bool embedding_norm = false;    ///< postnorm only
  bool sinusoidal = false;        ///< adds scale * [sin, cos] of the time to the embedding
  int64_t d_embedding = 0;        ///< Din, language models; 0 = D; else a projection Din -> D follows
  bool scale_embedding = false;   ///< multiplies embeddings by sqrt(D) (language models)
  bool tie_embedding = true;      ///< language models: output = embedding
  double dropout = 0.0;
  int64_t ffn_dim = 0;  ///< 0 = the layer's own: none, mega H, attention 4 D; -1 = none
  // [router]
  /// router.kind, of layer seqboat: tempered-softmax | sigmoid-threshold | gumbel-soft | gumbel-hard | top-share | always | never | random | stride
  std::string router = "tempered-softmax";
  double temperature_init = 0.3;    ///< router.temperature_init: initial temperature / sqrt(D)
  double router_bias = 0.0;         ///< router.bias: added to the INACTIVE logit, as in the official code
  double router_temperature = 1.0;  ///< router.temperature: of Gumbel noise
  double router_threshold = 0.5;    ///< router.threshold: of sigmoid-threshold
  int64_t router_horizon = 256;     ///< router.horizon: scores that top-share ranks a token's among
  std::vector<double> rates{0.5};   ///< router.rates: shares of tokens for top-share, random and stride: of all layers, or one each
  // [task]
  std::string task = "classification";  ///< task.kind: classification | retrieval | language-model
  int64_t classes = 0;                  ///< task.classes
  std::string pool = "mean";            ///< task.pool: mean | first (a <CLS> token stands first)
  bool nli = false;                     ///< retrieval: adds product and difference to the pair's features
  int64_t classifier_layers = 1;        ///< GELU layers before the last, bias-free one
  int64_t d_classifier = 0;             ///< their width; 0 = 2 D
  /// No key of a recipe: the task fills it in from [data] and the data themselves.
  InputFormat data;

  int64_t hidden() const { return d_hidden > 0 ? d_hidden : 2 * d_model; }
  int64_t classifier_width() const { return d_classifier > 0 ? d_classifier : 2 * d_model; }
  /// The state encoder; a Transformer has none.
  std::string state_encoder() const { return layer == "attention" ? "" : layer == "s4d" ? "s4d" : encoder; }
  /// Whether the layer is an encoder with a gated attention unit on the tokens that somebody chooses.
  bool has_unit() const { return layer.rfind("seqboat", 0) == 0; }
  /// Who chooses, one of router.kind's words: what the layer's kind says, or in a seqboat its router; "never" without a unit.
  std::string chooser() const;
  /// Whether that is learned: the layer has a router's parameters.
  bool uses_router() const;
  /// Numbers that the router computes of a token: two logits, one score, or none.
  int64_t router_logits() const { return !uses_router() ? 0 : chooser() == "sigmoid-threshold" || chooser() == "top-share" ? 1 : 2; }
  /// "random" or "stride", who chooses in the router's place; else "".
  std::string fixed_choice() const { return chooser() == "random" || chooser() == "stride" ? chooser() : ""; }
  /// Whether somebody decides, token by token, what is activated.
  bool chooses() const { return uses_router() || !fixed_choice().empty(); }
  /// Whether anything attends.
  bool attends() const { return chooser() != "never" || is_mega() || layer == "attention"; }
  /// Whether `rates` says how many tokens are activated.
  bool has_rates() const { return !fixed_choice().empty() || chooser() == "top-share"; }
  /// Whether a learned table of distances ends at max_positions.
  bool has_position_table() const { return position == "simple" && (has_unit() || layer == "mega"); }
  bool is_mega() const { return layer == "mega" || layer == "mega-chunk"; }
  double rate(int64_t number) const { return rates[rates.size() == 1 ? 0 : static_cast<size_t>(number)]; }
  /// Length of Mega's chunks; 0 = one chunk.
  int64_t chunk() const { return layer != "mega-chunk" ? 0 : chunk_size > 0 ? chunk_size : window_size; }
  int64_t heads() const;
  /// A Transformer is pre-norm whatever the recipe of another layer says.
  bool norm_first() const { return prenorm || layer == "attention"; }
  /// Width of the feed-forward block; 0 = none.
  int64_t feed_forward() const;

  /// Throws Error (kConfig) for anything that cannot be built. `where` begins the message (a file's name, say).
  void validate(const std::string& where) const;
};

/// Keys are the field names above, all present, in this order, and last `data` unless it is empty. from_json: an unknown key, a missing one (but for
/// those that came later), a wrong type, or a value that validate() refuses is an Error (kModel).
nlohmann::ordered_json to_json(const ModelConfig& config);
ModelConfig model_config_from_json(const nlohmann::ordered_json& json, const std::string& where);

}  // namespace seqboat::config
