// seqboat generate MODEL
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "command.h"
#include "latencies.h"
#include "live_input.h"
#include "runtime_model.h"
#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/config/run_dir.h"
#include "seqboat/data/bytes.h"
#include "seqboat/runtime/sampler.h"

namespace seqboat::app {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

constexpr int64_t kBytes = 256;

struct GenerateOptions {
  StreamingOptions streaming;
  std::string prompt, file, stop;
  int64_t max_tokens = 256;
  runtime::SamplerOptions sampler;
};

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t word = 0;
    for (size_t j = 0; j < 3; ++j) word = word << 8 | (i + j < bytes.size() ? static_cast<uint8_t>(bytes[i + j]) : 0u);
    for (size_t j = 0; j < 4; ++j) out += i + j <= bytes.size() ? kDigits[word >> (18 - 6 * j) & 63] : '=';
  }
  return out;
}

// What the model is, said before its weights are read.
void check_kind(const std::string& path) {
  const config::ModelConfig config = config::read_model_config(config::find_model_dir(path));
  if (config.task == "language-model") return;
  const std::string what =
      config.task == "retrieval" ? "a model that compares two documents" : fmt::format("a classifier of {} classes", config.classes);
  const bool streams = config.causal && config.task == "classification" && config.pool != "first";
  fail(ErrorKind::kModel, "{}: expected a language model, found {}: {}", path, what,
       streams ? "`seqboat stream` takes it" : "it cannot stream, `seqboat eval` takes it");
}

/// One run of the verb.
class Generation {
 public:
  Generation(const GenerateOptions& options, const CommonOptions& common)
      : options_(options),
        common_(common),
        stop_(become_cooperative()),
        model_(load_streaming_model(options.streaming.model, options.streaming.ring)),
        state_(begin_state(model_, options.streaming)),
        runner_(model_, runner_options(state_, stepping_threads(common, *model_))),
        sampler_(options.sampler, kBytes),
        logits_(static_cast<size_t>(model_->outputs())) {
    check_reads_bytes(*model_, options.streaming.model);
  }

  int run(Reporter& reporter) {
    read_prompt();
    if (stop_.load() == 0) generate();
    const int signal = stop_.load();
    if (!options_.streaming.state_out.empty()) state_.save(options_.streaming.state_out);
    report(signal, reporter);
    return signal != 0 ? 128 + signal : 0;
  }

 private:
  void require_room(int64_t tokens) const {
    const int64_t room = room_of(state_);
    SEQBOAT_CHECK(
        tokens <= room, ErrorKind::kData,
        "{}: attends without a window, and its state has room for {} more tokens: the prompt and --max-tokens need {}; --max-context N makes "
        "room for N",
        options_.streaming.model, room, tokens);
  }

  void feed(std::span<const int64_t> tokens, runtime::Want want) {
    runtime::Feed feed;
    feed.state = &state_;
    feed.tokens = tokens;
    feed.want = want;
    if (want == runtime::Want::kLast) feed.logits = logits_;
    runner_.feed(feed);
  }

  void feed_bytes(std::span<const uint8_t> bytes) {
    std::vector<int64_t> tokens;
    while (!bytes.empty() && stop_.load() == 0) {
      const auto piece = bytes.first(std::min<size_t>(bytes.size(), 4096));
      bytes = bytes.subspan(piece.size());
      tokens.clear();
      for (const uint8_t byte : piece) tokens.push_back(data::token_of_byte(byte));
      feed(tokens, runtime::Want::kNothing);
      prompt_tokens_ += static_cast<int64_t>(piece.size());
    }
  }

  // What was to come from elsewhere and did not: a text of the model's own is not what was meant.
  static void check_not_empty(const std::string& name, size_t size) {
    SEQBOAT_CHECK(size > 0, ErrorKind::kData, "{} is empty: expected a text to continue; without --file the model begins one", name);
  }

  void read_prompt() {
    std::optional<MappedFile> file;
    std::span<const uint8_t> known(reinterpret_cast<const uint8_t*>(options_.prompt.data()), options_.prompt.size());
    if (!options_.file.empty() && options_.file != "-") {
      std::error_code error;
      const fs::file_status status = fs::status(options_.file, error);
      SEQBOAT_CHECK(fs::exists(status), ErrorKind::kData, "{}: no such file", options_.file);
      SEQBOAT_CHECK(fs::is_regular_file(status), ErrorKind::kData, "{}: expected a file, found {}; --file - reads standard input", options_.file,
                    fs::is_directory(status) ? "a folder" : "a pipe or a device");
      file = MappedFile::open(options_.file);
      known = {reinterpret_cast<const uint8_t*>(file->data()), file->size()};
      check_not_empty(options_.file, file->size());
    }
    require_room(static_cast<int64_t>(known.size()) + options_.max_tokens + (state_.tokens() == 0 ? 1 : 0));
    // As in training, </s> stands before a text's first byte.
    const int64_t begin = data::kEosToken;
    if (state_.tokens() == 0) feed({&begin, 1}, runtime::Want::kNothing);
    if (options_.file == "-") {
      LiveInput input(&stop_);
      std::vector<uint8_t> buffer(65536);
      while (const size_t size = input.read(buffer)) {
        require_room(static_cast<int64_t>(size) + options_.max_tokens);
        feed_bytes(std::span(buffer).first(size));
      }
      if (stop_.load() == 0 && !input.reader_gone()) check_not_empty("standard input", static_cast<size_t>(input.bytes()));
    } else {
      feed_bytes(known);
    }
  }

