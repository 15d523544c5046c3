// seqboat quantize MODEL -o DIR --type bf16|int8
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "command.h"
#include "decode_bench.h"
#include "runtime_model.h"
#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/config/run_dir.h"
#include "seqboat/data/bytes.h"
#include "seqboat/data/frames.h"
#include "seqboat/data/imdb.h"
#include "seqboat/data/listops.h"
#include "seqboat/data/speech.h"
#include "seqboat/data_audio/sound_file.h"
#include "seqboat/runtime/forward.h"

namespace seqboat::app {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct QuantizeOptions {
  std::string model, out, type, data;
  int64_t limit = 0;
};

// What is measured of the data unless --limit says otherwise: some seconds.
constexpr int64_t kBytesLimit = 200'000, kExamplesLimit = 500;
// Of a model that attends without a window: each byte costs more than the last, and room is made for all.
constexpr int64_t kUnboundedBytesLimit = 8192;

/// What --data holds, read before anything is written.
struct Measure {
  std::optional<data::ByteText> file;
  data::SequenceDataset examples;
  std::optional<data::SoundDataset> clips;
  data::FrameFormat frames;  ///< of clips
  int64_t count = 0;         ///< of bytes or examples that are measured
  const char* metric() const { return file ? "bits-per-byte" : "accuracy"; }
  const char* unit() const { return file ? "bytes" : clips ? "clips" : "examples"; }
  int64_t size() const { return file ? static_cast<int64_t>(file->part(data::Split::kTest).size()) : clips ? clips->size() : examples.size(); }
};

// The test split's clips, as the program's recipes hear them: at the model's rate, the first second of each.
void read_clips_of(const config::InputFormat& format, const std::string& path, Measure* out) {
  SEQBOAT_CHECK(format.normalize == "none", ErrorKind::kUsage, "--data: the model needs its training clips' \"{}\"; only `seqboat eval` knows them",
                format.normalize);
  const data::SpeechForm form = data::parse_speech_form(format.name);
  data::SpeechListOptions options;
  if (form == data::SpeechForm::kSpeechCommands) {
    options.words = format.labels;
    std::error_code error;
    if (!fs::exists(fs::path(path) / "testing_list.txt", error)) options.split = data::SpeechSplit::kSpeakers;
  }
  const data::ClipList list = data::list_clips(form, data::require_speech(form, path), data::Split::kTest, options);
  SEQBOAT_CHECK(list.labels == format.labels, ErrorKind::kData, "{}: expected the words {}, found {}", path, fmt::join(format.labels, ", "),
                fmt::join(list.labels, ", "));
  out->clips = data::read_clips(list, {.sample_rate = format.sample_rate}, data_audio::sound_tools());
  out->frames = {.sample_rate = format.sample_rate, .frame = format.frame, .gain = static_cast<float>(format.gain)};
}

Measure read_data(const std::string& path, const config::ModelConfig& config) {
  Measure out;
  if (config.task == "classification" && config.input == "real" && data::is_speech_form(config.data.name)) {
    read_clips_of(config.data, path, &out);
    return out;
  }
  if (config.task == "language-model") {
    SEQBOAT_CHECK(config.input == "tokens" && config.vocab_size >= data::kByteVocabSize, ErrorKind::kUsage,
                  "--data: a language model of {} tokens reads no file of bytes", config.vocab_size);
    out.file = data::ByteText::open(path, 0, 1);  // a file is the test as a whole; a folder has one
    return out;
  }
  const bool tokens = config.task == "classification" && config.input == "tokens";
  std::error_code error;
  if (tokens && config.vocab_size == data::kListopsVocabSize && config.classes == data::kListopsClasses) {
    const fs::path file = fs::is_directory(path, error) ? data::listops_file(path, data::Split::kTest) : fs::path(path);
    out.examples = data::read_listops_tsv(file);
    if (config.pool == "first") out.examples.prepend(data::kListopsCls);
  } else if (tokens && config.vocab_size == data::kImdbVocabSize && config.classes == data::kImdbClasses) {
    out.examples = data::read_imdb(path, data::Split::kTest);
    if (config.pool == "first") out.examples.prepend(data::kImdbCls);
  } else {
    fail(ErrorKind::kUsage,
         "--data: expected a language model of bytes or a classifier of ListOps, imdb or spoken words, found another; without --data it is not "
         "measured");
  }
  return out;
}

class Stopped {};

double bits_per_byte(const std::shared_ptr<const runtime::Model>& model, std::span<const uint8_t> bytes, int64_t threads,
                     const std::atomic<int>& stop) {
  constexpr size_t kPiece = 512;
  const int64_t room = static_cast<int64_t>(bytes.size()) + 1;
  runtime::State state = runtime::State::create(model, {.max_context = room});
  runtime::Runner runner(model, runner_options(state, threads));
  const auto outputs = static_cast<size_t>(model->outputs());
  std::vector<float> logits(kPiece * outputs);
  std::vector<int64_t> tokens;
  double bits = 0;
  for (size_t begin = 0; begin < bytes.size(); begin += kPiece) {
    if (stop.load() != 0) throw Stopped();
    const size_t count = std::min(kPiece, bytes.size() - begin);
    tokens.clear();
    for (size_t i = begin; i < begin + count; ++i) tokens.push_back(i > 0 ? data::token_of_byte(bytes[i - 1]) : int64_t{data::kEosToken});
    runtime::Feed feed;
    feed.state = &state;
    feed.tokens = tokens;
    feed.want = runtime::Want::kAll;
    feed.logits = std::span(logits).first(count * outputs);
    runner.feed(feed);
    for (size_t i = 0; i < count; ++i) bits += surprise_bits(std::span(logits).subspan(i * outputs, outputs), data::token_of_byte(bytes[begin + i]));
  }
  return bits / static_cast<double>(bytes.size());
}

double accuracy(const std::shared_ptr<const runtime::Model>& model, const Measure& measure, int64_t threads, const std::atomic<int>& stop) {
  int64_t right = 0;
  std::vector<int64_t> tokens;
  std::vector<float> values;
  for (int64_t i = 0; i < measure.count; ++i) {
    if (stop.load() != 0) throw Stopped();
    runtime::Sequences input;
    if (measure.clips) {
      const int64_t frame = measure.frames.frame;
      values.resize(static_cast<size_t>(data::frame_count(measure.clips->length(i), frame) * frame));
      data::frame_clip(measure.frames, measure.clips->clip(i), values.data());
      input.values = values;
    } else {
      const auto sequence = measure.examples.sequence(i);
      tokens.assign(sequence.begin(), sequence.end());
      input.tokens = tokens;
    }
    const std::vector<float> logits = runtime::forward(model, input, {.threads = threads});
    const auto& labels = measure.clips ? measure.clips->labels : measure.examples.labels;
    right += std::max_element(logits.begin(), logits.end()) - logits.begin() == labels[static_cast<size_t>(i)];
  }
  return static_cast<double>(right) / static_cast<double>(measure.count);
}

/// Microseconds a token of one stream: the better median of a few short rounds.
double decode_us(const std::shared_ptr<const runtime::Model>& model, const CommonOptions& common, const std::atomic<int>& stop) {
  const int64_t longest = longest_stream(*model), steps = std::min<int64_t>(200, longest / 2);
  const int64_t context = std::min<int64_t>(256, longest - 2 * steps);
  DecodeBench bench(model, {.threads = stepping_threads(common, *model), .context = context, .length = 2 * steps});
  for (int64_t i = 0; i < steps / 4; ++i) bench.decode_step();
  bench.begin_timing();
  for (int64_t i = 0; i < steps; ++i) {
    if (stop.load() != 0) throw Stopped();
    bench.decode_step();
  }
  return bench.times().us(0.5);
}

double value_of(const std::shared_ptr<const runtime::Model>& model, const Measure& measure, int64_t threads, const std::atomic<int>& stop) {
  if (!measure.file) return accuracy(model, measure, threads, stop);
  return bits_per_byte(model, measure.file->part(data::Split::kTest).first(static_cast<size_t>(measure.count)), threads, stop);
}

// Told before the work and not after it; runtime::quantize() looks again.
void check_free(const fs::path& out) {
  std::error_code error;
  SEQBOAT_CHECK(!out.empty(), ErrorKind::kUsage, "--out: expected the name of a folder, found nothing");
  const bool free = !fs::exists(out, error) || (fs::is_directory(out, error) && fs::is_empty(out, error));
  SEQBOAT_CHECK(free, ErrorKind::kUsage, "--out {}: is there already; the quantised model needs a new folder", out.string());
}

int quantize(const QuantizeOptions& options, const CommonOptions& common, Reporter& reporter) {
  const std::atomic<int>& stop = become_cooperative();
  const int64_t threads = threads_of(common);
  const fs::path out = options.out;
  check_free(out);
  const fs::path folder = config::find_model_dir(options.model);
  const config::ModelConfig config = config::read_model_config(folder);
  std::optional<Measure> measure;
  if (!options.data.empty()) measure = read_data(options.data, config);
  std::shared_ptr<const runtime::Model> models[2] = {runtime::load(folder), nullptr};
  SEQBOAT_CHECK(models[0]->weights() == runtime::Precision::kFloat32, ErrorKind::kModel,
                "{}: its matrices are {} already: quantise the float32 model", folder.string(), runtime::precision_name(models[0]->weights()));
  double value[2] = {0, 0}, us[2] = {1e30, 1e30};
  bool written = false;
  const bool streams = models[0]->why_no_stream().empty();
  try {
    if (measure) {
      const int64_t bytes = models[0]->needs_max_context() ? kUnboundedBytesLimit : kBytesLimit;
      measure->count = std::min(measure->size(), options.limit > 0 ? options.limit : measure->file ? bytes : kExamplesLimit);
      if (measure->file) measure->count = std::min(measure->count, longest_stream(*models[0]) - 1);
      reporter.log(fmt::format("measuring {} on {} of {} {}", measure->metric(), measure->count, measure->size(), measure->unit()));
      // What can be wrong with the data is found before anything is written.
      value[0] = value_of(models[0], *measure, threads, stop);
    }
    if (stop.load() != 0) throw Stopped();
    runtime::quantize(folder, out, runtime::precision_from_name(options.type));
    written = true;
    models[1] = runtime::load(out);
    if (measure) value[1] = value_of(models[1], *measure, threads, stop);
    // In turns: other programs slow either.
    for (int round = 0; round < 3 && streams; ++round) {
      for (int i = 0; i < 2; ++i) us[i] = std::min(us[i], decode_us(models[i], common, stop));
    }
  } catch (const Stopped&) {
    if (written) reporter.warn(fmt::format("interrupted while measuring; {} is whole", out.string()));
    return 128 + stop.load();
  }

  Json json;
  json["model"] = folder.string();
  json["path"] = out.string();
  json["type"] = options.type;
  std::string text = fmt::format("{:<26} {:>12} {:>12}\n", "", runtime::precision_name(models[0]->weights()), options.type);
  const auto row = [&](const std::string& name, const std::string& key, const std::string& before, const std::string& after, const Json& values) {
    json[key] = values;
    text += fmt::format("{:<26} {:>12} {:>12}\n", name, before, after);
  };
  const auto both = [](const auto& before, const auto& after) { return Json{{"before", before}, {"after", after}}; };
  const auto file_bytes = [](const fs::path& dir) { return static_cast<int64_t>(fs::file_size(dir / "model.safetensors")); };
  row("file", "file_bytes", bytes_text(file_bytes(folder)), bytes_text(file_bytes(out)), both(file_bytes(folder), file_bytes(out)));
  row("weights in memory", "weight_bytes", bytes_text(models[0]->weight_bytes()), bytes_text(models[1]->weight_bytes()),
      both(models[0]->weight_bytes(), models[1]->weight_bytes()));
  if (streams) {
    row("decode, us a token", "us_per_token", fmt::format("{:.2f}", us[0]), fmt::format("{:.2f}", us[1]), both(us[0], us[1]));
  } else {
    json["us_per_token"] = nullptr;
  }
  if (measure) {
    Json values = both(value[0], value[1]);
    values["metric"] = measure->metric();
    values["measured_on"] = measure->count;
    row(measure->metric(), "value", fmt::format("{:.4f}", value[0]), fmt::format("{:.4f}", value[1]), values);
    text += fmt::format("measured on {} of {} {} of {}\n", measure->count, measure->size(), measure->unit(), options.data);
  } else {
    json["value"] = nullptr;
    text += "what it costs in quality was not measured: --data PATH does\n";
  }
  text += fmt::format("written to {}\n", out.string());
  reporter.result(json, text);
  return 0;
}

}  // namespace

