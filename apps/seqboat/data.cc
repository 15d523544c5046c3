// seqboat data list | make | check | stats
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "command.h"
#include "image_data.h"
#include "imdb_data.h"
#include "make_splits.h"
#include "pair_data.h"
#include "seqboat/base/error.h"
#include "seqboat/base/text.h"
#include "seqboat/config/keys.h"
#include "seqboat/data/bytes.h"
#include "seqboat/data/listops.h"
#include "seqboat/data/listops_cache.h"
#include "seqboat/data/listops_stats.h"
#include "seqboat/data/shortcut_ladder.h"
#include "speech_data.h"

namespace seqboat::app {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using data::Split;

constexpr Split kSplits[] = {Split::kTrain, Split::kValid, Split::kTest};

// The data sets that the program knows.
struct DataSet {
  const char* name;
  const char* what;
  const char* source;  ///< how one comes by it
  bool is_made;        ///< `data make` generates it
};
constexpr DataSet kDataSets[] = {
    {"listops", "nested lists of digits, ten classes: Long Range Arena's ListOps, and its short form", "generated: seqboat data make listops", true},
    {"imdb", "film reviews by their bytes, for or against: Long Range Arena's text classification",
     "Large Movie Review Dataset v1.0 (aclImdb_v1.tar.gz, from ai.stanford.edu/~amaas/data/sentiment): seqboat train lra/text-small --data aclImdb",
     false},
    {"pairs", "whether two documents belong together, by their bytes: Long Range Arena's retrieval, or pairs of your own",
     "the arena's release (lra_release.gz, named at github.com/google-research/long-range-arena): seqboat train lra/retrieval --data tsv_data",
     false},
    {"cifar10", "photographs of ten kinds of things, grey, pixel by pixel: Long Range Arena's image classification",
     "binary version of CIFAR-10 (cifar-10-binary.tar.gz, from www.cs.toronto.edu/~kriz/cifar.html): seqboat train lra/image-small --data DIR",
     false},
    {"mnist", "written digits, pixel by pixel, or in a permuted order",
     "MNIST's four files (train-images-idx3-ubyte.gz and so on, from yann.lecun.com/exdb/mnist or a mirror), unpacked by gunzip: seqboat train "
     "lra/mnist-small --data DIR",
     false},
    {"pathfinder", "whether two marked ends belong to one dashed contour: Long Range Arena's Pathfinder (32 x 32 pixels) and Path-X (128 x 128)",
     "generated: seqboat data make pathfinder", true},
    {"bytes", "any file as a text of bytes, or a folder with one each to train, validate and test on, for language models",
     "your own: seqboat train lm/bytes-small --data FILE", false},
    {"speech-commands", "spoken words, a folder of WAV or FLAC files each",
     "Speech Commands (speech_commands_v0.02.tar.gz, from "
     "download.tensorflow.org/data) or folders of your own: seqboat train speech/sc10 --data DIR",
     false},
    {"fsdd", "spoken digits of six speakers at 8 kHz",
     "Free Spoken Digit Dataset (github.com/Jakobovski/free-spoken-digit-dataset): seqboat train speech/kws-causal-small --data DIR", false},
    {"asc10", "ten spoken Arabic words at 16 kHz, as records of mu-law bytes",
     "made from the Arabic Speech Commands Dataset (github.com/abdulkaderghandoura/arabic-speech-commands-dataset): seqboat train "
     "speech/kws-causal-small --set data.name=asc10 --data DIR",
     false},
    {"mqar", "associative recall: keys with a value each, filler, and every key once more, whose value is asked for",
     "made in memory: seqboat train synthetic/mqar", false},
    {"needle", "the same with the pairs anywhere among the filler and the questions at the end", "made in memory: seqboat train synthetic/needle",
     false},
    {"synthetic", "random tokens or numbers of one length, which only the clock looks at", "made in memory: seqboat bench --recipe bench/listops",
     false},
};

int list_data(Reporter& reporter) {
  Json json;
  json["data"] = Json::array();
  std::string text;
  for (const DataSet& set : kDataSets) {
    json["data"].push_back({{"name", set.name}, {"what", set.what}, {"source", set.source}});
    text += fmt::format("{:<16} {}\n{:<16} {}\n", set.name, set.what, "", set.source);
  }
  reporter.result(json, text);
  return 0;
}

// The check of an option that takes the name of a data set to make. The help and shell completion read the names from its description.
CLI::Validator data_name() {
  std::vector<std::string> names;
  for (const DataSet& set : kDataSets) {
    if (set.is_made) names.push_back(set.name);
  }
  const auto check = [names](std::string& name) -> std::string {
    if (std::find(names.begin(), names.end(), name) != names.end()) return "";
    for (const DataSet& set : kDataSets) SEQBOAT_CHECK(name != set.name, ErrorKind::kUsage, "{}: nothing is made: {}", name, set.source);
    const std::string near = config::nearest(name, names);
    fail(ErrorKind::kUsage, "unknown data set {}{}; `seqboat data list` shows all", in_quotes(name),
         near.empty() ? "" : ", did you mean " + near + "?");
  };
  return CLI::Validator(check, fmt::format("{{{}}}", fmt::join(names, ",")));
}

struct MakeOptions {
  std::string name;
  std::string out;
  std::string from;  ///< Pathfinder
  bool small = false;
  data::ListopsMakeOptions listops;
  // What the user named, over the defaults of either form.
  std::optional<int64_t> min_length, max_length, max_depth, max_args, train, valid, test;
  std::optional<int64_t> size, count;  ///< Pathfinder
};

int make_data(MakeOptions options, Reporter& reporter) {
  data::ListopsMakeOptions& listops = options.listops;
  if (options.name == "pathfinder") {
    const bool others = options.small || listops.parentheses || options.min_length || options.max_length || options.max_depth || options.max_args;
    SEQBOAT_CHECK(!others, ErrorKind::kUsage,
                  "data make pathfinder: expected --size, --count, --train, --valid, --test and --seed, found an option of listops");
    return make_pathfinder({.out = options.out,
                            .from = options.from,
                            .size = options.size,
                            .count = options.count,
                            .train = options.train,
                            .valid = options.valid,
                            .test = options.test,
                            .seed = listops.seed},
                           reporter);
  }
  SEQBOAT_CHECK(!options.size && !options.count && options.from.empty(), ErrorKind::kUsage, "data make {}: {} is an option of pathfinder",
                options.name,
                options.size    ? "--size"
                : options.count ? "--count"
                                : "--from");
  listops.train = options.train.value_or(listops.train);
  listops.valid = options.valid.value_or(listops.valid);
  listops.test = options.test.value_or(listops.test);
  if (options.small) listops.shape = data::ListopsOptions::small();
  listops.shape.min_length = options.min_length.value_or(listops.shape.min_length);
  listops.shape.max_length = options.max_length.value_or(listops.shape.max_length);
  listops.shape.max_depth = options.max_depth.value_or(listops.shape.max_depth);
  listops.shape.max_args = options.max_args.value_or(listops.shape.max_args);
  listops.shape.validate();
  const fs::path folder = options.out.empty() ? data::default_cache_dir() / data::listops_folder_name(listops) : fs::path(options.out);

  return make_splits({.name = options.name,
                      .unit = "samples",
                      .folder = folder,
                      .file = [&](Split split) { return data::listops_file(folder, split); },
                      .count = [&](Split split) { return listops.count(split); },
                      .make =
                          [&](const SplitMaker::Progress& progress) {
                            return data::ensure_listops(folder, listops,
                                                        [&](const data::ListopsProgress& at) { progress(at.split, at.done, at.total); });
                          }},
                     reporter);
}

// The files that a path means: itself, or the splits of a folder.
std::vector<fs::path> files_of(const std::string& path) {
  std::error_code error;
  SEQBOAT_CHECK(fs::exists(path, error), ErrorKind::kData, "{}: no such file or folder", path);
  if (!fs::is_directory(path, error)) return {path};
  std::vector<fs::path> files;
  for (const Split split : kSplits) {
    const fs::path file = data::listops_file(path, split);
    if (fs::exists(file, error)) files.push_back(file);
  }
  SEQBOAT_CHECK(
      !files.empty(), ErrorKind::kData,
      "{}: expected basic_train.tsv, basic_val.tsv or basic_test.tsv (listops), or imdb_train.tsv, imdb_test.tsv or the folders train/ and test/ "
      "of aclImdb (imdb), new_aan_pairs.*.tsv or match_*.tsv (pairs), data_batch_*.bin (cifar10), *-ubyte (mnist), pathfinder*.bin (pathfinder), "
      "recordings/ (fsdd), asc10_*_16k.ulaw (asc10) or "
      "a folder of sound files for each word (speech-commands), found none of "
      "them",
      path);
  return files;
}

/// Whether a folder holds a text with a file for each part.
bool is_text_folder(const std::string& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return false;
  try {
    data::byte_file(path, Split::kTrain);
    return true;
  } catch (const Error&) {
    return false;
  }
}

int check_text(const std::string& path, Reporter& reporter) {
  const data::ByteText text = data::ByteText::open(path, 0, 0);
  Json json;
  json["ok"] = true;
  json["files"] = Json::array();
  std::string lines;
  for (const Split split : kSplits) {
    const std::string file = data::byte_file(path, split).string();
    json["files"].push_back({{"path", file}, {"tokens", text.part(split).size()}});
    lines += fmt::format("{}  {} bytes\n", file, text.part(split).size());
  }
  reporter.result(json, lines);
  return 0;
}

int check_data(const std::string& path, Reporter& reporter) {
  if (is_pair_data(path)) return check_pair_data(path, reporter);
  if (is_imdb(path)) return check_imdb(path, reporter);
  if (is_image_data(path)) return check_image_data(path, reporter);
  if (is_speech(path)) return check_speech(path, reporter);
  if (is_text_folder(path)) return check_text(path, reporter);
  Json json;
  json["ok"] = true;
  json["files"] = Json::array();
  std::string text;
  for (const fs::path& file : files_of(path)) {
    reporter.log("checking " + file.string());
    const data::SequenceDataset set = data::read_listops_tsv(file, {.check = true});
    json["files"].push_back({{"path", file.string()}, {"samples", set.size()}, {"tokens", set.offsets.back()}});
    text += fmt::format("{}  {} samples, {} tokens, every label is the expression's value\n", file.string(), set.size(), set.offsets.back());
  }
  reporter.result(json, text);
  return 0;
}

template <class Values>
std::string shares(const Values& counts, const std::vector<std::string>& names) {
  int64_t total = 0;
  for (const int64_t count : counts) total += count;
  std::string text;
  for (size_t i = 0; i < counts.size(); ++i) {
    text += fmt::format("{}{} {:.1f}%", i > 0 ? "  " : "", names[i],
                        100.0 * static_cast<double>(counts[i]) / static_cast<double>(std::max<int64_t>(total, 1)));
  }
  return text;
}

std::string ladder_text(const data::ShortcutLadder& ladder) {
  static const std::pair<data::Shortcut, const char*> kSteps[] = {
      {data::Shortcut::kConstant, "the commonest label, always"},
      {data::Shortcut::kRootOperator, "the commonest label of the root operator"},
      {data::Shortcut::kOneLevel, "the top level evaluated, the rest guessed"},
      {data::Shortcut::kTwoLevels, "two levels evaluated"},
      {data::Shortcut::kThreeLevels, "three levels evaluated"},
  };
  std::string text = fmt::format("accuracy of shortcuts (constants from {}):\n", ladder.fitted_on);
  for (const auto& [shortcut, words] : kSteps) text += fmt::format("  {:<42} {:5.1f}%\n", words, 100 * ladder.accuracy(shortcut));
  text += fmt::format("  samples on which the top level alone is wrong: {}\n", ladder.hard_samples);
  return text;
}

int stats_data(const std::string& path, const std::string& split_name, Reporter& reporter) {
  if (is_pair_data(path)) return pair_stats(path, split_name, reporter);
  if (is_imdb(path)) return imdb_stats(path, split_name, reporter);
  if (is_image_data(path)) return image_stats(path, split_name, reporter);
  if (is_speech(path)) return speech_stats(path, split_name, reporter);
  std::error_code error;
  files_of(path);  // names what is missing
  const bool is_folder = fs::is_directory(path, error);
  fs::path file = path;
  if (is_folder) {
    std::vector<Split> order = {Split::kTest, Split::kValid, Split::kTrain};
    if (!split_name.empty()) order = {data::parse_split(split_name)};
    file = data::listops_file(path, order.front());
    for (const Split split : order) {
      if (!fs::exists(file, error)) file = data::listops_file(path, split);
    }
    SEQBOAT_CHECK(fs::exists(file, error), ErrorKind::kData, "{}: no such file", file.string());
  } else {
    SEQBOAT_CHECK(split_name.empty(), ErrorKind::kUsage, "--split chooses from a folder, and {} is a file", path);
  }
  reporter.log("reading " + file.string());
  const data::SequenceDataset set = data::read_listops_tsv(file);
  const data::ListopsStats stats = data::listops_stats(set);

  // The shortcuts' constants come from the training data where there are any, as a model's knowledge does.
  const fs::path train = is_folder ? data::listops_file(path, Split::kTrain) : fs::path();
  std::optional<data::ListopsShortcuts> shortcuts;
  if (is_folder && train != file && fs::exists(train, error)) {
    reporter.log("reading " + train.string());
    shortcuts = data::ListopsShortcuts::fit(data::read_listops_tsv(train), "train");
  } else {
    shortcuts = data::ListopsShortcuts::fit(set, "this file itself");
  }
  const data::ShortcutLadder ladder = data::evaluate_shortcuts(*shortcuts, set);

  Json json;
  json["path"] = file.string();
  json.update(stats.to_json());
  json["shortcut_ladder"] = ladder.to_json();

  std::string text = fmt::format("{}\n", file.string());
  text += fmt::format("samples    {}, {} tokens\n", stats.length.sequences, stats.length.tokens);
  text += fmt::format("length     {} to {}, mean {:.1f}", stats.length.min, stats.length.max, stats.length.mean);
  for (const auto& [percent, length] : stats.length.percentiles) text += fmt::format(", {}% {}", percent, length);
  text += "\ndepth     ";
  for (const auto& [depth, count] : stats.depth)
    text += fmt::format(" {}: {:.1f}%", depth, 100.0 * static_cast<double>(count) / static_cast<double>(set.size()));
  text += fmt::format("\nlabels     {}\n", shares(stats.labels, {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}));
  text += fmt::format("roots      {}\n", shares(stats.roots, {"[MIN", "[MAX", "[MED", "[SM", "digit"}));
  text += fmt::format("operators  {}\n", shares(stats.operators, {"[MIN", "[MAX", "[MED", "[SM"}));
  text += ladder_text(ladder);
  reporter.result(json, text);
  return 0;
}

}  // namespace

