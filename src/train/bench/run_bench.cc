#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "seqboat/base/error.h"
#include "seqboat/base/resident_memory.h"
#include "seqboat/config/run_dir.h"
#include "seqboat/data/listops.h"
#include "seqboat/data/vocabulary.h"
#include "seqboat/kernels/simd.h"
#include "seqboat/train/commands.h"
#include "seqboat/train/model_io.h"
#include "seqboat/train/process.h"
#include "seqboat/train/task.h"
#include "train/bench/bench_model.h"
#include "train/bench/bench_report.h"
#include "train/bench/kernel_times.h"
#include "train/bench/machine_rates.h"
#include "train/memory_check.h"
#include "train/model_source.h"
#include "train/run_log.h"

namespace seqboat::train {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int64_t kWarmUpSteps = 2;  // the first pays for pages and caches; the second tells how many there is time for
constexpr double kTimedMs = 3000;
constexpr int64_t kLeastSteps = 5, kMostSteps = 100000;

/// Ends the work where the user interrupts.
struct Stopped {
  int signal;
};

/// One run of the verb `bench`. Memory is counted from the built model on; what was measured before it has left no pages behind (mapped_floats.h),
/// and the kernels alone come last.
class Bench {
 public:
  Bench(const BenchRequest& request, Reporter& reporter) : request_(request), recipe_(request.recipe), reporter_(reporter) {}

  int run() {
    try {
      kernels::force_simd_target(request_.simd);
      if (request_.model.empty()) {
        complete_sizes();
        result_.threads = prepare_process(recipe_.train.threads);
        make_batches();
      } else {
        load_trained();
      }
      measure_rates();
      measure_steps();
      measure_kernels();
    } catch (const Interrupted& interrupted) {
      return 128 + interrupted.signal;
    } catch (const Stopped& stopped) {
      reporter_.finish_progress();
      return 128 + stopped.signal;
    }
    reporter_.result(bench_json(result_), bench_text(result_));
    return 0;
  }

 private:
  void poll() const {
    const int signal = request_.stop_signal != nullptr ? request_.stop_signal->load() : 0;
    if (signal != 0) throw Stopped{signal};
  }

  // --- preparation: sizes, data, the machine ---

  void complete_sizes() {
    config::ModelConfig& model = recipe_.model;
    const config::DataConfig& data = recipe_.data;
    if (model.input == "tokens" && model.vocab_size == 0) {
      model.vocab_size = data::vocab_size_of(data.name);
    }
    if (model.input == "real" && model.channels == 0) model.channels = data.frame_samples();
    length_ = request_.length > 0 ? request_.length : data.longest();
    check_positions("--length", length_);
    batch_ = request_.batch;
    if (batch_ == 0) {
      const config::TrainConfig& train = recipe_.train;
      batch_ = train.batch_size > 0 ? train.batch_size : INT64_MAX;
      if (train.max_tokens > 0) batch_ = std::min(batch_, std::max<int64_t>(1, train.max_tokens / length_));
    }
    SEQBOAT_CHECK(request_.activation_rate < 0 || model.chooses(), ErrorKind::kUsage,
                  "--activation-rate: in model.layer = \"{}\" nobody decides what is activated", model.layer);
    const bool reads_listops = model.task == "classification" && model.input == "tokens" && model.vocab_size >= data::kListopsVocabSize &&
                               model.classes >= data::kListopsClasses;
    SEQBOAT_CHECK(!request_.listops_batch || reads_listops, ErrorKind::kUsage,
                  "--batches listops: expected a classifier of tokens with at least {} of them and {} classes", data::kListopsVocabSize,
                  data::kListopsClasses);
    if (request_.train) check_memory(model);
    check_step_memory(model, batch_ * length_ * (model.task == "retrieval" ? 2 : 1), request_.train);
  }

  void check_positions(const char* what, int64_t length) const {
    const config::ModelConfig& model = recipe_.model;
    SEQBOAT_CHECK(
        !model.has_position_table() || length <= model.max_positions, ErrorKind::kUsage,
        "{}: expected at most {}, the distances that the model's position table tells apart, found {}; --set model.max_positions={} makes it "
        "longer",
        what, model.max_positions, length, length);
  }

