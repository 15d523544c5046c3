#pragma once

// Private to src/train: where a trained model comes from, and the data that go with it.

#include <filesystem>
#include <string>
#include <vector>

#include "seqboat/config/recipe.h"

namespace seqboat::train {

/// The recipe of the run that `model` (a run directory, or a model folder within one) belongs to, --set applied, with the config of the weights: keys
/// of [model], [router] and [task] cannot be set, Error (kUsage). A bare model folder has no run: its data are in `data_dir` (else Error, kUsage) and
/// only keys of [data] can be set, and those data must be there (Error, kData); for a language model all of the file is the test, and a
/// model of sound says in its config.json which data they are and how they are read.
config::Recipe recipe_of_model(const std::filesystem::path& model, const config::ModelConfig& config, const std::filesystem::path& data_dir,
                               const std::vector<std::string>& overrides);

/// What make_task() gets as the place of the data: the one given, else the run's own as it is, which may have been given by hand when it was trained;
/// empty where --set names other data.
std::filesystem::path data_of_model(const std::filesystem::path& data_dir, const std::vector<std::string>& overrides, const config::Recipe& recipe);

/// Error (kModel) unless the data are read and their classes called as the model's config.json says. A model that says nothing takes anything.
void check_input_format(const std::filesystem::path& model_dir, const config::InputFormat& model, const config::InputFormat& data);

}  // namespace seqboat::train
