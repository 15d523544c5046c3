// seqboat data check | stats for pictures; data make pathfinder
#include "image_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "make_splits.h"
#include "pathfinder_import.h"
#include "seqboat/base/error.h"
#include "seqboat/data/images.h"
#include "seqboat/data/listops_cache.h"
#include "seqboat/data/pathfinder.h"

namespace seqboat::app {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using data::ImageForm;
using data::Split;

constexpr ImageForm kForms[] = {ImageForm::kCifar10, ImageForm::kMnist, ImageForm::kPathfinder};
constexpr Split kSplits[] = {Split::kTrain, Split::kValid, Split::kTest};

/// What a path holds.
struct Kind {
  ImageForm form;
  int64_t size = 32;  ///< Pathfinder
};

std::optional<Kind> kind_of_name(const std::string& name) {
  const auto begins = [&](const char* with) { return name.starts_with(with); };
  if (begins("cifar10_gray_") || begins("data_batch_") || begins("test_batch.bin") || begins("cifar-10-binary")) return Kind{ImageForm::kCifar10};
  if (begins("pathfinder128")) return Kind{ImageForm::kPathfinder, 128};
  if (begins("pathfinder32")) return Kind{ImageForm::kPathfinder, 32};
  if (name.find("-ubyte") != std::string::npos) return Kind{ImageForm::kMnist};
  return std::nullopt;
}

std::optional<Kind> kind_of(const fs::path& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return kind_of_name(path.filename().string());
  for (const int64_t size : {32, 128}) {
    for (const ImageForm form : kForms) {
      for (const Split split : kSplits) {
        if (!data::find_images(form, path, split, {.size = size}).empty()) return Kind{form, size};
      }
    }
  }
  // Something packed, or a part of a set: the readers say what is missing.
  for (fs::directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error)) {
    if (const auto kind = kind_of_name(entry->path().filename().string()); kind && entry->is_regular_file(error)) return kind;
  }
  return std::nullopt;
}

/// A file as its own form reads it; MNIST's labels are found beside its pictures.
data::ImageDataset read_file(const Kind& kind, const fs::path& file) {
  const std::string name = file.filename().string();
  if (kind.form == ImageForm::kCifar10 && !name.starts_with("cifar10_gray_")) return data::read_cifar10_binary({file});
  if (kind.form == ImageForm::kMnist) {
    std::string pictures = name, labels = name;
    const auto exchange = [](std::string* in, const char* from, const char* to) {
      if (const size_t at = in->find(from); at != std::string::npos) in->replace(at, std::string(from).size(), to);
    };
    exchange(&pictures, "labels", "images");
    exchange(&pictures, "idx1", "idx3");
    exchange(&labels, "images", "labels");
    exchange(&labels, "idx3", "idx1");
    return data::read_idx(file.parent_path() / pictures, file.parent_path() / labels);
  }
  return data::read_images(kind.form, file, Split::kTest, {.size = kind.size});
}

std::vector<int64_t> count_labels(const Kind& kind, const data::ImageDataset& images) {
  std::vector<int64_t> counts(data::image_labels(kind.form).size(), 0);
  for (int64_t i = 0; i < images.size(); ++i) ++counts[static_cast<size_t>(images.label(i))];
  return counts;
}

std::string label_shares(const Kind& kind, const std::vector<int64_t>& counts, int64_t total) {
  std::string text;
  for (size_t i = 0; i < counts.size(); ++i) {
    text += fmt::format("{}{} {:.1f}%", i > 0 ? "  " : "", data::image_labels(kind.form)[i],
                        100.0 * static_cast<double>(counts[i]) / static_cast<double>(std::max<int64_t>(total, 1)));
  }
  return text;
}

Kind require_kind(const fs::path& path) {
  const auto kind = kind_of(path);
  SEQBOAT_CHECK(kind, ErrorKind::kData, "{}: expected pictures of CIFAR-10, MNIST or Pathfinder, found none", path.string());
  return *kind;
}

}  // namespace

bool is_image_data(const fs::path& path) {
  return kind_of(path).has_value();
}

int check_image_data(const fs::path& path, Reporter& reporter) {
  const Kind kind = require_kind(path);
  std::error_code error;
  std::vector<std::vector<fs::path>> sources;
  if (!fs::is_directory(path, error)) {
    sources = {{path}};
  } else {
    std::set<fs::path> seen;
    for (const Split split : kSplits) {
      auto files = data::find_images(kind.form, path, split, {.size = kind.size});
      if (!files.empty() && seen.insert(files[0]).second) sources.push_back(std::move(files));
    }
    // Names what is missing.
    if (sources.empty()) data::read_images(kind.form, path, Split::kTrain, {.size = kind.size});
  }
  Json json;
  json["ok"] = true;
  json["data"] = data::image_form_name(kind.form);
  json["files"] = Json::array();
  std::string text;
  for (const auto& files : sources) {
    // MNIST's pictures and labels are one set; CIFAR-10's batches are read one by one, so that each has its own line.
    const std::vector<fs::path> each = kind.form == ImageForm::kMnist ? std::vector<fs::path>{files[0]} : files;
    for (const fs::path& file : each) {
      reporter.log("checking " + file.string());
      const data::ImageDataset images = read_file(kind, file);
      const auto counts = count_labels(kind, images);
      json["files"].push_back(
          {{"path", file.string()}, {"samples", images.size()}, {"height", images.height()}, {"width", images.width()}, {"labels", counts}});
      text += fmt::format("{}  {} pictures of {} x {}; {}\n", file.string(), images.size(), images.height(), images.width(),
                          label_shares(kind, counts, images.size()));
    }
  }
  reporter.result(json, text);
  return 0;
}