  void make_batches() {
    const auto seed = static_cast<uint64_t>(recipe_.train.seed);
    std::vector<int64_t> lengths(static_cast<size_t>(batch_), length_);
    if (request_.listops_batch) {
      main_ = batch_of(listops_sequences());
      for (const int64_t length : main_.lengths) check_positions("--batches listops: length of an expression", length);
      // As many tokens in sequences of full length, the last one taking what is left.
      lengths.assign(static_cast<size_t>((main_.tokens + length_ - 1) / length_), length_);
      lengths.back() -= length_ * static_cast<int64_t>(lengths.size()) - main_.tokens;
      full_ = synthetic_batch(recipe_.model, lengths, seed);
      result_.full = BenchTiming{.lengths = full_->lengths, .tokens = full_->tokens, .times = {}};
    } else {
      main_ = synthetic_batch(recipe_.model, lengths, seed);
    }
    result_.batch.lengths = main_.lengths;
    result_.batch.tokens = main_.tokens;
    result_.recipe = request_.recipe_name;
    result_.train = request_.train;
    result_.pairs = main_.src1.has_value();
    result_.forced_rate = request_.activation_rate;
    result_.listops_batch = request_.listops_batch;
    if (request_.activation_rate < 0) return;
    force_decisions(recipe_.model, seed, request_.activation_rate, &main_);
    if (full_) force_decisions(recipe_.model, seed, request_.activation_rate, &*full_);
  }

  /// As many of the training split's first expressions as the batch has room for, and at least one.
  data::SequenceDataset listops_sequences() const {
    const config::DataConfig& d = recipe_.data;
    const data::ListopsOptions options{d.min_length, d.max_length, d.max_depth, d.max_args};
    const auto room = static_cast<size_t>(batch_ * length_);
    data::SequenceDataset out;
    std::vector<int32_t> tokens;
    for (int64_t i = 0;; ++i) {
      tokens.clear();
      const int64_t label = data::generate_listops(options, static_cast<uint64_t>(d.seed), data::Split::kTrain, i, &tokens);
      if (i > 0 && out.tokens.size() + tokens.size() > room) break;
      out.append(tokens, label);
    }
    if (recipe_.model.pool == "first") out.prepend(data::kListopsCls);
    return out;
  }

  /// A trained model and the first sequences of its test data, as many as it was trained with at a time.
  void load_trained() {
    const fs::path dir = config::find_model_dir(request_.model);
    recipe_ = recipe_of_model(request_.model, config::read_model_config(dir), request_.data_dir, request_.overrides);
    result_.threads = prepare_process(request_.threads > 0 ? request_.threads : recipe_.train.threads);
    SEQBOAT_CHECK(request_.activation_rate < 0 || recipe_.model.chooses(), ErrorKind::kUsage,
                  "--activation-rate: in model.layer = \"{}\" nobody decides what is activated", recipe_.model.layer);
    trained_ = load_model(dir);
    const auto task = make_task(recipe_, data_of_model(request_.data_dir, request_.overrides, recipe_), request_.sound);
    config::ModelConfig completed = recipe_.model;
    try {
      task->complete(&completed);
    } catch (const Error& error) {
      throw Error(ErrorKind::kModel, dir.string() + ": " + error.what());
    }
    RunLog log(reporter_, request_.stop_signal);
    task->load({data::Split::kTest}, log);
    check_input_format(dir, recipe_.model.data, task->input_format());
    const TaskData& data = task->split(data::Split::kTest);
    const config::TrainConfig& train = recipe_.train;
    const int64_t most = request_.batch > 0 ? request_.batch : train.batch_size;
    std::vector<int64_t> examples;
    for (int64_t i = 0, tokens = 0; i < data.size() && (most == 0 || i < most); ++i) {
      tokens += data.offsets()[i + 1] - data.offsets()[i];
      if (request_.batch == 0 && train.max_tokens > 0 && i > 0 && tokens > train.max_tokens) break;
      examples.push_back(i);
    }
    main_ = batch_of(data.batch(examples));
    check_step_memory(recipe_.model, main_.tokens, request_.train);
    result_.model = request_.model.string();
    result_.batch.lengths = main_.lengths;
    result_.batch.tokens = main_.tokens;
    result_.train = request_.train;
    result_.forced_rate = request_.activation_rate;
    if (!recipe_.model.chooses()) return;
    const auto seed = static_cast<uint64_t>(train.seed);
    if (request_.activation_rate >= 0) force_decisions(recipe_.model, seed, request_.activation_rate, &main_);
    everything_ = main_;
    force_decisions(recipe_.model, seed, 1, &*everything_);
    result_.everything = BenchTiming{.lengths = everything_->lengths, .tokens = everything_->tokens, .times = {}};
  }

  void measure_rates() {
    reporter_.log("measuring the machine ...");
    const MachineMeasurement machine = measure_machine();
    if (machine.dram_bytes < kDramBytes) {
      reporter_.warn(fmt::format("little memory is free: the DRAM triad runs over {} MB in place of {}, and part of them may lie in caches",
                                 machine.dram_bytes >> 20, kDramBytes >> 20));
    }
    result_.machine = machine.rates;
    poll();
  }

  // --- the steps ---

