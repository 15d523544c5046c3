#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "seqboat/config/recipe.h"

namespace seqboat::train {

/// Makes explicit what a recipe leaves to other keys, so that a run's config.toml says it: optim.total_steps. The schedule then stays what it is when
/// the run goes on with more steps.
void resolve(config::Recipe* recipe);

/// Keys in which two resolved recipes describe different runs, as "train.seed = 1, here 2". Not counted are keys that a run may change while it goes
/// on: train.{steps, threads, keep, save_every, log_every}, data.path, and [expect].
std::vector<std::string> differing_keys(const config::Recipe& run, const config::Recipe& here);

}  // namespace seqboat::train