int image_stats(const fs::path& path, const std::string& split_name, Reporter& reporter) {
  const Kind kind = require_kind(path);
  std::error_code error;
  const bool is_folder = fs::is_directory(path, error);
  SEQBOAT_CHECK(is_folder || split_name.empty(), ErrorKind::kUsage, "--split chooses from a folder, and {} is a file", path.string());
  data::ImageDataset images;
  const data::ImageReadOptions options{.size = kind.size};
  Split split = Split::kTest;
  if (!is_folder) {
    images = read_file(kind, path);
  } else {
    if (!split_name.empty()) {
      split = data::parse_split(split_name);
    } else {
      for (const Split other : {Split::kValid, Split::kTrain}) {
        if (data::find_images(kind.form, path, split, options).empty()) split = other;
      }
    }
    images = data::read_images(kind.form, path, split, options);
  }
  std::vector<int64_t> histogram(256, 0);
  for (int64_t i = 0; i < images.size(); ++i) {
    for (const uint8_t value : images.image(i)) ++histogram[value];
  }
  double sum = 0, squares = 0, quarters[4] = {};
  for (size_t v = 0; v < histogram.size(); ++v) {
    const double n = static_cast<double>(histogram[v]), grey = static_cast<double>(v) / 255;
    sum += n * grey;
    squares += n * grey * grey;
    quarters[v / 64] += n;
  }
  const double pixels = static_cast<double>(images.size() * images.pixels());
  const double mean = sum / pixels, deviation = std::sqrt(std::max(0.0, squares / pixels - mean * mean));
  const auto counts = count_labels(kind, images);

  Json json = {{"path", path.string()}, {"data", data::image_form_name(kind.form)}};
  if (is_folder) json["split"] = data::split_name(split);
  json.update({{"samples", images.size()},
               {"height", images.height()},
               {"width", images.width()},
               {"labels", counts},
               {"mean", mean},
               {"std", deviation},
               {"brightness", {quarters[0] / pixels, quarters[1] / pixels, quarters[2] / pixels, quarters[3] / pixels}}});
  std::string text = fmt::format("{}\npictures   {}, {} x {}\n", path.string(), images.size(), images.height(), images.width());
  text += fmt::format("labels     {}\n", label_shares(kind, counts, images.size()));
  text += fmt::format("grey       mean {:.4f}, deviation {:.4f}; 0-63 {:.1f}%  64-127 {:.1f}%  128-191 {:.1f}%  192-255 {:.1f}%\n", mean, deviation,
                      100 * quarters[0] / pixels, 100 * quarters[1] / pixels, 100 * quarters[2] / pixels, 100 * quarters[3] / pixels);
  reporter.result(json, text);
  return 0;
}

int make_pathfinder(const PathfinderRequest& request, Reporter& reporter) {
  data::PathfinderMakeOptions options;
  options.size = request.size.value_or(32);
  SEQBOAT_CHECK(options.size == 32 || options.size == 128, ErrorKind::kUsage, "--size: expected 32 or 128, found {}", options.size);
  if (!request.from.empty()) {
    SEQBOAT_CHECK(!request.count && !request.train && !request.valid && !request.test && request.seed == 0, ErrorKind::kUsage,
                  "--from packs all pictures that it finds: it goes with --size and --out alone");
    SEQBOAT_CHECK(!request.out.empty(), ErrorKind::kUsage, "--from: give a folder for what is packed with --out");
    return import_pathfinder(request.from, request.out, options.size, reporter);
  }
  options.seed = request.seed;
  if (request.count) {
    SEQBOAT_CHECK(!request.train && !request.valid && !request.test, ErrorKind::kUsage,
                  "--count stands for --train, --valid and --test: give one or the others");
    SEQBOAT_CHECK(*request.count >= 10, ErrorKind::kUsage, "--count: expected at least 10, of which a tenth validates and a tenth tests, found {}",
                  *request.count);
    options.valid = options.test = *request.count / 10;
    options.train = *request.count - 2 * options.valid;
  }
  options.train = request.train.value_or(options.train);
  options.valid = request.valid.value_or(options.valid);
  options.test = request.test.value_or(options.test);
  const fs::path folder = request.out.empty() ? data::default_cache_dir() / data::pathfinder_folder_name(options) : fs::path(request.out);

  return make_splits({.name = "pathfinder",
                      .unit = "pictures",
                      .folder = folder,
                      .file = [&](Split split) { return data::pathfinder_file(folder, options.size, split); },
                      .count = [&](Split split) { return options.count(split); },
                      .make =
                          [&](const SplitMaker::Progress& progress) {
                            return data::ensure_pathfinder(folder, options,
                                                           [&](const data::PathfinderProgress& at) { progress(at.split, at.done, at.total); });
                          }},
                     reporter);
}

}  // namespace seqboat::app
