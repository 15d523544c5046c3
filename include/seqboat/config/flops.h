#pragma once

#include <cstdint>
#include <vector>

#include "seqboat/config/model_config.h"

/// Floating-point operations of a forward, a multiply-add counted as two: one set of formulas for `inspect`, `eval` and `bench`. Classifiers, which
/// work once a sequence, are left out, as are norms and element-wise work.
namespace seqboat::config {

struct Flops {
  double products = 0;
  double attention = 0;
  double scan = 0;
  double total() const { return products + attention + scan; }
  Flops& operator+=(const Flops& other);
};

/// What one layer activates.
struct LayerWork {
  double active = 0;  ///< n: activated tokens of all sequences
  double pairs = 0;   ///< n Kq: pairs of a query and a key that it sees; Kq is their mean over the queries
};

/// Query-key pairs of one sequence with `active` activated tokens: every query sees those at most W before it (causal: and itself, W + 1 keys) or
/// on either side (2 W + 1 keys), and fewer at the ends. window 0 = all.
double attention_pairs(int64_t active, int64_t window, bool causal);
/// The same where a sequence of so many tokens attends within chunks, the last one shorter; chunk 0 = one.
double chunked_pairs(int64_t tokens, int64_t chunk, bool causal);
/// The one of them that goes with the model's kind of layer, for a sequence of `tokens` tokens with `active` of them activated.
double layer_pairs(const ModelConfig& model, int64_t tokens, int64_t active);

/// (rows, in) x (in, out), in `layers` layers.
struct Product {
  double rows = 0;
  int64_t in = 0;
  int64_t out = 0;
  double layers = 1;
  double flops() const { return 2 * rows * static_cast<double>(in) * static_cast<double>(out) * layers; }
};

/// The matrix products of one layer and its feed-forward block. Skip path and router are one product, D -> D + 2, of all tokens; queries, keys and
/// values D -> Z + 2 H and the way back H -> D are of the activated ones. Mega: D -> H, D -> Z + H + 2 D and H -> D of all tokens; a Transformer:
/// D -> 3 D and D -> D.
std::vector<Product> layer_products(const ModelConfig& model, double tokens, double active);
/// Those before and after the layers: input projections, and a language model's output.
std::vector<Product> outer_products(const ModelConfig& model, double tokens);

/// What the cost of a layer's attention depends on.
struct AttentionWidths {
  double keys = 0;       ///< of one head
  double values = 0;     ///< of one head
  double heads = 0;      ///< each token's
  double projected = 0;  ///< what the projections before it make of a token
};
AttentionWidths attention_widths(const ModelConfig& model);

/// Attention over so many pairs of one layer: heads n Kq (2 (Z + H) + 24), with a head's widths for Z and H.
double attention_flops(const ModelConfig& model, double pairs);
/// The scan of one layer: 4 N D a token and direction, S4D 6 N D, 2 N D more where a truncation shorter than the sequence is set; a Transformer has
/// none.
double scan_flops(const ModelConfig& model, double tokens, bool truncated);

/// One layer over M tokens, n of them activated, with n Kq pairs; F is the width of the feed-forward block:
///
///   products   2 M D (D + 2) + 2 n (D (Z + 2 H) + H D) + 4 M D F     (a router of one score: D + 1, without router: D)
///   attention  n Kq (2 (Z + H) + 24)
///   scan       scan_flops()
///
/// Mega: products 2 M (D (Z + 2 H + 2 D) + H D) + 4 M D F; a Transformer: 8 M D D + 4 M D F, and attention heads n Kq (4 D / heads + 24).
Flops layer_flops(const ModelConfig& model, double tokens, const LayerWork& work, bool truncated);

/// Of a whole model, for one token of a sequence of `length` in which the share `activation_rate` in [0, 1] of the tokens is activated. Without a
/// unit nothing is, without anybody who chooses everything. Kq is taken for the middle of a long sequence: W + 1 keys causal, 2 W + 1 bidirectional,
/// at most what is activated; in a causal model half of that without a window; Mega: the tokens of a chunk, causal half of them.
Flops flops_per_token(const ModelConfig& config, double activation_rate, int64_t length);

}  // namespace seqboat::config
