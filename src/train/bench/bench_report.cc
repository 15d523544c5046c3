#include "train/bench/bench_report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "seqboat/kernels/simd.h"
#include "train/text.h"

namespace seqboat::train {
namespace {

using nlohmann::ordered_json;

std::string batch_text(const BenchResult& r) {
  const std::vector<int64_t>& lengths = r.batch.lengths;
  if (r.listops_batch) {
    return fmt::format("{} ListOps expressions of {} to {} tokens", lengths.size(), *std::min_element(lengths.begin(), lengths.end()),
                       r.batch.longest());
  }
  const std::string length = with_commas(r.batch.longest());
  if (!r.model.empty()) {
    return fmt::format("{} of its test sequences, {} to {} tokens", lengths.size(), *std::min_element(lengths.begin(), lengths.end()),
                       with_commas(r.batch.longest()));
  }
  return r.pairs ? fmt::format("{} pairs of {} tokens each", lengths.size(), length) : fmt::format("{} x {} tokens", lengths.size(), length);
}

ordered_json number_or_null(int64_t value) {
  return value >= 0 ? ordered_json(value) : ordered_json(nullptr);
}

}  // namespace

double StepTimes::min() const {
  return *std::min_element(ms.begin(), ms.end());
}

double StepTimes::median() const {
  std::vector<double> sorted = ms;
  std::sort(sorted.begin(), sorted.end());
  return (sorted[(sorted.size() - 1) / 2] + sorted[sorted.size() / 2]) / 2;
}

std::vector<std::pair<std::string, double>> StepTimes::median_phases() const {
  const double middle = median();
  const auto nearer = [middle](double a, double b) { return std::abs(a - middle) < std::abs(b - middle); };
  const Phases& step = phases[static_cast<size_t>(std::min_element(ms.begin(), ms.end(), nearer) - ms.begin())];
  std::vector<std::pair<std::string, double>> out;
  for (size_t i = 0; i < ops::kPhases; ++i) out.emplace_back(ops::phase_name(static_cast<ops::Phase>(i)), step[i]);
  return out;
}

int64_t BenchTiming::longest() const {
  return *std::max_element(lengths.begin(), lengths.end());
}

double BenchTiming::tokens_per_s() const {
  return static_cast<double>(tokens) / times.min() * 1e3;
}

std::vector<double> BenchResult::activation_rate() const {
  std::vector<double> out;
  for (const LayerWork& layer : work) out.push_back(layer.active / static_cast<double>(batch.tokens));
  return out;
}

double BenchResult::ratio_to_full() const {
  return full->tokens_per_s() / batch.tokens_per_s();
}

double BenchResult::gain() const {
  return everything->times.min() / batch.times.min();
}

ordered_json bench_json(const BenchResult& r) {
  const auto ms = [](const StepTimes& times) { return ordered_json{{"min", times.min()}, {"median", times.median()}}; };
  const double best = r.batch.times.min();
  ordered_json json = {{"mode", r.train ? "train" : "forward"},
                       {"recipe", r.model.empty() ? ordered_json(r.recipe) : ordered_json(nullptr)},
                       {"batch", r.batch.lengths.size()},
                       {"length", r.batch.longest()},
                       {"tokens", r.batch.tokens},
                       {"threads", r.threads},
                       {"simd", kernels::simd_target()},
                       {"params", r.parameters},
                       {"activation_rate", r.activation_rate()},
                       {"forced_rate", r.forced_rate < 0 ? ordered_json(nullptr) : ordered_json(r.forced_rate)},
                       {"tokens_per_s", r.batch.tokens_per_s()},
                       {"ms", ms(r.batch.times)},
                       {"steps", r.batch.times.ms.size()},
                       {"limit_ms", r.limit_ms},
                       {"limit_fraction", r.limit_ms / best},
                       {"reachable_ms", r.reachable_ms()},
                       {"reachable_fraction", r.reachable_ms() / best}};
  json["reachable"] = {{"scan", r.scan_ms}, {"attention", r.attention_ms}, {"products", r.products_ms}, {"memory", r.memory_ms}};
  json["peak_rss_bytes"] = number_or_null(r.peak_bytes);
  json["added_rss_bytes"] = number_or_null(r.added_bytes);
  json["machine"] = {{"gemm_gflops", r.machine.gemm_gflops},
                     {"fma_gflops", r.machine.fma_gflops},
                     {"triad_l2_gbs", r.machine.triad_l2_gbs},
                     {"triad_64mb_gbs", r.machine.triad_64mb_gbs},
                     {"triad_dram_gbs", r.machine.triad_dram_gbs}};
  if (r.full) {
    json["full_batch"] = {{"batch", r.full->lengths.size()},
                          {"length", r.full->longest()},
                          {"tokens", r.full->tokens},
                          {"ms", ms(r.full->times)},
                          {"tokens_per_s", r.full->tokens_per_s()}};
    json["ratio_to_full"] = r.ratio_to_full();
  }
  if (!r.model.empty()) json["model"] = r.model;
  if (r.everything) {
    json["everything_activated"] = {{"ms", ms(r.everything->times)},
                                    {"tokens_per_s", r.everything->tokens_per_s()},
                                    {"added_rss_bytes", number_or_null(r.everything_added_bytes)}};
    json["gain"] = r.gain();
  }
  if (!r.batch.times.phases.empty()) {
    json["phases"] = ordered_json::object();
    for (const auto& [name, phase_ms] : r.batch.times.median_phases()) json["phases"][name] = phase_ms;
  }
  return json;
}

std::string bench_text(const BenchResult& r) {
  std::string out;
  const auto line = [&out](std::string_view name, const std::string& what) { out += fmt::format("{:<12} {}\n", name, what); };
  const auto megabytes = [](int64_t bytes) { return static_cast<double>(bytes) / 1e6; };
  const StepTimes& times = r.batch.times;
  line(r.model.empty() ? "recipe" : "model", fmt::format("{}, {}", r.model.empty() ? r.recipe : r.model, r.train ? "a training step" : "a forward"));
  line("batch", fmt::format("{} = {}; {} parameters", batch_text(r), with_commas(r.batch.tokens), with_commas(r.parameters)));
  line("activated", fmt::format("{} by layer{}", rates_text(r.activation_rate()), r.forced_rate < 0 ? "" : ", forced"));
  line("machine", fmt::format("{} {}, {}: GEMM {:.0f}, multiply-adds {:.0f} GF/s; triad {:.0f} in L2, {:.1f} at 64 MB, {:.1f} GB/s in DRAM",
                              r.threads, r.threads == 1 ? "thread" : "threads", kernels::simd_target(), r.machine.gemm_gflops, r.machine.fma_gflops,
                              r.machine.triad_l2_gbs, r.machine.triad_64mb_gbs, r.machine.triad_dram_gbs));
  out += "\n";
  line("step", fmt::format("{:>9.2f} ms, the best of {}; median {:.2f}; {} tokens/s", times.min(), times.ms.size(), times.median(),
                           short_number(r.batch.tokens_per_s())));
  line("limit", fmt::format("{:>9.2f} ms; the step has {:.3f} of its speed", r.limit_ms, r.limit_ms / times.min()));
  line("reachable", fmt::format("{:>9.2f} ms; the step has {:.3f} of its speed (scan {:.2f}, attention {:.2f}, products {:.2f}, memory {:.2f})",
                                r.reachable_ms(), r.reachable_ms() / times.min(), r.scan_ms, r.attention_ms, r.products_ms, r.memory_ms));
  if (r.full) {
    line("full batch",
         fmt::format("{:>9.2f} ms for {} tokens in {} sequences of up to {}: a token of this batch takes {:.3f} of the time of one there",
                     r.full->times.min(), with_commas(r.full->tokens), r.full->lengths.size(), with_commas(r.full->longest()), r.ratio_to_full()));
  }
  line("memory", r.added_bytes < 0
                     ? std::string("not known: this system does not begin the peak anew")
                     : fmt::format("{:>9.1f} MB over the built model, {:.1f} MB in all", megabytes(r.added_bytes), megabytes(r.peak_bytes)));
  if (r.everything) {
    const std::string memory =
        r.everything_added_bytes < 0 ? std::string() : fmt::format(", {:.1f} MB over the built model", megabytes(r.everything_added_bytes));
    line("everything",
         fmt::format("{:>9.2f} ms where every token is activated, {:.2f} times as long{}", r.everything->times.min(), r.gain(), memory));
  }
  if (!times.phases.empty()) {
    const auto phases = times.median_phases();
    double sum = 0;
    for (const auto& [name, ms] : phases) sum += ms;
    out += "\nphase               ms   share\n";
    for (const auto& [name, ms] : phases) out += fmt::format("{:<12} {:>9.2f} {:>6.1f} %\n", name, ms, 100 * ms / sum);
  }
  return out;
}

}  // namespace seqboat::train