void add_data(CLI::App* app, Invocation* invocation) {
  CLI::App* command = app->add_subcommand("data", "makes, checks and describes data");
  command->require_subcommand(1);
  command->footer(examples("seqboat data make listops --short --out /tmp/listops", "seqboat data stats /tmp/listops"));

  CLI::App* list = command->add_subcommand("list", "the data sets and how to come by them");
  add_common_options(list, invocation);
  list->footer(examples("seqboat data list", "seqboat data list --json"));
  list->callback([invocation] { invocation->action = list_data; });

  auto options = std::make_shared<MakeOptions>();
  CLI::App* make = command->add_subcommand("make", "generates a data set; makes only what is missing");
  make->add_option("NAME", options->name, "a name of the list")->required()->check(data_name());
  make->add_option("--out", options->out, "folder for the files; default: one in the cache, named after the settings")->type_name("DIR");
  make->add_flag("--short", options->small, "ListOps of 50 to 250 tokens and at most five levels");
  const auto whole = [make](const char* name, auto& field, const char* what, int64_t least) {
    make->add_option(name, field, what)->check(whole_number(least, 1'000'000'000))->type_name("N");
  };
  whole("--min-length", options->min_length, "samples are longer than this", 0);
  whole("--max-length", options->max_length, "samples are shorter than this", 1);
  whole("--max-depth", options->max_depth, "levels at most, digits included", 1);
  whole("--max-args", options->max_args, "arguments of an operator at most", 2);
  make->add_option("--seed", options->listops.seed, "seed of the generator; default 0")->check(whole_number(0))->type_name("N");
  whole("--train", options->train, "samples to train on; default 96000, pathfinder 160000", 1);
  whole("--valid", options->valid, "samples to validate on; default 2000, pathfinder 20000", 1);
  whole("--test", options->test, "samples to test on; default 2000, pathfinder 20000", 1);
  whole("--size", options->size, "pathfinder: height and width, 32 (the default) or 128 (Path-X)", 1);
  whole("--count", options->count, "pathfinder: pictures in all, a tenth of them to validate and a tenth to test on", 1);
  make->add_option("--from", options->from, "pathfinder: packs the published folders (metadata/, imgs/) instead of generating")->type_name("DIR");
  make->add_flag("--parentheses", options->listops.parentheses, "writes the original files' parentheses");
  add_common_options(make, invocation);
  make->footer(examples("seqboat data make listops --short --train 10000 --out /tmp/listops",
                        "seqboat data make pathfinder --size 32 --count 1000 --out /tmp/pathfinder"));
  make->callback([invocation, options] { invocation->action = [options](Reporter& reporter) { return make_data(*options, reporter); }; });

  struct Path {
    std::string path;
    std::string split;
  };
  auto path = std::make_shared<Path>();
  CLI::App* check = command->add_subcommand("check",
                                            "reads every sample and compares each label with the expression's value, or the review's rating; decodes "
                                            "every sound");
  check->add_option("FILE|DIR", path->path, "a .tsv file, or a folder of splits (imdb: aclImdb, or one of imdb_*.tsv), or of sounds")->required();
  add_common_options(check, invocation);
  check->footer(examples("seqboat data check /tmp/listops", "seqboat data check /tmp/listops/basic_test.tsv --json"));
  check->callback([invocation, path] { invocation->action = [path](Reporter& reporter) { return check_data(path->path, reporter); }; });

  CLI::App* stats = command->add_subcommand("stats", "lengths, depths, labels, ratings, levels, and how far shortcuts get");
  stats->add_option("FILE|DIR", path->path, "a .tsv file, or a folder of splits (imdb: aclImdb, or one of imdb_*.tsv), or of sounds")->required();
  stats->add_option("--split", path->split, "of a folder: train, valid or test; default the test split")
      ->check(CLI::IsMember({"train", "valid", "val", "test"}))
      ->type_name("SPLIT");
  add_common_options(stats, invocation);
  stats->footer(examples("seqboat data stats /tmp/listops", "seqboat data stats /tmp/listops --split valid --json"));
  stats->callback([invocation, path] { invocation->action = [path](Reporter& reporter) { return stats_data(path->path, path->split, reporter); }; });
}

}  // namespace seqboat::app
