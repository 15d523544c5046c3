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

int64_t shortest_recall(RecallForm form, int64_t pairs) {
  return form == RecallForm::kNeedle ? 2 * pairs + 1 : 3 * pairs;
}

RecallGenerator::RecallGenerator(const RecallOptions& options) : options_(options) {
  SEQBOAT_CHECK(options.pairs >= 1 && options.pairs <= kRecallKeys, ErrorKind::kConfig, "pairs: expected 1 to {}, found {}", kRecallKeys,
                options.pairs);
  const int64_t least = shortest_recall(options.form, options.pairs);
  SEQBOAT_CHECK(options.length >= least, ErrorKind::kConfig, "length: {} with {} pairs needs at least {} tokens, found {}",
                recall_form_name(options.form), options.pairs, least, options.length);
  SEQBOAT_CHECK(options.shortest == 0 || (options.shortest >= least && options.shortest <= options.length), ErrorKind::kConfig,
                "shortest: expected 0 or {} to the length, {}, found {}", least, options.length, options.shortest);
}

int64_t RecallGenerator::length(Split split, int64_t index) const {
  if (split != Split::kTrain || options_.shortest == 0) return options_.length;
  PhiloxStream random = stream_of(options_, split, index, 1);
  const auto least = static_cast<double>(options_.shortest), most = static_cast<double>(options_.length) + 1;
  const double length = least * std::pow(most / least, random.next_uniform());
  return std::clamp(static_cast<int64_t>(length), options_.shortest, options_.length);
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
  if (options_.form == RecallForm::kNeedle) {
    // Places of things two tokens long: of things one token long in a sequence shorter by one for each.
    const std::vector<int64_t> places = distinct_below(length - 1 - pairs, pairs, &random);
    for (size_t i = 0; i < places.size(); ++i) put_pair(i, places[i] + static_cast<int64_t>(i));
    ask(random.next_below(static_cast<uint64_t>(pairs)), length - 1);
  } else {
    for (size_t i = 0; i < keys.size(); ++i) put_pair(i, 2 * static_cast<int64_t>(i));
    const std::vector<int64_t> order = shuffled(pairs, pairs, &random);
    const std::vector<int64_t> places = distinct_below(length - 2 * pairs, pairs, &random);
    for (size_t i = 0; i < places.size(); ++i) ask(static_cast<size_t>(order[i]), 2 * pairs + places[i]);
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
