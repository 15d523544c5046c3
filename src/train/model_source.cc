#include "train/model_source.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "seqboat/base/error.h"
#include "seqboat/config/run_dir.h"

namespace seqboat::train {
namespace {

namespace fs = std::filesystem;

/// The run directory that a model belongs to: itself, or the one that it lies in (RUN/model, RUN/checkpoints/step-NNNNNNNN); else empty.
fs::path run_dir_of(const fs::path& model) {
  std::error_code error;
  const fs::path absolute = fs::absolute(model, error).lexically_normal();
  const fs::path folder = absolute.has_filename() ? absolute : absolute.parent_path();
  if (config::is_run_dir(folder)) return folder;
  if (folder.filename() == "model" && config::is_run_dir(folder.parent_path())) return folder.parent_path();
  if (folder.parent_path().filename() == "checkpoints" && config::is_run_dir(folder.parent_path().parent_path()))
    return folder.parent_path().parent_path();
  return {};
}

}  // namespace

config::Recipe recipe_of_model(const fs::path& model, const config::ModelConfig& config, const fs::path& data_dir,
                               const std::vector<std::string>& overrides) {
  const fs::path run = run_dir_of(model);
  for (const std::string& set : overrides) {
    const std::string section = set.substr(0, set.find('.'));
    const bool fixed = section == "model" || section == "router" || section == "task";
    SEQBOAT_CHECK(!fixed, ErrorKind::kUsage, "--set {}: the weights of {} have a config of their own, which decides", set, model.string());
    SEQBOAT_CHECK(!run.empty() || section == "data", ErrorKind::kUsage,
                  "--set {}: {} is a bare model folder, for which only keys of [data] can be set", set, model.string());
  }
  if (!run.empty()) {
    config::Recipe recipe = config::load_recipe(run / "config.toml", overrides);
    recipe.model = config;
    return recipe;
  }
  SEQBOAT_CHECK(!data_dir.empty(), ErrorKind::kUsage, "{} is a bare model folder, which names no data: give a file or a folder with --data",
                model.string());
  // Nothing tells what such a model was trained on, so that nothing can be made in place of what is missing.
  std::error_code error;
  SEQBOAT_CHECK(fs::exists(data_dir, error), ErrorKind::kData, "{}: no such file or folder", data_dir.string());
  config::Recipe recipe;
  recipe.model = config;
  if (config.task == "language-model") {
    // Nothing of the file was trained on, so far as is known: all of it is the test.
    recipe.data.name = "bytes";
    recipe.data.valid_share = 0;
    recipe.data.test_share = 1;
  }
  config::DataConfig data;
  data.name = config.data.name;
  if (data.is_sound()) {
    const config::InputFormat& format = config.data;
    data.sample_rate = format.sample_rate;
    data.frame_ms = format.frame == 1 ? 0 : 1000.0 * static_cast<double>(format.frame) / static_cast<double>(format.sample_rate);
    data.gain = format.gain;
    data.normalize = format.normalize;
    if (format.normalize == "none") {
      data.seconds = 0;
    } else {
      data.fit = "exact";
    }
    if (data.name == "speech-commands") data.words = fmt::format("{}", fmt::join(format.labels, ","));
    recipe.data = data;
  }
  if (data.is_image() && config.data.image) {
    const config::ImageFormat& format = *config.data.image;
    data.pixel_mean = format.mean;
    data.pixel_std = format.std;
    data.permutation_seed = format.permutation_seed;
    if (data.name == "pathfinder") data.image_size = format.height;
    recipe.data = data;
  }
  recipe.train.steps = recipe.train.batch_size = 1;  // a whole recipe, as the reader wants it
  recipe = config::recipe_from_toml(config::to_toml(recipe), model.string(), overrides);
  recipe.model = config;
  return recipe;
}

fs::path data_of_model(const fs::path& data_dir, const std::vector<std::string>& overrides, const config::Recipe& recipe) {
  const bool other_data = std::any_of(overrides.begin(), overrides.end(), [](const auto& set) { return set.rfind("data.", 0) == 0; });
  if (!data_dir.empty() || other_data) return data_dir;
  return recipe.data.path;
}

void check_input_format(const fs::path& model_dir, const config::InputFormat& model, const config::InputFormat& data) {
  if (model.empty() || data.empty()) return;
  const std::string file = (model_dir / "config.json").string();
  const auto check = [&](const char* what, const auto& expected, const auto& found) {
    SEQBOAT_CHECK(expected == found, ErrorKind::kModel, "{}: the model was trained with {} {}, and the data are read with {}", file, what, expected,
                  found);
  };
  check("a data.sample_rate of", model.sample_rate, data.sample_rate);
  check("a data.frame of", model.frame, data.frame);
  check("a data.gain of", model.gain, data.gain);
  check("data.normalize =", model.normalize, data.normalize);
  const auto image = [](const config::InputFormat& format) {
    const config::ImageFormat of = format.image.value_or(config::ImageFormat{});
    return fmt::format("{} x {} pixels, mean {}, std {}, permutation_seed {}", of.height, of.width, of.mean, of.std, of.permutation_seed);
  };
  check("pictures of", image(model), image(data));
  check("the data.labels", fmt::format("{}", fmt::join(model.labels, ", ")), fmt::format("{}", fmt::join(data.labels, ", ")));
}

}  // namespace seqboat::train