void add_quantize(CLI::App* app, Invocation* invocation) {
  auto options = std::make_shared<QuantizeOptions>();
  CLI::App* command = app->add_subcommand("quantize", "writes a model with its matrices in fewer bits, for the verbs of the streaming runtime");
  command->add_option("MODEL", options->model, "a model folder or a run directory")->required();
  command->add_option("-o,--out", options->out, "the folder to write, which must not be there yet")->required()->type_name("DIR");
  command->add_option("--type", options->type, "numbers that the matrices are stored in")
      ->required()
      ->check(CLI::IsMember({"bf16", "int8"}))
      ->type_name("TYPE");
  command
      ->add_option("--data", options->data,
                   "measures bits per byte on this file, or accuracy on these data (ListOps, imdb, spoken words), before and after")
      ->type_name("PATH");
  command->add_option("--limit", options->limit, fmt::format("bytes or examples of it; default {} or {}", kBytesLimit, kExamplesLimit))
      ->check(whole_number(1))
      ->type_name("N");
  add_common_options(command, invocation);
  command->footer(
      examples("seqboat quantize runs/lm -o lm-int8 --type int8 --data enwik8", "seqboat quantize runs/kws/model --out kws-bf16 --type bf16 --json"));
  command->callback([invocation, options] {
    invocation->action = [invocation, options](Reporter& reporter) { return quantize(*options, invocation->common, reporter); };
  });
}

}  // namespace seqboat::app
