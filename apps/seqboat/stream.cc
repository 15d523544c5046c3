// seqboat stream MODEL
#include <fmt/format.h>

#include <memory>

#include "command.h"
#include "event_stream.h"
#include "live_input.h"
#include "runtime_model.h"
#include "seqboat/base/error.h"
#include "stream_input.h"

namespace seqboat::app {
namespace {

struct StreamOptions {
  StreamingOptions streaming;
  bool bytes = false, csv = false, probabilities = false;
  std::string pcm;  ///< "" | s16le | f32le
  int64_t rate = 0, every = 0, reset_every = 0, window = 0;
};

/// How standard input is read, checked against what the model reads.
struct Reading {
  std::unique_ptr<StreamInput> input;
  int64_t every = 0;                   ///< default of --every
  int64_t frame = 0, sample_rate = 0;  ///< of sound
};

Reading sound_reading(const StreamOptions& options, const config::ModelConfig& config) {
  const config::InputFormat& format = config.data;
  const std::string& path = options.streaming.model;
  SEQBOAT_CHECK(config.input == "real" && format.frame > 0 && format.sample_rate > 0, ErrorKind::kModel,
                "{}: --pcm: expected a model of sound, whose config.json has data.sample_rate and data.frame, found one of {}", path,
                config.input == "real" ? "other numbers: --csv feeds it" : "tokens: --bytes feeds it");
  SEQBOAT_CHECK(format.normalize == "none", ErrorKind::kModel,
                "{}: cannot stream: its samples are normalised over whole clips (data.normalize = \"{}\")", path, format.normalize);
  SEQBOAT_CHECK(options.rate == 0 || options.rate == format.sample_rate, ErrorKind::kUsage,
                "--rate {}: {} reads {} samples a second; bring the sound to that rate first", options.rate, path, format.sample_rate);
  const data::FrameFormat frames{format.sample_rate, format.frame, static_cast<float>(format.gain)};
  const auto tenth = std::max<int64_t>(1, format.sample_rate / (10 * format.frame));
  return {pcm_input(frames, options.pcm == "f32le"), tenth, format.frame, format.sample_rate};
}

Reading reading_of(const StreamOptions& options, const runtime::Model& model) {
  const config::ModelConfig& config = model.config();
  if (!options.pcm.empty()) return sound_reading(options, config);
  SEQBOAT_CHECK(options.rate == 0, ErrorKind::kUsage, "--rate goes with --pcm");
  if (options.csv) {
    SEQBOAT_CHECK(config.input == "real", ErrorKind::kModel, "{}: reads tokens and no numbers: --bytes feeds it", options.streaming.model);
    return {csv_input(config.channels), 16};
  }
  SEQBOAT_CHECK(options.bytes || config.input == "tokens", ErrorKind::kUsage, "{} reads {}: say how they are written: {}", options.streaming.model,
                config.data.frame > 0 ? fmt::format("{} samples of sound a second", config.data.sample_rate)
                                      : fmt::format("{} numbers a step", config.channels),
                config.data.frame > 0 ? "--pcm s16le, --pcm f32le or --csv" : "--csv");
  check_reads_bytes(model, options.streaming.model);
  return {bytes_input(), 256};
}

int stream(const StreamOptions& options, const Invocation& invocation, Reporter& reporter) {
  const std::atomic<int>& stop = become_cooperative();
  const auto model = load_streaming_model(options.streaming.model, options.streaming.ring);
  const config::ModelConfig& config = model->config();
  const bool classifier = config.task == "classification";
  SEQBOAT_CHECK(!classifier || config.pool != "first", ErrorKind::kModel,
                "{}: cannot stream: it answers by its first token (task.pool = \"first\"), which has seen nothing of what follows",
                options.streaming.model);
  SEQBOAT_CHECK(classifier || options.window == 0, ErrorKind::kUsage, "--window is for classifiers, {} is a language model", options.streaming.model);
  SEQBOAT_CHECK(classifier || !options.probabilities, ErrorKind::kUsage, "--probabilities is for classifiers, {} is a language model",
                options.streaming.model);
  const bool saves = !options.streaming.state_out.empty();
  SEQBOAT_CHECK(options.window == 0 || (!saves && options.streaming.state_in.empty()), ErrorKind::kUsage,
                "--window keeps two states: it does not go with --state-in and --state-out");
  const Reading reading = reading_of(options, *model);

  EventStream events(begin_state(model, options.streaming), {.every = options.every > 0 ? options.every : reading.every,
                                                             .reset_every = options.reset_every,
                                                             .window = options.window,
                                                             .frame = reading.frame,
                                                             .sample_rate = reading.sample_rate,
                                                             .probabilities = options.probabilities,
                                                             .threads = stepping_threads(invocation.common, *model),
                                                             .stop = &stop});
  LiveInput input(&stop);
  std::vector<uint8_t> buffer(65536);
  while (const size_t size = input.read(buffer)) {
    if (!reading.input->take(std::span(buffer).first(size), &events)) break;
  }
  const auto wanted = [&] { return !input.reader_gone() && !events.reader_gone(); };
  if (stop.load() == 0 && wanted()) {
    SEQBOAT_CHECK(input.bytes() > 0, ErrorKind::kData, "standard input is empty: expected {}",
                  config.input == "tokens" ? "bytes" : (options.pcm.empty() ? "lines of numbers" : "samples"));
    reading.input->finish(&events, saves);
    if (const std::string what = reading.input->left_out(); !what.empty()) {
      reporter.warn(fmt::format("--state-out: the state does not know {}", what));
    }
  }
  if (wanted()) events.finish();
  if (saves) events.state().save(options.streaming.state_out);
  if (events.fed() > 0) {
    const double us = 1e6 * events.seconds() / static_cast<double>(events.fed());
    reporter.log(fmt::format("{} steps, {:.2f} us each; state {}", events.fed(), us, bytes_text(events.state().size_bytes())));
  }
  const int signal = stop.load();
  return signal != 0 ? 128 + signal : 0;
}

}  // namespace

void add_stream(CLI::App* app, Invocation* invocation) {
  auto options = std::make_shared<StreamOptions>();
  CLI::App* command = app->add_subcommand("stream", "reads standard input as it comes and says what the model makes of it, a JSON line an event");
  add_streaming_options(command, &options->streaming);
  CLI::Option* bytes = command->add_flag("--bytes", options->bytes, "the input is bytes; of models that read tokens the default");
  CLI::Option* pcm = command->add_option("--pcm", options->pcm, "it is sound, one channel: 16-bit integers or floats, little end first")
                         ->check(CLI::IsMember({"s16le", "f32le"}))
                         ->excludes(bytes)
                         ->type_name("FORMAT");
  command->add_flag("--csv", options->csv, "it is lines of numbers with commas between, a step a line")->excludes(bytes)->excludes(pcm);
  command->add_option("--rate", options->rate, "samples a second of the sound: refused unless it is the model's")
      ->check(whole_number(1, 10'000'000))
      ->type_name("R");
  constexpr int64_t kMost = 1'000'000'000'000;
  command->add_option("--every", options->every, "steps between events; default: a tenth of a second of sound, 256 bytes, 16 lines")
      ->check(whole_number(1, kMost))
      ->type_name("N");
  CLI::Option* reset = command->add_option("--reset-every", options->reset_every, "begins anew after every N steps, with an event before")
                           ->check(whole_number(1, kMost))
                           ->type_name("N");
  command->add_option("--window", options->window, "classifiers: answers about the last N/2 to N steps; takes twice the time")
      ->check(whole_number(2, kMost))
      ->excludes(reset)
      ->type_name("N");
  command->add_flag("--probabilities", options->probabilities, "classifiers: of every class");
  add_common_options(command, invocation);
  command->footer(examples("seqboat stream runs/lm --bytes --every 100", "seqboat stream runs/kws --pcm s16le --rate 8000 --window 100"));
  command->callback(
      [invocation, options] { invocation->action = [invocation, options](Reporter& reporter) { return stream(*options, *invocation, reporter); }; });
}

}  // namespace seqboat::app
