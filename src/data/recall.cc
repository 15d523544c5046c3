#include "seqboat/data/recall.h"

#include <algorithm>
#include <cmath>

#include "seqboat/base/error.h"
#include "seqboat/base/philox.h"
#include "seqboat/base/text.h"

namespace seqboat::data {
namespace {

/// Numbers of an example come from one stream; its length from another, which can be asked for alone.
PhiloxStream stream_of(const RecallOptions& options, Split split, int64_t index, uint64_t purpose) {
  const auto number = static_cast<uint64_t>(index) * 8 + static_cast<uint64_t>(split) * 2 + purpose;
  return {options.seed, number};
}

/// `count` different numbers below `bound`, in order.
std::vector<int64_t> distinct_below(int64_t bound, int64_t count, PhiloxStream* random) {
  std::vector<int64_t> out;
  // Floyd's: each draw has one more number to choose from, and takes the newest where the drawn one is gone.
  for (int64_t next = bound - count; next < bound; ++next) {
    const auto drawn = static_cast<int64_t>(random->next_below(static_cast<uint64_t>(next) + 1));
    const bool taken = std::find(out.begin(), out.end(), drawn) != out.end();
    out.push_back(taken ? next : drawn);
  }
  std::sort(out.begin(), out.end());
  return out;
}

/// The first `count` of a shuffled 0 .. n-1.
std::vector<int64_t> shuffled(int64_t n, int64_t count, PhiloxStream* random) {
  std::vector<int64_t> out(static_cast<size_t>(n));
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<int64_t>(i);
  for (int64_t i = 0; i < count; ++i) {
    const auto other = i + static_cast<int64_t>(random->next_below(static_cast<uint64_t>(n - i)));
    std::swap(out[static_cast<size_t>(i)], out[static_cast<size_t>(other)]);
  }
  out.resize(static_cast<size_t>(count));
  return out;
}

}  // namespace

const char* recall_form_name(RecallForm form) {
  return form == RecallForm::kNeedle ? "needle" : "mqar";
}

bool is_recall_form(std::string_view name) {
  return name == "needle" || name == "mqar";
}

RecallForm parse_recall_form(std::string_view name) {
  SEQBOAT_CHECK(is_recall_form(name), ErrorKind::kConfig, "form of recall: expected needle or mqar, found {}", in_quotes(name));
  return name == "needle" ? RecallForm::kNeedle : RecallForm::kMqar;
}

RecallGenerator::RecallGenerator(const RecallOptions& options) : options_(options) {
  SEQBOAT_CHECK(options.pairs >= 1 && options.pairs <= kRecallKeys, ErrorKind::kConfig, "pairs: expected 1 to {}, found {}", kRecallKeys,
                options.pairs);
  const int64_t least = shortest_recall(options.pairs);
  SEQBOAT_CHECK(options.length >= least, ErrorKind::kConfig, "length: {} pairs and as many questions need at least {} tokens, found {}",
                options.pairs, least, options.length);
}

int64_t RecallGenerator::length(Split split, int64_t index) const {
  if (split != Split::kTrain || !options_.vary_length) return options_.length;
  PhiloxStream random = stream_of(options_, split, index, 1);
  const int64_t least = shortest_recall(options_.pairs), most = options_.length - least;
  // 1 + filler is even in its logarithm.
  const auto filler = static_cast<int64_t>(std::pow(static_cast<double>(most) + 2, random.next_uniform())) - 1;
  return least + std::clamp<int64_t>(filler, 0, most);
}

RecallExample RecallGenerator::make(Split split, int64_t index) const {
  PhiloxStream random = stream_of(options_, split, index, 0);
  const int64_t length = this->length(split, index), pairs = options_.pairs;
  RecallExample out;
  out.tokens.resize(static_cast<size_t>(length));
  for (int32_t& token : out.tokens) token = kFirstFreeToken + static_cast<int32_t>(random.next_below(kRecallFillers));

  const std::vector<int64_t> keys = shuffled(kRecallKeys, pairs, &random);
  std::vector<int32_t> key_tokens, values;
  for (const int64_t key : keys) {
    key_tokens.push_back(kRecallFirstKey + static_cast<int32_t>(key));
    values.push_back(kRecallFirstValue + static_cast<int32_t>(random.next_below(kRecallValues)));
  }
  const auto put_pair = [&](size_t pair, int64_t at) {
    out.tokens[static_cast<size_t>(at)] = key_tokens[pair];
    out.tokens[static_cast<size_t>(at) + 1] = values[pair];
  };
  const auto ask = [&](size_t pair, int64_t at) {
    out.tokens[static_cast<size_t>(at)] = key_tokens[pair];
    out.questions.push_back({at, values[pair]});
  };
  const std::vector<int64_t> order = shuffled(pairs, pairs, &random), places = distinct_below(length - 2 * pairs, pairs, &random);
  for (int64_t i = 0; i < pairs; ++i) {
    const auto at = static_cast<size_t>(i);
    if (options_.form == RecallForm::kNeedle) {
      // Places of things two tokens long, before the questions: of things one token long in a sequence shorter by one for each.
      put_pair(at, places[at] + i);
      ask(static_cast<size_t>(order[at]), length - pairs + i);
    } else {
      put_pair(at, 2 * i);
      ask(static_cast<size_t>(order[at]), 2 * pairs + places[at]);
    }
  }
  return out;
}

std::vector<std::string> recall_class_labels() {
  return {"filler", "key", "value"};
}

uint8_t recall_class(int64_t token) {
  return token >= kRecallFirstValue ? 2 : token >= kRecallFirstKey ? 1 : 0;
}

}  // namespace seqboat::data