  void measure_steps() {
    model_ = std::make_unique<BenchModel>(recipe_, request_.train, std::move(trained_));
    result_.parameters = model_->parameters();
    const bool peak_begins_here = reset_resident_peak();
    const int64_t before = resident_memory().now_bytes;
    model_->prepare();
    double warm = 0;
    for (int64_t i = 0; i < kWarmUpSteps; ++i) {
      warm = time_step(main_, nullptr);
      if (full_) warm += time_step(*full_, nullptr);
      poll();
    }
    // What is activated anyhow comes first, while the peak is its own.
    if (everything_) {
      note_memory(peak_begins_here, before, &result_.added_bytes);
      for (int64_t i = 0; i < kWarmUpSteps; ++i) {
        time_step(*everything_, nullptr);
        poll();
      }
    }
    int64_t steps = request_.steps;
    if (steps == 0) steps = std::clamp(static_cast<int64_t>(std::ceil(kTimedMs / std::max(warm, 1e-3))), kLeastSteps, kMostSteps);
    result_.work.assign(static_cast<size_t>(recipe_.model.n_layers), {});
    for (int64_t i = 0; i < steps; ++i) {
      time_step(main_, &result_.batch.times);
      count_work();
      // The two kinds in turns: a machine that slows down slows both.
      if (full_) time_step(*full_, &result_.full->times);
      if (everything_) time_step(*everything_, &result_.everything->times);
      show_progress(i + 1, steps);
      poll();
    }
    reporter_.finish_progress();
    // Whole numbers until here: all of the tokens are a rate of exactly 1.
    for (LayerWork& layer : result_.work) {
      layer.active /= static_cast<double>(steps);
      layer.pairs /= static_cast<double>(steps);
    }
    note_memory(peak_begins_here, before, everything_ ? &result_.everything_added_bytes : &result_.added_bytes);
  }

  /// The peak up to now. Where it did not begin with the model, it is that of measuring the machine, and says nothing.
  void note_memory(bool peak_begins_here, int64_t before, int64_t* added) {
    if (!peak_begins_here) return;
    result_.peak_bytes = resident_memory().peak_bytes;
    *added = std::max<int64_t>(0, result_.peak_bytes - before);
  }

  double time_step(const BenchBatch& batch, StepTimes* times) {
    const bool with_phases = request_.phases && times == &result_.batch.times;
    if (with_phases) ops::start_phases();
    const Clock::time_point begin = Clock::now();
    model_->step(batch);
    const double ms = std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
    if (with_phases) times->phases.push_back(ops::stop_phases());
    if (times != nullptr) times->ms.push_back(ms);
    return ms;
  }

  /// What the last step activated: routers may change their minds from step to step.
  void count_work() {
    const std::vector<LayerWork> step = model_->last_work(main_);
    last_active_.clear();
    for (size_t i = 0; i < step.size(); ++i) {
      result_.work[i].active += step[i].active;
      result_.work[i].pairs += step[i].pairs;
      last_active_.push_back(model_->last_active(static_cast<int64_t>(i)));
    }
  }

  void show_progress(int64_t done, int64_t total) {
    Progress progress{.label = "bench", .unit = "step", .done = done, .total = total, .fields = {}};
    progress.fields = {{"ms", fmt::format("{:.1f}", result_.batch.times.ms.back())}};
    reporter_.progress(progress);
  }

  // --- limit and reachable ---

  void measure_kernels() {
    const config::ModelConfig& model = recipe_.model;
    const auto tokens = static_cast<double>(main_.tokens);
    const StepCost cost = step_cost(model, request_.train, tokens, result_.work, static_cast<double>(result_.parameters));
    result_.limit_ms = limit_ms(cost, result_.machine);
    reporter_.log("measuring the kernels alone ...");
    const double passes = main_.src1 ? 2 : 1;
    result_.scan_ms = scan_ms(model, request_.train, main_.src.cu_seqlens) * passes * static_cast<double>(model.n_layers);
    for (const torch::Tensor& active : last_active_) {
      result_.attention_ms += attention_ms(model, request_.train, main_.src.cu_seqlens, active) * passes;
      poll();
    }
    for (const Product& product : forward_products(model, tokens, result_.work)) {
      result_.products_ms += 1e3 * product_seconds(product, request_.train);
      poll();
    }
    result_.memory_ms = (1.5 * cost.bytes + cost.optimizer_bytes) / result_.machine.triad_dram_gbs / 1e6;
  }

  const BenchRequest& request_;
  config::Recipe recipe_;
  Reporter& reporter_;

  int64_t batch_ = 0;
  int64_t length_ = 0;
  BenchBatch main_;                       ///< what is timed
  std::optional<BenchBatch> full_;        ///< --batches: sequences of full length, as many tokens
  std::optional<BenchBatch> everything_;  ///< a trained model: `main_` with every token activated
  std::shared_ptr<nn::Model> trained_;    ///< until it is in model_
  std::unique_ptr<BenchModel> model_;
  std::vector<torch::Tensor> last_active_;  ///< decisions of the last timed step, by layer
  BenchResult result_;
};

}  // namespace

int run_bench(const BenchRequest& request, Reporter& reporter) {
  return with_translated_errors([&] { return Bench(request, reporter).run(); });
}

}  // namespace seqboat::train