  void generate() {
    feed({}, runtime::Want::kLast);
    // Only bytes: specials are no text, and no training target.
    const auto choices = std::span<const float>(logits_).subspan(data::kFirstFreeToken, kBytes);
    const std::string& end = options_.stop;
    for (int64_t n = 0; n < options_.max_tokens && stop_.load() == 0; ++n) {
      const Clock::time_point before = Clock::now();
      // A draw's number is the time of the token: so it does not depend on where a text was interrupted.
      const int64_t byte = sampler_.sample(choices, state_.tokens());
      const int64_t token = data::token_of_byte(static_cast<uint8_t>(byte));
      // The state has seen what has been printed, also of the last byte.
      feed({&token, 1}, runtime::Want::kLast);
      times_.add(std::chrono::duration<double>(Clock::now() - before).count());
      ++tokens_;
      const char c = static_cast<char>(byte);
      if (common_.json) {
        text_ += c;
      } else {
        if (!end.empty()) {
          if (text_.size() >= end.size()) text_.erase(0, 1);
          text_ += c;
        }
        last_ = c;
        if (!write_stdout({&c, 1})) {
          ended_ = "reader-gone";
          return;
        }
      }
      if (!end.empty() && text_.ends_with(end)) {
        ended_ = "stop";
        return;
      }
    }
    if (stop_.load() != 0) ended_ = "interrupted";
  }

  void report(int signal, Reporter& reporter) {
    const double per_s = times_.count() > 0 ? static_cast<double>(times_.count()) / times_.seconds() : 0;
    if (common_.json) {
      Json json;
      json["text"] = text_;
      json["bytes"] = base64(text_);
      json["tokens"] = tokens_;
      json["tokens_per_s"] = per_s;
      json["us_per_token"] = {{"p50", times_.us(0.5)}, {"p99", times_.us(0.99)}};
      json["state_bytes"] = state_.size_bytes();
      json["prompt_tokens"] = prompt_tokens_;
      json["ended"] = signal != 0 ? "interrupted" : ended_;
      json["threads"] = runner_.threads();
      reporter.result(json, "");
      return;
    }
    // What follows on a terminal begins on a line of its own.
    if (tokens_ > 0 && last_ != '\n' && isatty(STDOUT_FILENO) != 0) write_stdout("\n");
    if (times_.count() == 0) return;
    reporter.log(fmt::format("{} tokens, {} a second, {:.1f} us each (99 %: {:.1f} us); state {}", tokens_, short_number(per_s), times_.us(0.5),
                             times_.us(0.99), bytes_text(state_.size_bytes())));
  }

  const GenerateOptions& options_;
  const CommonOptions& common_;
  const std::atomic<int>& stop_;
  std::shared_ptr<const runtime::Model> model_;
  runtime::State state_;
  runtime::Runner runner_;
  runtime::Sampler sampler_;
  std::vector<float> logits_;
  Latencies times_;
  std::string text_;  ///< under --json the continuation, else the end of it that may be --stop's text
  char last_ = '\n';
  const char* ended_ = "max-tokens";
  int64_t tokens_ = 0, prompt_tokens_ = 0;
};

}  // namespace

void add_generate(CLI::App* app, Invocation* invocation) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* command = app->add_subcommand("generate", "continues a text byte by byte with a language model");
  add_streaming_options(command, &options->streaming);
  CLI::Option* prompt =
      command->add_option("--prompt", options->prompt, "the text to continue; default: none, the beginning of a text")->type_name("TEXT");
  command->add_option("--file", options->file, "in place of --prompt the bytes of this file; - is standard input")
      ->excludes(prompt)
      ->type_name("FILE");
  command->add_option("--max-tokens", options->max_tokens, "bytes to write; default 256")->check(whole_number(0, 1'000'000'000'000))->type_name("N");
  command->add_option("--stop", options->stop, "ends where the continuation has come to this text, which is written too")->type_name("TEXT");
  command->add_option("--temperature", options->sampler.temperature, "divides the logits; 0 = always the most probable byte; default 1")
      ->check(number(0, 1e6))
      ->type_name("X");
  command->add_option("--top-k", options->sampler.top_k, "only the K most probable bytes; 0 = all, the default")
      ->check(whole_number(0, 1'000'000))
      ->type_name("K");
  command->add_option("--top-p", options->sampler.top_p, "of them only the most probable ones that make up this share; default 1")
      ->check(number(1e-12, 1))
      ->type_name("P");
  command->add_option("--seed", options->sampler.seed, "of the draws; default 0")->check(whole_number(0))->type_name("N");
  add_common_options(command, invocation);
  command->footer(examples("seqboat generate runs/lm --prompt Once --max-tokens 200 --temperature 0.8",
                           "seqboat generate runs/lm --file story.txt --top-p 0.9 --state-out story.state --json"));
  command->callback([invocation, options] {
    invocation->action = [invocation, options](Reporter& reporter) {
      check_kind(options->streaming.model);
      return Generation(*options, invocation->common).run(reporter);
    };
  });
}

}  // namespace seqboat::app
